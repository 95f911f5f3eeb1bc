"""What two frames of features say: how one picture lies in another."""

import numpy as np
from numpy.typing import NDArray

from copydet.local_features.pyramid import Floats

# Mirrored, negative: what the query's descriptors are turned into instead of being computed again.
VARIANTS = ((False, False), (True, False), (False, True), (True, True))

_PLACE = 0.012  # of the query's longer side: how far apart two places may be, next to the hypothesis
_SPREAD = 0.12  # of the distance to the hypothesis: what its errors of scale and direction make of it
_SCALE, _TURN = 0.6, 0.5  # octaves, radians


def agreeing(
    queries: Floats,
    references: Floats,
    mirrored: NDArray[np.bool_],
    negative: NDArray[np.bool_],
    seed: NDArray[np.int64],
    other: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Whether correspondence `other` [p] fits the similarity transform that correspondence `seed` [p] stands for.

    `queries`, `references` float32 [n, 4]: both frames of each correspondence; `mirrored`, `negative` bool [n].
    """
    x = np.where(mirrored, -references[:, 0], references[:, 0])
    direction = np.where(mirrored, np.pi - references[:, 3], references[:, 3])
    turn = queries[:, 3] + np.pi * negative - direction
    scale = queries[:, 2] / references[:, 2]
    cos, sin, octave = scale * np.cos(turn), scale * np.sin(turn), np.log2(scale)
    away_x, away_y = x[other] - x[seed], references[other, 1] - references[seed, 1]
    step_x, step_y = queries[other, 0] - queries[seed, 0], queries[other, 1] - queries[seed, 1]
    error_x = cos[seed] * away_x - sin[seed] * away_y - step_x
    error_y = sin[seed] * away_x + cos[seed] * away_y - step_y
    within = _PLACE + _SPREAD * np.hypot(step_x, step_y)
    difference = np.abs((turn[other] - turn[seed] + np.pi) % (2 * np.pi) - np.pi)
    near: NDArray[np.bool_] = error_x**2 + error_y**2 < within**2
    near &= np.abs(octave[other] - octave[seed]) < _SCALE
    near &= difference < _TURN
    return near
