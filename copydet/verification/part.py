"""Which part of an overlap agrees: a crop pasted on another picture has a place, but not all around it is there, and
where a picture was laid over the copy nothing of it is left but the frame.

Blocks that agree count for a rectangle, blocks that do not against it, and blocks without texture say nothing. The
rectangle of the greatest sum is the part; that of the least sum is what was covered. All rectangles are tried; the grid
has few blocks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEAST_SURPLUS = 12.0  # blocks that agree beyond those that do not: less than this happens by chance
_AROUND = 0.75  # share of the blocks around what was covered that must agree
_LEFT_OUT = 0.2  # of the blocks, and three, that have to be left out for a part to be told from errors at the edge


@dataclass(frozen=True)
class Part:
    """Rows from `top` to before `bottom` and columns from `left` to before `right` of a grid of blocks."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """In blocks."""
        return (self.bottom - self.top) * (self.right - self.left)

    def holds(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether blocks lie in the part, bool [n]."""
        inside: NDArray[np.bool_] = (rows >= self.top) & (rows < self.bottom)
        inside &= (columns >= self.left) & (columns < self.right)
        return inside


def find_part(
    rows: NDArray[np.intp], columns: NDArray[np.intp], agrees: NDArray[np.bool_], grid: tuple[int, int]
) -> Part:
    """The part of a `grid` of rows and columns in which the textured blocks at (`rows`, `columns`) agree.

    All of it, where what disagrees is little or all over the place.
    """
    height, width = grid
    everything = Part(0, height, 0, width)
    if (~agrees).sum() < _fewest(len(agrees)) or agrees.sum() < _LEAST_SURPLUS:
        return everything
    # Of rectangles that hold the same blocks the largest: where nothing can be seen, nothing is missing.
    part, surplus = _greatest(rows, columns, np.where(agrees, 1.0, -1.0), grid, 1e-6)
    if surplus < _LEAST_SURPLUS:
        return everything
    left_out = len(agrees) - int(part.holds(rows, columns).sum())
    return part if left_out >= _fewest(len(agrees)) else everything


def find_covered(
    rows: NDArray[np.intp], columns: NDArray[np.intp], agrees: NDArray[np.bool_], grid: tuple[int, int]
) -> Part | None:
    """The part of a `grid` that something was laid over, where nearly all the rest agrees; None where there is none."""
    if (~agrees).sum() < max(_LEAST_SURPLUS, _fewest(len(agrees))) or agrees.sum() < _LEAST_SURPLUS:
        return None
    covered, surplus = _greatest(rows, columns, np.where(agrees, -1.0, 1.0), grid, -1e-6)
    around = agrees[~covered.holds(rows, columns)]
    enough = surplus >= _LEAST_SURPLUS and len(around) >= _LEAST_SURPLUS and around.mean() >= _AROUND
    return covered if enough else None


def _greatest(
    rows: NDArray[np.intp], columns: NDArray[np.intp], value: NDArray[np.float64], grid: tuple[int, int], size: float
) -> tuple[Part, float]:
    """The rectangle of a `grid` with the greatest sum of the values of its blocks and of `size` for each of them, and
    that sum.
    """
    height, width = grid
    sums = np.zeros((height + 1, width + 1))
    sums[rows + 1, columns + 1] = value
    sums = sums.cumsum(axis=0).cumsum(axis=1)
    tops, bottoms = np.triu_indices(height + 1, 1)
    lefts, rights = np.triu_indices(width + 1, 1)
    bands = sums[bottoms] - sums[tops]
    total = bands[:, rights] - bands[:, lefts]
    total += size * (bottoms - tops)[:, None] * (rights - lefts)
    band, span = divmod(int(total.argmax()), len(lefts))
    found = Part(int(tops[band]), int(bottoms[band]), int(lefts[span]), int(rights[span]))
    return found, float(total[band, span])


def _fewest(blocks: int) -> float:
    return max(3.0, _LEFT_OUT * blocks)
