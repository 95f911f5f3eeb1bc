"""What the codes of a shard propose.

Codes of inverted lists are searched in two steps: which lists a query's neighbours lie in, and which codes of those are
most similar. Shards of one quantiser have the same lists, so the first step is done once for all of them.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from copydet.errors import CopydetError
from copydet.records import StoredVectors, Vectors
from copydet.shards.shared_quantiser import inverted_lists, quantiser_identity, rotated

NOWHERE = np.iinfo(np.int64).max
MORE = 8  # codes than are wanted: equals at the edge are few
_MOST_ENTRIES = 1 << 22  # answered together: 50 MB


class SearchableShard(Protocol):
    """What retrieval needs of a shard: a FAISS index whose id i is row i of `descriptors`, [described, dimension]."""

    @property
    def codes(self) -> Any: ...

    @property
    def descriptors(self) -> StoredVectors: ...


@dataclass(frozen=True)
class Nearest:
    """What is proposed for each query: rows of one shard, or numbers of images over all shards, in their order."""

    number: NDArray[np.int64]  # [queries, n]; NOWHERE in unused places
    similarity: NDArray[np.float64]  # [queries, n]; -inf in unused places

    def at(self, places: NDArray[np.intp]) -> "Nearest":
        """Each query's entries at its `places` [queries, m]."""
        return Nearest(np.take_along_axis(self.number, places, 1), np.take_along_axis(self.similarity, places, 1))


@dataclass(frozen=True)
class ChosenLists:
    """The lists that queries go to, in every shard of one quantiser."""

    rotated: Vectors  # [queries, d], as the lists take them
    lists: NDArray[np.int64]  # [queries, nprobe], best first; -1 in unused places
    similarity: NDArray[np.float32]  # [queries, nprobe], to the centres of the lists

    def at(self, queries: NDArray[np.intp]) -> "ChosenLists":
        """Those of some of the queries."""
        return ChosenLists(self.rotated[queries], self.lists[queries], self.similarity[queries])


def choose_lists(codes: Any, queries: Vectors, nprobe: int | None, centres: Any | None = None) -> ChosenLists:
    """The lists of `queries` (float32 [n, dimension]) in codes that have any; `centres`: what to search in place of
    their quantiser.
    """
    lists: Any = inverted_lists(codes)
    turned = rotated(codes, np.ascontiguousarray(queries))
    similarity, numbers = (centres or lists.quantizer).search(turned, min(nprobe or lists.nprobe, lists.nlist))
    return ChosenLists(turned, numbers, similarity)


def choose_common_lists(codes: Sequence[Any], queries: Vectors, nprobe: int | None) -> dict[int, ChosenLists]:
    """The same for quantisers that several of the `codes` have, by their identity."""
    identities = [quantiser_identity(each) for each in codes]
    return {
        identity: choose_lists(each, queries, nprobe)
        for identity, each in dict(zip(identities, codes, strict=True)).items()
        if identity and identities.count(identity) > 1
    }


def search_codes(
    shard: SearchableShard,
    queries: Vectors,
    count: int,
    nprobe: int | None,
    mask: NDArray[np.bool_] | None,
    chosen: Mapping[int, ChosenLists] = MappingProxyType({}),
) -> Nearest:
    """The `count` best rows of a shard by its codes, in the lists that were `chosen` if any were.

    A `mask` asks for codes that `takes_parameters`.
    """
    codes = shard.codes
    lists = chosen.get(quantiser_identity(codes))
    queries = np.ascontiguousarray(queries)
    parameters = _search_parameters(codes, nprobe, mask) if takes_parameters(codes) else None

    def ask(lines: NDArray[np.intp], asked: int) -> tuple[Nearest, NDArray[np.float64]]:
        if lists is None:
            similarity, row = codes.search(queries[lines], asked, params=parameters)
        else:
            similarity, row = search_lists(inverted_lists(codes), lists.at(lines), asked, mask)
        check_rows(row, codes.ntotal)
        nearest = as_nearest(similarity, row, codes.metric_type)
        return nearest, nearest.similarity[:, -1]

    return best_by_code(ask, len(queries), count, count + MORE, int(codes.ntotal))


# which queries, how many codes -> what is selected of so many best ones of each query, best first; how similar the last
# of these is, selected or not
Ask = Callable[[NDArray[np.intp], int], tuple[Nearest, NDArray[np.float64]]]


def best_by_code(ask: Ask, queries: int, count: int, asked: int, most: int) -> Nearest:
    """The `count` best codes of each query (or all `most`): similarity falling, then number.

    Of equals at the edge FAISS keeps any, and of what it keeps some may not be selected. So it is asked for more (for
    `asked` at first) until what it keeps holds `count` that are better than the edge.
    """
    count, asked = min(count, most), min(asked, most)
    lines = np.arange(queries)
    best = Nearest(np.full((queries, count), NOWHERE), np.full((queries, count), -np.inf))
    while len(lines):
        step, left = max(1, _MOST_ENTRIES // asked), []
        for some in (lines[start : start + step] for start in range(0, len(lines), step)):
            found, edge = ask(some, asked)
            worst = found.similarity[:, count - 1]
            best.number[some], best.similarity[some] = found.number[:, :count], found.similarity[:, :count]
            if asked > count:
                tied = np.flatnonzero((worst == found.similarity[:, count]) & (worst > -np.inf))
                first = best_of(Nearest(found.number[tied], found.similarity[tied]), count)
                best.number[some[tied]], best.similarity[some[tied]] = first.number, first.similarity
            left.append(some[(worst <= edge) & (edge > -np.inf)])
        lines = np.concatenate(left) if asked < most else lines[:0]
        asked = min(2 * asked, most)
    return best


def search_lists(
    index: Any, chosen: ChosenLists, count: int, mask: NDArray[np.bool_] | None, *, pairs: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """As FAISS searches `index`, but for the lists, which are chosen already. With `pairs`, list and place in it (as
    FAISS's lo_build) instead of ids.
    """
    queries, nprobe = chosen.lists.shape
    similarity, row = np.empty((queries, count), np.float32), np.empty((queries, count), np.int64)
    parameters = _search_parameters(index, nprobe, mask)

    def search_part(part: slice) -> None:
        arrays = (chosen.lists, chosen.similarity, similarity, row)
        pointers = [faiss.swig_ptr(each[part]) for each in arrays]
        rotated_queries = chosen.rotated[part]
        # FAISS's own wrapper of this takes no parameters, and without them no selection.
        index.search_preassigned_c(
            len(rotated_queries), faiss.swig_ptr(rotated_queries), count, *pointers, pairs, parameters
        )

    # FAISS divides queries among its threads before it chooses lists, not here.
    threads = max(1, min(int(faiss.omp_get_max_threads()), queries))
    edges = [queries * thread // threads for thread in range(threads + 1)]
    parts = [slice(start, stop) for start, stop in itertools.pairwise(edges)]
    if threads == 1:
        search_part(parts[0])
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(search_part, parts))
    return similarity, row


def check_rows(row: NDArray[np.int64], count: NDArray[np.int64] | int) -> None:
    """Raises CopydetError for rows that a shard of `count` does not have: nobody looked at those in its codes."""
    if (row >= count).any():
        raise CopydetError(
            f"codes of the index are damaged: they name row {row.max():,}, which their shard does not have; see which "
            "with: copydet inspect --check rows --index INDEX"
        )


def as_nearest(similarity: NDArray[np.float32], row: NDArray[np.int64], metric: int) -> Nearest:
    """What FAISS's search returned, [queries, n] each."""
    wide = similarity.astype(np.float64)
    if metric == faiss.METRIC_L2:
        wide = 1 - wide / 2
    return Nearest(np.where(row < 0, NOWHERE, row), np.where(row < 0, -np.inf, wide))


def takes_parameters(codes: Any) -> bool:
    """Whether FAISS takes a selection and settings for codes of this kind; plain PQ, for one, refuses any."""
    index = faiss.downcast_index(codes)
    if isinstance(index, faiss.IndexPreTransform):
        return takes_parameters(index.index)
    return isinstance(index, faiss.IndexIVF | faiss.IndexHNSW | faiss.IndexScalarQuantizer | faiss.IndexRaBitQ)


def _search_parameters(codes: Any, nprobe: int | None, mask: NDArray[np.bool_] | None) -> Any:
    """FAISS insists on the parameter class of the index type; its selectors are bitmaps, least bit first."""
    library: Any = faiss  # whose stubs do not know that its parameters take keywords
    index = faiss.downcast_index(codes)
    if isinstance(index, faiss.IndexPreTransform):
        return library.SearchParametersPreTransform(index_params=_search_parameters(index.index, nprobe, mask))
    options: dict[str, Any] = {}
    if mask is not None:
        options["sel"] = library.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    if isinstance(index, faiss.IndexIVF):
        options["nprobe"] = min(nprobe or index.nprobe, index.nlist)
        if isinstance(index, faiss.IndexIVFRaBitQ | faiss.IndexIVFRaBitQFastScan):
            return library.IVFRaBitQSearchParameters(qb=index.qb, **options)
        return library.SearchParametersIVF(**options)
    if isinstance(index, faiss.IndexHNSW):
        return library.SearchParametersHNSW(**options)
    return library.SearchParameters(**options)


def is_flat(codes: Any) -> bool:
    return type(codes).__name__ in ("IndexFlat", "IndexFlatIP", "IndexFlatL2")


# as `search_codes`, with lists of its own choice
CodeSearch = Callable[[SearchableShard, Vectors, int, int | None, NDArray[np.bool_] | None], Nearest]


def best_of(lists: Nearest, k: int) -> Nearest:
    """The k best of each query (or all, where there are fewer), in order: similarity falling, then number."""
    ordered = lists.at(np.argsort(lists.number, axis=1))
    return ordered.at(np.argsort(-ordered.similarity, axis=1, kind="stable")[:, :k])


def cut_to_best(lists: Nearest, k: int) -> Nearest:
    """As `best_of`, of more than k, in any order: without sorting, but where equals stand at the edge."""
    kth = np.partition(lists.similarity, -k, axis=1)[:, -k, None]
    kept = lists.similarity >= kth
    edge = np.flatnonzero(kept.sum(axis=1) != k)
    kept[edge, :k], kept[edge, k:] = True, False
    number, similarity = lists.number[kept].reshape(-1, k), lists.similarity[kept].reshape(-1, k)
    if len(edge):
        best = best_of(Nearest(lists.number[edge], lists.similarity[edge]), k)
        number[edge], similarity[edge] = best.number, best.similarity
    return Nearest(number, similarity)
