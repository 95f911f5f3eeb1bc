"""Looking at generations: each becomes a row of numbers. Rows are kept in parts, so that a run that was cut off goes
on.

OUTPUT/parts/settings.json     what the rows depend on; another audit's parts are thrown away
OUTPUT/parts/000000.parquet    rows of CHUNK generations, with their descriptor and a small picture
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from copydet.audit import near_pixel
from copydet.audit.cliques import MOST
from copydet.audit.complexity import Complexity, measure_complexity
from copydet.audit.training_set import Place, TrainingPixels, TrainingSet
from copydet.images.loader import Also, load
from copydet.images.resize import Resize, resize_to
from copydet.matching import MatchOptions, OpenDescriptor, match_images
from copydet.process import usable_cpus
from copydet.progress import Progress
from copydet.records import Image, ImageRow, Match, Pixels, QueryResult, Vectors
from copydet.shards.metadata import clean_text
from copydet.store import atomic

CHUNK = 128

ROW = pa.schema(
    [
        ("generation_id", pa.string()),
        ("uri", pa.string()),
        ("status", pa.string()),
        ("message", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
        ("reference_id", pa.string()),
        ("reference_uri", pa.string()),
        ("score", pa.float64()),
        ("verdict", pa.string()),
        ("similarity", pa.float64()),
        ("normalised_similarity", pa.float64()),
        ("query_view", pa.string()),
        ("reference_view", pa.string()),
        ("inliers", pa.int32()),
        ("query_overlap", pa.float64()),
        ("reference_overlap", pa.float64()),
        ("transform", pa.list_(pa.float64())),
        ("identical_file", pa.bool_()),
        ("nearest_id", pa.string()),
        ("nearest_similarity", pa.float64()),
        ("pixel_id", pa.string()),
        ("pixel_distance", pa.float64()),
        ("tile_distance", pa.float64()),
        ("adaptive_distance", pa.float64()),
        ("near_pixel", pa.bool_()),
        ("entropy", pa.float64()),
        ("compressed", pa.int32()),
        ("variation", pa.float64()),
    ]
)
_KEPT = pa.schema([*ROW, ("metadata", pa.string()), ("vector", pa.binary()), ("picture", pa.binary())])


@dataclass(frozen=True)
class _Seen:
    """What the decoding thread makes of a generation: its pixels [EDGE, EDGE, 3], and how much there is in them."""

    pixels: Pixels
    complexity: Complexity

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes


@dataclass(frozen=True)
class Muted:
    """Progress of matching without its notes: it is asked once a chunk, and the audit has warnings of its own."""

    progress: Progress

    def advance(self, images: int) -> None:
        self.progress.advance(images)

    def note(self, line: str) -> None:
        pass


@dataclass(frozen=True)
class Looker:
    """All that turns generations into rows."""

    training: TrainingSet
    opened: OpenDescriptor
    options: MatchOptions
    tiles: TrainingPixels
    small: TrainingPixels

    @classmethod
    def open(cls, training: TrainingSet, opened: OpenDescriptor, options: MatchOptions) -> "Looker":
        pixels = [TrainingPixels(training, edge, options.limits) for edge in (near_pixel.EDGE, near_pixel.SMALL)]
        return cls(training, opened, options, *pixels)

    def look(self, images: Sequence[Image], progress: Progress) -> pa.Table:
        """A row for each image, in order, with columns _KEPT."""
        results = list(match_images(images, self.training.references, self.opened, self.options, Muted(progress)))
        rows = [_row_of(result) | {"metadata": _as_json(image)} for image, result in zip(images, results, strict=True)]
        workers = self.options.workers or usable_cpus()
        loaded = load(
            images,
            self.opened.descriptor.resize,
            batch_size=self.options.batch_size,
            workers=workers,
            limits=self.options.limits,
            also=Also(Resize("square", near_pixel.EDGE), _see),
        )
        start = 0
        with ThreadPoolExecutor(workers) as pool:
            for batch in loaded:
                vectors = self.opened.runtime.describe(batch.pixels)
                near = self.training.distinct(vectors, near_pixel.NEIGHBOURS)
                numbers = [start + number for number in batch.ok]
                lines = zip(batch.also, vectors, near, [results[number] for number in numbers], strict=True)
                kept = pool.map(lambda line: self._compare(*line), list(lines))
                for number, row, found in zip(numbers, [batch.rows[i] for i in batch.ok], kept, strict=True):
                    rows[number] |= _facts_of(row) | found
                start += len(batch.rows)
        self._name(rows)
        return pa.Table.from_pylist(rows, schema=_KEPT)

    def _compare(
        self, seen: _Seen, vector: Vectors, near: list[tuple[Place, float]], result: QueryResult
    ) -> dict[str, Any]:
        """What descriptor and pixels say of a generation and its nearest training images."""
        small = resize_to(seen.pixels, near_pixel.SMALL, near_pixel.SMALL)
        places = [place for place, _ in near]
        pictures = self.small.read(places)
        known = [place for place, picture in zip(places, pictures, strict=True) if picture is not None]
        distance = near_pixel.distances(small, [picture for picture in pictures if picture is not None])
        found: dict[str, Any] = {
            "nearest": places[0] if places else None,
            "nearest_similarity": near[0][1] if near else None,
            "entropy": seen.complexity.entropy,
            "compressed": seen.complexity.compressed,
            "variation": seen.complexity.variation,
            "vector": vector.astype(np.float16).tobytes(),
            "picture": small.tobytes(),
        }
        if not known:
            return found
        best = int(distance.argmin())
        tried = dict.fromkeys([known[best], known[0]])
        tiled = {
            place: near_pixel.tile_distance(seen.pixels, picture)
            for place, picture in zip(tried, self.tiles.read(list(tried)), strict=True)
            if picture is not None
        }
        if not tiled:
            return found
        place = min(tiled, key=lambda each: tiled[each])
        of_place = float(distance[known.index(place)])
        return found | {
            "pixel": place,
            "pixel_distance": of_place,
            "tile_distance": tiled[place],
            "adaptive_distance": near_pixel.adaptive(of_place, distance),
            "near_pixel": tiled[place] <= near_pixel.NEAR,
        }

    def _name(self, rows: list[dict[str, Any]]) -> None:
        """Put the ids of training images in the place of their places, and tell generations that are training files."""
        for column in ("nearest", "pixel"):
            asked = [row for row in rows if row.get(column) is not None]
            facts = self.training.facts([row[column] for row in asked], ("image_id", "sha256"))
            for row, of_reference in zip(asked, facts, strict=True):
                row[f"{column}_id"] = of_reference["image_id"]
                same = row["sha256"] is not None and row["sha256"] == of_reference["sha256"]
                row["identical_file"] = row.get("identical_file", False) or same
        for row in rows:
            row.pop("nearest", None)
            row.pop("pixel", None)


def _see(pixels: Pixels) -> _Seen:
    return _Seen(pixels, measure_complexity(pixels))


def _row_of(result: QueryResult) -> dict[str, Any]:
    row: dict[str, Any] = {
        "generation_id": clean_text(result.query_id),
        "uri": clean_text(result.uri),
        "status": result.status,
        "message": clean_text(result.message),
    }
    return row | (_match_of(result.matches[0]) if result.matches else {})


def _match_of(match: Match) -> dict[str, Any]:
    values = {name: getattr(match, name) for name in ROW.names if hasattr(match, name)}
    values["transform"] = None if match.transform is None else [float(number) for number in match.transform]
    return {name: clean_text(value) for name, value in values.items()}


def _facts_of(row: ImageRow) -> dict[str, Any]:
    return {"width": row.width, "height": row.height, "sha256": row.sha256}


def _as_json(image: Image) -> str:
    return json.dumps(dict(image.metadata), default=str)


@dataclass(frozen=True)
class Looked:
    """`rows`: columns ROW, then `metadata` as JSON. `twins`: (row, descriptor float32 [dimension], picture uint8
    [SMALL, SMALL, 3]) of the first generations that could be read, at most cliques.MOST.
    """

    rows: pa.Table
    twins: list[tuple[int, Vectors, Pixels]]


def look_at_all(
    images: Iterator[Image], looker: Looker, folder: Path, settings: Mapping[str, object], progress: Progress
) -> Looked:
    """Look at all images, in order. Parts of an earlier run with the same settings and images are taken over."""
    parts = folder / "parts"
    _start(parts, settings)
    tables: list[pa.Table] = []
    twins: list[tuple[int, Vectors, Pixels]] = []
    seen, going_on = 0, True
    while chunk := list(islice(images, CHUNK)):
        path = parts / f"{len(tables):06}.parquet"
        table = _read_part(path, chunk) if going_on else None
        if table is None:
            going_on = False
            table = looker.look(chunk, progress)
            with atomic.new_file(path) as temporary:
                pq.write_table(table, temporary)
        else:
            progress.advance(len(chunk))
        twins += _twins(table, seen)[: MOST - len(twins)]
        seen += len(table)
        tables.append(table.drop_columns(["vector", "picture"]))
    rows = pa.concat_tables(tables) if tables else _KEPT.empty_table().drop_columns(["vector", "picture"])
    return Looked(rows, twins)


def _twins(table: pa.Table, first: int) -> list[tuple[int, Vectors, Pixels]]:
    both = zip(table["vector"].to_pylist(), table["picture"].to_pylist(), strict=True)
    side = near_pixel.SMALL
    return [
        (row, _vector(vector), np.frombuffer(picture, np.uint8).reshape(side, side, 3))
        for row, (vector, picture) in enumerate(both, first)
        if vector is not None
    ]


def _vector(stored: bytes) -> Vectors:
    return np.frombuffer(stored, np.float16).astype(np.float32)


def remove_parts(folder: Path) -> None:
    atomic.remove(folder / "parts")


def _start(parts: Path, settings: Mapping[str, object]) -> None:
    """An empty folder of parts with these settings, or the one that has them already."""
    wanted, kept = atomic.to_json(dict(settings)), parts / "settings.json"
    if kept.is_file() and kept.read_bytes() == wanted:
        return
    atomic.remove(parts)
    atomic.make_folder(parts)
    atomic.write_bytes(kept, wanted)


def _read_part(path: Path, chunk: Sequence[Image]) -> pa.Table | None:
    """The rows of an earlier run, if they are those of these images."""
    if not path.is_file():
        return None
    table = pq.read_table(path)
    wanted = [(clean_text(image.image_id), clean_text(image.uri)) for image in chunk]
    has = list(zip(table["generation_id"].to_pylist(), table["uri"].to_pylist(), strict=True))
    return table if table.schema.equals(_KEPT) and has == wanted else None
