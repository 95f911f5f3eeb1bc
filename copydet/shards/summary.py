"""What is in an index, in a few numbers; its descriptor is not needed for that."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from copydet.shards.deletions import read_deletions
from copydet.shards.shard import open_shard
from copydet.store import snapshots
from copydet.store.check import verify_small
from copydet.store.snapshots import Snapshot


@dataclass(frozen=True)
class IndexInfo:
    """What is in an index. `images` and `statuses` leave removed images out; `bytes` is the size of its files."""

    path: str
    snapshot: int
    created_at: str
    history: str
    descriptor: str
    descriptor_hash: str
    dimension: int
    recipe: str
    codes: tuple[str, ...]
    shards: int
    images: int
    removed: int
    statuses: Mapping[str, int]
    bytes: int


def read_info(path: str | Path, snapshot: Snapshot | None = None) -> IndexInfo:
    """What is in an index, without its descriptor. Raises NotAnIndex."""
    path = Path(path)
    snapshot = snapshot or snapshots.read_current(path)
    held = snapshots.hold(path, snapshot)
    verify_small(path, snapshot)
    removed = read_deletions(path, snapshot)
    statuses: Counter[str] = Counter()
    files = list(snapshot.files.values())
    for entry in snapshot.shards:
        gone = removed.get(entry.name, np.empty(0, np.int64))
        statuses["ok"] += entry.described - int((gone < entry.described).sum())
        failed = np.setdiff1d(np.arange(entry.described, entry.images), gone)
        shard = open_shard(path, entry, snapshot.descriptor.dimension, held)
        statuses.update(shard.image_columns(failed, ("status",))["status"].to_pylist())
        files += entry.files.values()
    return IndexInfo(
        path=str(path),
        snapshot=snapshot.number,
        created_at=snapshot.created_at,
        history=snapshot.history,
        descriptor=snapshot.descriptor.name,
        descriptor_hash=snapshot.descriptor.hash,
        dimension=snapshot.descriptor.dimension,
        recipe=str(snapshot.recipe.get("name", "auto")),
        codes=tuple(sorted({entry.codes for entry in snapshot.shards})),
        shards=len(snapshot.shards),
        images=snapshot.images,
        removed=snapshot.removed,
        statuses=dict(statuses),
        bytes=sum(file.bytes for file in files),
    )
