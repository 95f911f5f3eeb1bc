"""The one path from an image to its matches: views, local features and gists, candidates by all roads, verification,
decision. Embeddings enter it behind describing, and are not verified.

Everything streams in batches, and no number of a result depends on how images were batched, on threads or on shards.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from copydet.decisions.calibration import Calibration, neutral, read_calibration, threshold_for_precision
from copydet.decisions.decide import DEFAULT_PRECISION
from copydet.decisions.ignore import NOTHING, Ignored
from copydet.descriptors.background import Bank, load_bank
from copydet.descriptors.embeddings import read_vectors
from copydet.descriptors.registry import Descriptor
from copydet.descriptors.runtimes import Runtime, SentRuntime, open_runtime
from copydet.engines.engine import Each, Engine
from copydet.errors import UsageError
from copydet.images.decode import DEFAULT_LIMITS, Limits
from copydet.images.loader import Also, load
from copydet.images.resize import Resize
from copydet.judging import judge
from copydet.local_features.codes import shipped_codec
from copydet.local_features.describe import QUERY_EDGE
from copydet.local_features.gist import NO_GIST, Gists
from copydet.pairs import Asked, PreparedQuery, Undecided, Verifying, prepare, verify_pairs
from copydet.process import usable_cpus
from copydet.progress import Progress, Silent
from copydet.records import Batch, Described, Image, ImageFeatures, QueryResult, Vectors
from copydet.search.candidates import Candidate, look_up, propose
from copydet.search.gists import NONE_ALIKE, AlikeInGist, alike_in_gist
from copydet.search.merge import merge_views, view_offsets
from copydet.search.reference_views import retrieve_references
from copydet.search.retrieve import Scan
from copydet.search.score_norm import background_similarity
from copydet.search.views import View, ViewLevel
from copydet.search.votes import NO_VOTES, LocalLists, Voted
from copydet.shards.local import join_local
from copydet.shards.shard import Shard
from copydet.store.hashing import hash_file
from copydet.verification.references import ReferenceReader
from copydet.workers import Workers

if TYPE_CHECKING:
    from copydet.search.gpu_codes import GpuCodes

T = TypeVar("T")

_CANDIDATES = 10  # of a query, or more where more are asked for
_SCORING = ("background", "calibration")  # files of a descriptor
_OF_VOTES, _OF_GISTS = 0.6, 0.1  # shares of them that votes and gists propose; the views propose the others


@dataclass(frozen=True)
class OpenDescriptor:
    """A descriptor ready for use: what describes, what similarities are normalised with, what makes them a score."""

    descriptor: Descriptor
    device: str
    bank: Bank | None
    calibration: Calibration

    @cached_property
    def runtime(self) -> Runtime:
        """Opened when it is first asked for: matching embeddings needs none. Raises as `open_runtime` does."""
        return open_runtime(self.descriptor, self.device)

    @cached_property
    def scoring(self) -> dict[str, str]:
        """Hashes of the files that make a score of similarities; they may be fitted anew for stored vectors."""
        return {kind: hash_file(path) for kind, path in self.descriptor.files.items() if kind in _SCORING}

    @property
    def scan(self) -> Scan | None:
        """What scans exact codes: the GPU, where it is what describes; None: the CPU."""
        return self._device_scan if self._on_gpu else None

    @property
    def gpu_codes(self) -> "GpuCodes | None":
        """What searches other codes, where a GPU describes; None: the CPU."""
        return self._gpu_codes if self._on_gpu else None

    @property
    def _on_gpu(self) -> bool:
        return "runtime" in self.__dict__ and self.runtime.name.startswith("torch-cuda")

    @cached_property
    def _device_scan(self) -> Scan:
        from copydet.search.device_scan import DeviceScan

        return DeviceScan(self.device if self.device.startswith("cuda") else "cuda")

    @cached_property
    def _gpu_codes(self) -> "GpuCodes":
        from copydet.search.gpu_codes import GpuCodes

        return GpuCodes()

    def runtime_for(self, engine: Engine) -> Runtime:
        """The same for the tasks of an engine; those elsewhere open their own."""
        if engine.elsewhere:
            return SentRuntime(self.descriptor, self.device, engine.workers)
        return self.runtime


@dataclass(frozen=True)
class References:
    """What is searched: open shards of one descriptor, their local features and gists (none: they propose nothing), how
    (`nprobe` and `candidates` of the recipe, see retrieve), which rows, and where (`each`). `selected[s]` is bool
    [described] of shard s, or None for all of it.
    """

    shards: tuple[Shard, ...]
    local: LocalLists
    gists: tuple[Gists, ...]
    selected: tuple[NDArray[np.bool_] | None, ...]
    nprobe: int
    candidates: int
    each: Each | None = None

    @cached_property
    def chosen(self) -> NDArray[np.bool_] | None:
        """`selected` over all shards, one after the other."""
        if all(mask is None for mask in self.selected):
            return None
        both = zip(self.selected, self.shards, strict=True)
        return np.concatenate([np.ones(s.described, bool) if mask is None else mask for mask, s in both])


@dataclass(frozen=True)
class MatchOptions:
    """`top_k` references are proposed for each query, whatever their score; `precision` decides which are matches.

    `views`: which parts of a query are searched (see query_views); `votes` and `gist`: whether local features, and the
    gist, propose references too; `verify`: whether candidates are verified. Only embeddings, which have no pixels, go
    without all four. `batch_size` images are described and searched together; it changes memory and speed, never a
    result.
    """

    top_k: int = 10
    precision: float = DEFAULT_PRECISION
    views: ViewLevel = "auto"
    votes: bool = True
    gist: bool = True
    verify: bool = True
    ignored: Ignored = NOTHING
    batch_size: int = 32
    workers: int | None = None
    limits: Limits = DEFAULT_LIMITS


def open_descriptor(descriptor: Descriptor, device: str = "auto") -> OpenDescriptor:
    """Open bank and calibration; without calibration.json scores are a stated guess (see `neutral`)."""
    bank = load_bank(descriptor)
    file = descriptor.files.get("calibration")
    calibration = neutral(bank is not None) if file is None else read_calibration(file)
    return OpenDescriptor(descriptor, device, bank, calibration)


def open_local(shards: Sequence[Shard]) -> LocalLists:
    """The local features of all shards; those made without have none. Raises UsageError for those of another kind."""
    nothing = ImageFeatures(np.empty((0, shipped_codec().record_bytes), np.uint8), NO_GIST)
    return LocalLists(shipped_codec(), [shard.local or join_local([nothing] * shard.described) for shard in shards])


def open_gists(shards: Sequence[Shard]) -> tuple[Gists, ...]:
    """The gists of all shards; images of those made without local features are like nothing. Raises as `open_local`."""
    return tuple(
        np.broadcast_to(NO_GIST, (shard.described, len(NO_GIST))) if shard.local is None else shard.local.gists
        for shard in shards
    )


def match_images(
    images: Iterable[Image],
    references: References,
    opened: OpenDescriptor,
    options: MatchOptions = MatchOptions(),
    progress: Progress | None = None,
) -> Iterator[QueryResult]:
    """Yield a result for every image, in order. Raises UsageError at once for options that make no sense."""
    progress = progress or Silent()
    threshold = _threshold(opened, options, verified=options.verify)
    pairs = find_pairs(images, references, opened, options, progress)
    _say_if_guessed(opened, progress, verified=options.verify)
    return _results(pairs, opened, options, threshold)


def match_embeddings(
    embeddings: Iterable[Image],
    references: References,
    opened: OpenDescriptor,
    options: MatchOptions = MatchOptions(),
    progress: Progress | None = None,
) -> Iterator[QueryResult]:
    """The same for queries that `opened.descriptor` described elsewhere, as `list_query_embeddings` lists them."""
    progress = progress or Silent()
    threshold = _threshold(opened, options, verified=False)
    _say_if_guessed(opened, progress, verified=False)
    described = read_vectors(embeddings, opened.descriptor.dimension, options.batch_size)
    pairs = _pairs_of_vectors(described, references, opened, options, progress)
    return _results(pairs, opened, options, threshold)


def describe_images(
    images: Iterable[Image], opened: OpenDescriptor, options: MatchOptions = MatchOptions()
) -> Generator[Described, None, None]:
    """Yield batches of images in order, with the descriptors of those that could be decoded."""
    runtime = opened.runtime  # what is wrong with it shows now
    return (Described(each.rows, each.ok, runtime.describe(each.pixels)) for each in _load(images, opened, options))


def find_pairs(
    images: Iterable[Image],
    references: References,
    opened: OpenDescriptor,
    options: MatchOptions,
    progress: Progress,
) -> Iterator[Undecided]:
    """Yield each image's row and all pairs that it makes with candidates, undecided and in no order.

    Raises UsageError at once where the descriptor cannot describe images, or stored local features cannot be read.
    """
    reader = ReferenceReader(references.shards, options.limits) if options.verify else None
    describe = opened.runtime.describe
    if opened.gpu_codes is not None:
        opened.gpu_codes.clone(references.shards, progress.note)
    local = options.verify or options.votes
    voted = options.verify and options.votes and references.local.whole
    resize, views = opened.descriptor.resize, options.views
    work = partial(prepare, resize=resize, level=views, local=local, voted=voted, gist=options.gist)
    threads, count = options.workers or usable_cpus(), max(options.top_k, _CANDIDATES)
    processes = Workers(threads)
    batches = _load(images, opened, options, Also(Resize("long_edge", QUERY_EDGE), work), processes)

    def found() -> Iterator[Undecided]:
        verifying = Verifying(reader, ThreadPoolExecutor(threads), processes)
        with processes, closing(batches), ThreadPoolExecutor(threads) as pool, verifying.pool:
            for pairs in _one_ahead(searched(batch, pool, verifying) for batch in batches):
                rows = list(pairs)
                yield from rows
                progress.advance(len(rows))

    def searched(batch: Batch, pool: ThreadPoolExecutor, verifying: Verifying) -> Iterator[Undecided]:
        both = zip(batch.pixels, batch.also, strict=True)
        vectors = describe([each for whole, also in both for each in (whole, *also.pixels)])
        voted = _voted(batch.also, references, options, pool)
        gists = [each.gists for each in batch.also]
        alike = alike_in_gist(references.gists, gists, round(_OF_GISTS * count), references.chosen)
        views = [each.views for each in batch.also]
        candidates = _candidates(references, vectors, opened, views, voted, alike, count)
        return verifying.pairs(batch, candidates, look_up(references.shards, candidates))

    return found()


def _one_ahead(started: Iterable[T]) -> Iterator[T]:
    """The same, each when the next has been started: a batch is searched while processes verify the one before."""
    before: list[T] = []
    for each in started:
        yield from before
        before = [each]
    yield from before


def _threshold(opened: OpenDescriptor, options: MatchOptions, *, verified: bool) -> float:
    if options.top_k < 1 or options.batch_size < 1:
        raise UsageError("top_k and batch_size must be at least 1")
    calibration = opened.calibration
    thresholds = calibration.verified_thresholds if verified else calibration.thresholds
    return threshold_for_precision(thresholds, options.precision)


def is_guessed(calibration: Calibration, *, verified: bool) -> bool:
    """Whether the scores of pairs, `verified` or not, were never fitted."""
    return not calibration.calibrated or (verified and calibration.verified is None)


def _say_if_guessed(opened: OpenDescriptor, progress: Progress, *, verified: bool) -> None:
    if is_guessed(opened.calibration, verified=verified):
        which = " for verified pairs" if opened.calibration.calibrated else ""
        progress.note(f"descriptor {opened.descriptor.name} is uncalibrated{which}: its scores are a guess")


def _load(
    images: Iterable[Image],
    opened: OpenDescriptor,
    options: MatchOptions,
    also: Also | None = None,
    processes: Workers | None = None,
) -> Generator[Batch, None, None]:
    loaded: Any = load(
        images,
        opened.descriptor.resize,
        batch_size=options.batch_size,
        workers=options.workers or usable_cpus(),
        limits=options.limits,
        also=also,
        processes=processes,
    )
    return cast("Generator[Batch, None, None]", loaded)  # closing it ends its threads


def _voted(
    prepared: Sequence[PreparedQuery], references: References, options: MatchOptions, pool: ThreadPoolExecutor
) -> list[Voted]:
    count = round(_OF_VOTES * max(options.top_k, _CANDIDATES))

    def vote(each: PreparedQuery) -> Voted:
        if each.side is None or not options.votes:
            return NO_VOTES
        return references.local.vote(each.side.features, count, references.chosen)

    return list(pool.map(vote, prepared))


def _candidates(
    references: References,
    vectors: Vectors,
    opened: OpenDescriptor,
    views: Sequence[Sequence[View]],
    voted: Sequence[Voted],
    alike: Sequence[AlikeInGist],
    count: int,
) -> list[list[Candidate]]:
    """The `count` candidates of each query, by all roads; `views` of each, `vectors` of all their views."""
    offsets = view_offsets(views)
    cost = np.array([view.cost for each in views for view in each], np.float32)
    background = background_similarity(vectors, opened.bank)
    found, reference_cost = retrieve_references(
        references.shards,
        vectors,
        offsets[:-1][np.diff(offsets) > 0],
        count,
        nprobe=references.nprobe or None,
        candidates=references.candidates,
        selected=references.selected,
        scan=opened.scan,
        search=opened.gpu_codes,
        each=references.each,
    )
    merged = merge_views(found, background + cost, offsets, count, reference_cost)
    return propose(references.shards, vectors, background, cost, offsets, merged, voted, alike, count)


def _pairs_of_vectors(
    described: Generator[Described, None, None],
    references: References,
    opened: OpenDescriptor,
    options: MatchOptions,
    progress: Progress,
) -> Iterator[Undecided]:
    """As `find_pairs`, for queries of which there is nothing but a descriptor."""
    whole = PreparedQuery((View("whole", np.empty((0, 0, 3), np.uint8), np.eye(3)),), ((0, 0),), (), None)
    with closing(described):
        for batch in described:
            count = len(batch.ok)
            views, voted, alike = [whole.views] * count, [NO_VOTES] * count, [NONE_ALIKE] * count
            candidates = _candidates(references, batch.vectors, opened, views, voted, alike, options.top_k)
            known, proposed = look_up(references.shards, candidates), dict(zip(batch.ok, candidates, strict=True))
            for number, row in enumerate(batch.rows):
                found = proposed.get(number, [])
                yield (
                    row,
                    tuple(verify_pairs(whole, row, [Asked(each, known[each.shard, each.row], None) for each in found])),
                )
            progress.advance(len(batch.rows))


def _results(
    pairs: Iterator[Undecided], opened: OpenDescriptor, options: MatchOptions, threshold: float
) -> Iterator[QueryResult]:
    for row, found in pairs:
        kept = [pair for pair in found if (row.image_id, pair.reference.image_id) not in options.ignored]
        matches = judge(row.image_id, kept, opened.calibration, threshold)[: options.top_k]
        yield QueryResult(row.image_id, row.uri, row.status, row.message, matches)
