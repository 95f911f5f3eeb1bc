"""The second road to candidates: local features of the query vote for references, and votes must agree on a place.

A single correspondence of two frames is a whole hypothesis of how the reference lies in the query: shift, scale, turn
and mirroring (Philbin et al., CVPR 2007, section 5). So for each reference the correspondence with the heaviest company
is looked for; all pairs of all references are compared in one go. Burstiness is controlled by letting a feature of the
query vote once for a reference, hubs by the weights: a vote counts for as much as it is better than the last of the
neighbours that the feature found (a feature that is everywhere has no weight anywhere).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from copydet.local_features.codes import Codec, code_bytes, unpack_frames
from copydet.local_features.describe import QueryFeatures
from copydet.local_features.frames import VARIANTS, Voters, agreeing
from copydet.local_features.pyramid import Floats
from copydet.shards.local import StoredLocal

NEIGHBOURS = 5  # that a feature of the query looks at; the last one only sets the weights
_NPROBE = 4
_LEAST_WEIGHT = 0.02
_FAST_PARTS = (1, 2, 4, 8, 12)  # numbers in a part of a code (fvec_inner_products_ny of FAISS 1.15)
_LISTS_AT_ONCE = 128
_GROUPS, _AT_ONCE = 128, 256  # of lists; vectors whose lists are looked for at once
_MOST_NEGATIVE = 200  # features, the strongest first, that a negative is looked for with: it is rare
_MOST_VOTES = 150  # for one reference in one variant: more say nothing new, and pairs grow with the square


@dataclass(frozen=True)
class Voted:
    """References that local features propose, best first: `image` int64 [n] counts through all shards, `weight` [n].

    `voters`: for each the votes that agree.
    """

    image: NDArray[np.int64]
    weight: NDArray[np.float64]
    voters: tuple[Voters, ...] = ()


NO_VOTES = Voted(np.empty(0, np.int64), np.empty(0))


class LocalLists:
    """The local features of all shards in inverted lists (FAISS IVFPQ), in memory: about 16 bytes a feature.

    Shards keep records in the order of images, for verification; the lists are put together when first asked for.
    """

    def __init__(self, codec: Codec, stored: Sequence[StoredLocal], nprobe: int = _NPROBE) -> None:
        self._codec, self._nprobe = codec, nprobe
        self._opening = Lock()  # from Python 3.12 on, threads that ask at once would each put the lists together
        self._records = [np.asarray(each.features) for each in stored]
        counts = [np.diff(np.asarray(each.offsets)) for each in stored]
        self.images = sum(map(len, counts))
        per_image = np.concatenate([np.empty(0, np.int64), *counts])
        self._image = np.repeat(np.arange(self.images, dtype=np.int32), per_image)  # of each feature
        self._first = np.cumsum(per_image) - per_image  # feature of each image
        self._starts = np.cumsum([0, *map(len, self._records)])
        self.whole = self.images > 0 and all(map(len, self._records))  # no shard was made without

    @cached_property
    def _index(self) -> Any:  # faiss.IndexIVFPQ, whose stubs know neither its lists nor its parameters
        codec = self._codec
        parts = len(codec.parts)
        centres = _widened(codec.lists, parts)
        quantiser = faiss.IndexFlatL2(centres.shape[1])
        quantiser.add(centres)
        index: Any = faiss.IndexIVFPQ(quantiser, centres.shape[1], len(centres), parts, 8)
        faiss.copy_array_to_vector(_widened(codec.parts, 1).ravel(), index.pq.centroids)
        index.precompute_table()
        index.is_trained, index.nprobe = True, self._nprobe
        for start, records in zip(self._starts[:-1], self._records, strict=True):
            self._fill(index, records, int(start))
        return index

    def _fill(self, index: Any, records: NDArray[np.uint8], start: int) -> None:
        """Add the records of one shard, whose first is feature number `start`, to the lists: a few lists at a time, for
        sorting all at once takes more memory than the lists themselves.
        """
        numbers = self._codec.list_numbers(records)
        for low in range(0, len(self._codec.lists), _LISTS_AT_ONCE):
            rows = np.flatnonzero((numbers >= low) & (numbers < low + _LISTS_AT_ONCE))
            rows = rows[np.argsort(numbers[rows], kind="stable")]
            ids, codes = rows + start, code_bytes(records[rows])
            present, first, count = np.unique(numbers[rows], return_index=True, return_counts=True)
            for number, begin, length in zip(present.tolist(), first.tolist(), count.tolist(), strict=True):
                part = slice(begin, begin + length)
                ids_here, codes_here = ids[part], codes[part]
                index.invlists.add_entries(number, length, faiss.swig_ptr(ids_here), faiss.swig_ptr(codes_here))
        index.ntotal += len(records)

    def vote(self, query: QueryFeatures, count: int, selected: NDArray[np.bool_] | None = None) -> Voted:
        """The `count` references that most of the query's features agree on; `selected` bool [images] or all."""
        return self.vote_each([query], count, selected)[0]

    def vote_each(
        self,
        queries: Sequence[QueryFeatures],
        count: int,
        selected: NDArray[np.bool_] | None = None,
        *,
        voters: bool = True,
    ) -> list[Voted]:
        """The same for several queries, in less time than one after the other; `voters`: say whose votes agree."""
        votes = self._votes(queries, selected)
        if not len(votes.feature):
            return [NO_VOTES] * len(queries)
        frames = unpack_frames(self._gather(votes.feature))
        asked = np.concatenate([query.frames for query in queries])
        weight, image = _company(votes, frames, asked), self._image[votes.feature].astype(np.int64)
        heaviest_first = np.argsort(-weight, kind="stable")
        pairs = (votes.query * self.images + image)[heaviest_first]
        heaviest = heaviest_first[np.unique(pairs, return_index=True)[1]]  # vote of each query and image
        heaviest = heaviest[np.lexsort((-weight[heaviest], votes.query[heaviest]))]
        ends = np.searchsorted(votes.query[heaviest], np.arange(len(queries) + 1))
        found = []
        for number, start in enumerate(ends[:-1].tolist()):
            best = heaviest[start : min(start + count, ends[number + 1])]
            agree = tuple(self._voters(vote, votes, frames, asked) for vote in best.tolist()) if voters else ()
            found.append(Voted(image[best], weight[best], agree))
        return found

    def _voters(self, vote: int, votes: "_Votes", frames: Floats, asked: Floats) -> Voters:
        rows = _agreeing_with(vote, votes, frames, asked)
        asker, answer = votes.asker[rows] - votes.first[rows], votes.feature[rows]
        return Voters(votes.variant[rows], asker, answer - self._first[self._image[answer]], votes.weight[rows])

    def _votes(self, queries: Sequence[QueryFeatures], selected: NDArray[np.bool_] | None) -> "_Votes":
        parameters = None
        if selected is not None and not selected.all():
            bits = np.packbits(selected[self._image], bitorder="little")
            chosen = faiss.IDSelectorBitmap(len(self._image), faiss.swig_ptr(bits))
            parameters = faiss.IVFPQSearchParameters(  # type: ignore[attr-defined]
                nprobe=self._nprobe, sel=chosen
            )
        counts = np.array([len(query.frames) for query in queries])
        first = np.cumsum(counts) - counts
        parts = []
        for number, (_, negative) in enumerate(VARIANTS[: len(queries[0].vectors)]):
            used = np.minimum(counts, _MOST_NEGATIVE) if negative else counts
            vectors = np.concatenate([q.vectors[number, :most] for q, most in zip(queries, used, strict=True)])
            rows = np.arange(len(vectors)) + np.repeat(first - (np.cumsum(used) - used), used)
            distance, feature = self._search(vectors, parameters)
            last = distance[:, -1:]
            weight = np.where(feature >= 0, np.minimum(last, 4) - distance, 0) / (np.minimum(last, 4) + 1e-9)
            asker, place = np.nonzero(weight > _LEAST_WEIGHT)
            parts.append((rows[asker], feature[asker, place], weight[asker, place], np.full(len(asker), number)))
        columns: list[Any] = [np.concatenate(column) for column in zip(*parts, strict=True)]
        asker, feature, weight, variant = columns
        query = np.repeat(np.arange(len(queries)), counts)[asker]
        group = (query * len(VARIANTS) + variant) * self.images + self._image[feature]
        order = np.lexsort((-weight, group))
        group = group[order]
        _, start, size = np.unique(group, return_index=True, return_counts=True)
        kept = (np.arange(len(group)) - np.repeat(start, size) < _MOST_VOTES) & (np.repeat(size, size) > 1)
        order, group = order[kept], group[kept]
        asker, feature, weight, variant = (column[order] for column in (asker, feature, weight, variant))
        query = query[order]
        return _Votes(asker, feature, weight, variant, group, query, first[query])

    @cached_property
    def _table(self) -> Floats:
        return _table(self._codec.lists)

    def _search(self, vectors: Floats, parameters: Any) -> tuple[Floats, NDArray[np.int64]]:
        """Squared distances and numbers of the features nearest to each vector, [n, NEIGHBOURS]; -1: no more."""
        nearest, distances = _nearest(vectors, self._table, len(self._codec.lists), self._nprobe)
        vectors = _widened(vectors, len(self._codec.parts))
        distance = np.empty((len(vectors), NEIGHBOURS), np.float32)
        feature = np.empty(distance.shape, np.int64)
        arrays = [faiss.swig_ptr(each) for each in (vectors, nearest, distances, distance, feature)]
        asked, lists, away, *answers = arrays
        with self._opening:
            index = self._index
        # The method behind FAISS' own wrapper, which takes no parameters.
        index.search_preassigned_c(len(vectors), asked, NEIGHBOURS, lists, away, *answers, False, parameters)
        return distance, feature

    def _gather(self, features: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Records of features, wherever they lie."""
        shard = np.searchsorted(self._starts, features, side="right") - 1
        records = np.empty((len(features), self._codec.record_bytes), np.uint8)
        for number in np.unique(shard):
            here = shard == number
            records[here] = self._records[number][features[here] - self._starts[number]]
        return records


@dataclass(frozen=True)
class _Votes:
    """Votes sorted by `group` (query, variant and reference), the heaviest of each group first; all arrays [n]."""

    asker: NDArray[np.int64]  # feature of a query, through all queries
    feature: NDArray[np.int64]  # feature of a reference, through all shards
    weight: NDArray[np.float64]
    variant: NDArray[np.int64]
    group: NDArray[np.int64]
    query: NDArray[np.int64]
    first: NDArray[np.int64]  # feature of its query


def _widened(vectors: Floats, parts: int) -> Floats:
    """Vectors float32 [..., parts * n] with zeros after each part, up to the next of the sizes that FAISS makes tables
    of products for with vector instructions: those of six numbers take it several times as long.
    """
    each = vectors.shape[-1] // parts
    size = next((fast for fast in _FAST_PARTS if fast >= each), each)
    split = vectors.reshape(*vectors.shape[:-1], parts, each)
    wide = np.pad(split, [*[(0, 0)] * (split.ndim - 1), (0, size - each)])
    return np.ascontiguousarray(wide.reshape(*vectors.shape[:-1], parts * size))


def _table(centres: Floats) -> Floats:
    """What `_nearest` multiplies vectors with: float32 [d + 1, _GROUPS * n] of centres [k, d], padded with far ones."""
    short = (centres**2).sum(axis=1) / 2
    padding = -len(centres) % _GROUPS
    table = np.vstack([centres.T, -short]).astype(np.float32)
    table = np.pad(table, ((0, 0), (0, padding)))
    table[-1, len(centres) :] = -np.inf
    return np.ascontiguousarray(table)


def _nearest(vectors: Floats, table: Floats, centres: int, count: int) -> tuple[NDArray[np.int64], Floats]:
    """Numbers of the `count` centres nearest to each vector, int64 [n, count] in no order, -1 where there are no more;
    and squared distances float32 [n, count] for vectors of length 1.

    The same as a search in FAISS' flat index in half the time: most of that goes into finding the nearest few of the
    products. So the best of each of many groups are found, then the best groups, then the best of these.
    """
    total = table.shape[1]
    vectors = np.column_stack([vectors, np.ones(len(vectors), np.float32)])
    found = np.empty((len(vectors), count), np.int64)
    away = np.empty((len(vectors), count), np.float32)
    for start in range(0, len(vectors), _AT_ONCE):
        near = vectors[start : start + _AT_ONCE] @ table
        groups = near.reshape(len(near), -1, _GROUPS).max(axis=1)
        groups = np.argpartition(groups, _GROUPS - count, axis=1)[:, _GROUPS - count :]
        members = (groups[:, None] + np.arange(0, total, _GROUPS)[:, None]).reshape(len(near), -1)
        near = np.take_along_axis(near, members, axis=1)
        best = np.argpartition(near, members.shape[1] - count, axis=1)[:, members.shape[1] - count :]
        found[start : start + _AT_ONCE] = np.take_along_axis(members, best, axis=1)
        away[start : start + _AT_ONCE] = 1 - 2 * np.take_along_axis(near, best, axis=1)
    found[found >= centres] = -1
    return found, away


def _company(votes: _Votes, references: Floats, queries: Floats) -> NDArray[np.float64]:
    """For each vote the weight of all votes of its group that agree with how it lays the reference into the query."""
    _, first, size = np.unique(votes.group, return_index=True, return_counts=True)
    of_vote = np.repeat(size, size)
    seed = np.repeat(np.arange(len(votes.group)), of_vote)
    begin = np.repeat(np.repeat(first, size), of_vote)
    other = begin + np.arange(len(seed)) - np.repeat(np.cumsum(of_vote) - of_vote, of_vote)
    variants = np.array(VARIANTS)
    mirrored, negative = variants[votes.variant].T
    agrees = agreeing(queries[votes.asker], references, mirrored, negative, seed, other)
    return np.bincount(seed, votes.weight[other] * agrees, len(votes.group)).astype(np.float64)


def _agreeing_with(vote: int, votes: _Votes, references: Floats, queries: Floats) -> NDArray[np.int64]:
    """The votes of its group that agree with it, itself among them: their rows."""
    start, end = np.searchsorted(votes.group, [votes.group[vote], votes.group[vote] + 1])
    rows = np.arange(start, end)
    mirrored, negative = np.array(VARIANTS)[votes.variant[rows]].T
    seed = np.array(vote - start)
    return rows[agreeing(queries[votes.asker[rows]], references[rows], mirrored, negative, seed, rows - start)]
