"""What a user may name as a source, and the images it lists: lazily, in the same order on every run.

A source is a folder, an image file, a tar (`.tar`, `.tar.gz`, `.tgz`, `.tar.bz2`, `.tar.xz`), a Parquet file, a text
list (`.txt`, `.lst`, `.list`, `.csv`, `.tsv`), a range of files `shard-{000..099}.tar`, a pattern `*.parquet`, or an
fsspec URL of any of these. Nothing is filtered: each entry becomes an Image, also one whose `read` can only say why
it can't be read.
"""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from copydet.errors import UsageError
from copydet.images.files import FilePart, filesystem, is_url, local_path
from copydet.images.folder_source import count_files, folder_images
from copydet.images.list_source import is_list, list_file_images, list_length
from copydet.images.names import readable_name
from copydet.images.parquet_source import is_parquet, parquet_images, parquet_rows
from copydet.images.tar_source import is_tar, tar_images
from copydet.records import Image

Kind = Literal["folder", "file", "tar", "parquet", "list"]
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class Source:
    """One source: `spec` as the user wrote it, `paths` what it stands for (several for a range or a pattern)."""

    spec: str
    kind: Kind
    paths: tuple[str, ...]

    @property
    def uri(self) -> str:
        return readable_name(self.paths[0] if len(self.paths) == 1 else self.spec)

    def images(self) -> Iterator[Image]:
        """Yield every image in order; may be called again and yields the same."""
        source = readable_name(self.spec.rstrip("/") or self.spec)
        for written in self.paths:
            path = _absolute(written)
            if self.kind == "folder":
                yield from folder_images(path, source, remote=is_url(path))
            elif self.kind == "tar":
                yield from tar_images(path, source)
            elif self.kind == "parquet":
                yield from parquet_images(path, source)
            elif self.kind == "list":
                yield from list_file_images(path, source)
            else:
                yield Image(readable_name(written), readable_name(path), source, FilePart(path))

    def count(self) -> int | None:
        """How many images it lists, where that is cheap to know."""
        if self.kind == "file":
            return len(self.paths)
        if self.kind == "tar" or any(is_url(path) for path in self.paths):
            return None
        counts = {"folder": count_files, "parquet": parquet_rows, "list": list_length}
        each = [counts[self.kind](path) for path in self.paths]
        return None if None in each else sum(count for count in each if count is not None)


def open_source(spec: str) -> Source:
    """Find what `spec` names. Raises UsageError when it does not exist."""
    path = local_path(spec)
    if _exists(path):
        return Source(spec, _kind(path), (path,))
    paths = tuple(each for ranged in _expand_range(path) for each in _expand_pattern(ranged))
    missing = [each for each in paths if not _exists(each)]
    if not paths or missing:
        raise UsageError(f"no such source: {readable_name(missing[0] if missing else spec)}")
    kinds = {_kind(each) for each in paths}
    if len(kinds) > 1:
        raise UsageError(
            f"{readable_name(spec)} matches things of several kinds ({', '.join(sorted(kinds))}): name them apart"
        )
    return Source(spec, kinds.pop(), paths)


def list_images(specs: Sequence[str]) -> Iterator[Image]:
    """All images of all sources in order. Raises UsageError at once when a source does not exist."""
    sources = [open_source(spec) for spec in specs]
    return (image for source in sources for image in source.images())


def count_images(specs: Sequence[str]) -> int | None:
    """How many images `list_images` yields, where that is cheap to know, else None."""
    counts = [open_source(spec).count() for spec in specs]
    return None if None in counts else sum(count for count in counts if count is not None)


def _absolute(path: str) -> str:
    return path if is_url(path) else os.path.abspath(path)


def _kind(path: str) -> Kind:
    if _is_folder(path):
        return "folder"
    if is_tar(path):
        return "tar"
    if is_parquet(path):
        return "parquet"
    return "list" if is_list(path) else "file"


def _exists(path: str) -> bool:
    if not is_url(path):
        return os.path.lexists(path)
    fs, inner = filesystem(path)
    return bool(fs.exists(inner))


def _is_folder(path: str) -> bool:
    if not is_url(path):
        return os.path.isdir(path)
    fs, inner = filesystem(path)
    return bool(fs.isdir(inner))


def _expand_range(spec: str) -> list[str]:
    """`a-{000..002}.tar` -> three names; the numbers keep the width that the first was written with."""
    found = _RANGE.search(spec)
    if not found:
        return [spec]
    first, last = found[1], found[2]
    numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [name for number in numbers for name in _expand_range(spec[: found.start()] + number + spec[found.end() :])]


def _expand_pattern(spec: str) -> list[str]:
    if not glob.has_magic(spec):
        return [spec]
    if is_url(spec):
        fs, inner = filesystem(spec)
        scheme = spec.partition("://")[0]
        return [f"{scheme}://{str(name).lstrip('/')}" for name in sorted(fs.glob(inner))]
    return sorted(glob.glob(spec, recursive=True, include_hidden=True), key=os.fsencode)
