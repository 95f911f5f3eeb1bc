"""From the URI that a row carries back to the encoded image: for thumbnails, so what can't be had is simply None.

An index may come from a stranger, and its URIs with it: only regular files, members of plain tars, cells of Parquet
files and a few kinds of URL are read, and the bytes go to the decoder with its limits and nowhere else.
"""

import re
from functools import lru_cache, partial
from typing import Any

from copydet.errors import CopydetError, ImageProblem
from copydet.images.files import FilePart, HeldBytes, is_url
from copydet.images.names import original_name
from copydet.images.parquet_source import cell_reader
from copydet.images.tar_source import tar_images
from copydet.records import Image

_MEMBER = re.compile(r"(?P<path>.+?\.tar)#member=(?P<name>.+)", re.DOTALL | re.IGNORECASE)
_CELL = re.compile(r"(?P<path>.+)#column=(?P<column>.+)&row=(?P<row>[0-9]{1,15})", re.DOTALL)
_SCHEMES = ("http://", "https://", "s3://", "gs://", "az://", "abfs://", "hf://")
_MOST_BYTES = 64 << 20  # of one image
_MOST_GROUP_BYTES = 512 << 20  # of the Parquet row group that holds it


class Originals:
    """Reads originals by URI and remembers where a tar's members lie and which servers don't answer."""

    def __init__(self) -> None:
        self._tars: dict[str, dict[str, FilePart]] = {}
        self._unreachable: set[str] = set()

    def read(self, uri: str) -> bytes | None:
        """The encoded image, or None when it is gone, out of reach or not of a kind that is read."""
        try:
            reader = self._reader(uri)
            return None if reader is None else reader(_MOST_BYTES)
        except (ImageProblem, CopydetError, OSError, ValueError):
            if is_url(uri):
                self._unreachable.add(_server(uri))
            return None

    def _reader(self, uri: str) -> FilePart | HeldBytes | None:
        if is_url(uri):
            known = uri.startswith(_SCHEMES) and "::" not in uri and _server(uri) not in self._unreachable
            return FilePart(original_name(uri)) if known else None
        if member := _MEMBER.fullmatch(uri):
            return self._members(member["path"]).get(uri)
        if cell := _CELL.fullmatch(uri):
            data = _cell(original_name(cell["path"]), cell["column"], int(cell["row"]))
            return None if data is None else HeldBytes(data)
        return FilePart(original_name(uri))

    def _members(self, path: str) -> dict[str, FilePart]:
        if path not in self._tars:
            listed = tar_images(original_name(path), path)
            self._tars[path] = {image.uri: image.read for image in listed if isinstance(image.read, FilePart)}
        return self._tars[path]


def original_image(originals: Originals, image_id: str, uri: str, source: str) -> Image:
    """The original of a row as an image to load; reading it raises ImageProblem when it is gone."""
    return Image(image_id, uri, source, partial(_read, originals, uri))


def _read(originals: Originals, uri: str) -> bytes:
    data = originals.read(uri)
    if data is None:
        raise ImageProblem("unreadable", "the original is gone or out of reach")
    return data


def _server(uri: str) -> str:
    return "/".join(uri.split("/", 3)[:3])


def _cell(path: str, column: str, row: int) -> bytes | None:
    """The encoded image in one cell of a local Parquet file."""
    import pyarrow as pa

    try:
        groups = _row_groups(path)
        for number, (first, rows) in enumerate(groups):
            if first <= row < first + rows:
                values = _column_of_group(path, number, column)
                reader = None if values is None else cell_reader(values[row - first].as_py(), path)
                return reader.data if isinstance(reader, HeldBytes) else None
    except (pa.ArrowException, KeyError, IndexError):
        pass
    return None


@lru_cache(maxsize=16)
def _row_groups(path: str) -> tuple[tuple[int, int], ...]:
    """(first row, rows) of each row group."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    groups, first = [], 0
    for number in range(metadata.num_row_groups):
        rows = metadata.row_group(number).num_rows
        groups.append((first, rows))
        first += rows
    return tuple(groups)


@lru_cache(maxsize=1)
def _column_of_group(path: str, group: int, column: str) -> Any:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        if file.metadata.row_group(group).total_byte_size > _MOST_GROUP_BYTES:
            return None
        return file.read_row_group(group, columns=[column]).column(column)
