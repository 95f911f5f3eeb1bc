"""Whether two pictures agree where a transform lays one on the other."""

import cv2
import numpy as np
import pytest
from photos import photos

from copydet.images.edits import EDITS
from copydet.verification.agreement import MOST_BEND, Picture, measure_agreement
from copydet.verification.verify import to_grey


def grey(number: int) -> Picture:
    return to_grey(photos()[number])


def shifted(across: float, down: float) -> np.ndarray:
    return np.array([[1, 0, across], [0, 1, down], [0, 0, 1]], np.float64)


def test_a_picture_agrees_with_itself_without_a_bend() -> None:
    for number in range(len(photos())):
        found = measure_agreement(grey(number), grey(number), np.eye(3))
        assert found.median > 0.99
        assert found.share > 0.99
        assert found.bend < 0.1
        assert np.array_equal(found.matrix, np.eye(3))


@pytest.mark.parametrize("edit", ["invert", "jpeg", "blur", "contrast", "gamma", "noise", "sepia", "text", "shadow"])
def test_a_copy_agrees_and_another_picture_does_not(edit: str) -> None:
    for number in range(4):
        copy = EDITS[edit](photos()[number], 0.5, np.random.default_rng(2))
        found = measure_agreement(to_grey(copy.pixels), grey(number), np.eye(3))
        other = measure_agreement(to_grey(copy.pixels), grey(number + 1), np.eye(3))
        assert found.median > 0.85
        assert found.median * found.share > other.median * other.share + 0.4
        assert found.bend < other.bend


@pytest.mark.parametrize("edit", ["solarise", "posterise", "invert", "threshold"])
def test_tones_explain_each_other_whatever_became_of_them(edit: str) -> None:
    for number in range(4):
        if edit in EDITS:
            copy = EDITS[edit](photos()[number], 0.5, np.random.default_rng(2)).pixels
        else:
            copy = np.where(photos()[number] > 110, np.uint8(255), np.uint8(0))
        found = measure_agreement(to_grey(copy), grey(number), np.eye(3), np.zeros((5, 2)))
        other = measure_agreement(to_grey(copy), grey(number + 1), np.eye(3), np.zeros((5, 2)))
        assert found.tone > 0.5
        assert other.tone < found.tone - 0.3
        assert other.tone >= 0


@pytest.mark.parametrize("away", [(3.0, 0.0), (-4.0, 2.0), (0.0, 5.0)])
def test_a_transform_that_is_a_little_off_is_mended(away: tuple[float, float]) -> None:
    found = measure_agreement(grey(0), grey(0), shifted(*away))
    assert found.median > 0.97
    place = found.matrix @ [160.0, 100.0, 1.0]
    assert np.abs(place[:2] / place[2] - [160, 100]).max() < 1


def test_a_scene_bent_by_parallax_is_told_from_a_copy() -> None:
    photo = grey(0).grey
    rows, columns = np.mgrid[: photo.shape[0], : photo.shape[1]].astype(np.float32)
    near = 5 * (np.sin(columns / 25) > 0).astype(np.float32)  # strips at another depth moved by five pixels
    bent = np.asarray(cv2.remap(photo, columns + near, rows, cv2.INTER_LINEAR), np.uint8)
    copy = to_grey(EDITS["jpeg"](photos()[0], 0.7, np.random.default_rng(1)).pixels)
    there, here = (measure_agreement(each, Picture(photo), np.eye(3)) for each in (Picture(bent), copy))
    assert there.bend > 2 * here.bend


def test_pictures_that_hardly_overlap_or_are_flat_say_nothing() -> None:
    photo, flat = grey(0), Picture(np.full((100, 100), 70, np.uint8))
    for query, reference, matrix in (
        (photo, photo, shifted(1000, 0)),
        (photo, photo, shifted(photo.size[0] - 0.1, 0)),
        (photo, photo, np.zeros((3, 3))),
        (photo, flat, np.eye(3)),
        (flat, photo, np.eye(3)),
        (Picture(flat.grey[:1, :1]), photo, np.eye(3)),
    ):
        found = measure_agreement(query, reference, matrix)
        assert found.median * found.share < 0.3
        assert found.bend == MOST_BEND


def test_what_another_picture_covers_is_left_out_of_the_part() -> None:
    photo, other = grey(0).grey, np.resize(grey(1).grey, grey(0).grey.shape)
    parts, everywhere = [], []
    for covered in (0.0, 0.3, 0.6):
        mixed = photo.copy()
        columns = int(covered * photo.shape[1])
        mixed[:, :columns] = other[:, :columns]
        found = measure_agreement(
            Picture(mixed), Picture(photo), np.eye(3), np.array([[0.9 * photo.shape[1], 0.5 * photo.shape[0]]])
        )
        everywhere.append(found.everywhere)
        parts.append(found.part)
        assert found.share > 0.9
        assert found.median > 0.95
    assert parts[0] is None
    for part, covered in zip(parts[1:], (0.3, 0.6), strict=True):
        assert part is not None
        assert part[0] == pytest.approx(covered * photo.shape[1], abs=0.08 * photo.shape[1])
        assert part[2] == pytest.approx(photo.shape[1], abs=3)
    assert everywhere[0] > everywhere[1] > everywhere[2]
    assert everywhere[1] == pytest.approx(0.7, abs=0.15)


@pytest.mark.parametrize("share", [0.45, 0.6])
def test_the_frame_that_a_picture_laid_over_a_copy_leaves_agrees(share: float) -> None:
    for number in range(4):
        photo, other = photos()[number], photos()[number + 1]
        height, width = photo.shape[:2]
        tall, wide = round(height * share**0.5), round(width * share**0.5)
        top, left = (height - tall) // 2, (width - wide) // 3
        copy = photo.copy()
        copy[top : top + tall, left : left + wide] = cv2.resize(other, (wide, tall))
        frame = np.array([[left / 2, top / 2 + step] for step in np.linspace(0, height / 2, 8)])
        found = measure_agreement(to_grey(copy), grey(number), np.eye(3), frame)
        assert found.median > 0.9
        assert found.share > 0.75
        assert found.covered is not None
        (x, y), (far_x, far_y) = np.reshape(found.covered, (2, 2))
        assert (far_x - x) * (far_y - y) == pytest.approx(tall * wide, abs=0.15 * width * height)
        # Where the inliers lie in what would be covered, and without any, it is not believed.
        for inliers in (frame * 0 + [width / 2, height / 2], None):
            assert measure_agreement(to_grey(copy), grey(number), np.eye(3), inliers).covered is None


def test_outlines_of_a_negative_are_those_of_its_original() -> None:
    for photo in photos():
        negative = to_grey(np.ascontiguousarray(255 - photo))
        difference = np.abs(to_grey(photo).outlines.grey.astype(int) - negative.outlines.grey)
        assert difference.max() <= 2  # greys are rounded


@pytest.mark.parametrize("number", range(4))
def test_outlines_tell_an_edge_filtered_copy_from_another_picture(number: int) -> None:
    copy = to_grey(EDITS["edges"](photos()[number], 1.0, np.random.default_rng(number)).pixels)
    (width, height), sizes = grey(number).size, [grey(other).size for other in range(4)]
    found = []
    for other, (across, down) in enumerate(sizes):
        stretch = np.array([[across / width, 0, 0], [0, down / height, 0], [0, 0, 1]], np.float64)
        found.append(measure_agreement(copy, grey(other), stretch).outlines)
    assert found[number] > 0.4
    assert max(each for other, each in enumerate(found) if other != number) < 0.3
