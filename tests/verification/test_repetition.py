"""Patterns that lie on each other wherever their periods do."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from photos import photos
from sides import compare

from copydet.verification.repetition import has_periods

SIDE = 96


def board(squares: float, side: int = 480, tones: tuple[int, int] = (20, 235)) -> NDArray[np.uint8]:
    """A chessboard with so many squares a side, uint8 [side, side, 3], with a little noise."""
    place = (np.arange(side) * squares / side).astype(int)
    dark = (place[:, None] + place) % 2
    noise = np.random.default_rng(1).normal(scale=3, size=(side, side))
    grey = np.clip(np.where(dark, *tones) + noise, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def small_grey(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.float32)


def dots(period: int) -> NDArray[np.uint8]:
    pixels = np.full((480, 480, 3), 240, np.uint8)
    for y in range(period // 2, 480, period):
        for x in range(period // 2, 480, period):
            cv2.circle(pixels, (x, y), period // 3, (200, 30, 30), -1, cv2.LINE_AA)
    return pixels


@pytest.mark.parametrize("angle", [0, 20, 45])
@pytest.mark.parametrize("pattern", [board(8), board(12.5), dots(40), dots(60)])
def test_patterns_are_told_however_they_are_turned(pattern: NDArray[np.uint8], angle: float) -> None:
    turn = cv2.getRotationMatrix2D((240, 240), angle, 1.5)
    turned = cv2.warpAffine(pattern, turn, (480, 480), borderMode=cv2.BORDER_REFLECT)
    assert has_periods(small_grey(np.asarray(turned, np.uint8)))


def test_photographs_are_no_patterns() -> None:
    assert not any(has_periods(small_grey(photo)) for photo in photos())


def test_what_may_be_moved_without_changing_is_no_pattern() -> None:
    rows = np.arange(SIDE, dtype=np.float32)
    horizon = np.where(rows < SIDE / 2, 200, 60)[:, None] + np.zeros(SIDE)
    slope = 2 * rows[:, None] + rows
    flat = np.full((SIDE, SIDE), 90)
    for picture in (horizon, slope, flat):
        noise = np.random.default_rng(2).normal(scale=2, size=picture.shape)
        assert not has_periods((picture + noise).astype(np.float32))


@pytest.mark.parametrize("squares", [6, 10, 12])
def test_a_part_of_one_chessboard_is_no_evidence_for_another(squares: int) -> None:
    evidence = compare(board(squares, tones=(10, 245)), board(8), with_view=False)
    assert evidence is None or evidence.agreement is None or evidence.agreement.share < 0.5


def test_a_whole_chessboard_still_matches_itself() -> None:
    reference = board(8)
    copy = cv2.imdecode(cv2.imencode(".jpg", reference, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR)
    evidence = compare(np.asarray(copy, np.uint8), reference)
    assert evidence is not None
    assert evidence.agreement is not None
    assert evidence.agreement.share > 0.9
    assert min(evidence.query_overlap, evidence.reference_overlap) > 0.95


def test_a_part_of_a_photograph_with_a_pattern_in_it_is_found() -> None:
    scene = photos()[0].copy()
    pattern = cv2.resize(board(8), (scene.shape[1] // 3, scene.shape[0] // 3), interpolation=cv2.INTER_AREA)
    scene[: pattern.shape[0], : pattern.shape[1]] = pattern
    evidence = compare(scene[: 3 * scene.shape[0] // 4, : 3 * scene.shape[1] // 4], scene)
    assert evidence is not None
    assert evidence.agreement is not None
    assert evidence.agreement.share > 0.9
