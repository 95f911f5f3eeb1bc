"""From what every view of a query found to one list a query: the best view of each reference, whole or in parts.

Each view is normalised with its own background similarity before the best is taken, as in D2LV (Wang et al., arXiv
2111.07090): a small or plain part is similar to much, and would win every comparison of plain similarities.
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from copydet.search.retrieve import Candidates


@dataclass(frozen=True)
class Merged:
    """The best references of each query over its views, best first; ties in the order of the images (shard, row).

    All arrays [queries, k]. Unused places hold shard -1, row -1, view -1 and -inf twice.
    """

    shard: NDArray[np.int32]
    row: NDArray[np.int64]
    similarity: NDArray[np.float32]  # of the view that won
    normalised: NDArray[np.float32]  # the same less what is taken off that view
    view: NDArray[np.int32]  # number among the query's views


def view_offsets(views: Sequence[Sized]) -> NDArray[np.int64]:
    """Where the views of each query begin when all are laid end to end: int64 [queries + 1]."""
    return np.cumsum([0, *map(len, views)], dtype=np.int64)


def merge_views(
    found: Candidates,
    taken_off: NDArray[np.float32],
    offsets: NDArray[np.int64],
    k: int,
    reference_cost: NDArray[np.float32] | None = None,
) -> Merged:
    """Merge the views of each query: those of query q are lines offsets[q] to offsets[q + 1] - 1 of `found`.

    `taken_off` float32 [views] is subtracted from the similarities of a view: its background similarity, and what it
    costs to be another view than the whole; `reference_cost` float32 [views, k], what it costs to be a part of the
    reference, which may be found several times. Of equal views the first wins. A query may have no views.
    """
    line, place = np.nonzero(found.row >= 0)
    query = np.searchsorted(offsets, line, side="right") - 1
    shard, row = found.shard[line, place], found.row[line, place]
    normalised = found.similarity[line, place] - taken_off[line]
    if reference_cost is not None:
        normalised -= reference_cost[line, place]
    by_reference = np.lexsort((line, -normalised, row, shard, query))
    best = by_reference[_is_first(query[by_reference], shard[by_reference], row[by_reference])]
    ordered = best[np.lexsort((row[best], shard[best], -normalised[best], query[best]))]
    rank = np.arange(len(ordered)) - np.searchsorted(query[ordered], query[ordered])
    kept, rank = ordered[rank < k], rank[rank < k]
    merged = _empty(len(offsets) - 1, k)
    into = query[kept], rank
    merged.shard[into], merged.row[into] = shard[kept], row[kept]
    merged.similarity[into] = found.similarity[line[kept], place[kept]]
    merged.normalised[into] = normalised[kept]
    merged.view[into] = line[kept] - offsets[query[kept]]
    return merged


def _is_first(*keys: NDArray[np.integer]) -> NDArray[np.bool_]:
    """True where any of the sorted keys differs from the entry before."""
    first = np.ones(len(keys[0]), np.bool_)
    first[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return first


def _empty(queries: int, k: int) -> Merged:
    shape = (queries, k)
    return Merged(
        np.full(shape, -1, np.int32),
        np.full(shape, -1, np.int64),
        np.full(shape, -np.inf, np.float32),
        np.full(shape, -np.inf, np.float32),
        np.full(shape, -1, np.int32),
    )
