"""Candidates for near duplicates: for each content the most similar others, never all against all in memory.

Up to EXACT_CONTENTS, descriptors are multiplied block by block in single precision, and what comes close is computed
again exactly (search.retrieve): that is faster than it sounds (a minute for 90,000 images) and misses nothing; stored
local features propose what is unlike as a whole (voted.py). Above, the index's codes propose; features, which would
take 5 kB of memory an image, do not. Either way each content has a bounded number of candidates, so that fifty thousand
frames of one scene are linked through their nearest and through the first of them, and not each with each.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from copydet.dedup.collection import Collection, Numbers
from copydet.dedup.exact import Contents
from copydet.dedup.voted import Voting
from copydet.engines.engine import HERE, Engine
from copydet.process import UNDIVIDED_PRODUCTS, usable_cpus
from copydet.progress import Progress
from copydet.records import StoredVectors
from copydet.search.retrieve import retrieve
from copydet.shards.sql import connect, scan
from copydet.store import atomic

EXACT_CONTENTS = 300_000
BLOCK = 2048  # contents whose candidates are one checkpoint
_TILE = 8192
_ROUNDING = 1e-4  # more than single precision can be off

# Chosen on training images with planted copies (scripts/benchmark_dedup.py): of the copies that verification confirms,
# hardly one has fewer nearer neighbours or less similarity. One in two hundred pairs of unrelated images has as much.
LEAST_SIMILARITY = 0.15
NEIGHBOURS = 16
_ALIKE = 0.75  # where more than NEIGHBOURS are so near, the first of them by id links the group
_MOST = NEIGHBOURS + 8  # looked at exactly: single precision may take neighbours for one another

_SCHEMA = pa.schema([("one", pa.int64()), ("other", pa.int64()), ("similarity", pa.float32())])


@dataclass(frozen=True)
class Near:
    """Pairs of contents, each once, the one of lower rank first, sorted by both ranks; `path` is a Parquet file of
    `one`, `other` (image numbers) and `similarity`. `images` int64 [n]: those that are in a pair, ascending.
    """

    path: Path
    pairs: int
    images: Numbers


def find_near(
    collection: Collection, contents: Contents, work: Path, progress: Progress, engine: Engine = HERE, *, votes: bool
) -> Near:
    """Propose near duplicates; `votes`: by stored local features, too. Finished blocks of contents stay in `work` and
    are not searched again.
    """
    firsts = contents.firsts
    own = firsts[contents.has_own[firsts]]
    own = own[np.argsort(collection.rank[own])]  # blocks hold the same images however these were divided
    votes = votes and len(firsts) <= EXACT_CONTENTS
    voting = Voting(collection, firsts[np.argsort(collection.rank[firsts])]) if votes else None
    search = _Search(collection, contents, firsts, voting)
    blocks = [own[start : start + BLOCK] for start in range(0, len(own), BLOCK)]
    files = [work / f"near-{number:06d}.parquet" for number in range(len(blocks))]
    waiting = [(block, path) for block, path in zip(blocks, files, strict=True) if not path.exists()]
    progress.advance(len(own) - sum(len(block) for block, _ in waiting))
    with UNDIVIDED_PRODUCTS:
        for (block, _), _ in zip(waiting, engine.each(partial(_write_block, search), waiting), strict=True):
            progress.advance(len(block))
    merged = work / "near.parquet"
    if not merged.exists():
        _merge(collection, files, merged, work / "spill")
    return Near(merged, pq.read_metadata(merged).num_rows, _images_of(merged, len(collection)))


def _images_of(path: Path, count: int) -> Numbers:
    paired = np.zeros(count, bool)
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["one", "other"]):
            for column in batch.columns:
                paired[column.to_numpy()] = True
    return np.flatnonzero(paired)


def _write_block(search: "_Search", place: tuple[Numbers, Path]) -> None:
    block, path = place
    one, other, similarity = search.nearest(block)
    with atomic.new_file(path) as partial:
        pq.write_table(pa.table([one, other, similarity.astype(np.float32)], schema=_SCHEMA), partial)


@dataclass(frozen=True)
class _Search:
    collection: Collection
    contents: Contents
    firsts: Numbers
    voting: Voting | None

    def nearest(self, block: Numbers) -> tuple[Numbers, Numbers, NDArray[np.float64]]:
        """Pairs of a content of `block` and another that is near, the one of lower rank first; each with the exact
        similarity."""
        bag = self._multiply(block) if len(self.firsts) <= EXACT_CONTENTS else self._retrieve(block)
        if self.voting is not None:
            bag = bag.joined(self._exact(block, *self.voting.candidates(block)))
        rank, asker = self.collection.rank, block[bag.asker]
        swap = rank[asker] > rank[bag.other]
        return np.where(swap, bag.other, asker), np.where(swap, asker, bag.other), bag.similarity

    def _multiply(self, block: Numbers) -> "_Bag":
        collection = self.collection
        stored = collection.vectors(block)
        wide = stored.astype(np.float32)
        floor = np.full(len(block), LEAST_SIMILARITY - _ROUNDING, np.float32)
        bag = _Bag.empty()
        tiles = [self.firsts[start : start + _TILE] for start in range(0, len(self.firsts), _TILE)]
        with ThreadPoolExecutor(max(1, min(usable_cpus(), 4))) as pool:
            for tile, product in _ahead(pool, wide, collection, tiles):
                asker, column = np.nonzero(product > floor[:, None])
                found = _Bag(asker, tile[column], product[asker, column].astype(np.float64))
                bag = bag.joined(found.without_self(block)).best(_MOST, collection.rank)
                floor = np.maximum(floor, bag.kth(_MOST, len(block)) - _ROUNDING)
        chosen = self._chosen(self._exact(block, bag.asker, bag.other))
        return chosen.joined(self._first_alike(block, stored, bag))

    def _exact(self, block: Numbers, asker: Numbers, other: Numbers) -> "_Bag":
        """Pairs of places in `block` and other images, with their similarity."""
        stored, similarity = self.collection.vectors(block), np.empty(len(asker))
        for start in range(0, len(asker), _TILE):
            part = slice(start, start + _TILE)
            others = self.collection.vectors(other[part]).astype(np.float64)
            similarity[part] = np.einsum("nd,nd->n", others, stored[asker[part]].astype(np.float64))
        return _Bag(asker, other, similarity)

    def _first_alike(self, block: Numbers, stored: StoredVectors, bag: "_Bag") -> "_Bag":
        """Where more are very alike than are kept: the first of them by rank, which links the whole group."""
        crowded = np.flatnonzero(bag.kth(NEIGHBOURS, len(block)) > _ALIKE)
        if not len(crowded):
            return _Bag.empty()
        collection, beyond = self.collection, len(self.collection)
        wide = stored[crowded].astype(np.float32)
        best = np.full(len(crowded), beyond)
        by_rank = self.firsts[np.argsort(collection.rank[self.firsts])]
        for start in range(0, len(by_rank), _TILE):
            tile = by_rank[start : start + _TILE]
            alike = wide @ collection.vectors(tile).astype(np.float32).T > _ALIKE
            best = np.where((best == beyond) & alike.any(axis=1), tile[alike.argmax(axis=1)], best)
        return self._exact(block, crowded[best < beyond], best[best < beyond]).without_self(block)

    def _retrieve(self, block: Numbers) -> "_Bag":
        collection = self.collection
        chosen = np.zeros(len(collection), bool)
        chosen[self.firsts] = True
        selected = [chosen[a:b] for a, b in zip(collection.starts[:-1], collection.starts[1:], strict=True)]
        found = retrieve(
            collection.shards,
            collection.vectors(block).astype(np.float32),
            NEIGHBOURS + 1,
            nprobe=collection.nprobe or None,
            candidates=max(collection.candidates, 2 * NEIGHBOURS),
            selected=selected,
        )
        asker, place = np.nonzero(found.row >= 0)
        other = collection.starts[found.shard[asker, place]] + found.row[asker, place]
        bag = _Bag(asker, other, found.similarity[asker, place].astype(np.float64))
        return self._chosen(bag.without_self(block))

    def _chosen(self, bag: "_Bag") -> "_Bag":
        """What is near enough, and among the nearest."""
        return bag.where(bag.similarity >= LEAST_SIMILARITY).best(NEIGHBOURS, self.collection.rank)


def _ahead(
    pool: ThreadPoolExecutor, wide: NDArray[np.float32], collection: Collection, tiles: list[Numbers]
) -> Iterator[tuple[Numbers, NDArray[np.float32]]]:
    """Each tile with its products, in order; the next ones are computed while one is looked at."""

    def multiply(tile: Numbers) -> NDArray[np.float32]:
        product: NDArray[np.float32] = wide @ collection.vectors(tile).astype(np.float32).T
        return product

    workers = pool._max_workers
    waiting = [pool.submit(multiply, tile) for tile in tiles[:workers]]
    for number, tile in enumerate(tiles):
        product = waiting.pop(0).result()
        if number + workers < len(tiles):
            waiting.append(pool.submit(multiply, tiles[number + workers]))
        yield tile, product


@dataclass(frozen=True)
class _Bag:
    """(place of the asker, number of the other, similarity), without order; all arrays [n]."""

    asker: Numbers
    other: Numbers
    similarity: NDArray[np.float64]

    @staticmethod
    def empty() -> "_Bag":
        return _Bag(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))

    def where(self, mask: NDArray[np.bool_] | Numbers) -> "_Bag":
        return _Bag(self.asker[mask], self.other[mask], self.similarity[mask])

    def joined(self, more: "_Bag") -> "_Bag":
        both: tuple[Any, ...] = (self.asker, more.asker), (self.other, more.other), (self.similarity, more.similarity)
        asker, other, similarity = (np.concatenate(pair) for pair in both)
        return _Bag(asker, other, similarity)

    def without_self(self, block: Numbers) -> "_Bag":
        return self.where(self.other != block[self.asker])

    def best(self, count: int, rank: Numbers) -> "_Bag":
        """The most similar of each asker, in order; equals by rank."""
        order = np.lexsort((rank[self.other], -self.similarity, self.asker))
        bag = self.where(order)
        return bag.where(_place_in_group(bag.asker) < count)

    def kth(self, count: int, askers: int) -> NDArray[np.float32]:
        """Similarity of the last of `count` for each asker, float32 [askers]; -inf where there are fewer."""
        last = np.full(askers, -np.inf, np.float32)
        full = _place_in_group(self.asker) == count - 1
        last[self.asker[full]] = self.similarity[full]
        return last


def _place_in_group(sorted_groups: Numbers) -> Numbers:
    return np.arange(len(sorted_groups)) - np.searchsorted(sorted_groups, sorted_groups)


def _merge(collection: Collection, files: list[Path], target: Path, spill: Path) -> None:
    """Every pair once, sorted by both ranks."""
    with atomic.new_file(target) as partial, connect(spill=spill) as database:
        if not files:
            pq.write_table(_SCHEMA.empty_table(), partial)
            return
        database.register("ranks", pa.table({"rank": collection.rank, "image": np.arange(len(collection))}))
        query = f"SELECT one, other, any_value(similarity) AS similarity FROM {scan(files)} GROUP BY one, other"
        ordered = (
            f"SELECT one, other, similarity FROM ({query}) JOIN ranks AS a ON one = a.image "
            "JOIN ranks AS b ON other = b.image ORDER BY a.rank, b.rank"
        )
        with pq.ParquetWriter(partial, _SCHEMA) as writer:
            for batch in database.sql(ordered).to_arrow_reader(65_536):
                writer.write_batch(batch.cast(_SCHEMA))
