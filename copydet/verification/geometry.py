"""The transform that most correspondences agree on: from one of them to a similarity, an affinity, a homography.

The first hypothesis is exhaustive (every correspondence is one, as in search/votes.py), so nothing depends on chance;
OpenCV's MAGSAC (Barath et al., CVPR 2020) polishes the homography, with its seed fixed.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.local_features.frames import agreeing
from copydet.verification.correspond import Correspondences

Matrix = NDArray[np.float64]

_LOOSE, _TIGHT = 0.02, 0.009  # of the query's longer side: errors that a fit and an inlier may have
_ENLARGED = 2.0  # times; beyond, errors in the reference are larger than those in the query
_SAME = 0.006  # of the longer side: two features nearer than this are one
_FEWEST = 3  # correspondences: two agree by chance in nearly every pair
_FEWEST_AFFINE, _FEWEST_HOMOGRAPHY = 5, 12
_MOST_STRETCH = 6.0  # of one direction against the other
_MOST_SCALE = 40.0
_MOST_PERSPECTIVE = 0.8  # change of scale over the reference, of the scale itself


@dataclass(frozen=True)
class Geometry:
    """`matrix` float64 [3, 3] takes the query to the reference, both in units of their longer sides, corners at (0, 0).

    `inliers` counts distinct places that fit, `weight` their sureness; `possible` how many of the reference's features
    lie in the query at all; `error` is the root mean square of the inliers' distances, in units of the query. `places`
    float64 [inliers, 2]: where they are in the reference.
    """

    matrix: Matrix
    inliers: int
    weight: float
    possible: int
    error: float
    mirrored: bool
    negative: bool
    places: NDArray[np.float64]


def fit_geometry(found: Correspondences, reference_frames: NDArray[np.float32]) -> Geometry | None:
    """The best transform, or None where no three correspondences agree on one that a picture can have undergone."""
    if len(found) < _FEWEST:
        return None
    count = len(found)
    number = np.arange(count)
    fits = agreeing(found.query, found.reference, found.mirrored, found.negative, number[:, None], number)
    fits &= found.mirrored[:, None] == found.mirrored
    clash = _clash(found)
    company = np.where(fits.sum(axis=1) >= _FEWEST, fits @ np.maximum(found.weight, found.vote), 0)
    for best in np.argsort(-company, kind="stable")[:3]:
        if not company[best]:
            break
        geometry = _refine(found, clash, reference_frames, int(best), fits[best])
        if geometry is not None:
            return geometry
    return None


def fit_to_surest_vote(found: Correspondences, reference_frames: NDArray[np.float32], least: float) -> Geometry | None:
    """The transform that the heaviest vote stands for, refined by those that agree with it, if any do; None where no
    vote has the weight `least`.
    """
    if found.vote.max(initial=0.0) < least:
        return None
    seed, number = found.vote.argmax(), np.arange(len(found))
    fits = agreeing(found.query, found.reference, found.mirrored, found.negative, np.array(seed), number)
    return _refine(found, _clash(found), reference_frames, int(seed), fits, fewest=1)


def _refine(
    found: Correspondences,
    clash: NDArray[np.bool_],
    reference_frames: NDArray[np.float32],
    seed: int,
    fits: NDArray[np.bool_],
    fewest: int = 2,
) -> Geometry | None:
    same = found.mirrored == found.mirrored[seed]
    matrix = _similarity(found, seed)
    kept = fits & same
    for within in (_LOOSE, _LOOSE, _TIGHT):
        distinct = _distinct(clash, np.flatnonzero(kept))
        if len(distinct) >= _FEWEST_AFFINE:
            fitted = _affine(found, distinct)
            matrix = matrix if fitted is None else fitted
        kept = same & (_errors(matrix, found) < within * _enlarged(matrix)) & _frames_fit(matrix, found)
    if len(_distinct(clash, np.flatnonzero(kept))) >= _FEWEST_HOMOGRAPHY:
        matrix, kept = _homography(found, clash, matrix, same, kept)
    distinct = _distinct(clash, np.flatnonzero(kept))
    if len(distinct) < fewest or not is_plausible(matrix):
        return None
    error = float(np.sqrt(np.mean(_errors(matrix, found)[distinct] ** 2)))
    return Geometry(
        np.linalg.inv(matrix) / np.linalg.inv(matrix)[2, 2],
        len(distinct),
        float(found.weight[distinct].sum()),
        _visible(matrix, reference_frames, found),
        error,
        bool(found.mirrored[seed]),
        bool(np.median(found.negative[distinct])),
        found.reference[distinct, :2].astype(np.float64),
    )


def _similarity(found: Correspondences, seed: int) -> Matrix:
    """The transform from reference to query that one correspondence stands for."""
    query, reference = found.query[seed].astype(np.float64), found.reference[seed].astype(np.float64)
    flip = -1.0 if found.mirrored[seed] else 1.0
    direction = np.pi - reference[3] if found.mirrored[seed] else reference[3]
    turn = query[3] + np.pi * found.negative[seed] - direction
    cos, sin = np.cos(turn) * query[2] / reference[2], np.sin(turn) * query[2] / reference[2]
    linear = np.array([[cos * flip, -sin], [sin * flip, cos]])
    return _affinity(linear, query[:2] - linear @ reference[:2])


def _affinity(linear: Matrix, shift: NDArray[np.float64]) -> Matrix:
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, shift
    return matrix


def _affine(found: Correspondences, rows: NDArray[np.intp]) -> Matrix | None:
    """Weighted least squares; None where the points hardly span a plane."""
    x, y, weight = found.reference[rows, :2].astype(np.float64), found.query[rows, :2], found.weight[rows] + 0.05
    centre_x, centre_y = np.average(x, 0, weight), np.average(y, 0, weight)
    spread = ((x - centre_x) * weight[:, None]).T @ (x - centre_x)
    large, small = np.linalg.eigvalsh(spread)[::-1]
    if small < 0.01 * large:
        return None
    linear = np.linalg.solve(spread, ((x - centre_x) * weight[:, None]).T @ (y - centre_y)).T
    return _affinity(linear, centre_y - linear @ centre_x)


def _homography(
    found: Correspondences,
    clash: NDArray[np.bool_],
    matrix: Matrix,
    same: NDArray[np.bool_],
    kept: NDArray[np.bool_],
) -> tuple[Matrix, NDArray[np.bool_]]:
    """A homography where it explains more than the affinity does."""
    rows = np.flatnonzero(same & (_errors(matrix, found) < 3 * _LOOSE) & _frames_fit(matrix, found))
    rows = _distinct(clash, rows)
    estimate, _ = cv2.findHomography(
        found.reference[rows, :2], found.query[rows, :2], cv2.USAC_MAGSAC, _TIGHT / 2, maxIters=500, confidence=0.999
    )
    if estimate is None:
        return matrix, kept
    fitted = np.asarray(estimate, np.float64)
    if not is_plausible(fitted):
        return matrix, kept
    better = same & (_errors(fitted, found) < _TIGHT) & _frames_fit(fitted, found)
    gained = len(_distinct(clash, np.flatnonzero(better))) - len(_distinct(clash, np.flatnonzero(kept)))
    return (fitted, better) if gained > 0 else (matrix, kept)


def _errors(matrix: Matrix, found: Correspondences) -> NDArray[np.float64]:
    """Distance of each correspondence's place from where the transform takes it, in units of the query."""
    moved = np.column_stack([found.reference[:, :2], np.ones(len(found))]) @ matrix.T
    depth = np.where(np.abs(moved[:, 2:]) > 1e-9, moved[:, 2:], 1e-9)
    return np.asarray(np.linalg.norm(moved[:, :2] / depth - found.query[:, :2], axis=1))


def _enlarged(matrix: Matrix) -> float:
    """How much larger errors may be because they are errors in the reference, seen at the query's size."""
    return max(float(np.sqrt(abs(np.linalg.det(matrix[:2, :2])))) / _ENLARGED, 1.0)


def _frames_fit(matrix: Matrix, found: Correspondences) -> NDArray[np.bool_]:
    """Whether scales are what the transform makes of them, within an octave."""
    scale = np.sqrt(max(abs(np.linalg.det(matrix[:2, :2])), 1e-12))
    return np.asarray(np.abs(np.log2(found.query[:, 2] / (found.reference[:, 2] * scale))) < 1.0)


def _clash(found: Correspondences) -> NDArray[np.bool_]:
    """Which correspondences share the reference's feature or the place in the query, bool [n, n]."""
    x, y = found.query[:, 0], found.query[:, 1]
    near = (np.abs(x[:, None] - x) < _SAME) & (np.abs(y[:, None] - y) < _SAME)
    return np.asarray(near | (found.answer[:, None] == found.answer))


def _distinct(clash: NDArray[np.bool_], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """The surest of the correspondences `rows` that do not clash."""
    free = np.zeros(len(clash), np.bool_)
    free[rows] = True
    chosen = []
    for row in rows.tolist():
        if free[row]:
            chosen.append(row)
            np.greater(free, clash[row], out=free)
    return np.array(chosen, np.intp)


def _visible(matrix: Matrix, frames: NDArray[np.float32], found: Correspondences) -> int:
    """How many of the reference's features lie where the query's features are found."""
    if not len(frames):
        return 0
    moved = np.column_stack([frames[:, :2], np.ones(len(frames))]) @ matrix.T
    places = moved[:, :2] / np.where(np.abs(moved[:, 2:]) > 1e-9, moved[:, 2:], 1e-9)
    return int(((places >= 0) & (places <= found.query[:, :2].max(axis=0))).all(axis=1).sum())


def is_plausible(matrix: Matrix) -> bool:
    """Whether a picture can have undergone this: not flattened, not folded, of a sane size."""
    if not np.isfinite(matrix).all():
        return False
    large, small = np.linalg.svd(matrix[:2, :2], compute_uv=False)
    if small <= 0 or large / small > _MOST_STRETCH or not 1 / _MOST_SCALE < np.sqrt(large * small) < _MOST_SCALE:
        return False
    return bool(np.abs(matrix[2, :2]).sum() / abs(matrix[2, 2]) < _MOST_PERSPECTIVE)
