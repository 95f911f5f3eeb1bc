"""Stored local features as those of a query: nothing is extracted again where both images are in an index.

The descriptors of the mirrored picture and of the negative are permutations of RootSIFT's 128 numbers
(extract.mirror, extract.invert), of which a record keeps a projection only. The linear map of the projected space that
comes closest to such a permutation, by least squares, is as good for matching: its vectors have a cosine of about .96
with the true ones.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from copydet.local_features.codes import shipped_codec
from copydet.local_features.describe import QueryFeatures
from copydet.local_features.extract import DIMENSION, invert, mirror
from copydet.local_features.frames import VARIANTS
from copydet.local_features.pyramid import Floats


def stored_features(records: NDArray[np.uint8]) -> QueryFeatures:
    """Records uint8 [n, RECORD_BYTES] as the features of a query, vectors of the variants approximated."""
    frames, vectors = shipped_codec().decode(records)
    turned = np.matmul(vectors, _variants())
    turned /= np.sqrt(np.einsum("vnd,vnd->vn", turned, turned))[..., None] + np.float32(1e-9)
    return QueryFeatures(frames, turned)


@cache
def _variants() -> Floats:
    """float32 [variants, d, d]: rows of projected descriptors times these are those of each variant."""
    projection = shipped_codec().projection.astype(np.float64)
    inner = projection.T @ projection
    maps = []
    for mirrored, negative in VARIANTS:
        permuted = np.eye(DIMENSION, dtype=np.float32)
        permuted = mirror(permuted) if mirrored else permuted
        permuted = invert(permuted) if negative else permuted
        maps.append(np.linalg.solve(inner, projection.T @ permuted.astype(np.float64) @ projection))
    return np.stack(maps).astype(np.float32)
