"""A copy of the images that are kept, in shards: WebDataset tars, or Parquet files.

Files are copied as they are, never encoded again. A shard holds SHARD_IMAGES; finished ones are not written again.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from copydet.dedup.collection import Collection, Numbers
from copydet.errors import UsageError
from copydet.images.originals import Originals
from copydet.progress import Progress
from copydet.store import atomic

Format = Literal["webdataset", "parquet"]

SHARD_IMAGES = 1000
_EXTENSIONS = {"jpeg": "jpg", "tiff": "tif", "jpeg2000": "jp2", "heif": "heic"}
_NOTE = "kept.json"


@dataclass(frozen=True)
class Written:
    """How many images were copied, and the ids of those whose originals are gone or no longer the same file."""

    images: int
    missing: tuple[str, ...]


def write_kept(
    folder: Path, collection: Collection, kept: NDArray[np.bool_], form: Format, progress: Progress
) -> Written:
    """Copy the collection's own images of `kept` (bool [images]) to `folder`, in the order in which they were listed.

    The same call goes on after it was cut off. Raises UsageError when the folder holds something else.
    """
    numbers = np.flatnonzero(kept[: collection.own])
    _start(folder, collection, numbers, form)
    originals, missing, images = Originals(), list[str](), 0
    write, ending = (_write_tar, "tar") if form == "webdataset" else (_write_parquet, "parquet")
    for shard, start in enumerate(range(0, len(numbers), SHARD_IMAGES)):
        part = numbers[start : start + SHARD_IMAGES]
        path = folder / f"{shard:06d}.{ending}"
        note = path.with_suffix(".missing.json")
        if not (path.exists() and note.exists()):
            gone: list[str] = []
            with atomic.new_file(path) as partial:
                write(partial, _read(collection, part, start, originals, gone))
            atomic.write_json(note, gone)
        gone = json.loads(note.read_bytes())
        missing += gone
        images += len(part) - len(gone)
        progress.advance(len(part))
    return Written(images, tuple(missing))


@dataclass(frozen=True)
class _Sample:
    """An image as it is copied: its key in the shard, its row of images.parquet, its bytes."""

    key: str
    row: dict[str, Any]
    data: bytes


def _read(
    collection: Collection, numbers: Numbers, first: int, originals: Originals, gone: list[str]
) -> Iterator[_Sample]:
    for place, row in enumerate(_whole_rows(collection, numbers), first):
        data = originals.read(row["uri"]) if row["uri"] else None
        if data is None or hashlib.sha256(data).hexdigest() != row["sha256"]:
            gone.append(row["image_id"])
        else:
            yield _Sample(f"{place:09d}", row, data)


def _whole_rows(collection: Collection, numbers: Numbers) -> Iterator[dict[str, Any]]:
    """All columns, the source's own among them."""
    shard, row = collection.places(numbers)
    for each in np.unique(shard).tolist():  # numbers ascend, and so do shards
        opened = collection.shards[each]
        names = pq.read_schema(opened.images_path).names
        yield from opened.image_columns(row[shard == each], names).to_pylist()


def _write_tar(path: Path, samples: Iterator[_Sample]) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for sample in samples:
            kind = str(sample.row["format"])
            _add(tar, f"{sample.key}.{_EXTENSIONS.get(kind, kind)}", sample.data)
            about = json.dumps(sample.row, default=str, ensure_ascii=False, sort_keys=True)
            _add(tar, f"{sample.key}.json", about.encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # without a time: the same images make the same bytes
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _write_parquet(path: Path, samples: Iterator[_Sample]) -> None:
    listed = list(samples)
    rows = pa.Table.from_pylist([sample.row for sample in listed])
    pq.write_table(rows.append_column("image", pa.array([each.data for each in listed], pa.binary())), path)


def _start(folder: Path, collection: Collection, numbers: Numbers, form: Format) -> None:
    """Note in the folder what is copied to it; refuse one that holds something else."""
    digest = hashlib.sha256(numbers.tobytes())
    for shard in collection.shards:
        digest.update(shard.images_hash.encode())
    wanted = atomic.to_json({"images": len(numbers), "format": form, "content": digest.hexdigest()})
    note = folder / _NOTE
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        if not note.is_file() or note.read_bytes() != wanted:
            raise UsageError(f"{folder} holds other files; name a new folder for the images that are kept")
        for leftover in folder.glob(".*.tmp-*"):
            atomic.remove(leftover)
        return
    atomic.make_folder(folder)
    atomic.write_bytes(note, wanted)
