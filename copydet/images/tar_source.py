"""Images of a tar, by WebDataset's key rules: members that share the path up to the first dot belong together.

Of a key's members the image is the one whose extension or content is an image's; `.json`, `.txt` and `.cls` become
metadata columns. A key with several images gives a row for each, named by the whole member name; a key without one
gives a row that says so. Nothing is ever extracted: a local tar's images are read in place by (offset, size); a
compressed or a remote tar is streamed once, so its images carry their bytes.
"""

import bz2
import gzip
import itertools
import json
import lzma
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

from copydet.images.files import MAX_BYTES, Failing, FilePart, HeldBytes, Reader, is_url, open_file
from copydet.images.formats import IMAGE_EXTENSIONS, sniff
from copydet.images.names import extension_of, plain_value, plain_values, readable_name, split_key
from copydet.images.parquet_source import columns_by_key
from copydet.images.tar_members import Member, TarBrokenError, tar_members
from copydet.records import Image

TAR_EXTENSIONS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_METADATA_EXTENSIONS = ("json", "txt", "cls")
_MAX_METADATA_BYTES = 16 * 2**20
_STREAM_ERRORS = (TarBrokenError, OSError, EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class _Entry:
    name: str
    role: Literal["image", "metadata", "other", "failed"]
    read: Reader
    uri: str

    @property
    def key(self) -> tuple[str, str]:
        """What groups members: the key; a failed entry stands alone."""
        return ("failed", self.uri) if self.role == "failed" else ("key", split_key(self.name)[0])


def is_tar(name: str) -> bool:
    return name.lower().endswith(TAR_EXTENSIONS)


def tar_images(path: str, source: str, prefix: str = "") -> Iterator[Image]:
    """Yield the images of the tar at `path`, ids `prefix` + key. A tar that breaks off ends with a row saying where."""
    columns: Mapping[str, Mapping[str, object]] = {}
    side_file = os.path.splitext(path)[0] + ".parquet"
    try:
        columns = columns_by_key(side_file)
    except Exception as error:  # whatever Arrow says of a damaged file
        message = f"the metadata beside the tar cannot be read: {error}"
        name = readable_name(os.path.basename(side_file))
        yield Image(prefix + name, readable_name(side_file), source, Failing("unreadable", message))
    for (kind, key), entries in itertools.groupby(_entries(path), lambda entry: entry.key):
        if kind == "failed":
            yield from (Image(prefix + entry.name, entry.uri, source, entry.read) for entry in entries)
        else:
            yield from _images_of_key(key, list(entries), columns.get(key, {}), source, prefix)


def _images_of_key(
    key: str, entries: list[_Entry], columns: Mapping[str, object], source: str, prefix: str
) -> Iterator[Image]:
    metadata = dict(columns)
    for entry in entries:
        if entry.role == "metadata":
            metadata.update(_metadata(entry))
    images = [entry for entry in entries if entry.role == "image"]
    if not images:
        names = ", ".join(entry.name.rpartition("/")[2] for entry in entries)
        reader = Failing("unsupported", f"no image under this key, only {names}")
        yield Image(prefix + key, entries[0].uri, source, reader, metadata)
    for entry in images:
        yield Image(prefix + (key if len(images) == 1 else entry.name), entry.uri, source, entry.read, metadata)


def _metadata(entry: _Entry) -> dict[str, object]:
    """Columns of a `.json` (its fields), `.cls` (an integer if it is one) or `.txt` member, named by the extension."""
    column = split_key(entry.name)[1]
    text = entry.read().decode("utf-8", "backslashreplace")
    if extension_of(entry.name) == "json":
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return {column: text}
        return plain_values(value) if isinstance(value, dict) else {column: plain_value(value)}
    if extension_of(entry.name) == "cls":
        try:
            return {column: int(text)}
        except ValueError:
            pass
    return {column: text.strip()}


def _entries(path: str) -> Iterator[_Entry]:
    in_place = not is_url(path) and path.lower().endswith(".tar")
    count = 0
    try:
        with _open_tar(path) as file:
            for member in tar_members(file, seekable=in_place):
                if member.kind != "folder":
                    count += 1
                    yield _entry(file, path, member, in_place)
    except _STREAM_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error)
        status = "truncated" if count else "unreadable"
        message = f"the tar breaks off after {count:,} members: {reason}" if count else f"not a readable tar: {reason}"
        yield _Entry(readable_name(os.path.basename(path)), "failed", Failing(status, message), readable_name(path))


def _entry(file: BinaryIO, path: str, member: Member, in_place: bool) -> _Entry:
    name = readable_name(member.name.removeprefix("./"))
    uri = f"{readable_name(path)}#member={name}"

    def failed(status: str, message: str) -> _Entry:
        return _Entry(name, "failed", Failing(status, message), uri)

    if member.kind != "file":
        return failed("unsupported", f"a {member.kind} in a tar; not followed")
    if name.startswith("/") or ".." in name.split("/"):
        return failed("unsupported", "a member name that leads out of the archive; not read")
    extension = extension_of(name)
    is_metadata = extension in _METADATA_EXTENSIONS and split_key(name)[1] != ""
    if is_metadata and member.size <= _MAX_METADATA_BYTES:
        return _Entry(name, "metadata", HeldBytes(file.read(member.size)), uri)
    if in_place:
        is_image = extension in IMAGE_EXTENSIONS or sniff(file.read(64)) is not None
        return _Entry(name, "image" if is_image else "other", FilePart(path, member.offset, member.size), uri)
    if member.size > MAX_BYTES:
        return failed("too_large", f"{member.size:,} bytes, the limit in a streamed tar is {MAX_BYTES:,}")
    data = file.read(member.size)
    if len(data) < member.size:
        return failed("truncated", f"the archive ends after {len(data):,} of {member.size:,} bytes")
    is_image = extension in IMAGE_EXTENSIONS or sniff(data) is not None
    return _Entry(name, "image" if is_image else "other", HeldBytes(data), uri)


@contextmanager
def _open_tar(path: str) -> Iterator[BinaryIO]:
    with open_file(path) as file:
        name = path.lower()
        if name.endswith((".gz", ".tgz")):
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file))
        elif name.endswith(".bz2"):
            yield cast(BinaryIO, bz2.BZ2File(file))
        elif name.endswith(".xz"):
            yield cast(BinaryIO, lzma.LZMAFile(file))  # noqa: SIM115
        else:
            yield file
