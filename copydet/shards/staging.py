"""Staging: described images wait in INDEX/building/ in chunks, so that an interrupted run loses one chunk at most.

building/plan.json             what is being built; a run goes on only from chunks of the same plan
building/chunk-000000.f16      descriptors of the chunk's images with status ok, raw float16 [described, dimension]
building/chunk-000000.parquet  rows of all its images in source order; written last, so a chunk that has it is whole
building/*.json                results of later steps (quantiser, finished shards) with all that they depend on
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from copydet.errors import CopydetError, UsageError
from copydet.progress import Progress
from copydet.records import Described, Image, ImageRow, StoredVectors, Vectors
from copydet.shards.metadata import clean_text, rows_table
from copydet.shards.shard import map_descriptors
from copydet.store import atomic

CHUNK_IMAGES = 2048


@dataclass(frozen=True)
class Chunk:
    """A finished chunk: `images` rows, `described` of them with a descriptor."""

    number: int
    folder: Path
    images: int
    described: int

    @property
    def rows_path(self) -> Path:
        return self.folder / f"chunk-{self.number:06d}.parquet"

    @property
    def vectors_path(self) -> Path:
        return self.folder / f"chunk-{self.number:06d}.f16"

    @property
    def stamp(self) -> tuple[int, int, int]:
        """Tells this chunk from one that was described again: number, images, time of writing in ns."""
        return self.number, self.images, self.rows_path.stat().st_mtime_ns

    def rows(self) -> pa.Table:
        """The rows in source order, columns of `metadata.rows_table`."""
        return pq.read_table(self.rows_path)

    def vectors(self, dimension: int) -> StoredVectors:
        """float16 [described, dimension], mapped: descriptors of the rows with status ok, in their order."""
        return map_descriptors(self.vectors_path, dimension)


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
    folder: Path, described: Iterable[Described], dimension: int, first_number: int, progress: Progress
) -> Iterator[Chunk]:
    """Stage images in chunks of CHUNK_IMAGES; yields each chunk once it is on disk. The last one may be shorter."""
    number, rows, ok, vectors = first_number, list[ImageRow](), list[int](), list[Vectors]()
    for batch in described:
        start = 0
        while start < len(batch.rows):
            end = min(len(batch.rows), start + CHUNK_IMAGES - len(rows))
            inside = [j for j, row in enumerate(batch.ok) if start <= row < end]
            ok += [batch.ok[j] - start + len(rows) for j in inside]
            vectors.append(batch.vectors[inside])
            rows += batch.rows[start:end]
            start = end
            if len(rows) == CHUNK_IMAGES:
                yield _write_chunk(folder, number, rows, ok, vectors, dimension)
                number, rows, ok, vectors = number + 1, [], [], []
        progress.advance(len(batch.rows))
    if rows:
        yield _write_chunk(folder, number, rows, ok, vectors, dimension)


def finished_chunks(folder: Path, dimension: int) -> list[Chunk]:
    """The whole chunks from number 0 on, up to the first that is missing or damaged."""
    chunks: list[Chunk] = []
    while chunk := _read_chunk(folder, len(chunks), dimension):
        chunks.append(chunk)
    return chunks


def resume(
    folder: Path,
    dimension: int,
    list_images: Callable[[], Iterator[Image]],
    progress: Progress,
) -> tuple[list[Chunk], Iterator[Image]]:
    """The chunks that still hold what the sources list, and the images that are left to describe.

    The listing is compared image by image (id and uri) with the chunks. From the first difference on, chunks are
    discarded with a note.
    """
    images = list_images()
    kept: list[Chunk] = []
    staged = finished_chunks(folder, dimension)
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


def _write_chunk(
    folder: Path, number: int, rows: Sequence[ImageRow], ok: Sequence[int], parts: Sequence[Vectors], dimension: int
) -> Chunk:
    vectors = np.concatenate([np.empty((0, dimension), np.float32), *parts])
    if vectors.shape != (len(ok), dimension) or any(rows[row].status != "ok" for row in ok):
        raise CopydetError(f"got descriptors of shape {vectors.shape} for {len(ok)} images of dimension {dimension}")
    if not np.isfinite(vectors).all():
        bad = rows[ok[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]]
        raise CopydetError(f"the descriptor of {bad.image_id} is not finite; check the descriptor's weights")
    chunk = Chunk(number, folder, len(rows), len(ok))
    with atomic.new_file(chunk.vectors_path) as path:
        vectors.astype(np.float16).tofile(path)
    with atomic.new_file(chunk.rows_path) as path:
        pq.write_table(rows_table(rows, datetime.now(UTC)), path)
    return chunk


def _read_chunk(folder: Path, number: int, dimension: int) -> Chunk | None:
    chunk = Chunk(number, folder, 0, 0)
    if not (chunk.rows_path.exists() and chunk.vectors_path.exists()):
        return None
    try:
        images = pq.read_metadata(chunk.rows_path).num_rows
    except (OSError, pa.ArrowException):
        return None
    described, rest = divmod(chunk.vectors_path.stat().st_size, 2 * dimension)
    return None if rest or described > images else Chunk(number, folder, images, described)


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
