"""What two frames of features say: how one picture lies in another."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from copydet.local_features.pyramid import Floats

# Mirrored, negative: what the query's descriptors are turned into instead of being computed again.
VARIANTS = ((False, False), (True, False), (False, True), (True, True))

_PLACE = 0.012  # of the query's longer side: how far apart two places may be, next to the hypothesis
_SPREAD = 0.12  # of the distance to the hypothesis: what its errors of scale and direction make of it
_SCALE, _TURN = 0.6, 0.5  # octaves, radians


@dataclass(frozen=True)
class Voters:
    """Correspondences of one reference that a search of all found and that agree; all arrays [n]: number of the
    `variant`, features of the query (`asker`) and of the reference (`answer`), and `weight` in (0, 1]: by how much the
    two are nearer than what else the feature of the query was near to, which a pair by itself cannot tell.
    """

    variant: NDArray[np.int64]
    asker: NDArray[np.int64]
    answer: NDArray[np.int64]
    weight: NDArray[np.float64]


def agreeing(
    queries: Floats,
    references: Floats,
    mirrored: NDArray[np.bool_],
    negative: NDArray[np.bool_],
    seed: NDArray[np.int64],
    other: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Whether correspondence `other` fits the similarity transform that correspondence `seed` stands for.

    `queries`, `references` float32 [n, 4]: both frames of each correspondence; `mirrored`, `negative` bool [n]. The
    numbers `seed` and `other` are of any shapes that can be broadcast to one, the answer's.
    """
    x = np.where(mirrored, -references[:, 0], references[:, 0])
    direction = np.where(mirrored, np.float32(np.pi) - references[:, 3], references[:, 3])
    turn = queries[:, 3] + np.float32(np.pi) * negative - direction
    scale = queries[:, 2] / references[:, 2]
    cos, sin, octave = np.cos(turn), np.sin(turn), np.log2(scale)
    scaled_cos, scaled_sin = (scale * cos)[seed], (scale * sin)[seed]
    away_x, away_y = x[other] - x[seed], references[other, 1] - references[seed, 1]
    step_x, step_y = queries[other, 0] - queries[seed, 0], queries[other, 1] - queries[seed, 1]
    within = np.float32(_PLACE) + np.float32(_SPREAD) * np.sqrt(step_x * step_x + step_y * step_y)
    step_x -= scaled_cos * away_x - scaled_sin * away_y
    step_y -= scaled_sin * away_x + scaled_cos * away_y
    near: NDArray[np.bool_] = step_x * step_x + step_y * step_y < within * within
    near &= np.abs(octave[other] - octave[seed]) < _SCALE
    near &= cos[other] * cos[seed] + sin[other] * sin[seed] > np.float32(np.cos(_TURN))
    return near
