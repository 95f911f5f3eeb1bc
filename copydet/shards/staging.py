"""Staging: described images wait in INDEX/building/ in chunks, so that an interrupted run loses one chunk at most.

building/plan.json             what is being built; a run goes on only from chunks of the same plan
building/chunk-000000.f16      descriptors of the chunk's images with status ok, raw float16 [described, dimension]
building/chunk-000000.views    descriptors of their parts, float16 [described, parts, dimension], where there are any
building/chunk-000000.local    their local features, with .offsets and .gists (see local.py), where the run stores them
building/chunk-000000.parquet  rows of all its images in source order; written last, so a chunk that has it is whole
building/*.json                results of later steps (quantiser, finished shards) with all that they depend on
"""

import json
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from copydet.errors import CopydetError, UsageError
from copydet.progress import Progress
from copydet.records import Described, Image, ImageFeatures, ImageRow
from copydet.shards.chunks import Chunk
from copydet.shards.local import join_local, write_local
from copydet.shards.metadata import clean_text, rows_table
from copydet.store import atomic
from copydet.store.snapshots import ShardEntry, Snapshot, parse_shard

CHUNK_IMAGES = 2048


def start_plan(building: Path, plan: Mapping[str, Any], base: int) -> None:
    """Note what is being built on top of snapshot `base` (0: on nothing). Staged chunks belong to their plan: raises
    UsageError, naming the first difference and what to do, when there are chunks of another."""
    before, wanted = read_plan(building), json.loads(json.dumps(plan))
    if not before:
        atomic.remove(building)
    if before and (building / "chunk-000000.parquet").exists():
        for key in wanted:
            if before.get(key) != wanted[key]:
                raise UsageError(
                    f"{building.parent} holds an unfinished run with {key} {_short(before.get(key))}, "
                    f"now {_short(wanted[key])}; run that command again to finish it, "
                    f"or delete {building} to give it up"
                )
    if before != {**wanted, "base": base}:
        atomic.make_folder(building)
        atomic.write_json(building / "plan.json", {**wanted, "base": base})


def read_plan(building: Path) -> dict[str, Any]:
    """The plan of an unfinished run; empty where there is none that can be read."""
    try:
        plan = json.loads((building / "plan.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return plan if isinstance(plan, dict) else {}


def was_committed(building: Path, plan: Mapping[str, Any] | None, current: Snapshot) -> bool:
    """Whether building/ is only the rest of a run (of `plan`; None: of any) whose shards the current snapshot has."""
    before = read_plan(building)
    base = before.pop("base", None)
    if not isinstance(base, int) or (plan is not None and before != json.loads(json.dumps(plan))):
        return False
    if (base, current.number) == (0, 1):
        return True
    return any(_noted(path) in current.shards for path in building.glob("shard-*.json"))


def _noted(path: Path) -> ShardEntry | None:
    try:
        return parse_shard(json.loads(path.read_bytes())["value"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def finish(building: Path) -> None:
    """Delete building/. Renamed first: a crash while it is deleted leaves no half of a run to resume."""
    rest = building.with_name(f".building.tmp-{os.getpid()}")
    atomic.replace(building, rest)
    atomic.remove(rest)


def recall(building: Path, name: str, key: Mapping[str, Any]) -> Any:
    """What `remember` noted under `name` for the same `key`, else None."""
    try:
        note = json.loads((building / f"{name}.json").read_bytes())
    except (OSError, ValueError):
        return None
    same = isinstance(note, dict) and note.get("key") == json.loads(json.dumps(key))
    return note.get("value") if same else None


def remember(building: Path, name: str, key: Mapping[str, Any], value: Any) -> None:
    """Note the result of a finished step in building/<name>.json; `key` holds all that it depends on."""
    atomic.write_json(building / f"{name}.json", {"key": key, "value": value})


def write_chunks(
    folder: Path,
    described: Iterable[Described],
    dimension: int,
    earlier: Sequence[Chunk],
    progress: Progress,
    *,
    has_local: bool,
    parts: int = 0,
) -> Iterator[Chunk]:
    """Stage images in chunks of CHUNK_IMAGES behind the `earlier` ones; yields each chunk once it is on disk. The last
    one may be shorter. An image that repeats another gets what that one has.

    `has_local` says whether the batches bring local features, `parts` of how many parts of an image they bring
    descriptors (a batch in which no image is ok doesn't tell).
    """
    staged = list(earlier)
    waiting = _Waiting(staged, dimension)
    for batch in described:
        start = 0
        while start < len(batch.rows):
            end = min(len(batch.rows), start + CHUNK_IMAGES - len(waiting.rows))
            waiting.take(batch, start, end)
            start = end
            if len(waiting.rows) == CHUNK_IMAGES:
                staged.append(_write_chunk(folder, len(staged), waiting, dimension, has_local, parts))
                yield staged[-1]
                waiting = _Waiting(staged, dimension)
        progress.advance(len(batch.rows))
    if waiting.rows:
        yield _write_chunk(folder, len(staged), waiting, dimension, has_local, parts)


def staged_contents(chunks: Sequence[Chunk]) -> Iterator[tuple[bytes, int]]:
    """Hash of the bytes of each staged image that could be read, and its position in the listing."""
    position = 0
    for chunk in chunks:
        hashes = pq.read_table(chunk.rows_path, columns=["sha256"])["sha256"].to_pylist()
        yield from ((bytes.fromhex(each), place) for place, each in enumerate(hashes, position) if each)
        position += chunk.images


def finished_chunks(folder: Path, dimension: int, has_local: bool, parts: int = 0) -> list[Chunk]:
    """The whole chunks from number 0 on, up to the first that is missing or damaged."""
    chunks: list[Chunk] = []
    while chunk := _read_chunk(folder, len(chunks), dimension, has_local, parts):
        chunks.append(chunk)
    return chunks


def resume(
    folder: Path,
    dimension: int,
    has_local: bool,
    list_images: Callable[[], Iterator[Image]],
    progress: Progress,
    parts: int = 0,
) -> tuple[list[Chunk], Iterator[Image]]:
    """The chunks that still hold what the sources list, and the images that are left to describe.

    The listing is compared image by image (id and uri) with the chunks. From the first difference on, chunks are
    discarded with a note.
    """
    images = list_images()
    kept: list[Chunk] = []
    staged = finished_chunks(folder, dimension, has_local, parts)
    for chunk in staged:
        if not _lists_the_same(chunk, images):
            progress.note(
                f"the sources have changed since the run that was interrupted: describing again from image "
                f"{sum(c.images for c in kept) + 1:,} on"
            )
            images = islice(list_images(), sum(c.images for c in kept), None)
            break
        kept.append(chunk)
        progress.advance(chunk.images)
    _discard_from(folder, len(kept))
    if kept:
        progress.note(f"continuing an interrupted run: {sum(c.images for c in kept):,} images are described already")
    return kept, images


@dataclass
class _Waiting:
    """Described images of the chunk that is not full yet, behind the `staged` ones; `ok`, `local` and `views` as in
    Described, `vectors` [dimension] each.
    """

    staged: Sequence[Chunk]
    dimension: int
    rows: list[ImageRow] = field(default_factory=list)
    ok: list[int] = field(default_factory=list)
    vectors: list[NDArray[Any]] = field(default_factory=list)
    local: list[ImageFeatures] = field(default_factory=list)
    views: list[NDArray[Any]] = field(default_factory=list)

    def take(self, batch: Described, start: int, end: int) -> None:
        """Rows `start` to `end` of the batch, with what belongs to them."""
        place, repeats = {row: j for j, row in enumerate(batch.ok)}, dict(batch.repeats)
        for number in range(start, end):
            row = batch.rows[number]
            if number in place:
                here = place[number]
                local, views = batch.local[here] if batch.local else None, batch.views[here] if batch.views else None
                self._add(row, batch.vectors[here], local, views)
            elif number in repeats:
                self._repeat(row, repeats[number])
            else:
                self.rows.append(row)

    def _add(
        self, row: ImageRow, vector: NDArray[Any], local: ImageFeatures | None, views: NDArray[Any] | None
    ) -> None:
        self.ok.append(len(self.rows))
        self.rows.append(row)
        self.vectors.append(vector)
        if local is not None:
            self.local.append(local)
        if views is not None:
            self.views.append(views)

    def _repeat(self, row: ImageRow, position: int) -> None:
        """Add an image that shows what that at `position` of the listing does."""
        here = position - sum(chunk.images for chunk in self.staged)
        if here >= 0:
            known = {name: getattr(self.rows[here], name) for name in _REPEATED}
            place = bisect_left(self.ok, here)
            has = place < len(self.ok) and self.ok[place] == here
            vector = self.vectors[place] if has else None
            local = self.local[place] if has and self.local else None
            views = self.views[place] if has and self.views else None
        else:
            chunk, here = _chunk_of(self.staged, position)
            known, has_place = _staged_row(chunk, chunk.stamp, here)
            vector = None if has_place is None else chunk.vectors(self.dimension)[has_place].astype(np.float32)
            local = chunk.local().image(has_place) if has_place is not None and chunk.has_local else None
            views = chunk.views(self.dimension)[has_place] if has_place is not None and chunk.parts else None
        if row.width is None or vector is None:
            row = replace(row, **known)
        if vector is None:
            self.rows.append(row)
        else:
            self._add(row, vector, local, views)


_REPEATED = ("width", "height", "format", "status", "message")


def _chunk_of(chunks: Sequence[Chunk], position: int) -> tuple[Chunk, int]:
    """The chunk that holds a position of the listing, and the row in it."""
    for chunk in chunks:
        if position < chunk.images:
            return chunk, position
        position -= chunk.images
    raise IndexError(position)


def _staged_row(chunk: Chunk, stamp: tuple[int, int, int], row: int) -> tuple[dict[str, Any], int | None]:
    """What is known of a row of a chunk, and the place of its descriptor, None where it has none."""
    table, place = _staged_rows(chunk, stamp)
    known = {name: table[name][row].as_py() for name in _REPEATED}
    return known, int(place[row]) if known["status"] == "ok" else None


@lru_cache(maxsize=16)
def _staged_rows(chunk: Chunk, stamp: tuple[int, int, int]) -> tuple[pa.Table, NDArray[np.int64]]:
    """Columns _REPEATED of a chunk, and for each row how many before it have a descriptor."""
    table = pq.read_table(chunk.rows_path, columns=list(_REPEATED))
    return table, np.cumsum(np.asarray(pc.equal(table["status"], "ok"))) - 1


def _write_chunk(folder: Path, number: int, waiting: _Waiting, dimension: int, has_local: bool, parts: int) -> Chunk:
    rows, ok = waiting.rows, waiting.ok
    vectors = np.stack(waiting.vectors) if waiting.vectors else np.empty((0, dimension), np.float32)
    if vectors.shape != (len(ok), dimension) or any(rows[row].status != "ok" for row in ok):
        raise CopydetError(f"got descriptors of shape {vectors.shape} for {len(ok)} images of dimension {dimension}")
    views = np.stack(waiting.views) if waiting.views else np.empty((0 if parts else len(ok), parts, dimension))
    if views.shape != (len(ok), parts, dimension):
        raise CopydetError(f"got descriptors of shape {views.shape} for {parts} parts of {len(ok)} images")
    finite = np.isfinite(vectors).all(axis=1) & np.isfinite(views).all(axis=(1, 2))
    if not finite.all():
        bad = rows[ok[int(np.flatnonzero(~finite)[0])]]
        raise CopydetError(f"the descriptor of {bad.image_id} is not finite; check the descriptor's weights")
    if len(waiting.local) != (len(ok) if has_local else 0):
        raise CopydetError(f"got local features of {len(waiting.local)} images, {len(ok)} are described")
    chunk = Chunk(number, folder, len(rows), len(ok), has_local, parts)
    with atomic.new_file(chunk.vectors_path) as path:
        vectors.astype(np.float16).tofile(path)
    if parts:
        with atomic.new_file(chunk.views_path) as path:
            views.astype(np.float16).tofile(path)
    if has_local:
        write_local(chunk.local_files, [join_local(waiting.local)])
    with atomic.new_file(chunk.rows_path) as path:
        pq.write_table(rows_table(rows, datetime.now(UTC)), path)
    return chunk


def _read_chunk(folder: Path, number: int, dimension: int, has_local: bool, parts: int) -> Chunk | None:
    chunk = Chunk(number, folder, 0, 0)
    if not (chunk.rows_path.exists() and chunk.vectors_path.exists()):
        return None
    try:
        images = pq.read_metadata(chunk.rows_path).num_rows
    except (OSError, pa.ArrowException):
        return None
    described, rest = divmod(chunk.vectors_path.stat().st_size, 2 * dimension)
    if rest or described > images:
        return None
    chunk = Chunk(number, folder, images, described, has_local, parts)
    try:
        if parts and chunk.views_path.stat().st_size != 2 * described * parts * dimension:
            return None
        if has_local:
            chunk.local()
    except (OSError, CopydetError):
        return None
    return chunk


def _lists_the_same(chunk: Chunk, images: Iterator[Image]) -> bool:
    """Whether the next images are those of the chunk. Images are let go one by one: they may carry their bytes."""
    staged = pq.read_table(chunk.rows_path, columns=["image_id", "uri"])
    try:
        for image_id, uri in zip(staged["image_id"].to_pylist(), staged["uri"].to_pylist(), strict=True):
            image = next(images, None)
            if image is None or (clean_text(image.image_id), clean_text(image.uri)) != (image_id, uri):
                return False
    except CopydetError:
        raise
    except Exception:  # the source itself broke; describing again turns that into a row
        return False
    return True


def _discard_from(folder: Path, number: int) -> None:
    """Delete the chunks from `number` on, rows first: a chunk without rows counts as missing."""
    for path in sorted(folder.glob("chunk-*"), key=lambda path: path.suffix != ".parquet"):
        if int(path.stem.removeprefix("chunk-")) >= number:
            atomic.remove(path)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
