"""The training images as an audit asks about them: nearest by descriptor, drawn at random, their pixels."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from copydet.errors import ImageProblem
from copydet.images.decode import DEFAULT_LIMITS, Limits, decode
from copydet.images.originals import Originals
from copydet.images.resize import Resize
from copydet.matching import References
from copydet.records import Pixels, Vectors
from copydet.search.retrieve import Candidates, retrieve

Place = tuple[int, int]  # shard, row

# Copies of one file have one descriptor; so do pictures that differ in a few bits. What was saved again differs more.
SAME = 0.999
_MOST_ASKED = 2048  # nearest training images that are looked through for distinct ones
_KEPT_BYTES = 32 << 20  # of training pictures in memory
_HITS = 1 << 16  # neighbours that are asked for at once


@dataclass(frozen=True)
class TrainingSet:
    """Living rows of an index that satisfy the audit's condition."""

    references: References

    @cached_property
    def rows(self) -> tuple[NDArray[np.int64], ...]:
        """The living rows of each shard."""
        selected = zip(self.references.shards, self.references.selected, strict=True)
        return tuple(np.arange(shard.described) if mask is None else np.flatnonzero(mask) for shard, mask in selected)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.rows)

    @property
    def has_local_features(self) -> bool:
        return all(shard.local_codec is not None for shard in self.references.shards)

    def nearest(self, vectors: Vectors, k: int) -> Candidates:
        """The `k` training images nearest to each of `vectors`, by whole image, best first."""
        found, k = self.references, max(1, min(k, len(self)))
        step, parts = max(1, _HITS // k), []
        for start in range(0, max(1, len(vectors)), step):
            parts.append(
                retrieve(
                    found.shards,
                    vectors[start : start + step],
                    k,
                    nprobe=found.nprobe or None,
                    candidates=max(found.candidates, k),
                    selected=found.selected,
                )
            )
        shard, row, similarity = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("shard", "row", "similarity")
        )
        return Candidates(shard, row, similarity)

    def distinct(self, vectors: Vectors, k: int, below: float = np.inf) -> list[list[tuple[Place, float]]]:
        """As `nearest`, with the similarity, but of repeats of one image only the first, and only images whose
        similarity is below `below`. Fewer than `k` where the nearest _MOST_ASKED hold no more.

        Repeats of one file have the very same similarity to anything, which is how they are told.
        """
        found: list[list[tuple[Place, float]]] = [[] for _ in vectors]
        pending, asked = np.arange(len(vectors)), 2 * k
        while len(pending):
            near = self.nearest(vectors[pending], asked)
            for line, number in enumerate(pending.tolist()):
                similarity = near.similarity[line]
                _, first = np.unique(-similarity, return_index=True)
                kept = first[np.isfinite(similarity[first]) & (similarity[first] < below)][:k]
                places = zip(near.shard[line, kept].tolist(), near.row[line, kept].tolist(), strict=True)
                found[number] = list(zip(places, similarity[kept].tolist(), strict=True))
            if asked >= min(_MOST_ASKED, len(self)):
                break
            pending = np.array([number for number in pending.tolist() if len(found[number]) < k], np.int64)
            asked *= 4
        return found

    def sample(self, count: int, seed: int) -> list[Place]:
        """`count` places drawn without replacement, in order; all where there are no more."""
        sizes = [len(rows) for rows in self.rows]
        total = sum(sizes)
        drawn = np.arange(total)
        if count < total:
            drawn = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
        starts = np.concatenate([[0], np.cumsum(sizes)])
        shards = np.searchsorted(starts, drawn, side="right") - 1
        both = zip(shards.tolist(), drawn.tolist(), strict=True)
        return [(shard, int(self.rows[shard][number - starts[shard]])) for shard, number in both]

    def vectors(self, places: Sequence[Place]) -> Vectors:
        """Stored descriptors, float32 [places, dimension]."""
        shards = self.references.shards
        if not places:
            return np.empty((0, shards[0].descriptors.shape[1] if shards else 1), np.float32)
        return np.stack([shards[shard].descriptors[row] for shard, row in places]).astype(np.float32)

    def places(self, image_ids: Collection[str]) -> list[Place]:
        """Where these images are among the living; ids that are not there are left out."""
        wanted = pa.array(sorted(image_ids), pa.string())
        found: list[Place] = []
        for number, shard in enumerate(self.references.shards if len(wanted) else ()):
            first, rows = 0, [np.empty(0, np.int64)]
            with pq.ParquetFile(shard.images_path) as file:
                for batch in file.iter_batches(columns=["image_id"]):
                    same = pc.is_in(batch["image_id"], value_set=wanted).to_numpy(zero_copy_only=False)
                    rows.append(first + np.flatnonzero(same))
                    first += len(batch)
            found += [(number, row) for row in np.intersect1d(np.concatenate(rows), self.rows[number]).tolist()]
        return found

    def facts(self, places: Sequence[Place], columns: Sequence[str] = ("image_id", "uri")) -> list[dict[str, Any]]:
        """Columns of images.parquet, in the order of `places`."""
        facts: list[dict[str, Any]] = [{} for _ in places]
        for shard in sorted({shard for shard, _ in places}):
            numbers = [number for number, place in enumerate(places) if place[0] == shard]
            table = self.references.shards[shard].image_columns([places[number][1] for number in numbers], columns)
            for number, row in zip(numbers, table.to_pylist(), strict=True):
                facts[number] = row
        return facts


class TrainingPixels:
    """Reads training pictures at one square size and keeps the last ones; may be used by several threads."""

    def __init__(self, training: TrainingSet, edge: int, limits: Limits = DEFAULT_LIMITS) -> None:
        self._training, self._limits, self._resize = training, limits, Resize("square", edge)
        self._most = max(16, _KEPT_BYTES // (edge * edge * 3))
        self._originals, self._lock = Originals(), Lock()
        self._kept: OrderedDict[Place, Pixels | None] = OrderedDict()

    def read(self, places: Sequence[Place]) -> list[Pixels | None]:
        """uint8 [edge, edge, 3] of each place; None where the original cannot be had or read."""
        found: dict[Place, Pixels | None] = {}
        with self._lock:
            for place in places:
                if place in self._kept:
                    self._kept.move_to_end(place)
                    found[place] = self._kept[place]
        missing = [place for place in dict.fromkeys(places) if place not in found]
        for place, facts in zip(missing, self._training.facts(missing, ("uri",)), strict=True):
            found[place] = self._decode(facts["uri"])
        with self._lock:
            self._kept.update((place, found[place]) for place in missing)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return [found[place] for place in places]

    def _decode(self, uri: str) -> Pixels | None:
        data = self._originals.read(uri) if uri else None
        try:
            return None if data is None else decode(data, self._resize, self._limits).pixels
        except ImageProblem:
            return None
