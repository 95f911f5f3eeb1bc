"""The nearest references of each query, over all shards.

Codes only propose: what is returned was scored again from the stored float16 descriptors, exactly. Products of two
float16 numbers, and sums of them over two vectors of length 1, are multiples of 2^-48 below 2: 49 bits, where a float64
has 53, so that no addition rounds. A similarity is therefore the same number whatever the batch, the threads, the split
into shards, the order of the two images, or the processor.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from copydet.engines.engine import HERE, Each
from copydet.records import StoredVectors, Vectors

# Up to this many selected rows an exact scan is about as fast as codes and finds all. Counted over all shards, so that
# the split into shards doesn't matter.
_SCAN_ROWS = 20_000
_SCAN_THREADS = 8
_BLOCK_QUERIES = 256
_BLOCK_ROWS = 1024
_RESCORE_BYTES = 32 << 20
# OpenBLAS computes a product with several threads from 2^18 multiplications on, and then waits milliseconds for each
# where decoding keeps the cores busy (measured: 9 ms CPU a call). Below that, scanning has threads of its own.
_BLAS_ALONE = 2**18


class SearchableShard(Protocol):
    """What retrieval needs of a shard: a FAISS index whose id i is row i of `descriptors`, [described, dimension]."""

    @property
    def codes(self) -> Any: ...

    @property
    def descriptors(self) -> StoredVectors: ...


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
    """A bag of (query, shard, row, similarity), without order; all arrays [hits]."""

    query: NDArray[np.int64]
    shard: NDArray[np.int64]
    row: NDArray[np.int64]
    similarity: NDArray[np.float64]

    def __getitem__(self, which: Any) -> "_Hits":
        return _Hits(self.query[which], self.shard[which], self.row[which], self.similarity[which])


def exact_similarity(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Similarity of each row of `first` [n, d] with each row of `second` [m, d] -> float64 [n, m].

    Exact for float16. Float32 is rounded to float16 first, as references are at rest: the same both ways.
    """
    return _inner_products(_widen(first), _widen(second))


def retrieve(
    shards: Sequence[SearchableShard],
    queries: Vectors,
    k: int,
    *,
    nprobe: int | None = None,
    candidates: int = 100,
    selected: Sequence[NDArray[np.bool_] | None] | None = None,
    each: Each | None = None,
) -> Candidates:
    """Find the `k` most similar selected rows of all shards for each of `queries` (float32 [n, dimension]).

    The best `candidates` by code, over all shards together, are scored exactly. Shards whose codes are `Flat`, and all
    shards when few rows are selected, are scanned exactly instead: that gives the true k nearest, ties included.
    `selected[s]` marks the rows of shard s that may be returned (bool [described]); None, for a shard or for all,
    selects everything. `each` searches elsewhere: what its engine has spread are pairs (shard, selected).
    """
    each = each or HERE.spread(list(zip(shards, selected or [None] * len(shards), strict=True)))
    masks = [None if mask is None or mask.all() else mask for mask in selected or [None] * len(shards)]
    rows = sum(len(s.descriptors) if m is None else int(m.sum()) for s, m in zip(shards, masks, strict=True))
    shape = (len(queries), k)
    found = Candidates(np.full(shape, -1, np.int32), np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32))
    for start in range(0, len(queries), _BLOCK_QUERIES):
        block = queries[start : start + _BLOCK_QUERIES]
        _place(
            found, start, _retrieve_block(shards, each, block, k, nprobe, max(candidates, k), scan=rows <= _SCAN_ROWS)
        )
    return found


def _retrieve_block(
    shards: Sequence[SearchableShard],
    each: Each,
    queries: Vectors,
    k: int,
    nprobe: int | None,
    candidates: int,
    scan: bool,
) -> _Hits:
    hits = _no_hits()
    search = partial(_search_shard, queries=queries, k=k, nprobe=nprobe, candidates=candidates, scan=scan)
    for number, proposed in enumerate(each(search)):
        proposed = replace(proposed, shard=np.full(len(proposed.row), number))
        hits = _best(_join(hits, proposed), candidates)
    return _best(_rescore(shards, queries, hits), k)


def _search_shard(
    part: tuple[SearchableShard, NDArray[np.bool_] | None],
    queries: Vectors,
    k: int,
    nprobe: int | None,
    candidates: int,
    scan: bool,
) -> _Hits:
    shard, mask = part[0], None if part[1] is None or part[1].all() else part[1]
    if scan or _is_flat(shard.codes):
        return _scan(shard.descriptors, queries, k, None if mask is None else np.flatnonzero(mask))
    return _search_codes(shard.codes, queries, candidates, nprobe, mask)


def _scan(descriptors: StoredVectors, queries: Vectors, k: int, rows: NDArray[np.int64] | None) -> _Hits:
    """The k best of all rows, or of `rows`, by exact similarity. In threads: NumPy widens float16 in one only."""
    wide = _widen(queries)
    count = len(descriptors) if rows is None else len(rows)
    workers = max(1, min(os.cpu_count() or 1, _SCAN_THREADS, -(-count // _BLOCK_ROWS)))
    edges = [count * worker // workers for worker in range(workers + 1)]

    def scan_part(part: int) -> _Hits:
        best = _no_hits()
        floor = np.full((len(queries), 1), -np.inf)
        for start in range(edges[part], edges[part + 1], _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, edges[part + 1])
            block = np.arange(start, stop) if rows is None else rows[start:stop]
            similarity = _inner_products(wide, _widen(descriptors[start:stop] if rows is None else descriptors[block]))
            best = _best(_join(best, _above(similarity, block, floor, k)), k)
            floor = _kth_similarity(best, len(queries), k)
        return best

    if workers == 1:
        return scan_part(0)
    with ThreadPoolExecutor(workers) as pool:
        return _best(_join(*pool.map(scan_part, range(workers))), k)


def _above(similarity: NDArray[np.float64], rows: NDArray[np.int64], floor: NDArray[np.float64], k: int) -> _Hits:
    """Entries of a block [queries, rows] that can be among the k best: above the floor, not below the block's own kth.

    Rows come in ascending order, so that a later row equal to the floor has already lost its tie.
    """
    if similarity.shape[1] > k and np.isneginf(floor).any():
        kth = -np.partition(-similarity, k - 1, axis=1)[:, k - 1 : k]
        query, column = np.nonzero((similarity > floor) & (similarity >= kth))
    else:
        query, column = np.nonzero(similarity > floor)
    return _Hits(query, np.zeros(len(query), np.int64), rows[column], similarity[query, column])


def _search_codes(
    codes: Any, queries: Vectors, count: int, nprobe: int | None, mask: NDArray[np.bool_] | None
) -> _Hits:
    import faiss

    parameters = _search_parameters(faiss, codes, nprobe, mask)
    similarity, rows = codes.search(np.ascontiguousarray(queries), min(count, int(codes.ntotal)), params=parameters)
    if codes.metric_type == faiss.METRIC_L2:
        similarity = 1 - similarity / 2
    query, place = np.nonzero(rows >= 0)
    found = similarity[query, place].astype(np.float64)
    return _Hits(query, np.zeros(len(query), np.int64), rows[query, place], found)


def _search_parameters(faiss: Any, codes: Any, nprobe: int | None, mask: NDArray[np.bool_] | None) -> Any:
    """FAISS insists on the parameter class of the index type; its selectors are bitmaps, least bit first."""
    index = faiss.downcast_index(codes)
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=_search_parameters(faiss, index.index, nprobe, mask))
    options: dict[str, Any] = {}
    if mask is not None:
        options["sel"] = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    if isinstance(index, faiss.IndexIVF):
        options["nprobe"] = min(nprobe or index.nprobe, index.nlist)
        if isinstance(index, faiss.IndexIVFRaBitQ | faiss.IndexIVFRaBitQFastScan):
            return faiss.IVFRaBitQSearchParameters(qb=index.qb, **options)
        return faiss.SearchParametersIVF(**options)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(**options)
    return faiss.SearchParameters(**options)


def _rescore(shards: Sequence[SearchableShard], queries: Vectors, hits: _Hits) -> _Hits:
    """The same hits with exact similarities. Rows are read in the order they lie in the files."""
    hits = hits[np.lexsort((hits.row, hits.shard))]
    wide = _widen(queries)
    similarity = np.empty(len(hits.row), np.float64)
    step = max(1, _RESCORE_BYTES // max(1, wide.shape[1] * 8))
    for number, shard in enumerate(shards):
        first, last = np.searchsorted(hits.shard, [number, number + 1])
        for start in range(first, last, step):
            part = slice(start, min(start + step, last))
            rows = _widen(shard.descriptors[hits.row[part]])
            similarity[part] = np.einsum("nd,nd->n", rows, wide[hits.query[part]])
    return _Hits(hits.query, hits.shard, hits.row, similarity)


def _inner_products(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """first @ second.T in square tiles that BLAS computes with one thread."""
    side = 2 ** int(math.log2(_BLAS_ALONE / first.shape[1]) / 2)
    one, other = _in_groups(first, side), _in_groups(second, side)
    tiles = np.matmul(one[:, None], other[None].transpose(0, 1, 3, 2))  # [groups, groups, rows, rows]
    groups, other_groups, rows, other_rows = tiles.shape
    product: NDArray[np.float64] = tiles.transpose(0, 2, 1, 3).reshape(groups * rows, other_groups * other_rows)
    return product[: len(first), : len(second)]


def _in_groups(vectors: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """[n, d] -> [groups, size, d], filled up with zeros; fewer than `size` vectors are one group as they are."""
    missing = -len(vectors) % size if len(vectors) > size else 0
    filled = np.concatenate([vectors, np.zeros((missing, vectors.shape[1]))]) if missing else vectors
    return filled.reshape(-1, min(size, max(1, len(vectors))), vectors.shape[1])


def _widen(vectors: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(vectors).astype(np.float16, copy=False).astype(np.float64)


def _is_flat(codes: Any) -> bool:
    return type(codes).__name__ in ("IndexFlat", "IndexFlatIP", "IndexFlatL2")


def _no_hits() -> _Hits:
    whole = np.empty(0, np.int64)
    return _Hits(whole, whole, whole, np.empty(0, np.float64))


def _join(*bags: _Hits) -> _Hits:
    return _Hits(
        np.concatenate([bag.query for bag in bags]),
        np.concatenate([bag.shard for bag in bags]),
        np.concatenate([bag.row for bag in bags]),
        np.concatenate([bag.similarity for bag in bags]),
    )


def _best(hits: _Hits, k: int) -> _Hits:
    """The k best of each query, in order: by query, then similarity falling, then shard and row."""
    order = np.lexsort((hits.row, hits.shard, -hits.similarity, hits.query))
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


def _place(found: Candidates, start: int, best: _Hits) -> None:
    line, place = best.query + start, _rank(best.query)
    found.shard[line, place] = best.shard
    found.row[line, place] = best.row
    found.similarity[line, place] = best.similarity
