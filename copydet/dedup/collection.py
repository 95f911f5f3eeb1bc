"""What is searched for duplicates: the described images of one or more indexes, each with a number.

Numbers count through the described rows of all shards, the collection's own first, those of `against` behind them. They
depend on how images were divided; whatever a result depends on goes by `rank`, the place of an image in the order of
ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from copydet.errors import UsageError
from copydet.index import Index
from copydet.local_features.describe import RECORD_BYTES
from copydet.local_features.gist import NO_GIST
from copydet.matching import OpenDescriptor
from copydet.records import ImageRow, StoredVectors
from copydet.shards.select import in_order
from copydet.shards.shard import Shard
from copydet.shards.sql import connect, scan

Numbers = NDArray[np.int64]

_COLUMNS = ("image_id", "uri", "source", "width", "height")


@dataclass(frozen=True)
class Collection:
    """`shards` of all indexes; shard s belongs to index number `index_of[s]` of `paths` and holds the images numbered
    from `starts[s]` to `starts[s + 1]`. Images below `own` are the collection's, the others those of `against`.

    `living` bool [images] leaves out what was removed. `rank` int64 [images]: place in the order of ids, the
    collection's own before those of `against`; -1 for what was removed.
    """

    paths: tuple[Path, ...]
    shards: tuple[Shard, ...]
    index_of: tuple[int, ...]
    starts: Numbers
    own: int
    living: NDArray[np.bool_]
    rank: Numbers
    opened: OpenDescriptor
    nprobe: int
    candidates: int

    def __len__(self) -> int:
        return len(self.living)

    @property
    def has_local(self) -> bool:
        """Whether every image has stored local features."""
        return all(shard.local_codec is not None for shard in self.shards)

    def places(self, numbers: Numbers) -> tuple[Numbers, Numbers]:
        """(shard, row of it) of images."""
        shard = np.searchsorted(self.starts, numbers, side="right") - 1
        return shard, numbers - self.starts[shard]

    def vectors(self, numbers: Numbers) -> StoredVectors:
        """Stored descriptors of images, float16 [n, dimension]."""
        shard, row = self.places(numbers)
        found = np.empty((len(numbers), self.opened.descriptor.dimension), np.float16)
        for each in np.unique(shard):
            here = shard == each
            found[here] = self.shards[each].descriptors[row[here]]
        return found

    def records(self, numbers: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Stored local features of images; none where the image's shard has none."""
        places = zip(*(each.tolist() for each in self.places(np.array(numbers, np.int64))), strict=True)
        nothing = np.empty((0, RECORD_BYTES), np.uint8)
        stored = [(self.shards[shard].local, row) for shard, row in places]
        return [nothing if local is None else np.asarray(local.of(row)) for local, row in stored]

    def gists(self, numbers: Sequence[int]) -> NDArray[np.int8]:
        """Gists of images, int8 [numbers, GIST_BYTES]; that of nothing where the image's shard has none."""
        shards, rows = self.places(np.array(numbers, np.int64))
        stored = [(self.shards[shard].local, row) for shard, row in zip(shards.tolist(), rows.tolist(), strict=True)]
        return np.stack([NO_GIST if local is None else local.gists[row] for local, row in stored])

    def rows(self, numbers: Numbers, columns: Sequence[str] = _COLUMNS) -> list[ImageRow]:
        """What images.parquet says of images, in their order; only `columns` are filled in."""
        shard, row = self.places(numbers)
        found: list[ImageRow | None] = [None] * len(numbers)
        for each in np.unique(shard):
            here = np.flatnonzero(shard == each)
            table = self.shards[each].image_columns(row[here], columns)
            for place, values in zip(here.tolist(), table.to_pylist(), strict=True):
                found[place] = ImageRow(**values)
        return [row for row in found if row is not None]

    def path_of(self, number: int) -> Path:
        """The index that an image belongs to."""
        return self.paths[self.index_of[int(np.searchsorted(self.starts, number, side="right")) - 1]]


def open_collection(own: Sequence[Index], against: Sequence[Index] = ()) -> Collection:
    """Put indexes together. Raises UsageError where their descriptors differ, or an id is in two of `own`."""
    indexes = [*own, *against]
    descriptor = indexes[0].descriptor
    for index in indexes:
        if index.descriptor.hash != descriptor.hash:
            raise UsageError(
                f"{index.path} was made with descriptor {index.descriptor.name}, {indexes[0].path} with "
                f"{descriptor.name}, and their similarities don't compare: index one of them again"
            )
    _check_ids(own)
    searched = [index.references() for index in indexes]
    shards = tuple(shard for each in searched for shard in each.shards)
    counts = [shard.described for shard in shards]
    masks = [mask for each in searched for mask in each.selected]
    both = zip(masks, counts, strict=True)
    living = np.concatenate([np.zeros(0, bool), *(np.ones(n, bool) if mask is None else mask for mask, n in both)])
    starts = np.cumsum([0, *counts]).astype(np.int64)
    own_images = sum(shard.described for each in searched[: len(own)] for shard in each.shards)
    order = sorted_by(shards, starts, living, "image_id")
    order = order[np.argsort(order >= own_images, kind="stable")]
    rank = np.full(len(living), -1, np.int64)
    rank[order] = np.arange(len(order))
    return Collection(
        paths=tuple(index.path for index in indexes),
        shards=shards,
        index_of=tuple(number for number, each in enumerate(searched) for _ in each.shards),
        starts=starts,
        own=own_images,
        living=living,
        rank=rank,
        opened=own[0].opened,
        nprobe=max(each.nprobe for each in searched),
        candidates=max(each.candidates for each in searched),
    )


def sorted_by(shards: Sequence[Shard], starts: Numbers, living: NDArray[np.bool_], order_by: str) -> Numbers:
    """Numbers of the living images in the order of a SQL ORDER BY list over their columns, equals by id.

    Raises UsageError for a list that DuckDB cannot read.
    """
    parts = [np.empty(0, np.int64)]
    described = np.diff(starts)
    for place, row in in_order([shard.images_path for shard in shards], order_by):
        has = row < described[place]
        parts.append(starts[place[has]] + row[has])
    numbers = np.concatenate(parts)
    return numbers[living[numbers]]


def _check_ids(indexes: Sequence[Index]) -> None:
    """keep.txt and drop.txt name images by their ids alone."""
    if len(indexes) < 2:
        return
    files = [shard.images_path for index in indexes for shard in index.references().shards]
    if not files:
        return
    with connect() as database:
        query = f"SELECT image_id FROM {scan(files)} WHERE status = 'ok' GROUP BY 1 HAVING count(*) > 1 ORDER BY 1"
        taken = database.sql(query + " LIMIT 1").fetchall()
    if taken:
        raise UsageError(
            f"the id {taken[0][0]} is in two of the indexes: add one collection to the other's index (copydet add), "
            "or name one with --against"
        )
