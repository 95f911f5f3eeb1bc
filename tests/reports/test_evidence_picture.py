"""The picture of one match's evidence: everything is on it, whatever the images are like."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
from records import HOSTILE

from copydet.images.decode import to_pixels
from copydet.images.edits import EDITS
from copydet.records import Pixels
from copydet.reports.evidence_picture import WIDTH, draw_evidence

PHOTO = to_pixels(Path(skimage.data_dir) / "coffee.png")
LINE = (77, 212, 255)


def near(pixels: Pixels, colour: tuple[int, int, int]) -> float:
    """How many pixels have about this colour."""
    return int((np.abs(pixels.astype(int) - colour).max(axis=2) < 40).sum())


def copied(name: str, written: bool = True) -> tuple[Pixels, tuple[float, ...]]:
    copy = EDITS[name](PHOTO, 0.6, np.random.default_rng(0), [PHOTO[::-1]])
    assert copy.homography is not None
    pixels = copy.pixels.copy()
    if written:
        cv2.circle(pixels, (pixels.shape[1] // 2, pixels.shape[0] // 2), 40, (0, 255, 0), -1)
    return pixels, tuple(float(value) for value in np.linalg.inv(copy.homography).ravel())


@pytest.mark.parametrize("name", ["hflip", "crop", "perspective", "paste_turned"])
def test_a_verified_match_is_outlined_and_its_change_painted(name: str) -> None:
    query, transform = copied(name)
    drawn = draw_evidence(query, PHOTO, score=0.9, verdict="copy", transform=transform)
    assert drawn.dtype == np.uint8
    assert drawn.shape[1:] == (WIDTH, 3)
    assert near(drawn, LINE) > 500
    painted = near(drawn, (240, 50, 70))
    unwritten, _ = copied(name, written=False)
    before = draw_evidence(unwritten, PHOTO, score=0.9, verdict="copy", transform=transform)
    assert painted > near(before, (240, 50, 70)) + 1000


def test_without_geometry_the_two_are_shown_beside_each_other() -> None:
    drawn = draw_evidence(PHOTO, PHOTO[:200], score=0.1, verdict="no_match")
    assert near(drawn, LINE) < 100
    assert drawn.shape[0] < 700
    with_geometry = draw_evidence(PHOTO, PHOTO, score=1, verdict="copy", transform=tuple(np.eye(3).ravel()))
    assert with_geometry.shape[0] > 900


@pytest.mark.parametrize("transform", [(0.0,) * 9, (float("nan"),) * 9, (1.0, 0.0, 1e6, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)])
def test_a_transform_that_shows_nothing_is_no_trouble(transform: tuple[float, ...]) -> None:
    drawn = draw_evidence(PHOTO, PHOTO, score=0.1, verdict="near_duplicate", transform=transform)
    assert near(drawn, LINE) < 100


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3), (2, 2)])
def test_pictures_of_any_shape_are_drawn(shape: tuple[int, int]) -> None:
    tiny = np.full((*shape, 3), 90, np.uint8)
    for query, reference in ((tiny, PHOTO), (PHOTO, tiny), (tiny, tiny)):
        drawn = draw_evidence(query, reference, score=0.5, verdict="copy", transform=tuple(np.eye(3).ravel()))
        assert drawn.shape[1] == WIDTH


def test_names_and_notes_of_any_kind_and_length_fit() -> None:
    notes = [HOSTILE, "many words " * 200, "x" * 5000, "\ud800", ""]
    drawn = draw_evidence(PHOTO, PHOTO, score=0.5, verdict="copy", names=("q" * 3000, HOSTILE), notes=notes)
    edge = drawn[:, -20:]
    assert (edge == 255).all()  # nothing runs out of the picture


def test_where_only_a_part_is_shared_only_that_is_drawn() -> None:
    transform = tuple(float(value) for value in np.eye(3).ravel())
    query = PHOTO[::-1].copy()
    height, width = PHOTO.shape[:2]
    query[: height // 2, : width // 2] = PHOTO[: height // 2, : width // 2]
    shown = {"query": query, "reference": PHOTO, "score": 0.9, "verdict": "partial_copy", "transform": transform}
    drawn, whole = draw_evidence(**shown, part=(0, 0, 0.5, 0.5)), draw_evidence(**shown)  # type: ignore[arg-type]
    red = (240, 50, 70)
    assert near(drawn, red) < 300 < near(whole, red) / 10  # what is not shared was not changed
    assert 0.3 < near(drawn, LINE) / near(whole, LINE) < 0.7
