"""Whether the aligned images agree: the same picture does block by block, another photo of the same thing does not.

Both are drawn on one canvas that holds what they share, at no finer detail than the coarser of them has. Each block
with some texture is compared by normalised correlation, at the best of a few shifts: the transform is off by a little,
and so is what bent the copy. The shifts of the blocks that agree mend the transform. A coarse look comes first: it
mends what is far off, and ends the matter for most candidates, which agree nowhere. Signs are ignored: a negative is a
copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.verification.blocks import BLOCK, STEP, TEXTURE, WHOLE, Blocks, block_means, correlate, median_of
from copydet.verification.canvas import Canvas, Floats, Picture, shared_canvas
from copydet.verification.outline import Matrix, Points, apply
from copydet.verification.part import Part, find_covered, find_part

Box = tuple[float, float, float, float]  # left, top, right, bottom

_COARSE, _FINE = 64, 128  # pixels, the canvas' longer side
_WORTH_A_LOOK = 0.15  # share of the blocks that agree coarsely; with less no fine look is taken
_OUTLINES = 0.25  # mean correlation; with less, outlines are not looked at
_AS_GOOD = 0.01  # a mended transform is believed where blocks agree as well as before, for they may move less
MOST_BEND = 3.0
_STRAIGHT, _MOST_INLIERS = 0.45, 0.85  # bend that a part may have; share of the inliers that it must hold
_MOST_COVERED = 0.3  # share of the inliers that may lie in what is covered
_NEARLY_ALL, _MANY_BLOCKS, _MOVED = 0.8, 40, 0.7  # share that agrees, blocks, and bend where a closer look is taken
_FEWEST_BLOCKS, _FEWEST_TO_BEND = 4, 6
_TONES = 16
_LITTLE = 1e-6 * np.eye(3)  # where centres lie in a line


@dataclass(frozen=True)
class Agreement:
    """`median` correlation of the textured blocks in [0, 1], `share` of them that agree, `blocks` their number,
    `textured` the share of what is seen that they cover. `bend`: how far, in pixels of a fine canvas, the blocks that
    agree are from where one affinity has them: parallax bends, edits hardly do. `in_place`: how far from 0 the mean
    correlation of the blocks is without any shift, sign and all: what another picture was blended into is little alike
    anywhere, but everywhere in the same way. All are of `part`, the box in pixels of the reference that holds what
    agrees, or of what lies around `covered`, the box that something hides; None, None: all that overlaps. `everywhere`:
    the share that agrees of all blocks. `matrix`: query -> reference pixels, mended. `tone`: how much of the query's
    variance a function of the reference's grey explains, 0 to 1: what was solarised, reduced to few tones or inverted
    in part correlates with nothing, but each grey has become one grey. `coarse` and `coarse_bend`: median and bend on a
    canvas of half the size, where pixelation, blur and noise of a copy do not matter, but parallax does. `outlines`:
    the mean correlation of the blocks of both pictures' outlines there without any shift, 0 to 1: edge filters leave
    nothing else.

    Where there is nothing to compare: all 0, the matrix as it was, and the most bend.
    """

    median: float
    share: float
    blocks: int
    textured: float
    matrix: Matrix
    bend: float = MOST_BEND
    in_place: float = 0.0
    everywhere: float = 0.0
    part: Box | None = None
    covered: Box | None = None
    tone: float = 0.0
    coarse: float = 0.0
    coarse_bend: float = MOST_BEND
    outlines: float = 0.0


def measure_agreement(query: Picture, reference: Picture, matrix: Matrix, inliers: Points | None = None) -> Agreement:
    """Compare two pictures where `matrix` (query -> reference pixels) lets them overlap.

    `inliers` [n, 2], in pixels of the reference, say where local features agree. With them there is a reason to look
    finely, and to believe that only a part agrees if they lie in it: some rectangle does in half of all pairs.
    """
    canvas = shared_canvas(query.size, reference.size, matrix, _COARSE, BLOCK)
    coarse = _measure_on(canvas, query, reference, matrix, None)
    if inliers is None and coarse.everywhere < _WORTH_A_LOOK and coarse.in_place < _WORTH_A_LOOK:
        found = again = replace(coarse, matrix=matrix)
    else:
        found = _look_closer(query, reference, matrix, coarse, inliers)
        again = coarse  # the same look, unless the transform was mended or inliers may choose a part
        if found.matrix is not matrix or inliers is not None:
            canvas = shared_canvas(query.size, reference.size, found.matrix, _COARSE, BLOCK)
            again = _measure_on(canvas, query, reference, found.matrix, inliers, brief=True)
    found = replace(found, coarse=again.median, coarse_bend=again.bend)
    return found if canvas is None else _with_outlines(canvas, query, reference, found)


def _with_outlines(canvas: Canvas, query: Picture, reference: Picture, found: Agreement) -> Agreement:
    """What was found of the pictures, or, where they agree better, of their outlines."""
    outlines = _compare_outlines(canvas, query, reference, found.matrix)
    if outlines > max(found.in_place, _OUTLINES):
        drawn = _measure_on(canvas, query.outlines, reference.outlines, found.matrix, None)
        if drawn.median * drawn.share > found.median * found.share:
            found = replace(drawn, tone=found.tone, coarse=drawn.median, coarse_bend=drawn.bend)
    return replace(found, outlines=outlines)


def _compare_outlines(canvas: Canvas, query: Picture, reference: Picture, matrix: Matrix) -> float:
    """See `outlines` of Agreement; of all that the pictures share."""
    height, width = (side // STEP * STEP for side in canvas.seen.shape)
    both = canvas.draw(reference.outlines), canvas.draw(query.outlines, matrix)
    one, other = (each[:height, :width] for each in both)
    seen, *means = block_means(
        np.stack([canvas.seen[:height, :width], one, other, one * one, other * other, one * other])
    )
    mean, mean_there, square, square_there, product = means
    variance, variance_there = square - mean * mean, square_there - mean_there * mean_there
    textured = (seen > WHOLE) & (variance > TEXTURE)
    value = (product - mean * mean_there) / np.sqrt(np.maximum(variance * variance_there, 1e-6))
    value[variance_there <= TEXTURE / 4] = 0
    return max(float(value[textured].mean()), 0.0) if textured.any() else 0.0


def _look_closer(
    query: Picture, reference: Picture, matrix: Matrix, coarse: Agreement, inliers: Points | None
) -> Agreement:
    """What a fine canvas shows, with the transform as it is or as the coarse look mended it."""
    fine, used = _measure(query, reference, coarse.matrix, _FINE, inliers), coarse.matrix
    if coarse.matrix is not matrix and fine.median < coarse.median - _AS_GOOD:
        unmended = _measure(query, reference, matrix, _FINE, inliers)
        if unmended.median > fine.median:
            fine, used = unmended, matrix
    if inliers is not None and fine.share < _NEARLY_ALL:
        covered = _look_around(query, reference, [used, matrix] if used is not matrix else [matrix], inliers)
        if covered is not None:
            return covered
    if fine.share < _NEARLY_ALL or fine.blocks < _MANY_BLOCKS or fine.bend > _MOVED:
        return replace(fine, matrix=used)
    # The same picture or one taken a moment later: a closer look halves the errors, but not what really moved.
    close = _measure(query, reference, fine.matrix, 2 * _FINE, None, brief=True)
    if close.share < _NEARLY_ALL:
        return replace(fine, matrix=used)
    return replace(fine, bend=close.bend / 2)


def _look_around(query: Picture, reference: Picture, matrices: Sequence[Matrix], inliers: Points) -> Agreement | None:
    """What lies around a picture that was laid over the copy, in a closer look: a frame is too narrow for the blocks of
    a fine canvas, and too little to mend a transform by.
    """
    for matrix in matrices:
        close = _measure(query, reference, matrix, 2 * _FINE, inliers)
        if close.covered is not None:
            return replace(close, matrix=matrix, blocks=close.blocks // 4, bend=close.bend / 2)
    return None


def _measure(
    query: Picture, reference: Picture, matrix: Matrix, longer: int, inliers: Points | None, *, brief: bool = False
) -> Agreement:
    canvas = shared_canvas(query.size, reference.size, matrix, longer, BLOCK)
    return _measure_on(canvas, query, reference, matrix, inliers, brief=brief)


def _measure_on(
    canvas: Canvas | None,
    query: Picture,
    reference: Picture,
    matrix: Matrix,
    inliers: Points | None,
    *,
    brief: bool = False,
) -> Agreement:
    """`brief`: without tone, and the matrix as it was."""
    nothing = Agreement(0.0, 0.0, 0, 0.0, matrix)
    if canvas is None:
        return nothing
    one, other, seen = canvas.draw(reference), canvas.draw(query, matrix), canvas.seen
    found = correlate(one, other, seen)
    if found is None:
        return nothing
    agreement = _summed_up(found, canvas, matrix, inliers)
    if brief:
        return agreement
    if agreement.part is not None:
        inside = _pixels(agreement.part, canvas.to_canvas)
        one, other, seen = one[inside], other[inside], seen[inside]
    visible = seen > 0
    if agreement.covered is not None:
        visible[_pixels(agreement.covered, canvas.to_canvas)] = False
    mended = _mend(found, canvas.to_canvas, matrix)
    return replace(agreement, matrix=mended, tone=_tone(one[visible], other[visible]))


def _pixels(box: Box, to_canvas: Matrix) -> tuple[slice, slice]:
    left, top, right, bottom = np.rint(apply(to_canvas, np.reshape(box, (2, 2)))).astype(int).ravel()
    return slice(max(top, 0), bottom + 1), slice(max(left, 0), right + 1)


def _tone(one: Floats, other: Floats) -> float:
    """The correlation ratio of two lists of greys (Roche et al., MICCAI 1998, section 2): the share of the variance of
    `other` that lies between the pixels of different levels in `one`.
    """
    if not len(one):
        return 0.0
    one, other = one - one.min(), other - other.mean()
    middle, squares = one - one.mean(), float(other @ other)
    if squares < len(one) or float(middle @ middle) < len(one):
        return 0.0
    level = (one * (_TONES / (one.max() + 1))).astype(np.intp)
    count = np.bincount(level, minlength=_TONES)
    total = np.bincount(level, other, _TONES)
    return float(total @ (total / np.maximum(count, 1))) / squares


@dataclass(frozen=True)
class _Looked:
    """Which of the blocks are judged: those `inside`, of `room` blocks with and without texture."""

    inside: NDArray[np.bool_]
    room: float
    part: Box | None = None
    covered: Box | None = None


def _summed_up(blocks: Blocks, canvas: Canvas, matrix: Matrix, inliers: Points | None) -> Agreement:
    agrees = blocks.agrees
    everything = _Looked(np.ones(len(agrees), bool), blocks.seen)
    for looked in (*_in_parts(blocks, agrees, canvas, inliers), everything):
        judged = agrees & looked.inside
        bend = _bend(blocks.centre[judged], blocks.shift[judged])
        if bend * _FINE <= _STRAIGHT * max(canvas.size):
            break
    inside = looked.inside
    return Agreement(
        median=median_of(blocks.best[inside]),
        share=float(agrees[inside].mean()),
        blocks=int(inside.sum()),
        textured=min(float(inside.sum() / max(looked.room, 1)), 1.0),
        matrix=matrix,
        bend=bend,
        in_place=float(np.abs(blocks.in_place[inside].mean())),
        everywhere=float(agrees.mean()),
        part=looked.part,
        covered=looked.covered,
    )


def _in_parts(blocks: Blocks, agrees: NDArray[np.bool_], canvas: Canvas, inliers: Points | None) -> list[_Looked]:
    """What can be judged in place of all: a part, or what lies around one, where nearly all `inliers` are.

    What holds more of the blocks that agree comes first.
    """
    if inliers is None:
        return []
    found, whole = [], blocks.grid[0] * blocks.grid[1]
    part = find_part(blocks.row, blocks.column, agrees, blocks.grid)
    box = _box(part, blocks.grid, canvas)
    if part.area < whole and _share_inside(inliers, box) >= _MOST_INLIERS:
        held = part.holds(blocks.row, blocks.column)
        found.append(_Looked(held, blocks.seen * part.area / whole, part=box))
    covered = find_covered(blocks.row, blocks.column, agrees, blocks.grid)
    if covered is not None:
        # Blocks at its edge do not agree, though they show half of what they should: the box has none of those halves.
        box = _box(covered, blocks.grid, canvas, STEP)
        if _share_inside(inliers, box) <= _MOST_COVERED:
            around = ~covered.holds(blocks.row, blocks.column)
            found.append(_Looked(around, blocks.seen * (1 - covered.area / whole), covered=box))
    return sorted(found, key=lambda looked: -int((agrees & looked.inside).sum()))


def _share_inside(points: Points, box: Box) -> float:
    left, top, right, bottom = box
    x, y = points.T
    return float(((x >= left) & (x <= right) & (y >= top) & (y <= bottom)).mean())


def _box(part: Part, grid: tuple[int, int], canvas: Canvas, edge: int = 0) -> Box:
    """A part in pixels of the reference, less an `edge` of canvas pixels; the grid's outermost blocks reach to the
    canvas' edge.
    """
    (rows, columns), (width, height) = grid, canvas.size
    left, right = part.left * STEP, width if part.right == columns else (part.right + 1) * STEP - edge
    top, bottom = part.top * STEP, height if part.bottom == rows else (part.bottom + 1) * STEP - edge
    left, top = left + edge * (left > 0), top + edge * (top > 0)
    outermost = np.array([[left - 0.5, top - 0.5], [right - 0.5, bottom - 0.5]])
    corners = apply(np.linalg.inv(canvas.to_canvas).astype(np.float64), outermost)
    (x, y), (far_x, far_y) = corners.tolist()
    return x, y, far_x, far_y


def _bend(centre: NDArray[np.float64], shift: NDArray[np.float64]) -> float:
    """Mean distance of the shifts from one affinity of the centres, both [n, 2]; to it, outliers matter little."""
    if len(centre) < _FEWEST_TO_BEND:
        return MOST_BEND
    terms = np.column_stack([np.ones(len(centre)), (centre - centre.mean(axis=0)) / _FINE])
    weight = np.ones(len(centre))
    for _ in range(4):
        weighted = (terms * weight[:, None]).T
        left = shift - terms @ np.linalg.solve(weighted @ terms + _LITTLE, weighted @ shift)
        distance = np.hypot(left[:, 0], left[:, 1])
        weight = (distance + 0.3) ** -2
    return float(np.minimum(distance, MOST_BEND).mean())


def _mend(blocks: Blocks, to_canvas: Matrix, matrix: Matrix) -> Matrix:
    """The transform with the shifts of blocks that agree taken in as an affinity (one for all where they are few)."""
    centre, shift = blocks.centre[blocks.agrees], blocks.shift[blocks.agrees]
    if len(centre) < _FEWEST_BLOCKS or not np.rint(shift).any():
        return matrix
    away = centre - centre.mean(axis=0)
    change = np.eye(3)
    if len(centre) >= 4 * _FEWEST_BLOCKS and np.linalg.eigvalsh(away.T @ away)[0] > 1e3:
        fitted, _ = cv2.estimateAffine2D(centre + shift, centre, method=cv2.LMEDS)
        if fitted is not None:
            change[:2] = fitted
    else:
        change[:2, 2] = -np.median(shift, axis=0)
    mended: Matrix = np.linalg.inv(to_canvas) @ change @ to_canvas @ matrix
    return mended
