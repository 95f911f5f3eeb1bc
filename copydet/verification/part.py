"""Which part of an overlap agrees: a crop pasted on another picture has a place, but not all around it is there.

Blocks that agree count for a rectangle, blocks that do not against it, and blocks without texture say nothing. The
rectangle of the greatest sum is the part. All rectangles are tried; the grid has few blocks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEAST_SURPLUS = 12.0  # blocks that agree beyond those that do not: less than this happens by chance
_LEFT_OUT = 0.2  # of the blocks, and three, that have to be left out for a part to be told from errors at the edge


@dataclass(frozen=True)
class Part:
    """Rows from `top` to before `bottom` and columns from `left` to before `right` of a grid of blocks."""

    top: int
    bottom: int
    left: int
    right: int

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
    sums = np.zeros((height + 1, width + 1))
    sums[rows + 1, columns + 1] = np.where(agrees, 1.0, -1.0)
    sums = sums.cumsum(axis=0).cumsum(axis=1)
    tops, bottoms = np.triu_indices(height + 1, 1)
    lefts, rights = np.triu_indices(width + 1, 1)
    bands = sums[bottoms] - sums[tops]
    value = bands[:, rights] - bands[:, lefts]
    # Of rectangles that hold the same blocks the largest: where nothing can be seen, nothing is missing.
    value += 1e-6 * (bottoms - tops)[:, None] * (rights - lefts)
    band, span = divmod(int(value.argmax()), len(lefts))
    if value[band, span] < _LEAST_SURPLUS:
        return everything
    part = Part(int(tops[band]), int(bottoms[band]), int(lefts[span]), int(rights[span]))
    left_out = len(agrees) - int(part.holds(rows, columns).sum())
    return part if left_out >= _fewest(len(agrees)) else everything


def _fewest(blocks: int) -> float:
    return max(3.0, _LEFT_OUT * blocks)
