"""Is a generation nearly the same pixels as a training image? The criteria of Carlini et al. 2023 (arXiv 2301.13188).

    l2(a, b)       sqrt(sum (a_i - b_i)^2 / d), pixels in [0, 1], d values          (section 4.1, definition 1)
    tile distance  the largest l2 among 16 tiles, so that equal backgrounds do not make pictures alike   (section 4.2.1)
    adaptive       l2(x, y) / (alpha * mean over S of l2(x, z)), alpha = .5, S = the 50 training images nearest to x:
                   how much nearer y is than what is nearest anyway, so that flat pictures stand out less (section 5.1)

They take S by l2; here the descriptor proposes it, since an index cannot be searched by pixels. Exact repeats of one
training image count once in S, or a repeated image would be its own neighbourhood. Pictures are squeezed to a square
first: EDGE pixels for tiles (they have 512), SMALL for the adaptive form, which is the size of their CIFAR-10.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from copydet.records import Pixels

EDGE, SMALL = 256, 32  # pixels a side
TILES = 4  # a side
NEIGHBOURS = 50
ALPHA = 0.5
NEAR = 0.15  # of the tile distance: the strict threshold of the paper's Stable Diffusion experiment (section 4.2)


def l2(first: Pixels, second: Pixels) -> float:
    """uint8 arrays of one shape -> distance in [0, 1]."""
    difference = (first.astype(np.float32) - second.astype(np.float32)) / 255
    return float(np.sqrt(np.mean(difference**2)))


def tile_distance(first: Pixels, second: Pixels, tiles: int = TILES) -> float:
    """The largest l2 of `tiles` x `tiles` parts; uint8 [h, w, 3] of one shape, sides divisible by `tiles`."""
    height, width = (side // tiles for side in first.shape[:2])
    square = ((first.astype(np.float32) - second.astype(np.float32)) / 255) ** 2
    parts = square[: height * tiles, : width * tiles].reshape(tiles, height, tiles, width, -1)
    return float(np.sqrt(parts.mean(axis=(1, 3, 4)).max()))


def distances(picture: Pixels, others: Sequence[Pixels]) -> NDArray[np.float64]:
    """l2 of one picture to each of several, float64 [others]."""
    return np.array([l2(picture, other) for other in others], np.float64)


def adaptive(distance: float, neighbourhood: NDArray[np.float64], alpha: float = ALPHA) -> float | None:
    """The adaptive distance; `neighbourhood` are the l2 to S. None without a neighbourhood; 0 for equal pixels."""
    if not len(neighbourhood):
        return None
    mean = float(neighbourhood.mean())
    return distance / (alpha * mean) if mean > 0 else 0.0
