"""The nearest references of each query, over all shards.

Codes only propose: what is returned was scored again from the stored float16 descriptors, exactly (exact.py).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copydet.engines.engine import Each
from copydet.process import usable_cpus
from copydet.records import StoredVectors, Vectors
from copydet.search.code_search import (
    NOWHERE,
    CodeSearch,
    Nearest,
    SearchableShard,
    best_of,
    choose_common_lists,
    cut_to_best,
    is_flat,
    search_codes,
    takes_parameters,
)
from copydet.search.exact import CACHE_ROWS, products, widen
from copydet.search.stacked_lists import StackedLists, find_stacks

# Up to this many selected rows an exact scan is about as fast as codes and finds all. Counted over all shards, so that
# the split into shards doesn't matter.
_SCAN_ROWS = 20_000
_SCAN_THREADS = 8
_SCAN_QUERIES = 256
_SEARCH_QUERIES = 1024
_BLOCK_ROWS = 1024
_RESCORE_BYTES = 32 << 20
_ONE_THREAD_ROWS = 4096


@dataclass(frozen=True)
class Candidates:
    """The best references of each query, best first; equal similarities in the order of the images (shard, then row).

    Unused places at the end of a line hold shard -1, row -1 and similarity -inf.
    """

    shard: NDArray[np.int32]  # [queries, k], position in the list of shards that was searched
    row: NDArray[np.int64]  # [queries, k], row of the shard's descriptors
    similarity: NDArray[np.float32]  # [queries, k]


@dataclass(frozen=True)
class _Hits:
    """A bag of (query, row, similarity) of one shard, without order; all arrays [hits]."""

    query: NDArray[np.int64]
    row: NDArray[np.int64]
    similarity: NDArray[np.float64]

    def __getitem__(self, which: Any) -> "_Hits":
        return _Hits(self.query[which], self.row[which], self.similarity[which])


# descriptors, queries, k, rows (None: all; ascending) -> the k best exactly, best first, equals by row: [queries, k]
Scan = Callable[[StoredVectors, Vectors, int, NDArray[np.int64] | None], Nearest]


def retrieve(
    shards: Sequence[SearchableShard],
    queries: Vectors,
    k: int,
    *,
    nprobe: int | None = None,
    candidates: int = 100,
    selected: Sequence[NDArray[np.bool_] | None] | None = None,
    scan: Scan | None = None,
    search: CodeSearch | None = None,
    each: Each | None = None,
) -> Candidates:
    """Find the `k` most similar selected rows of all shards for each of `queries` (float32 [n, dimension]).

    The best `candidates` by code, over all shards together, are scored exactly. Shards whose codes are `Flat`, and all
    shards when few rows are selected, are scanned exactly instead: that gives the true k nearest, ties included.
    `selected[s]` marks the rows of shard s that may be returned (bool [described]); None, for a shard or for all,
    selects everything. `scan` does the exact scans (None: `scan_rows`, on the CPU); it changes no result. `search`
    searches codes (None: `search_codes`). `each` does both elsewhere: what its engine has spread are pairs (shard,
    selected).
    """
    sizes = [len(shard.descriptors) for shard in shards]
    both = list(zip(selected or [None] * len(shards), sizes, strict=True))
    counts = [size if mask is None else int(np.count_nonzero(mask)) for mask, size in both]
    masks = [None if count == size else mask for (mask, size), count in zip(both, counts, strict=True)]
    rows = sum(counts)
    everything = rows <= _SCAN_ROWS
    exact = everything or all(map(_is_scanned, shards))
    starts = np.cumsum([0, *sizes])
    shape = (len(queries), k)
    found = Candidates(np.full(shape, -1, np.int32), np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32))
    step = _SCAN_QUERIES if exact and scan is None else _SEARCH_QUERIES
    scan, candidates = scan or scan_rows, max(candidates, k)
    task = partial(_search_shard, k=k, nprobe=nprobe, candidates=candidates, everything=everything, scan=scan)
    apart = exact or search or each
    # FAISS leaves out what is not selected in one shard, not in a stack, which asks for more instead.
    stacks = () if apart or 2 * rows < starts[-1] else find_stacks([shard.codes for shard in shards])
    for first in range(0, len(queries), step):
        block = queries[first : first + step]
        of_block = partial(task, queries=block)
        if apart:
            of_shard = partial(of_block, search=search or search_codes)
            of_shards = each(of_shard) if each else map(of_shard, zip(shards, masks, strict=True))
            proposals: Iterator[Nearest] = map(_numbered, of_shards, starts[:-1])
        else:
            proposals = _together(stacks, shards, masks, starts, block, nprobe, candidates, of_block)
        lists = _merged(proposals, len(block), candidates)
        if not exact:
            lists = _rescore(shards, starts, block, lists)
        _place(found, first, best_of(lists, k), starts)
    return found


def _together(
    stacks: Sequence[StackedLists],
    shards: Sequence[SearchableShard],
    masks: Sequence[NDArray[np.bool_] | None],
    starts: NDArray[np.int64],
    queries: Vectors,
    nprobe: int | None,
    candidates: int,
    task: Callable[..., Nearest],
) -> Iterator[Nearest]:
    """What `task` proposes of each shard, with what shards have in common done once for all of them."""
    for stack in stacks:
        lists = stack.choose(shards[stack.places[0]].codes, queries, nprobe)
        yield stack.search(lists, candidates, starts, masks)
    stacked = {place for stack in stacks for place in stack.places}
    alone = [place for place in range(len(shards)) if place not in stacked]
    chosen = choose_common_lists([shards[place].codes for place in alone], queries, nprobe)
    for place in alone:
        found = task((shards[place], masks[place]), search=partial(search_codes, chosen=chosen))
        yield _numbered(found, starts[place])


def _numbered(found: Nearest, start: int) -> Nearest:
    """Rows of a shard as numbers of images over all shards."""
    return Nearest(np.where(found.number == NOWHERE, NOWHERE, found.number + start), found.similarity)


def _merged(proposals: Iterator[Nearest], queries: int, candidates: int) -> Nearest:
    """What is proposed, but no more than `candidates` of each query."""
    lists = Nearest(np.empty((queries, 0), np.int64), np.empty((queries, 0)))
    for proposed in proposals:
        lists = Nearest(
            np.concatenate([lists.number, proposed.number], axis=1),
            np.concatenate([lists.similarity, proposed.similarity], axis=1),
        )
        if lists.number.shape[1] > candidates:
            lists = cut_to_best(lists, candidates)
    return lists


def _search_shard(
    part: tuple[SearchableShard, NDArray[np.bool_] | None],
    queries: Vectors,
    k: int,
    nprobe: int | None,
    candidates: int,
    everything: bool,
    scan: Scan,
    search: CodeSearch,
) -> Nearest:
    """The best of one shard: k where it is scanned exactly, else `candidates` by code."""
    shard, mask = part[0], None if part[1] is None or part[1].all() else part[1]
    whole_only = mask is not None and not takes_parameters(shard.codes)  # codes where FAISS cannot leave rows out
    if everything or _is_scanned(shard) or whole_only:
        return scan(shard.descriptors, queries, k, None if mask is None else np.flatnonzero(mask))
    return search(shard, queries, candidates, nprobe, mask)


def _is_scanned(shard: SearchableShard) -> bool:
    return is_flat(shard.codes) or not len(shard.descriptors)


def scan_rows(descriptors: StoredVectors, queries: Vectors, k: int, rows: NDArray[np.int64] | None) -> Nearest:
    """The k best of all rows, or of `rows`, by exact similarity. In threads: NumPy widens float16 in one only."""
    wide = widen(queries)
    count = len(descriptors) if rows is None else len(rows)
    workers = max(1, min(usable_cpus(), _SCAN_THREADS, -(-count // _BLOCK_ROWS)))
    edges = [count * worker // workers for worker in range(workers + 1)]

    def scan_part(part: int) -> _Hits:
        best = _no_hits()
        floor = np.full((len(queries), 1), -np.inf)
        for start in range(edges[part], edges[part + 1], _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, edges[part + 1])
            block = np.arange(start, stop) if rows is None else rows[start:stop]
            similarity = products(wide, widen(descriptors[start:stop] if rows is None else descriptors[block]))
            best = _best_hits(_join(best, _above(similarity, block, floor, k)), k)
            floor = _kth_similarity(best, len(queries), k)
        return best

    if workers == 1:
        return _as_lists(scan_part(0), len(queries), k)
    with ThreadPoolExecutor(workers) as pool:
        return _as_lists(_best_hits(_join(*pool.map(scan_part, range(workers))), k), len(queries), k)


def _above(similarity: NDArray[np.float64], rows: NDArray[np.int64], floor: NDArray[np.float64], k: int) -> _Hits:
    """Entries of a block [queries, rows] that can be among the k best: above the floor, not below the block's own kth.

    Rows come in ascending order, so that a later row equal to the floor has already lost its tie.
    """
    if similarity.shape[1] > k and np.isneginf(floor).any():
        kth = -np.partition(-similarity, k - 1, axis=1)[:, k - 1 : k]
        query, column = np.nonzero((similarity > floor) & (similarity >= kth))
    else:
        query, column = np.nonzero(similarity > floor)
    return _Hits(query, rows[column], similarity[query, column])


def _rescore(shards: Sequence[SearchableShard], starts: NDArray[np.int64], queries: Vectors, lists: Nearest) -> Nearest:
    """The same images with exact similarities; each query's in the order of their numbers, as they lie in the files.

    With as many threads as FAISS has.
    """
    import faiss

    number = np.sort(lists.number, axis=1)
    similarity = np.full(number.shape, -np.inf)
    wide = widen(queries)
    rows = _RESCORE_BYTES // (2 * wide.shape[1])
    threads = 1 if number.size <= _ONE_THREAD_ROWS else int(faiss.omp_get_max_threads())
    step = max(1, min(rows // max(1, number.shape[1]), -(-len(number) // threads)))

    def rescore_part(first: int) -> None:
        part = slice(first, first + step)
        similarity[part] = _rescore_part(shards, starts, wide[part], number[part])

    firsts = range(0, len(number), step)
    if threads == 1:
        for first in firsts:
            rescore_part(first)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(rescore_part, firsts))
    return Nearest(number, similarity)


def _rescore_part(
    shards: Sequence[SearchableShard],
    starts: NDArray[np.int64],
    wide: NDArray[np.float64],
    number: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Exact similarities of each query [queries, d] with its images [queries, n]; -inf in unused places."""
    used = number != NOWHERE
    stored = _gather(shards, starts, np.where(used, number, 0).ravel()).reshape(*number.shape, wide.shape[1])
    similarity = np.empty(number.shape)
    step = max(1, CACHE_ROWS // max(1, number.shape[1]))
    for start in range(0, len(number), step):
        part = slice(start, start + step)
        np.einsum("qnd,qd->qn", stored[part].astype(np.float64), wide[part], out=similarity[part])
    return np.where(used, similarity, -np.inf)


def _gather(shards: Sequence[SearchableShard], starts: NDArray[np.int64], number: NDArray[np.int64]) -> StoredVectors:
    """Descriptors of images by their number over all shards: float16 [n, d]. One reading of each shard."""
    if len(shards) == 1:
        return np.take(np.asarray(shards[0].descriptors), number, axis=0)
    stored = np.empty((len(number), shards[0].descriptors.shape[1]), np.float16)
    of_shard = np.searchsorted(starts, number, side="right") - 1
    for place in np.unique(of_shard):
        mine = of_shard == place
        stored[mine] = np.take(np.asarray(shards[place].descriptors), number[mine] - starts[place], axis=0)
    return stored


def _no_hits() -> _Hits:
    whole = np.empty(0, np.int64)
    return _Hits(whole, whole, np.empty(0, np.float64))


def _join(*bags: _Hits) -> _Hits:
    return _Hits(
        np.concatenate([bag.query for bag in bags]),
        np.concatenate([bag.row for bag in bags]),
        np.concatenate([bag.similarity for bag in bags]),
    )


def _best_hits(hits: _Hits, k: int) -> _Hits:
    """The k best of each query, in order: by query, then similarity falling, then row."""
    order = np.lexsort((hits.row, -hits.similarity, hits.query))
    return hits[order[_rank(hits.query[order]) < k]]


def _rank(query: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of each entry within its run of equal queries."""
    return np.arange(len(query)) - np.searchsorted(query, query)


def _kth_similarity(best: _Hits, queries: int, k: int) -> NDArray[np.float64]:
    """[queries, 1]: similarity of the kth hit, -inf where there are fewer."""
    kth = np.full((queries, 1), -np.inf)
    last = _rank(best.query) == k - 1
    kth[best.query[last], 0] = best.similarity[last]
    return kth


def _as_lists(best: _Hits, queries: int, k: int) -> Nearest:
    lists = Nearest(np.full((queries, k), NOWHERE), np.full((queries, k), -np.inf))
    place = best.query, _rank(best.query)
    lists.number[place], lists.similarity[place] = best.row, best.similarity
    return lists


def _place(found: Candidates, first: int, best: Nearest, starts: NDArray[np.int64]) -> None:
    query, place = np.nonzero(best.number != NOWHERE)
    number = best.number[query, place]
    shard = np.searchsorted(starts, number, side="right") - 1
    found.shard[query + first, place] = shard
    found.row[query + first, place] = number - starts[shard]
    found.similarity[query + first, place] = best.similarity[query, place]
