"""Score normalisation: a similarity counts for as much as it exceeds what the query has with unrelated images.

SSCD (Pizzi et al. 2022, section 5.1 and its released evaluation, "1.0[0,2]"): normalised similarity = similarity minus
the query's mean similarity to its three nearest entries of the background bank. The term belongs to the query alone: it
changes no ranking within a query and no index, and makes scores of different queries comparable.
"""

import numpy as np
from numpy.typing import NDArray

from copydet.descriptors.background import Bank
from copydet.records import Vectors
from copydet.search.retrieve import exact_similarity

_TILE_QUERIES = 256
_TILE_ENTRIES = 8192


def background_similarity(queries: Vectors, bank: Bank | None, nearest: int = 3) -> NDArray[np.float32]:
    """Mean similarity of each query [n, dimension] to its `nearest` bank entries -> float32 [n]; 0 without a bank.

    A bank with fewer entries is used whole. The same bits whatever the batch: similarities and their sum are exact.
    """
    if bank is None or len(bank.vectors) == 0:
        return np.zeros(len(queries), np.float32)
    tiles = [queries[start : start + _TILE_QUERIES] for start in range(0, len(queries), _TILE_QUERIES)]
    return np.concatenate([_mean_nearest(tile, bank, nearest) for tile in tiles] or [np.zeros(0, np.float32)])


def _mean_nearest(queries: Vectors, bank: Bank, nearest: int) -> NDArray[np.float32]:
    best = np.empty((len(queries), 0))
    for start in range(0, len(bank.vectors), _TILE_ENTRIES):
        tile = exact_similarity(queries, bank.vectors[start : start + _TILE_ENTRIES])
        best = np.concatenate([best, _largest(tile, nearest)], axis=1)
    mean: NDArray[np.float32] = _largest(best, nearest).mean(axis=1).astype(np.float32)
    return mean


def _largest(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The `count` largest of each line, or all where there are fewer; in no order."""
    return values if values.shape[1] <= count else np.partition(values, -count, axis=1)[:, -count:]
