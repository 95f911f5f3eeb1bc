"""Score normalisation: a similarity counts for as much as it exceeds what the query has with unrelated images.

SSCD (Pizzi et al. 2022, section 5.1 and its released evaluation, "1.0[0,2]"): normalised similarity = similarity minus
the query's mean similarity to its three nearest entries of the background bank. The term belongs to the query alone: it
changes no ranking within a query and no index, and makes scores of different queries comparable.
"""

import numpy as np
from numpy.typing import NDArray

from copydet.descriptors.background import Bank
from copydet.records import Vectors
from copydet.search.exact import exact_pairs, products

_TILE_QUERIES = 64
_GROUP = 64
# Two float32 sums of d products of vectors of length 1 differ from the exact one by less than d units of 2^-24 each.
_ROUNDING = 2.0**-23


def background_similarity(queries: Vectors, bank: Bank | None, nearest: int = 3) -> NDArray[np.float32]:
    """Mean similarity of each query [n, dimension] to its `nearest` bank entries -> float32 [n]; 0 without a bank.

    A bank with fewer entries is used whole. The same bits whatever the batch: similarities and their sum are exact.
    """
    if bank is None or len(bank.vectors) == 0:
        return np.zeros(len(queries), np.float32)
    tiles = [queries[start : start + _TILE_QUERIES] for start in range(0, len(queries), _TILE_QUERIES)]
    return np.concatenate([_mean_nearest(tile, bank, nearest) for tile in tiles] or [np.zeros(0, np.float32)])


def _mean_nearest(queries: Vectors, bank: Bank, nearest: int) -> NDArray[np.float32]:
    """Float32 says which entries can be among the nearest; those alone are multiplied exactly."""
    nearest = min(nearest, len(bank.vectors))
    stored = queries.astype(np.float16)
    rough = products(stored.astype(np.float32), bank.wide)
    least = _at_least(rough, nearest) - queries.shape[1] * _ROUNDING
    query, entry = np.nonzero(rough >= least[:, None])
    exact = exact_pairs(stored[query], bank.vectors[entry])
    order = np.lexsort((-exact, query))
    first = np.searchsorted(query, np.arange(len(queries)))
    best = exact[order][first[:, None] + np.arange(nearest)]
    mean: NDArray[np.float32] = best.mean(axis=1).astype(np.float32)
    return mean


def _at_least(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """What `count` values of each line [n, m] reach, float32 [n]: of the maxima of groups, which are few to sort."""
    groups = values.shape[1] // _GROUP
    if groups >= count:
        values = values[:, : groups * _GROUP].reshape(len(values), groups, _GROUP).max(axis=2)
    reached: NDArray[np.float32] = np.partition(values, -count, axis=1)[:, -count]
    return reached
