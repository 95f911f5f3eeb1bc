"""A de-duplication job: index what is not indexed yet, find pairs, judge them, cluster, say what to keep.

Nothing of the collection is changed. Finished steps stay in OUTPUT/work, so that the same call goes on after it was cut
off, and one with another precision, keep rule or list of what to ignore only clusters anew.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copydet.decisions.calibration import threshold_for_precision
from copydet.decisions.decide import WHOLE
from copydet.decisions.ignore import NOTHING, Ignored
from copydet.dedup.background import find_background
from copydet.dedup.clusters import Clusters, find_clusters
from copydet.dedup.collection import Collection, open_collection
from copydet.dedup.exact import Contents, find_contents
from copydet.dedup.keep import preferences
from copydet.dedup.near import find_near
from copydet.dedup.outputs import Accepted, write_clusters, write_lists, write_pairs
from copydet.dedup.pairs import judge_pairs
from copydet.engines.engine import HERE, Engine
from copydet.errors import UsageError
from copydet.images.decode import DEFAULT_LIMITS, Limits
from copydet.images.sources import count_images
from copydet.index import Index
from copydet.matching import is_guessed
from copydet.progress import Progress, Silent
from copydet.shards.staging import read_plan
from copydet.shards.summary import read_info
from copydet.store import atomic, snapshots
from copydet.store.hashing import hash_file
from copydet.store.locks import write_lock

WORK, INDEX = "work", "index"

# Lower than that of match: at .99 one in six of the copies that .95 finds would stay. Not lower still, or photographs
# taken right after each other pass for copies (docs/dedup.md).
DEFAULT_PRECISION = 0.95
_FORMAT = 4  # of what is in work/; another one is done again

Show = Callable[[str, int | None, str], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Deduplicated:
    """What a job found; the files that say so are in `output`. `summary` is that of summary.json; `kept` bool [images]
    of `collection`.
    """

    output: Path
    collection: Collection
    clusters: Clusters
    kept: NDArray[np.bool_]
    summary: dict[str, Any]


def deduplicate(
    sources: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    against: Sequence[str | Path] = (),
    verify: bool | None = None,
    precision: float = DEFAULT_PRECISION,
    keep: str = "largest",
    ignored: Ignored = NOTHING,
    descriptor: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    show: Show | None = None,
    engine: Engine = HERE,
) -> Deduplicated:
    """Find the duplicates among the images of `sources`, and between them and those of `against`, whose images are
    never dropped and not compared with each other.

    Each of both is an index, or any source that Index.build takes: those are indexed below `output` first. `verify`
    None means: where local features are stored. `keep` is a rule (see keep.RULES) or an ORDER BY list. The same call
    goes on after it was cut off; `output` then holds the same bytes. Raises UsageError for bad input, IndexLocked when
    another process works in `output`.
    """
    show = show or _silent
    output = Path(output).absolute() if engine.elsewhere else Path(output)
    specs = [str(each) for each in ([sources] if isinstance(sources, str | Path) else sources)]
    _check_folder(output)
    if both := sorted({Path(spec).resolve() for spec in specs} & {Path(each).resolve() for each in against}):
        raise UsageError(f"{both[0]} is named on both sides of --against: all of it would be dropped")
    atomic.make_folder(output / WORK)
    with write_lock(output):
        for folder in (output, output / WORK):
            for leftover in folder.glob(".*.tmp-*"):
                atomic.remove(leftover)
        options = {"descriptor": descriptor, "device": device}
        build = {"workers": workers, "limits": limits, "engine": engine}
        own = _open_all(specs, output / INDEX, show, options, build)
        others = _open_all([str(each) for each in against], output / "against", show, options, build)
        job = _Job(output, own, others, ignored, show, limits, engine)
        return job.run(verify, precision, keep)


@dataclass(frozen=True)
class _Job:
    output: Path
    own: Sequence[Index]
    others: Sequence[Index]
    ignored: Ignored
    show: Show
    limits: Limits
    engine: Engine

    def run(self, verify: bool | None, precision: float, keep: str) -> Deduplicated:
        present = open_collection(self.own, self.others)
        collection = _without(present, self.own, self.others, self.ignored)
        verified = collection.has_local if verify is None else verify
        calibration = present.opened.calibration
        thresholds = calibration.stored_thresholds if verified else calibration.thresholds
        threshold = threshold_for_precision(thresholds, precision)
        preference = preferences(present, keep)
        _start(self.output / WORK, self._key(verified))
        contents, judged = self._judge(collection, verified)
        atomic.remove(self.output / "summary.json")  # written last: where it is, all files are of one run
        accepted = write_pairs(self.output / "pairs.parquet", collection, contents, judged, threshold, self.ignored)
        bar = max(threshold, threshold_for_precision(thresholds, _CHAIN_PRECISION))
        is_reference = np.arange(len(collection)) >= collection.own
        clusters = find_clusters(contents, accepted.edges, preference, collection.rank, is_reference, bar, WHOLE)
        write_clusters(self.output / "clusters.parquet", collection, contents, clusters)
        dropped = np.zeros(len(collection), bool)
        dropped[clusters.image[~clusters.keep]] = True
        write_lists(self.output, collection, present.living, dropped)
        asked = {"precision": precision, "threshold": threshold, "verified": verified, "keep": keep}
        asked["calibrated"] = not is_guessed(calibration, verified=verified)
        summary = asked | self._summary(present, contents, accepted, clusters, dropped)
        atomic.write_json(self.output / "summary.json", summary)
        return Deduplicated(self.output, present, clusters, present.living & ~dropped, summary)

    def _judge(self, collection: Collection, verified: bool) -> tuple[Contents, list[Path]]:
        work = self.output / WORK
        contents = find_contents(collection, work, self.limits)
        asked = int(contents.has_own[contents.firsts].sum())
        with self.show("searching", asked, "images") as progress, self.engine.within(work) as engine:
            near = find_near(collection, contents, work, progress, engine, votes=verified)
        shown = self.show("normalising", len(near.images), "images")
        with shown as progress, self.engine.within(work) as engine:
            background = find_background(collection, contents, near.images, work, progress, engine)
        with self.show("verifying" if verified else "scoring", near.pairs, "pairs") as progress:
            return contents, judge_pairs(
                collection, near, background, work, progress, verified=verified, limits=self.limits
            )

    def _key(self, verified: bool) -> dict[str, Any]:
        """All that the files in work/ depend on."""
        return {
            "format": _FORMAT,
            "indexes": [_hash(each) for each in self.own],
            "against": [_hash(each) for each in self.others],
            "scoring": self.own[0].opened.scoring,
            "verified": verified,
            "ignored": sorted(self.ignored.references),
        }

    def _summary(
        self,
        present: Collection,
        contents: Contents,
        accepted: Accepted,
        clusters: Clusters,
        dropped: NDArray[np.bool_],
    ) -> dict[str, Any]:
        """Images and pairs apart, exact ones and near ones apart; no time and no path, so that equal is equal."""
        own = slice(0, present.own)
        statuses: Counter[str] = Counter()
        for index in self.own:
            statuses.update(read_info(index.path, index.snapshot).statuses)
        described = int(present.living[own].sum())
        gone = np.flatnonzero(dropped)
        exact = int((contents.first[gone] == contents.first[_representative(clusters, gone)]).sum())
        starts = np.flatnonzero(np.r_[True, clusters.cluster[1:] != clusters.cluster[:-1]][: len(clusters.cluster)])
        sizes = Counter(clusters.size[starts].tolist())
        return {
            "descriptor": present.opened.descriptor.name,
            "images": {
                "listed": sum(statuses.values()),
                "described": described,
                "skipped": {status: count for status, count in sorted(statuses.items()) if status != "ok" and count},
                "against": int(present.living[present.own :].sum()),
                "in_clusters": int((clusters.image < present.own).sum()),
                "kept": described - len(gone),
                "dropped": len(gone),
                "dropped_exact": exact,
                "dropped_near": len(gone) - exact,
                "dropped_for_against": int((_representative(clusters, gone) >= present.own).sum()),
            },
            "pairs": {"exact": accepted.exact, "near": accepted.near, "judged": accepted.judged},
            "clusters": {
                "count": len(starts),
                "largest": max(sizes, default=0),
                "sizes": {str(size): sizes[size] for size in sorted(sizes)},
            },
        }


# A pair that is a step of a chain must be surer than one that is reported.
_CHAIN_PRECISION = 0.999


def _representative(clusters: Clusters, images: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.argsort(clusters.image, kind="stable")
    return clusters.representative[order[np.searchsorted(clusters.image[order], images)]]


def _without(present: Collection, own: Sequence[Index], others: Sequence[Index], ignored: Ignored) -> Collection:
    """The same without the images that are ignored altogether: they are in no pair, and so are kept."""
    if not ignored.references:
        return present
    masks = [mask for each in (*own, *others) for mask in each.references(ignored=ignored).selected]
    counts = np.diff(present.starts).tolist()
    both = zip(masks, counts, strict=True)
    living = np.concatenate([np.zeros(0, bool), *(np.ones(n, bool) if mask is None else mask for mask, n in both)])
    return replace(present, living=living, rank=np.where(living, present.rank, -1))


def _open_all(
    specs: Sequence[str], folder: Path, show: Show, options: dict[str, Any], build: dict[str, Any]
) -> list[Index]:
    """The indexes among `specs`, and one in `folder` of all that is no index."""
    sources = [spec for spec in specs if not snapshots.has_index(Path(spec))]
    indexes = []
    if sources:
        indexes.append(_index(sources, folder, show, options, build))
    return indexes + [Index.open(spec, **options) for spec in specs if spec not in sources]


def _index(sources: list[str], folder: Path, show: Show, options: dict[str, Any], build: dict[str, Any]) -> Index:
    """The index of `sources` in `folder`, built unless it is there."""
    note = folder.with_suffix(".json")
    listed = {"sources": [str(Path(spec).resolve()) if Path(spec).exists() else spec for spec in sources]}
    if snapshots.has_index(folder) and not read_plan(folder / "building"):
        if not note.exists() or note.read_bytes() != atomic.to_json(listed):
            raise UsageError(f"{folder} was made from other sources; name a new folder with --output")
        with show("opening", None, "images") as progress:
            progress.note(f"{folder} is used as it is; delete it to index {', '.join(sources)} again")
        return Index.open(folder, **options)
    atomic.write_json(note, listed)
    with show("indexing", count_images(sources), "images") as progress:
        return Index.build(sources, folder, **options, **build, progress=progress)


def _hash(index: Index) -> str:
    """Tells one state of an index from all others."""
    return hash_file(snapshots.snapshot_path(index.path, index.snapshot.number))


def _start(work: Path, key: dict[str, Any]) -> None:
    """Make `work` hold nothing but what belongs to `key`."""
    note = work / "job.json"
    if note.exists() and note.read_bytes() == atomic.to_json(key):
        return
    atomic.remove(note)  # first: what is left while the rest is removed belongs to nothing
    for path in sorted(work.iterdir()):
        atomic.remove(path)
    atomic.write_json(note, key)


def _check_folder(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; name a folder for the results")
    if output.is_dir() and any(output.iterdir()) and not (output / WORK).is_dir():
        raise UsageError(f"{output} holds other files; name a new folder for the results")


@contextmanager
def _silent(task: str, total: int | None, noun: str) -> Iterator[Progress]:
    yield Silent()
