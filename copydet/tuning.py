"""Tuning an index: operating points measured on edited copies of its own images.

Copies are what users ask about. Vectors of the index itself, which an index is often tuned on, lie where a compressed
index finds them too easily.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from copydet.descriptors.runtimes import Runtime
from copydet.errors import CopydetError, IndexLocked, UsageError
from copydet.images.decode import DEFAULT_LIMITS, Limits
from copydet.images.edits import edit_image
from copydet.images.loader import Also, load
from copydet.images.originals import Originals, original_image
from copydet.images.resize import Resize, resize_pixels
from copydet.process import usable_cpus
from copydet.progress import Progress, Silent
from copydet.records import Image, Pixels, Vectors
from copydet.search.operating_points import OperatingPoint, find_points, read_points
from copydet.shards.shard import Shard
from copydet.store import snapshots
from copydet.store.locks import write_lock
from copydet.store.snapshots import Snapshot

QUERIES = 500
_FEWEST = 100  # queries that a recall is measured on, where the index has so many images
_SEED = 20_251_121
_STRENGTHS = ("easy", "medium", "hard")
_EDGE = Resize("long_edge", 480)
_BATCH = 32
_GROWN = 2  # times the images that a point was measured with: more is another index


def tune(
    index: Path,
    snapshot: Snapshot,
    shards: Sequence[Shard],
    selected: Sequence[NDArray[np.bool_] | None],
    runtime: Runtime,
    targets: Sequence[float],
    *,
    queries: int = QUERIES,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Snapshot:
    """Measure operating points for the recalls `targets` on `queries` edited images and commit them.

    `shards` are those of `snapshot`, `selected` their living rows. Recalls that cannot be reached are said through
    `progress`; raises CopydetError when that is all of them, UsageError when too few originals can be read.
    """
    progress = progress or Silent()
    if not targets or not all(0 < target < 1 for target in targets):
        raise UsageError("a recall lies between 0 and 1")
    asked = edited_queries(shards, selected, runtime, queries, limits, progress)
    points, highest = find_points(shards, selected, asked, sorted(targets))
    for target in sorted(set(targets) - set(points)):
        progress.note(f"recall {target:g} is out of reach of these codes: at most {highest:.3f} was measured")
    if not points:
        raise CopydetError(f"no recall that was asked for can be reached; at most {highest:.3f} was measured")
    return _commit(index, snapshot, points)


def edited_queries(
    shards: Sequence[Shard],
    selected: Sequence[NDArray[np.bool_] | None],
    runtime: Runtime,
    count: int,
    limits: Limits,
    progress: Progress,
) -> Vectors:
    """Descriptors of edited copies of `count` images, or of all where there are fewer: float32 [n, dimension].

    A uniform sample of the selected rows, a chain of one strength each (easy, medium or hard, drawn by the picture).
    The same for the same images. Originals that cannot be read are left out.
    """
    images = list(_sample(shards, selected, count))
    work = partial(_edited, resize=runtime.descriptor.resize)
    loaded: Any = load(images, _EDGE, batch_size=_BATCH, workers=usable_cpus(), limits=limits, also=Also(_EDGE, work))
    vectors = [np.empty((0, runtime.descriptor.dimension), np.float32)]
    with closing(loaded):
        for batch in loaded:
            vectors.append(runtime.describe(batch.also))
            progress.advance(len(batch.rows))
    found = np.concatenate(vectors)
    if len(found) < max(1, min(_FEWEST, len(images))):
        raise UsageError(
            f"only {len(found):,} of {len(images):,} originals can be read, too few to measure a recall: "
            "put the images back where they were indexed"
        )
    return found


def _sample(shards: Sequence[Shard], selected: Sequence[NDArray[np.bool_] | None], count: int) -> Iterator[Image]:
    masks = [np.ones(s.described, bool) if m is None else m for s, m in zip(shards, selected, strict=True)]
    rows = [np.flatnonzero(mask) for mask in masks]
    total = sum(map(len, rows))
    if not total:
        raise UsageError("the index holds no image to measure a recall with")
    chosen = np.sort(np.random.default_rng(_SEED).choice(total, min(count, total), replace=False))
    starts = np.cumsum([0, *map(len, rows)])
    originals = Originals()
    for number, shard in enumerate(shards):
        inside = chosen[(chosen >= starts[number]) & (chosen < starts[number + 1])] - starts[number]
        table = shard.image_columns(rows[number][inside], ("image_id", "uri", "source"))
        for row in table.to_pylist():
            yield original_image(originals, row["image_id"], row["uri"], row["source"])


def _edited(pixels: Pixels, resize: Resize) -> Pixels:
    """An edited copy, the same for the same picture, as the descriptor wants it."""
    drawn = xxhash.xxh3_64_intdigest(np.ascontiguousarray(pixels).tobytes())
    copy = edit_image(pixels.copy(), _STRENGTHS[drawn % len(_STRENGTHS)], np.random.default_rng(drawn))
    return resize_pixels(copy.pixels, resize)


def _commit(index: Path, snapshot: Snapshot, points: dict[float, OperatingPoint]) -> Snapshot:
    stored = {f"{target:g}": asdict(point) for target, point in points.items()}
    with write_lock(index):
        if snapshots.read_current(index).number != snapshot.number:
            raise IndexLocked(f"{index} was changed while it was measured; tune it again")
        return snapshots.commit(
            index,
            replace(
                snapshot,
                number=snapshot.number + 1,
                operating_points={**snapshot.operating_points, **stored},
                history=f"tune: recall {', '.join(stored)}",
            ),
        )


def tuned_point(path: Path, snapshot: Snapshot, recall: float) -> OperatingPoint:
    """The least operating point of at least this recall. Raises UsageError where there is none for so many images."""
    points = read_points(snapshot.operating_points)
    for target, point in points.items():
        if target >= recall:
            if snapshot.images > _GROWN * point.images:
                raise UsageError(
                    f"{path} was tuned for {point.images:,} images and holds {snapshot.images:,} now; "
                    f"measure again with: copydet tune --index {path} --recall {target:g}"
                )
            return point
    known = f"there are {', '.join(f'{target:g}' for target in points)}" if points else "there is none"
    raise UsageError(
        f"{path} has no operating point for recall {recall:g} ({known}); measure one with: "
        f"copydet tune --index {path} --recall {recall:g}"
    )
