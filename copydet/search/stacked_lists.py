"""Inverted lists of several shards, searched as one.

Shards of one quantiser have the same lists, and FAISS shows list l of all of them, one after the other, as one list. So
a query's table of similarities is made once, not once for each shard, and the best are kept once: with eleven shards
that is most of the work (docs/architecture.md).
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from copydet.records import Vectors
from copydet.search.code_search import (
    MORE,
    NOWHERE,
    ChosenLists,
    Nearest,
    as_nearest,
    best_by_code,
    check_rows,
    choose_lists,
    search_lists,
)
from copydet.shards.shared_quantiser import centres_of, inverted_lists, quantiser_identity

_ID_BYTES = 8
_FEW_QUERIES = 20  # FAISS looks for their lists in one thread
_MANY_LISTS = 8192  # whose centres a processor reads from memory for each such query


class StackedLists:
    """The lists of `codes`, FAISS indexes of one quantiser with PQ or RaBitQ codes; `places` are theirs among all.

    Nothing is copied. `codes` must live while this is used; it keeps none of them alive. `stacked` is the FAISS index.
    """

    def __init__(self, codes: Sequence[Any], places: Sequence[int]) -> None:
        self.places = tuple(places)
        ivf: list[Any] = [inverted_lists(each) for each in codes]
        self._lists = [each.invlists for each in ivf]
        self.stacked = _stack(ivf[0], self._lists)
        self._ends = np.empty((self.stacked.nlist, len(codes)), np.int64)  # of each shard's part of a list
        self._ids = np.empty((self.stacked.nlist, len(codes)), np.int64)  # where its ids lie in memory
        self._known = np.zeros(self.stacked.nlist, bool)
        self._centres = _in_parts(ivf[0].quantizer) if self.stacked.nlist >= _MANY_LISTS else None

    def choose(self, codes: Any, queries: Vectors, nprobe: int | None) -> ChosenLists:
        """As choose_lists, of `codes` that are stacked here; a few queries share the work among threads."""
        return choose_lists(codes, queries, nprobe, self._centres if len(queries) < _FEW_QUERIES else None)

    def search(
        self, chosen: ChosenLists, count: int, starts: NDArray[np.int64], masks: Sequence[NDArray[np.bool_] | None]
    ) -> Nearest:
        """The `count` best of the `chosen` lists by code, as numbers of images over all shards: shard s begins with
        starts[s], and masks[s] marks what of it may be found.
        """
        masks = [masks[place] for place in self.places]

        def ask(lines: NDArray[np.intp], asked: int) -> tuple[Nearest, NDArray[np.float64]]:
            return self._search(chosen.at(lines), asked, starts, masks)

        asked = count + MORE if all(mask is None for mask in masks) else 2 * count
        return best_by_code(ask, len(chosen.lists), count, asked, int(self.stacked.ntotal))

    def _search(
        self, chosen: ChosenLists, count: int, starts: NDArray[np.int64], masks: Sequence[NDArray[np.bool_] | None]
    ) -> tuple[Nearest, NDArray[np.float64]]:
        """What the masks select of the `count` best, and the similarity of the last of these."""
        similarity, label = search_lists(self.stacked, chosen, count, None, pairs=True)
        used = label >= 0
        number, offset = label[used] >> 32, label[used] & 0xFFFFFFFF  # FAISS's lo_build
        self._look_up(number)
        shard = (offset[:, None] >= self._ends[number]).sum(axis=1)
        before = np.where(shard, self._ends[number, shard - 1], 0)
        row = _read(self._ids[number, shard] + _ID_BYTES * (offset - before))
        places = np.array(self.places)[shard]
        check_rows(np.where(row < 0, NOWHERE, row), (starts[1:] - starts[:-1])[places])
        numbers = starts[places] + row
        for place, mask in enumerate(masks):
            if mask is not None:
                mine = np.flatnonzero(shard == place)
                numbers[mine[~mask[row[mine]]]] = NOWHERE
        found = np.full(label.shape, -1)
        found[used] = numbers
        nearest = as_nearest(similarity, found, self.stacked.metric_type)
        edge = nearest.similarity[:, -1].copy()
        if any(mask is not None for mask in masks):
            nearest.similarity[nearest.number == NOWHERE] = -np.inf
            nearest = nearest.at(np.argsort(-nearest.similarity, axis=1, kind="stable"))
        return nearest, edge

    def _look_up(self, numbers: NDArray[np.int64]) -> None:
        """Sizes and places of lists that no query went to before: FAISS tells them one by one."""
        for number in np.unique(numbers[~self._known[numbers]]).tolist():
            self._ends[number] = np.cumsum([lists.list_size(number) for lists in self._lists])
            self._ids[number] = [int(lists.get_ids(number) or 0) for lists in self._lists]
            self._known[number] = True


@dataclass(frozen=True)
class _Known:
    codes: tuple[weakref.ref[Any], ...]
    stacks: tuple[StackedLists, ...]


_KNOWN: weakref.WeakKeyDictionary[Any, _Known] = weakref.WeakKeyDictionary()


def find_stacks(codes: Sequence[Any]) -> tuple[StackedLists, ...]:
    """The lists that several of the shards have in common, by the `codes` of all shards. Made once for these, and gone
    with the first of them.
    """
    if not codes:
        return ()
    known = _KNOWN.get(codes[0])
    if known is None or [own() for own in known.codes] != list(codes):
        _KNOWN[codes[0]] = known = _Known(tuple(map(weakref.ref, codes)), _make_stacks(codes))
    return known.stacks


def _make_stacks(codes: Sequence[Any]) -> tuple[StackedLists, ...]:
    groups: dict[int, list[int]] = {}
    for place, each in enumerate(codes):
        if isinstance(inverted_lists(each), faiss.IndexIVFPQ | faiss.IndexIVFRaBitQ):
            groups.setdefault(quantiser_identity(each), []).append(place)
    together = [places for places in groups.values() if len(places) > 1]
    return tuple(StackedLists([codes[place] for place in places], places) for places in together)


def _stack(leader: Any, parts: Sequence[Any]) -> Any:
    """An index like `leader`, of the lists of all parts."""
    library: Any = faiss  # whose stubs know neither this class nor all that the other takes
    pointers = library.InvertedListsPtrVector()
    for part in parts:
        pointers.push_back(part)
    lists = library.HStackInvertedLists(pointers.size(), pointers.data())
    same = (leader.quantizer, leader.d, leader.nlist)
    if isinstance(leader, faiss.IndexIVFPQ):
        index = library.IndexIVFPQ(*same, leader.pq.M, leader.pq.nbits, leader.metric_type, False)
        index.pq = leader.pq
    else:
        index = library.IndexIVFRaBitQ(*same, leader.metric_type, False)
        index.rabitq, index.qb = leader.rabitq, leader.qb
    index.by_residual, index.is_trained = leader.by_residual, True
    index.replace_invlists(lists, False)
    index.referenced_objects = [lists]  # FAISS's own way to keep it
    index.ntotal = lists.compute_ntotal()
    return index


def _in_parts(quantiser: Any) -> Any | None:
    """The centres of a quantiser in as many parts as there are threads, which FAISS searches at once; None for one that
    finds them by a graph.
    """
    flat = faiss.downcast_index(quantiser)
    if not isinstance(flat, faiss.IndexFlat):
        return None
    library: Any = faiss  # whose stubs do not know all that this class takes
    parts = library.IndexShards(flat.d, True, True)
    for centres in np.array_split(centres_of(flat), faiss.omp_get_max_threads()):
        part = library.IndexFlat(flat.d, flat.metric_type)
        part.add(np.ascontiguousarray(centres))
        parts.add_shard(part)
    return parts


@dataclass(frozen=True)
class _Memory:
    """An int64 at each byte from address `first` on, through NumPy's array interface."""

    first: int
    bytes: int

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"version": 3, "data": (self.first, True), "shape": (self.bytes,), "strides": (1,), "typestr": "=i8"}


def _read(addresses: NDArray[np.int64]) -> NDArray[np.int64]:
    """The int64 at each address. FAISS gives ids out one by one, which takes longer than to search for them."""
    if not len(addresses):
        return addresses
    first, last = int(addresses.min()), int(addresses.max())
    return np.asarray(np.asarray(_Memory(first, last - first + 1))[addresses - first], np.int64)
