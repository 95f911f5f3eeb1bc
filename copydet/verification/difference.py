"""Where a copy was changed: the reference laid over the query, and a map of what differs beyond the ordinary.

Ordinary is what an edit does everywhere alike: other colours, compression, blur, an alignment that is a pixel or two
off. It is taken out in three steps: the reference's colours are fitted to the query's by a robust regression, each
neighbourhood may move by a few pixels before it is compared, and what remains is judged against the remainder of the
picture. The question is that of SImProv (Black et al., 2022), the answer here needs no network.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.images.resize import resize_to
from copydet.records import Pixels
from copydet.verification.outline import ALL, Matrix, Shares, Size, apply, at_sizes, frame, polygon_area, shared_area

Plane = NDArray[np.float32]  # [h, w], or [h, w, 3] where it holds colours
Mean = Callable[[NDArray[Any]], Plane]

_WINDOW = 7  # pixels, the side of a neighbourhood
_SHIFT = 2  # pixels that a neighbourhood may move
_SHIFTS = [(x, y) for y in range(-_SHIFT, _SHIFT + 1) for x in range(-_SHIFT, _SHIFT + 1) if x * x + y * y <= _SHIFT**2]
_PRESMOOTH = 0.8  # pixels: sensor noise and the grain of JPEG
_TONE = 16.0  # grey levels of difference that are as likely ordinary as a change
_STRUCTURE = 0.4  # the same for the share of the pattern that is lost
_MOST_USUAL_TONE, _MOST_USUAL_STRUCTURE = 14.0, 0.4  # where half of a picture is off by more, it is changed
_NOISE = 15.0  # squared grey levels: a pattern weaker than this is none
_STEP_EDGE, _STEP_ROUNDS = 160, 15
_MOST_STEP = 0.04  # of the longer side
_FIT_POINTS = 2048  # that the colours are fitted on
_FIT_ROUNDS = 6


@dataclass(frozen=True)
class Aligned:
    """A reference laid over a query, all in the query's frame.

    `reference` uint8 [h, w, 3]: the reference's pixels where they lie in the query, black outside `mask`. `mask` bool
    [h, w]: where the two overlap. `difference` float32 [h, w] in [0, 1]: how sure it is that this place was changed, 0
    outside the mask.
    """

    reference: Pixels
    mask: NDArray[np.bool_]
    difference: Plane


def align(query: Pixels, reference: Pixels, matrix: Matrix, part: Shares = ALL) -> Aligned:
    """Lay the reference, or a `part` of it, over the query and tell where the query was changed.

    `matrix` [3, 3] maps pixels of `query` to pixels of `reference`, at the sizes given (see `outline.at_sizes`). Where
    the two share nothing, the mask is empty.
    """
    height, width = query.shape[:2]
    laid, mask = lay_over(reference, matrix, (width, height), part)
    if mask.sum() < _WINDOW**2:
        return Aligned(laid, mask, np.zeros((height, width), np.float32))
    step = _small_step(query, laid, mask)
    if step is not None:
        laid, mask = lay_over(reference, matrix @ step, (width, height), part)
    return Aligned(laid, mask, difference_map(query, laid, mask))


@dataclass(frozen=True)
class CloseUp:
    """The shared area, cut out of the query and looked at as closely as its pixels allow.

    `box` is where it was cut out: left, top, width, height as shares of the query's. `query` are its pixels, `aligned`
    is in its frame.
    """

    box: tuple[float, float, float, float]
    query: Pixels
    aligned: Aligned

    @property
    def changed(self) -> float:
        """The share of the shared area that was more likely changed than not."""
        return float((self.aligned.difference[self.aligned.mask] > 0.5).mean())


def close_up(query: Pixels, reference: Pixels, matrix: Matrix, edge: int, part: Shares = ALL) -> CloseUp | None:
    """`align` on what of the query shows that part of the reference, at most `edge` pixels a side, or None."""
    height, width = query.shape[:2]
    in_query, _ = shared_area(matrix, (width, height), (reference.shape[1], reference.shape[0]), part)
    if not len(in_query):
        return None
    low = np.floor(np.maximum(in_query.min(axis=0) - 1, 0)).astype(int)
    high = np.ceil(np.minimum(in_query.max(axis=0) + 2, (width, height))).astype(int)
    cut = query[low[1] : high[1], low[0] : high[0]]
    wide, tall = (int(side) for side in high - low)
    scale = min(1.0, edge / max(wide, tall))
    size = (max(round(wide * scale), 1), max(round(tall * scale), 1))
    in_cut = matrix @ np.array([[1, 0, low[0]], [0, 1, low[1]], [0, 0, 1]])
    small = resize_to(cut, *size)
    has = (reference.shape[1], reference.shape[0])
    aligned = align(small, reference, at_sizes(in_cut, ((wide, tall), size), (has, has)), part)
    if not aligned.mask.any():
        return None
    return CloseUp((low[0] / width, low[1] / height, wide / width, tall / height), small, aligned)


def lay_over(reference: Pixels, matrix: Matrix, size: Size, part: Shares = ALL) -> tuple[Pixels, NDArray[np.bool_]]:
    """The reference, or a `part` of it, as it lies in a query of this size, and where: uint8 [h, w, 3], bool [h, w]."""
    has = (reference.shape[1], reference.shape[0])
    in_query, in_reference = shared_area(matrix, size, has, part)
    if not len(in_query):
        return np.zeros((size[1], size[0], 3), np.uint8), np.zeros((size[1], size[0]), bool)
    # What is shown much smaller is made smaller first: the warp looks at four pixels and would skip the others.
    shown = math.sqrt(polygon_area(in_query) / polygon_area(in_reference))
    if shown < 0.75:
        small = (max(round(has[0] * shown), 1), max(round(has[1] * shown), 1))
        reference, matrix = resize_to(reference, *small), at_sizes(matrix, (size, size), (has, small))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(reference, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    drawn = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillConvexPoly(drawn, np.round(in_query * 16).astype(np.int32), 1, shift=4)
    mask = drawn > 0
    return np.where(mask[..., None], warped, 0).astype(np.uint8), mask


def _small_step(query: Pixels, laid: Pixels, mask: NDArray[np.bool_]) -> Matrix | None:
    """The affine map [3, 3] in the query's frame that aligns the two better than they are; None where there is none.

    An estimate from a few points is off by a pixel or more, and all edges would light up. This maximises the
    correlation of the two (Evangelidis and Psarakis, 2008) and is believed only as far as such an error goes.
    """
    height, width = mask.shape
    scale = min(1.0, _STEP_EDGE / max(height, width))
    size = (max(round(width * scale), 8), max(round(height * scale), 8))
    ours, theirs = (cv2.cvtColor(resize_to(each, *size), cv2.COLOR_RGB2GRAY) for each in (query, _filled(laid, mask)))
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEP_ROUNDS, 1e-4)
    try:
        _, found = cv2.findTransformECC(
            ours, theirs, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, until, inside, 5
        )
    except cv2.error:  # no correlation to climb: inverted, flat, or not the same picture
        return None
    step = at_sizes(np.vstack([found, [0, 0, 1]]).astype(np.float64), (size, (width, height)), (size, (width, height)))
    corners = frame((width, height))
    moved = np.abs(apply(step, corners) - corners).max()
    return step if moved <= _MOST_STEP * max(height, width) else None


def difference_map(query: Pixels, laid: Pixels, mask: NDArray[np.bool_]) -> Plane:
    """float32 [h, w] in [0, 1], 0 outside the mask, from a query and a reference that lies in its frame."""
    ours = cv2.GaussianBlur(query, (0, 0), _PRESMOOTH).astype(np.float32)
    theirs = cv2.GaussianBlur(_filled(laid, mask), (0, 0), _PRESMOOTH).astype(np.float32)
    theirs = _fit_colours(ours, theirs, mask)
    # Pixels at the rim are mixed with what lies beyond it; neighbourhoods there are judged by the pixels behind them.
    inside = cv2.erode(mask.astype(np.float32), np.ones((5, 5)), borderValue=1)
    weight = cv2.blur(inside, (_WINDOW, _WINDOW)) + 1e-6

    def mean(values: NDArray[Any]) -> Plane:
        """The mean over each neighbourhood, of what lies in the mask."""
        return np.asarray(cv2.blur(values * inside, (_WINDOW, _WINDOW)) / weight, np.float32)

    change = np.maximum(_tone_change(ours, theirs, mask, mean), _structure_change(ours, theirs, mask, mean))
    change = change**3 / (1 + change**3)
    change[~mask] = 0
    return np.asarray(change, np.float32)


def _filled(laid: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """The reference with its mean colour outside the mask, so that black does not bleed in."""
    return np.where(mask[..., None], laid, laid[mask].mean(axis=0).astype(np.uint8))


def _fit_colours(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """The reference's colours turned into the query's by one smooth function for the whole picture.

    It is linear in the three channels, their squares and roots, which covers grey, sepia, inversion, channel swaps,
    contrast and gamma; weights by Cauchy's function keep what was changed from pulling at it.
    """
    places = np.flatnonzero(mask)
    places = places[:: max(len(places) // _FIT_POINTS, 1)]
    wanted = ours.reshape(-1, 3)[places]
    terms = _colour_terms(theirs.reshape(-1, 3)[places]).astype(np.float64)
    ridge = 1e-5 * len(places) * np.eye(terms.shape[1])
    ridge[0, 0] = 0
    weights = np.ones(len(places))
    for _ in range(_FIT_ROUNDS):
        weighted = terms * weights[:, None]
        fitted = np.linalg.solve(weighted.T @ terms + ridge, weighted.T @ wanted)
        away = np.abs(terms @ fitted - wanted).max(axis=1)
        scale = max(2.0, 1.5 * float(np.median(away)))
        weights = 1 / (1 + (away / scale) ** 2) ** 2
    everywhere = _colour_terms(theirs.reshape(-1, 3)) @ fitted.astype(np.float32)
    return np.asarray(np.clip(everywhere, 0, 255).reshape(theirs.shape), np.float32)


def _colour_terms(colours: Plane) -> NDArray[np.float32]:
    """[n, 3] -> [n, 10], each about 0 to 1."""
    unit = colours / np.float32(255)
    return np.concatenate([np.ones((len(unit), 1), np.float32), unit, unit * unit, np.sqrt(unit)], axis=1)


def _shifted(values: NDArray[Any], x: int, y: int) -> NDArray[Any]:
    height, width = values.shape[:2]
    padded = cv2.copyMakeBorder(values, _SHIFT, _SHIFT, _SHIFT, _SHIFT, cv2.BORDER_REPLICATE)
    return np.asarray(padded[_SHIFT + y : _SHIFT + y + height, _SHIFT + x : _SHIFT + x + width])


def _tone_change(ours: Plane, theirs: Plane, mask: NDArray[np.bool_], mean: Mean) -> Plane:
    """How far each neighbourhood's colours are from the reference's, in units of what is ordinary in this pair."""
    best = np.full(mask.shape, np.inf, np.float32)
    for x, y in _SHIFTS:
        red, green, blue = cv2.split(cv2.absdiff(ours, _shifted(theirs, x, y)))
        best = np.minimum(best, mean(cv2.max(cv2.max(red, green), blue)))
    return np.asarray(best / (_TONE + 2.5 * min(float(np.median(best[mask])), _MOST_USUAL_TONE)), np.float32)


def _structure_change(ours: Plane, theirs: Plane, mask: NDArray[np.bool_], mean: Mean) -> Plane:
    """How little of each neighbourhood's pattern is the reference's, in units of what is ordinary in this pair."""
    a, b = (_pattern(_grey(each), mean) for each in (ours, theirs))
    power = mean(a * a) + _NOISE
    best = np.zeros(mask.shape, np.float32)
    for x, y in _SHIFTS:
        moved = _shifted(b, x, y)
        best = np.maximum(best, (mean(a * moved) + _NOISE) / np.sqrt(power * (mean(moved * moved) + _NOISE)))
    change = 1 - best
    return np.asarray(
        change / (_STRUCTURE + 2 * min(float(np.median(change[mask])), _MOST_USUAL_STRUCTURE)), np.float32
    )


def _grey(colours: Plane) -> Plane:
    return np.asarray(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY), np.float32)


def _pattern(grey: Plane, mean: Mean) -> Plane:
    return np.asarray(grey - mean(grey), np.float32)
