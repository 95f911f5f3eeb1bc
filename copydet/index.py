"""The face of a collection: `Index`; and describing and comparing images without one.

index = Index.build("photos/", "photos.index")
for result in index.match(["query.jpg", some_array, some_pil_image]): ...
"""

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from copydet.comparison import Comparison, compare_images
from copydet.decisions.decide import DEFAULT_PRECISION
from copydet.decisions.ignore import NOTHING, Ignored
from copydet.descriptors.embeddings import EmbeddingQueries, embedding_dimension, list_query_embeddings, list_specs
from copydet.descriptors.registry import Descriptor, external_name, is_external, load_descriptor
from copydet.descriptors.runtimes import Runtime
from copydet.engines import compaction, local
from copydet.engines.engine import HERE, Engine
from copydet.engines.repair import Repaired, repair
from copydet.errors import UsageError
from copydet.images.decode import DEFAULT_LIMITS, Limits
from copydet.images.queries import Queries, Query, list_queries
from copydet.matching import (
    MatchOptions,
    OpenDescriptor,
    References,
    describe_images,
    match_embeddings,
    match_images,
    open_descriptor,
    open_gists,
    open_local,
)
from copydet.progress import Progress
from copydet.records import QueryResult, Vectors
from copydet.search.operating_points import OperatingPoint, read_points
from copydet.search.views import ViewLevel
from copydet.search.votes import LocalLists
from copydet.shards.check import Depth, check_index
from copydet.shards.deletions import read_deletions, remove_images, without
from copydet.shards.recipe import load_recipe, recipe_fields
from copydet.shards.select import none_of, select_rows
from copydet.shards.shard import open_shard
from copydet.shards.shared_quantiser import share_quantisers
from copydet.shards.summary import IndexInfo, read_info
from copydet.store import atomic, snapshots
from copydet.store.check import Problem, verify_small
from copydet.store.compact import Unused, remove_unused
from copydet.store.locks import write_lock
from copydet.store.snapshots import DescriptorEntry, Snapshot
from copydet.tuning import QUERIES, tune, tuned_point


class Index:
    """An index as it was when it was opened: another process's later changes don't show. `add` and `remove` go on to
    the newest state. Make one with `create`, `build` or `open`.
    """

    def __init__(
        self, path: Path, snapshot: Snapshot, descriptor: Descriptor, device: str, held: object = None
    ) -> None:
        self.path = path
        self.descriptor = descriptor
        self._device = device
        self._show(snapshot, held)

    def _show(self, snapshot: Snapshot, held: object = None) -> None:
        held, before = held or snapshots.hold(self.path, snapshot), {s.name: s for s in getattr(self, "_shards", ())}
        self._shards = tuple(
            open_shard(self.path, entry, self.descriptor.dimension, held, before.get(entry.name))
            for entry in snapshot.shards
        )
        # Those of before first: others follow them, and nothing that is being searched changes.
        known_first = sorted(self._shards, key=lambda shard: shard.name not in before)
        parts = [part for shard in known_first for part in (shard, shard.views) if part is not None]
        share_quantisers([part.codes for part in parts])
        self.snapshot = snapshot
        removed = read_deletions(self.path, snapshot)
        self.__dict__.pop("_local", None)
        self._living = tuple(without(shard.described, removed.get(shard.name)) for shard in self._shards)

    @cached_property
    def opened(self) -> OpenDescriptor:
        """The descriptor with what belongs to it; its network is opened when it is first asked for."""
        return open_descriptor(self.descriptor, self._device)

    @cached_property
    def _local(self) -> LocalLists:
        return open_local(self._shards)

    @classmethod
    def create(
        cls, path: str | Path, *, descriptor: str = "small", recipe: str = "auto", device: str = "auto"
    ) -> "Index":
        """Make an index without images. Raises UsageError when the folder holds anything.

        Recipe `auto` is decided by the first `add`, from the number of its images.
        """
        path, found = Path(path), load_descriptor(descriptor)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path} exists and is not an empty folder; name a new folder for the index")
        fields = {} if recipe == "auto" else recipe_fields(load_recipe(recipe))
        entry = DescriptorEntry(found.name, found.hash, found.dimension)
        atomic.make_folder(path)
        with write_lock(path):
            snapshot = snapshots.commit(path, Snapshot(1, entry, fields, history="create: no images"))
        return cls(path, snapshot, found, device)

    @classmethod
    def build(
        cls,
        sources: str | Path | Sequence[str | Path],
        path: str | Path,
        *,
        embeddings: bool = False,
        descriptor: str | None = None,
        recipe: str = "auto",
        device: str = "auto",
        workers: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        max_memory: int | None = None,
        progress: Progress | None = None,
        engine: Engine = HERE,
    ) -> "Index":
        """Index all images of `sources` in the new folder `path`. The same call goes on after it was cut off.

        `descriptor` describes them; None is `small`. With `embeddings`, sources are files of vectors (.npy, Parquet:
        see list_embeddings) that `descriptor` made elsewhere; None then is a descriptor that isn't at hand: such an
        index is searched with embeddings only.

        `engine` says where the work is done (see engines.ray.open_ray). Raises UsageError when a source does not exist,
        or when the folder holds an index or something else.
        """
        path, specs = Path(path).absolute() if engine.elsewhere else Path(path), list_specs(sources)
        name = descriptor or (external_name(embedding_dimension(specs)) if embeddings else "small")
        opened = open_descriptor(load_descriptor(name), device)
        snapshot = local.build(
            path,
            specs,
            opened.descriptor,
            None if recipe == "auto" else load_recipe(recipe),
            None if embeddings else opened.runtime_for(engine),
            workers=workers,
            limits=limits,
            max_memory=max_memory,
            progress=progress,
            engine=engine,
        )
        index = cls(path, snapshot, opened.descriptor, device)
        index.__dict__["opened"] = opened  # the runtime took a while to open
        return index

    @classmethod
    def open(cls, path: str | Path, *, descriptor: str | None = None, device: str = "auto") -> "Index":
        """Open what `build` or `create` made. `descriptor` tells where its descriptor is when it has moved.

        Raises NotAnIndex, and UsageError when the descriptor at hand is not the one that made the index.
        """
        path = Path(path)
        snapshot, held = snapshots.hold_current(path)
        verify_small(path, snapshot)
        return cls(path, snapshot, _descriptor_of(path, snapshot, descriptor), device, held)

    def add(
        self,
        sources: str | Path | Sequence[str | Path],
        *,
        embeddings: bool = False,
        workers: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        max_memory: int | None = None,
        progress: Progress | None = None,
        engine: Engine = HERE,
    ) -> int:
        """Index the images of `sources` too; returns by how many the index grew. An id that the index holds already
        becomes a row with status duplicate_id. With `embeddings`, the sources are vectors that this index's descriptor
        made elsewhere.
        """
        before = self.snapshot.images
        snapshot = local.add(
            self.path.absolute() if engine.elsewhere else self.path,
            list_specs(sources),
            self.descriptor,
            None if embeddings else self.opened.runtime_for(engine),
            workers=workers,
            limits=limits,
            max_memory=max_memory,
            progress=progress,
            engine=engine,
        )
        self._show(snapshot)
        return snapshot.images - before

    def remove(self, ids: str | Sequence[str] = (), *, where: str | None = None) -> int:
        """Remove images by id, or all that satisfy a SQL condition over images.parquet; returns how many.

        Raises UsageError, and removes nothing, when an id is not in the index or the condition cannot be read.
        """
        ids = [ids] if isinstance(ids, str) else list(ids)
        if bool(ids) == (where is not None):
            raise UsageError("name either the ids to remove or a condition")
        before = self.snapshot.images
        self._show(remove_images(self.path, ids, where=where))
        return before - self.snapshot.images

    def compact(self, *, max_memory: int | None = None, progress: Progress | None = None) -> Unused:
        """Drop removed images, join small shards, and delete the files that nobody needs any more; returns what was
        deleted. What is left is found as before. Files that an older `Index` still reads stay.
        """
        self._show(compaction.compact(self.path, max_memory=max_memory, progress=progress))
        return remove_unused(self.path)

    def tune(
        self, targets: Sequence[float], *, queries: int = QUERIES, progress: Progress | None = None
    ) -> dict[float, OperatingPoint]:
        """Measure and keep how far the index must be searched for each of the recalls `targets`; returns what is known.

        Recall: share of the ten nearest by exact search that are found, on `queries` edited images of the index. Raises
        UsageError when too few of their originals can be read.
        """
        references, runtime = self.references(), self.opened.runtime
        selected = references.selected
        self._show(
            tune(self.path, self.snapshot, self._shards, selected, runtime, targets, queries=queries, progress=progress)
        )
        return read_points(self.snapshot.operating_points)

    def check(self, depth: Depth = "sums") -> list[Problem]:
        """What is wrong with the files of the newest snapshot, see check_index; `repair_index` mends what it can."""
        return list(check_index(self.path, depth))

    def match(
        self,
        queries: Queries | EmbeddingQueries,
        *,
        embeddings: bool = False,
        top_k: int = 10,
        precision: float = DEFAULT_PRECISION,
        views: ViewLevel = "auto",
        votes: bool = True,
        gist: bool = True,
        verify: bool = True,
        recall: float | None = None,
        where: str | None = None,
        ignored: Ignored = NOTHING,
        workers: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        progress: Progress | None = None,
        engine: Engine = HERE,
    ) -> Iterator[QueryResult]:
        """Find what each query was copied from: yields a result for each, in order, with its `top_k` best references.

        `views` says which parts of a query are searched (see query_views); `votes` and `gist`, whether local
        features and gists propose references too; `verify`, whether what was proposed is verified.

        `recall`: search as far as `tune` found that this needs; None: as the recipe says. Raises UsageError where that
        was not measured.

        `where` is a SQL condition on the references (columns of images.parquet); `ignored` says what was looked at and
        shall not come back (read_ignored reads a file of it). A query that cannot be decoded gives
        a result with its status and message. Images in memory are called queries[0], queries[1], ... by their place;
        an id that comes again gets a number (`a.jpg#2`). Raises UsageError at once for a path that does not exist.

        With `embeddings`, queries are vectors that this index's descriptor made elsewhere: files of them, or floats
        [n, dimension].
        """
        options = MatchOptions(top_k, precision, views, votes, gist, verify, ignored, workers=workers, limits=limits)
        if embeddings:
            vectors = list_query_embeddings(cast(EmbeddingQueries, queries), self.descriptor.dimension)
            references = self.references(where, ignored=ignored, recall=recall, engine=engine)
            return match_embeddings(vectors, references, self.opened, options, progress)
        images = list_queries(cast(Queries, queries))
        references = self.references(where, votes, gist, ignored, recall, engine)
        return match_images(images, references, self.opened, options, progress)

    def describe(self, images: Queries) -> Vectors:
        """Descriptors that compare with this index's: float32 [n, dimension], rows of length 1, in order.

        Raises UsageError for the first image that cannot be decoded.
        """
        return _describe(images, self.opened)

    def info(self) -> IndexInfo:
        return read_info(self.path, self.snapshot)

    def references(
        self,
        where: str | None = None,
        votes: bool = False,
        gist: bool = False,
        ignored: Ignored = NOTHING,
        recall: float | None = None,
        engine: Engine = HERE,
    ) -> References:
        """What is searched: the open shards and their living images that satisfy the SQL condition `where`; `votes`,
        `gist`: by these, too.
        """
        point = None if recall is None else tuned_point(self.path, self.snapshot, recall)
        selected: Sequence[NDArray[np.bool_] | None] = self._living
        for condition in (where, none_of(ignored.references)):
            if condition is not None:
                paths = [shard.images_path for shard in self._shards]
                masks = select_rows(paths, [shard.described for shard in self._shards], condition)
                both = zip(masks, selected, strict=True)
                selected = [mask if before is None else mask & before for mask, before in both]
        recipe = self.snapshot.recipe
        nprobe, candidates = recipe.get("nprobe", 0), recipe.get("candidates", 0)
        if point is not None:
            nprobe, candidates = point.nprobe, point.candidates
        lists, gists = self._local if votes else open_local(()), open_gists(self._shards) if gist else ()
        each = engine.spread(list(zip(self._shards, selected, strict=True))) if engine.elsewhere else None
        return References(self._shards, lists, gists, tuple(selected), nprobe, candidates, each)


def describe(images: Queries, *, descriptor: str = "small", device: str = "auto") -> Vectors:
    """Descriptors of images: float32 [n, dimension], rows of length 1, in order; a folder gives those of its images.

    Raises UsageError for the first image that cannot be decoded.
    """
    return _describe(images, _open_named(descriptor, device))


def repair_index(
    path: str | Path, *, descriptor: str | None = None, device: str = "auto", progress: Progress | None = None
) -> Repaired:
    """Check an index row by row and make again what can be had from the rest of it or from the original images.

    A damaged index need not open for that. `descriptor` tells where its descriptor is when it has moved; it is opened
    when originals must be described again. Raises NotAnIndex.
    """
    path = Path(path)

    def open_runtime() -> Runtime:
        return open_descriptor(_descriptor_of(path, snapshots.read_current(path), descriptor), device).runtime

    return repair(path, open_runtime, progress=progress)


def compare(
    first: Query,
    second: Query,
    *,
    descriptor: str = "small",
    device: str = "auto",
    precision: float = DEFAULT_PRECISION,
) -> Comparison:
    """Every number between two images, the same in either order. Raises UsageError when one cannot be decoded."""
    return compare_images(first, second, _open_named(descriptor, device), precision)


def _describe(images: Queries, opened: OpenDescriptor) -> Vectors:
    parts = [np.empty((0, opened.descriptor.dimension), np.float32)]
    for batch in describe_images(list_queries(images), opened):
        if failed := [row for row in batch.rows if row.status != "ok"]:
            raise UsageError(f"{failed[0].uri}: {failed[0].message}")
        parts.append(batch.vectors)
    return np.concatenate(parts)


@lru_cache(maxsize=2)
def _open_named(descriptor: str, device: str) -> OpenDescriptor:
    return open_descriptor(load_descriptor(descriptor), device)


def _descriptor_of(path: Path, snapshot: Snapshot, given: str | None) -> Descriptor:
    """The descriptor that made an index. A name that a stranger's index brings must not run code."""
    entry = snapshot.descriptor
    try:
        descriptor = load_descriptor(given or entry.name, may_run_code=given is not None)
    except UsageError as error:
        if given is not None:
            raise
        raise UsageError(f"{path} was made with descriptor {entry.name}, which is not at hand: {error}") from error
    if (descriptor.hash, descriptor.dimension) != (entry.hash, entry.dimension):
        if is_external(entry.name):
            raise UsageError(
                f"{path} was made from embeddings without saying what made them ({entry.name}); if {descriptor.name} "
                "did, index them again with that --descriptor"
            )
        raise UsageError(
            f"{path} was made with another {entry.name} (hash {entry.hash[:12]}) than {descriptor.name} is here "
            f"({descriptor.hash[:12]}), and their descriptors don't compare: name the old one's folder as the "
            "descriptor, use the copydet that made the index, or index the images again"
        )
    return descriptor
