"""Compaction in this process: removed images are dropped, small shards joined, and one snapshot committed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from copydet.engines.local import recipe_of
from copydet.engines.memory import memory_plan
from copydet.errors import CopydetError
from copydet.images.decode import Limits
from copydet.progress import Progress, Silent
from copydet.shards import staging
from copydet.shards.build import codes_of
from copydet.shards.deletions import move_deletions, read_deletions
from copydet.shards.join import join_shards
from copydet.shards.shard import open_shard
from copydet.store import atomic, snapshots
from copydet.store.check import check_files, files_of, require_whole
from copydet.store.compact import Join, plan_joins
from copydet.store.locks import write_lock
from copydet.store.snapshots import ShardEntry, Snapshot


@dataclass(frozen=True)
class CompactionPlan:
    """What compaction would do: which shards become one. `shards` is how many there are afterwards."""

    joins: tuple[Join, ...]
    shards: int
    images: int

    @property
    def removed(self) -> int:
        return sum(join.removed for join in self.joins)


def plan_compaction(index: Path, *, max_memory: int | None = None) -> CompactionPlan:
    """What `compact` would do with the index as it is now; nothing is written."""
    return _plan(index, snapshots.read_current(index), max_memory)


def compact(
    index: Path, *, max_memory: int | None = None, wait_seconds: float = 0, progress: Progress | None = None
) -> Snapshot:
    """Drop removed images and join small shards; returns the snapshot that it commits, the current one if there is
    nothing to do. Every image that is left is found as before.

    Nothing is deleted (store.compact.remove_unused does that); after a crash the same call goes on from the finished
    shards. Raises CopydetError, and changes nothing, when a file to be written anew is damaged.
    """
    progress = progress or Silent()
    snapshots.read_current(index)
    with write_lock(index, wait_seconds):
        base = snapshots.read_current(index)
        atomic.remove_leftovers(index)
        if staging.was_committed(index / "building", None, base):
            staging.finish(index / "building")  # it could not tell any more once its shards have other names
        plan = _plan(index, base, max_memory)
        if plan.joins:
            base = _commit(index, base, plan, _write(index, base, plan, progress))
        atomic.remove(index / "compacting")
        return base


def _plan(index: Path, base: Snapshot, max_memory: int | None) -> CompactionPlan:
    recipe = recipe_of(index, base)
    removed = {name: len(rows) for name, rows in read_deletions(index, base).items()}
    joins: list[Join] = []
    if recipe is not None:
        memory = memory_plan(max_memory, 0, Limits(0, 0), 0)
        joins = plan_joins(base.shards, removed, memory.shard_images(recipe, base.descriptor.dimension))
    gone = sum(len(join.shards) for join in joins) - sum(join.living > 0 for join in joins)
    return CompactionPlan(tuple(joins), len(base.shards) - gone, base.images)


def _write(index: Path, base: Snapshot, plan: CompactionPlan, progress: Progress) -> dict[str, ShardEntry | None]:
    """Name of the first shard of each join -> what becomes of it; None where no image is left."""
    removed = read_deletions(index, base)
    atomic.make_folder(index / "compacting")
    written: dict[str, ShardEntry | None] = {}
    for number, join in enumerate(plan.joins):
        written[join.shards[0].name] = _write_one(index, base, join, number, removed) if join.living else None
        progress.advance(join.living)
    return written


def _write_one(
    index: Path, base: Snapshot, join: Join, number: int, removed: Mapping[str, NDArray[np.int64]]
) -> ShardEntry:
    folder = snapshots.shard_folder(index, f"{base.number + 1:06d}-{number:04d}")
    key = {
        "shards": [asdict(shard) for shard in join.shards],
        "deletions": base.deletions,
        "quantiser": base.quantiser,
        "shard": folder.name,
    }
    done = staging.recall(index / "compacting", folder.name, key)
    if done is not None:
        entry = snapshots.parse_shard(done)
        if not list(check_files(index, files_of(entry), sums=False)):
            return entry
    for shard in join.shards:
        require_whole(index, files_of(shard))
    opened = [open_shard(index, shard, base.descriptor.dimension) for shard in join.shards]
    codes = codes_of(index, base, join.shards[0].codes)
    entry = join_shards(folder, opened, removed, codes, base.descriptor.dimension)
    staging.remember(index / "compacting", folder.name, key, asdict(entry))
    return entry


def _commit(index: Path, base: Snapshot, plan: CompactionPlan, written: Mapping[str, ShardEntry | None]) -> Snapshot:
    old = {shard.name for join in plan.joins for shard in join.shards}
    shards: list[ShardEntry] = []
    for shard in base.shards:
        entry = written.get(shard.name) if shard.name in old else shard
        if entry is not None:
            shards.append(entry)
    snapshot = replace(
        move_deletions(index, base, dict.fromkeys(old)),
        shards=tuple(shards),
        history=f"compact: {len(base.shards):,} shards became {len(shards):,}, {plan.removed:,} images dropped",
    )
    if all(shard.codes == "Flat" for shard in shards):
        snapshot = without_quantiser(snapshot)
    if snapshot.images != base.images:
        raise CopydetError(
            f"{index}: {snapshot.images:,} images instead of {base.images:,} would be left; not compacted"
        )
    return snapshots.commit(index, snapshot)


def without_quantiser(snapshot: Snapshot) -> Snapshot:
    """The same where no shard's codes were made with the quantiser: the next addition trains one."""
    files = {name: file for name, file in snapshot.files.items() if name != snapshot.quantiser}
    return replace(snapshot, quantiser=None, files=files)
