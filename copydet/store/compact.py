"""Which shards are worth writing anew, and which files nobody needs any more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from copydet.errors import CopydetError
from copydet.store import atomic, snapshots
from copydet.store.locks import unless_held, write_lock
from copydet.store.snapshots import ShardEntry, Snapshot


@dataclass(frozen=True)
class Join:
    """Consecutive shards that become one: `living` of their images are left, `removed` ones are dropped."""

    shards: tuple[ShardEntry, ...]
    living: int
    removed: int

    @property
    def bytes(self) -> int:
        """What the files of these shards take on disk now."""
        return sum(file.bytes for shard in self.shards for file in shard.files.values())


@dataclass(frozen=True)
class Unused:
    """What was deleted: `bytes` of files that no snapshot names; `held` older snapshots are still being read."""

    bytes: int
    held: int


def plan_joins(shards: Sequence[ShardEntry], removed: Mapping[str, int], shard_images: int) -> list[Join]:
    """The groups of shards to write anew, in order; a shard that stays as it is is in none.

    `removed` counts the removed images of each shard that has any. Shards with removed images are written anew, and
    those of up to half of `shard_images` images are joined with neighbours of the same kind of codes, local features
    and views, up to `shard_images` in one. Only neighbours: so images keep their order, and equal similarities theirs.
    """
    groups: list[list[ShardEntry]] = []
    images, last = 0, None
    for shard in shards:
        living = shard.images - removed.get(shard.name, 0)
        if not (shard.name in removed or 2 * living <= shard_images):
            last = None
            continue
        kind = (shard.codes, shard.local and shard.local.codec, shard.reference_views)
        if last != kind or images + living > shard_images:
            groups.append([])
            images = 0
        groups[-1].append(shard)
        images += living
        last = kind
    joins = []
    for group in groups:
        dropped = sum(removed.get(shard.name, 0) for shard in group)
        if len(group) > 1 or dropped:
            joins.append(Join(tuple(group), sum(shard.images for shard in group) - dropped, dropped))
    return joins


def remove_unused(index: Path, wait_seconds: float = 0) -> Unused:
    """Delete older snapshots and every file that no snapshot names any more.

    A snapshot that a reader holds stays, and so do its files. Snapshots go first: so none names what is gone.
    """
    with write_lock(index, wait_seconds):
        current = snapshots.read_current(index)
        kept = [current, *_forget_older(index, current)]
        named = {name for snapshot in kept for name in _files(snapshot)}
        candidates = [*(index / "shards").glob("*"), *(index / "deletions").glob("*")]
        if not (index / "building").exists():  # an unfinished run may have trained one
            candidates += (index / "quantisers").glob("*")
        freed = 0
        for path in candidates:
            if str(path.relative_to(index)) not in named:
                freed += sum(file.lstat().st_size for file in [path, *path.rglob("*")] if file.is_file())
                atomic.remove(path)
        return Unused(freed, len(kept) - 1)


def _forget_older(index: Path, current: Snapshot) -> list[Snapshot]:
    """Delete the other snapshots; those that are held stay and are returned."""
    held = []
    for path in sorted((index / "snapshots").glob("*.json")):
        if path == snapshots.snapshot_path(index, current.number):
            continue
        with unless_held(path) as free:
            if free:
                atomic.remove(path)
                continue
        try:
            held.append(snapshots.read_snapshot(index, int(path.stem)))
        except (CopydetError, ValueError):  # no reader can have opened it
            atomic.remove(path)
    return held


def _files(snapshot: Snapshot) -> set[str]:
    """Everything that a snapshot names: folders of shards, and single files."""
    return {f"shards/{shard.name}" for shard in snapshot.shards} | set(snapshot.files)
