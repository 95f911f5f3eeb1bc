"""Building in this process: list, decode, describe, stage, then shards and one commit. The same command resumes."""

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from copydet.descriptors.embeddings import list_embeddings, read_vectors
from copydet.descriptors.registry import Descriptor
from copydet.descriptors.runtimes import Runtime
from copydet.engines.describe import also_of_reference, describe_references
from copydet.engines.engine import HERE, Engine
from copydet.engines.memory import MemoryPlan, memory_plan
from copydet.errors import CopydetError, UsageError
from copydet.images.decode import DEFAULT_LIMITS, Limits
from copydet.images.loader import load
from copydet.images.parts import REFERENCE_VIEWS
from copydet.images.repeats import Repeats
from copydet.images.sources import open_source
from copydet.local_features.describe import CODEC
from copydet.progress import Progress, Silent
from copydet.records import Described, Image
from copydet.shards import staging
from copydet.shards.build import Codes, build_shard, common_schema, divide
from copydet.shards.chunks import Chunk
from copydet.shards.deletions import image_files
from copydet.shards.duplicates import find_duplicates
from copydet.shards.quantiser import check_factory, keep_quantiser, read_quantiser, sample_vectors, train_quantiser
from copydet.shards.recipe import Recipe, auto_local_features, choose_recipe, parse_recipe, recipe_fields
from copydet.shards.shard import is_whole
from copydet.store import atomic, snapshots
from copydet.store.hashing import hash_file
from copydet.store.locks import write_lock
from copydet.store.snapshots import DescriptorEntry, FileEntry, ShardEntry, Snapshot

_BATCH = 64


def build(
    index: Path,
    sources: Sequence[str],
    descriptor: Descriptor,
    recipe: Recipe | None,
    runtime: Runtime | None,
    *,
    workers: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    max_memory: int | None = None,
    wait_seconds: float = 0,
    progress: Progress | None = None,
    engine: Engine = HERE,
) -> Snapshot:
    """Index `sources` into the new folder `index` and return its first snapshot.

    Without a `runtime` the sources are files of embeddings that `descriptor` made (see list_embeddings).
    `recipe` None means auto: chosen by count and memory once all images are described, and said through `progress`.
    `max_memory` in bytes. After a crash the same call continues from the staged chunks. Raises UsageError when the
    folder holds an index already, or something that is not copydet's.
    """
    workers = workers or engine.workers
    job = _Job(index, descriptor, recipe, runtime, sources, workers, limits, max_memory, progress or Silent(), engine)
    _check_sources(job)
    _check_folder(index)
    if recipe is not None:
        check_factory(recipe, descriptor.dimension)
    atomic.make_folder(index)
    with write_lock(index, wait_seconds):
        if snapshots.has_index(index):
            return _already_built(job, snapshots.read_current(index))
        entry = DescriptorEntry(descriptor.name, descriptor.hash, descriptor.dimension)
        return _run(job, Snapshot(0, entry, {}))


def add(
    index: Path,
    sources: Sequence[str],
    descriptor: Descriptor,
    runtime: Runtime | None,
    *,
    workers: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    max_memory: int | None = None,
    wait_seconds: float = 0,
    progress: Progress | None = None,
    engine: Engine = HERE,
) -> Snapshot:
    """Append the images of `sources` as new shards; those whose id is in the index become rows duplicate_id.

    Raises UsageError when the index was made with another descriptor. Resumes like `build`.
    """
    workers = workers or engine.workers
    recipe = recipe_of(index, snapshots.read_current(index))
    job = _Job(index, descriptor, recipe, runtime, sources, workers, limits, max_memory, progress or Silent(), engine)
    _check_sources(job)
    with write_lock(index, wait_seconds):
        base = snapshots.read_current(index)
        check_descriptor(index, base, descriptor)
        job = replace(job, recipe=recipe_of(index, base))
        if staging.was_committed(job.building, _plan(job), base):
            return _finish_committed(job, base)
        return _run(job, base)


def check_descriptor(index: Path, snapshot: Snapshot, descriptor: Descriptor) -> None:
    """Raise UsageError, naming both, unless `descriptor` made the vectors of the index: others cannot be compared."""
    entry = snapshot.descriptor
    if (entry.hash, entry.dimension) != (descriptor.hash, descriptor.dimension):
        raise UsageError(
            f"{index} was made with descriptor {entry.name} (hash {entry.hash[:12]}), not with {descriptor.name} "
            f"(hash {descriptor.hash[:12]}); use --descriptor {entry.name}, or make another index"
        )


def recipe_of(index: Path, snapshot: Snapshot) -> Recipe | None:
    """The recipe of an index, None where `auto` has not been decided. Those of before had no local features."""
    if not snapshot.recipe:
        return None
    try:
        return parse_recipe({"local_features": 0, **snapshot.recipe})
    except ValueError as error:
        raise CopydetError(f"the recipe in {index} cannot be used: {error}") from error


@dataclass(frozen=True)
class _Job:
    index: Path
    descriptor: Descriptor
    recipe: Recipe | None
    runtime: Runtime | None
    sources: Sequence[str]
    workers: int
    limits: Limits
    max_memory: int | None
    progress: Progress
    engine: Engine

    @property
    def building(self) -> Path:
        return self.index / "building"

    @property
    def local_features(self) -> int:
        """How many of them are stored for an image at most."""
        if self.runtime is None:
            return 0
        return self.recipe.local_features if self.recipe else auto_local_features()

    @property
    def reference_views(self) -> str:
        """What of an image is described."""
        return "whole" if self.runtime is None or self.recipe is None else self.recipe.reference_views

    def images(self) -> Iterator[Image]:
        """What the sources list. Raises UsageError at once for those that cannot be listed."""
        if self.runtime is None:
            return list_embeddings(self.sources, self.descriptor.dimension)
        return self.engine.list_images(self.sources)


def _run(job: _Job, base: Snapshot) -> Snapshot:
    decoding = (0, Limits(0, 0)) if job.runtime is None else (job.workers, job.limits)
    parts = len(REFERENCE_VIEWS[job.reference_views])
    memory = memory_plan(job.max_memory, *decoding, job.local_features, parts * job.descriptor.dimension)
    job.progress.note(memory.text)
    _start(job, base)
    chunks = _describe(job, memory)
    if not chunks and base.number:
        staging.finish(job.building)
        job.progress.note("the sources list no images: nothing was added")
        return base
    dimension = job.descriptor.dimension
    described = sum(chunk.described for chunk in chunks)
    recipe = job.recipe
    if recipe is None:
        recipe, why = choose_recipe(described, dimension, memory.max_memory)
        job.progress.note(why)
    elif base.number and recipe.auto_images and base.described + described > recipe.auto_images:
        total = base.described + described
        job.progress.note(
            f"recipe {recipe.name} is meant for up to {recipe.auto_images:,} images, now {total:,}: "
            "searching gets slow; index anew with --recipe auto"
        )
    duplicates = job.building / "duplicates.parquet"
    deletions = job.index / base.deletions if base.deletions else None
    find_duplicates(duplicates, chunks, image_files(job.index, base), deletions, memory.work // 2)
    base, codes = _codes(job, base, recipe, chunks, memory)
    shards = _build_shards(job, base, recipe, chunks, duplicates, codes, memory)
    snapshot = replace(
        base,
        number=base.number + 1,
        recipe=recipe_fields(recipe),
        shards=(*base.shards, *shards),
        history=_history(job, base, chunks),
    )
    snapshot = snapshots.commit(job.index, snapshot)
    staging.finish(job.building)
    return snapshot


def _describe(job: _Job, memory: MemoryPlan) -> list[Chunk]:
    """All chunks of the sources: those that an interrupted run left, then the others."""
    dimension, has_local = job.descriptor.dimension, job.local_features > 0
    parts = len(REFERENCE_VIEWS[job.reference_views])
    chunks, left = staging.resume(job.building, dimension, has_local, job.images, job.progress, parts)
    sent = replace(job, progress=Silent(), engine=HERE)  # neither can be sent to another process
    with job.engine.within(job.building, job.sources) as engine:
        return [*chunks, *engine.stage(partial(_stage, sent, memory), job.building, left, chunks, job.progress)]


def _stage(
    job: _Job, memory: MemoryPlan, folder: Path, images: Iterable[Image], staged: Sequence[Chunk], progress: Progress
) -> Iterator[Chunk]:
    dimension, has_local = job.descriptor.dimension, job.local_features > 0
    with closing(_described(job, images, memory, staged)) as described:
        parts = len(REFERENCE_VIEWS[job.reference_views])
        yield from staging.write_chunks(
            folder, described, dimension, staged, progress, has_local=has_local, parts=parts
        )


def _described(
    job: _Job, images: Iterable[Image], memory: MemoryPlan, staged: Sequence[Chunk]
) -> Generator[Described, None, None]:
    if job.runtime is None:
        yield from read_vectors(images, job.descriptor.dimension)
        return
    loaded: Any = load(  # a generator: closing it ends its threads
        images,
        job.descriptor.resize,
        batch_size=max(_BATCH, job.runtime.batch_size),
        workers=job.workers,
        limits=job.limits,
        queued_bytes=memory.queue,
        also=also_of_reference(job.descriptor.resize, job.local_features, job.reference_views),
        repeats=Repeats(staging.staged_contents(staged)),
        first_position=sum(chunk.images for chunk in staged),
    )
    with closing(loaded):
        for batch in loaded:
            yield describe_references(batch, job.runtime)


def _codes(
    job: _Job, base: Snapshot, recipe: Recipe, chunks: Sequence[Chunk], memory: MemoryPlan
) -> tuple[Snapshot, Codes]:
    """How the new shards' codes are made; trains the recipe's quantiser the first time that there are images enough."""
    dimension = job.descriptor.dimension
    if base.quantiser is not None:
        factory = next(shard.codes for shard in base.shards if shard.codes != "Flat")
        return base, Codes(factory, read_quantiser(job.index, base.quantiser, base.files[base.quantiser]))
    described = sum(chunk.described for chunk in chunks)
    sampled = memory.sample_images(recipe, dimension, described)
    if recipe.train_images and sampled < recipe.train_images_min:
        job.progress.note(
            f"{described:,} images are too few to train recipe {recipe.name} "
            f"(it needs {recipe.train_images_min:,}, in {12 * dimension * recipe.train_images_min / 2**20:,.0f} MiB): "
            "these images keep exact codes, as recipe flat makes them"
        )
        return base, Codes("Flat", None)
    factory = recipe.codes(dimension, described, sampled)
    if factory == "Flat":
        return base, Codes(factory, None)
    if not recipe.train_images:
        return base, Codes(factory, train_quantiser(factory, np.empty((0, dimension), np.float32)))
    key = {"factory": factory, "images": sampled, "chunks": [chunk.stamp for chunk in chunks]}
    done = staging.recall(job.building, "quantiser", key)
    if done is None:
        job.progress.note(f"training {factory} on {sampled:,} images")
        trained = train_quantiser(factory, sample_vectors(chunks, dimension, sampled))
        done = keep_quantiser(job.index, trained)
        staging.remember(job.building, "quantiser", key, done)
    name, size, content = done
    base = replace(base, quantiser=name, files={**base.files, name: FileEntry(size, content)})
    return base, Codes(factory, read_quantiser(job.index, name, base.files[name]))


def _build_shards(
    job: _Job,
    base: Snapshot,
    recipe: Recipe,
    chunks: Sequence[Chunk],
    duplicates: Path,
    codes: Codes,
    memory: MemoryPlan,
) -> Iterator[ShardEntry]:
    dimension = job.descriptor.dimension
    schema = common_schema(chunks)
    taken = hash_file(duplicates)
    places: list[tuple[Path, list[Chunk], dict[str, Any], ShardEntry | None]] = []
    for number, group in enumerate(divide(chunks, memory.shard_images(recipe, dimension))):
        folder = snapshots.shard_folder(job.index, f"{base.number + 1:06d}-{number:04d}")
        key = {
            "chunks": [chunk.stamp for chunk in group],
            "columns": str(schema),
            "duplicates": taken,
            "codes": [codes.factory, base.quantiser],
            "shard": folder.name,
        }
        done = staging.recall(job.building, f"shard-{number:04d}", key)
        whole = None if done is None else snapshots.parse_shard(done)
        places.append((folder, group, key, whole if whole and is_whole(job.index, whole) else None))
    waiting = [(folder, group) for folder, group, _, entry in places if entry is None]
    views = job.reference_views
    with job.engine.within(job.building) as engine:
        built = engine.each(lambda at: build_shard(at[0], at[1], schema, duplicates, codes, dimension, views), waiting)
        for number, (_, _, key, entry) in enumerate(places):
            if entry is None:
                entry = next(built)
                staging.remember(job.building, f"shard-{number:04d}", key, asdict(entry))
            yield entry


def _start(job: _Job, base: Snapshot) -> None:
    """Clear what a killed writer left, and note the plan of this run."""
    for name in ("", "building", "quantisers", "snapshots", "deletions"):
        for leftover in (job.index / name).glob(".*.tmp-*"):
            atomic.remove(leftover)
    before = staging.read_plan(job.building).get("base")
    staging.start_plan(job.building, _plan(job), base.number)
    if isinstance(before, int) and before != base.number:
        # The index was changed since: the shards that the interrupted run had finished were never committed.
        named = {shard.name for shard in (*base.shards, *_brought_by(job.index, before + 1))}
        for folder in (job.index / "shards").glob(f"{before + 1:06d}-*"):
            if folder.name not in named:
                atomic.remove(folder)


def _brought_by(index: Path, number: int) -> tuple[ShardEntry, ...]:
    """Shards of an older snapshot, which a reader may still hold; none where there is no such snapshot."""
    try:
        return snapshots.read_snapshot(index, number).shards
    except CopydetError:
        return ()


def _plan(job: _Job) -> dict[str, Any]:
    return {
        "sources": [os.path.abspath(spec) if os.path.exists(spec) else spec for spec in job.sources],
        "descriptor": f"{job.descriptor.name} {job.descriptor.hash}",
        "limits": asdict(job.limits),
        "local_features": f"{job.local_features} {CODEC}" if job.local_features else None,
        "reference_views": None if job.reference_views == "whole" else job.reference_views,
        "embeddings": job.runtime is None,
    }


def _already_built(job: _Job, current: Snapshot) -> Snapshot:
    if current.number == 1 and staging.was_committed(job.building, _plan(job), current):
        return _finish_committed(job, current)
    raise UsageError(
        f"{job.index} holds an index already; add to it with: copydet add SOURCE --index {job.index}, "
        "or index into another folder"
    )


def _finish_committed(job: _Job, current: Snapshot) -> Snapshot:
    staging.finish(job.building)
    job.progress.note(f"the interrupted run was complete: {current.images:,} images are in the index")
    return current


def _history(job: _Job, base: Snapshot, chunks: Sequence[Chunk]) -> str:
    verb = "add" if base.number else "index"
    images = sum(chunk.images for chunk in chunks)
    return f"{verb}: {images:,} images from {', '.join(job.sources)}"


def _check_sources(job: _Job) -> None:
    job.images()
    inside = os.path.realpath(job.index)
    for spec in job.sources:
        source = open_source(spec)
        for path in source.paths:
            folder = os.path.realpath(path)
            if source.kind == "folder" and os.path.commonpath([folder, inside]) == folder:
                raise UsageError(
                    f"the index {job.index} lies inside the source {spec}; put it into a folder outside of it"
                )


def _check_folder(index: Path) -> None:
    if index.exists() and not index.is_dir():
        raise UsageError(f"{index} is a file; name a folder for the index")
    names = {path.name for path in index.glob("*")} - {path.name for path in index.glob(".*.tmp-*")}
    strange = sorted(names - snapshots.OWN_NAMES)
    if strange:
        raise UsageError(f"{index} holds other files ({strange[0]}); name a new folder for the index")
