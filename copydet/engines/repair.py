"""Repair: what an index has lost is made again from what is left of it, or from the original images.

| damaged | made again from |
| --- | --- |
| CURRENT | the snapshot of which it still holds the hash, else the newest if its files are all there |
| quantiser | the codes of any shard that it made |
| codes | descriptors and quantiser |
| descriptors | exact codes, else the originals |
| local features | the originals |

Nothing is guessed: a shard of which this cannot be done stays as it is. What was made again becomes a new shard beside
hard links to the files that were whole, in a new snapshot.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice, tee
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from copydet.descriptors.runtimes import Runtime
from copydet.engines.describe import also_of_reference, describe_references
from copydet.errors import CopydetError, UsageError
from copydet.images.decode import DEFAULT_LIMITS, Limits
from copydet.images.loader import load
from copydet.images.originals import Originals, original_image
from copydet.local_features.describe import CODEC
from copydet.process import usable_cpus
from copydet.progress import Progress, Silent
from copydet.records import Described, Image
from copydet.shards.build import codes_of
from copydet.shards.check import check_index
from copydet.shards.deletions import move_deletions
from copydet.shards.local import LOCAL_FILES, StoredLocal, join_local, local_files, write_local
from copydet.shards.quantiser import decode_exact, recover_quantiser, write_codes
from copydet.shards.shard import (
    CODES,
    DESCRIPTORS,
    IMAGES,
    VIEW_DESCRIPTORS,
    fits,
    map_descriptors,
    vector_files,
)
from copydet.store import atomic, snapshots
from copydet.store.check import Problem, check_files, named_files
from copydet.store.hashing import hash_bytes, hash_file
from copydet.store.locks import write_lock
from copydet.store.snapshots import LocalEntry, ShardEntry, Snapshot, file_entry

_BATCH = 64
_MOST_OF_A_HASH = 24  # of 32 digits: those of two files agree in 2


@dataclass(frozen=True)
class Repaired:
    """Lines on what was mended, and the problems that are left."""

    mended: tuple[str, ...]
    left: tuple[Problem, ...]


def repair(
    index: Path,
    open_runtime: Callable[[], Runtime],
    *,
    limits: Limits = DEFAULT_LIMITS,
    wait_seconds: float = 0,
    progress: Progress | None = None,
) -> Repaired:
    """Check the index row by row and make again what can be made again. `open_runtime` is called when originals must be
    described, and may raise CopydetError.
    """
    progress = progress or Silent()
    with write_lock(index, wait_seconds):
        atomic.remove_leftovers(index)
        mended = list(_mend_current(index))
        problems = list(check_index(index, "rows"))
        if not problems or not snapshots.has_index(index):
            return Repaired(tuple(mended), tuple(problems))
        try:
            snapshot = snapshots.read_current(index)
        except CopydetError:
            return Repaired(tuple(mended), tuple(problems))
        quantiser = list(_mend_quantiser(index, snapshot, problems))
        if quantiser:  # without it codes could not be looked into
            problems = list(check_index(index, "rows"))
        shards = _mend_shards(index, snapshot, problems, _Means(open_runtime, limits, progress))
        left = check_index(index, "rows") if shards else problems
        return Repaired((*mended, *quantiser, *shards), tuple(left))


def _mend_current(index: Path) -> Iterator[str]:
    try:
        snapshots.read_current(index)
        return
    except UsageError:
        if snapshots.has_index(index):
            raise  # a newer format
    except CopydetError:
        pass
    paths = sorted((index / "snapshots").glob("*.json"))
    noted = snapshots.noted_hash(index)
    for path in [path for path in paths if hash_file(path) == noted] or paths[-1:]:
        try:
            snapshot = snapshots.read_snapshot(index, int(path.stem))
        except (CopydetError, ValueError):
            continue
        if noted and _digits_in_common(hash_file(path), noted) < _MOST_OF_A_HASH:
            continue  # it is the snapshot that has changed, and an older one would bring back what was removed
        if not list(check_files(index, named_files(snapshot).items(), sums=False)):
            snapshots.name_current(index, snapshot.number, hash_file(path))
            yield f"CURRENT names snapshot {snapshot.number} again ({snapshot.history})"
            return


def _digits_in_common(first: str, second: str) -> int:
    return sum(one == other for one, other in zip(first, second, strict=True))


def _mend_quantiser(index: Path, snapshot: Snapshot, problems: Sequence[Problem]) -> Iterator[str]:
    """The bytes are the same again, as the hash shows: shards hold the quantiser that they were begun from."""
    name = snapshot.quantiser
    if name is None or name not in {problem.path for problem in problems}:
        return
    for shard in snapshot.shards:
        codes = f"shards/{shard.name}/{CODES}"
        if shard.codes == "Flat" or list(check_files(index, [(codes, shard.files[CODES])], sums=True)):
            continue
        data = recover_quantiser(index / codes)
        if hash_bytes(data) == snapshot.files[name].xxh3:
            atomic.make_folder(index / "quantisers")
            atomic.write_bytes(index / name, data)
            yield f"{name}: made again from {codes}"
            return


@dataclass(frozen=True)
class _Means:
    """What mending needs beside the index itself."""

    open_runtime: Callable[[], Runtime]
    limits: Limits
    progress: Progress


def _mend_shards(index: Path, snapshot: Snapshot, problems: Sequence[Problem], means: _Means) -> list[str]:
    damaged = {problem.path for problem in problems}
    shards, mended = list(snapshot.shards), []
    for place, shard in enumerate(shards):
        bad = {name for name in shard.files if f"shards/{shard.name}/{name}" in damaged}
        if not bad:
            continue
        folder = snapshots.shard_folder(index, f"{snapshot.number + 1:06d}-{place:04d}")
        try:
            shards[place] = _mend_shard(index, folder, snapshot, shard, bad, means)
        except CopydetError as error:
            atomic.remove(folder)
            means.progress.note(f"shards/{shard.name} stays as it is: {error}")
            continue
        mended.append(f"shards/{shard.name}: {', '.join(sorted(bad))} made again, in shards/{folder.name}")
    if mended:
        names = {old.name: new.name for old, new in zip(snapshot.shards, shards, strict=True)}
        history = f"repair: {len(mended):,} of {len(shards):,} shards"
        moved = move_deletions(index, snapshot, names)
        snapshots.commit(index, replace(moved, shards=tuple(shards), history=history))
    return mended


def _mend_shard(
    index: Path, folder: Path, snapshot: Snapshot, shard: ShardEntry, bad: set[str], means: _Means
) -> ShardEntry:
    """Write the shard again to `folder`. Raises CopydetError when something of it cannot be made again."""
    old = snapshots.shard_folder(index, shard.name)
    if IMAGES in bad:
        raise CopydetError(f"{IMAGES} cannot be made again; restore it from a copy, or index anew")
    if bad & set(LOCAL_FILES):
        bad = bad | set(LOCAL_FILES)
    atomic.remove(folder)
    atomic.make_folder(folder)
    for name in shard.files.keys() - bad:
        _link(old / name, folder / name)
    local = shard.local
    for codes, descriptors, _ in vector_files(shard.reference_views):
        if descriptors in bad and shard.codes == "Flat" and codes not in bad:
            with atomic.new_file(folder / descriptors) as path:
                decode_exact(old / codes).tofile(path)
            bad = bad - {descriptors}
        elif descriptors in bad:
            bad = bad | {codes}
    if bad & {DESCRIPTORS, VIEW_DESCRIPTORS, *LOCAL_FILES}:
        features = _from_originals(old / IMAGES, folder, snapshot, shard, bad, means)
        local = LocalEntry(CODEC, features) if bad & set(LOCAL_FILES) else local
    for codes, descriptors, _ in vector_files(shard.reference_views):
        if codes in bad:
            vectors = map_descriptors(folder / descriptors, snapshot.descriptor.dimension)
            with atomic.new_file(folder / codes) as path:
                write_codes(path, codes_of(index, snapshot, shard.codes).quantiser, vectors)
    names = dict.fromkeys((*shard.files, *(bad & set(LOCAL_FILES))))  # those of another codec may have been fewer
    entry = replace(shard, name=folder.name, files={name: file_entry(folder / name) for name in names}, local=local)
    if reason := fits(entry, snapshot.descriptor.dimension):
        raise CopydetError(reason)
    return entry


def _from_originals(
    images: Path, folder: Path, snapshot: Snapshot, shard: ShardEntry, bad: set[str], means: _Means
) -> int:
    """Describe the originals of a shard again and write what is `bad`; returns the number of local features."""
    wants_local = bool(bad & set(LOCAL_FILES))
    count = int(snapshot.recipe.get("local_features", 0)) if wants_local else 0
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(open(stack.enter_context(atomic.new_file(folder / name)), "wb"))
            for name in bad & {DESCRIPTORS, VIEW_DESCRIPTORS}
        }

        def parts() -> Iterator[StoredLocal]:
            for batch in _describe_again(images, shard, count, means):
                for name, file in files.items():
                    vectors = batch.vectors if name == DESCRIPTORS else np.asarray(batch.views)
                    file.write(vectors.astype(np.float16).tobytes())
                means.progress.advance(len(batch.rows))
                yield join_local(batch.local)

        if wants_local:
            return write_local(local_files(folder), parts())
        return sum(len(part.features) for part in parts())


def _describe_again(images: Path, shard: ShardEntry, local_features: int, means: _Means) -> Iterator[Described]:
    """The described images of a shard from their originals. Raises CopydetError when one of them cannot be read, or is
    another image than it was.
    """
    runtime = means.open_runtime()
    resize = runtime.descriptor.resize
    expected, asked = tee(islice(_rows(images), shard.described))
    loaded: Any = load(
        _originals(asked),
        resize,
        batch_size=_BATCH,
        workers=usable_cpus(),
        limits=means.limits,
        also=also_of_reference(resize, local_features, shard.reference_views),
    )
    with closing(loaded):
        for batch in loaded:
            for row, before in zip(batch.rows, expected, strict=False):
                if row.status != "ok" or row.sha256 != before["sha256"]:
                    why = row.message if row.status != "ok" else "it is another file than it was"
                    raise CopydetError(f"the original {before['uri']} cannot be used: {why}")
            yield describe_references(batch, runtime)


def _originals(rows: Iterable[Mapping[str, Any]]) -> Iterator[Image]:
    originals = Originals()
    return (original_image(originals, row["image_id"], row["uri"], row["source"]) for row in rows)


def _rows(images: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(images) as file:
        for batch in file.iter_batches(columns=["image_id", "uri", "source", "sha256"]):
            yield from batch.to_pylist()


def _link(source: Path, target: Path) -> None:
    """A second name for an immutable file; a copy where the file system has no such names."""
    try:
        os.link(source, target)
    except OSError:
        with atomic.new_file(target) as path:
            shutil.copyfile(source, path)
