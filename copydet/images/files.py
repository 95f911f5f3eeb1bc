"""Bytes of files and of their parts, here or behind an fsspec URL. A reader is an `Image.read`: callable, picklable."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from copydet.errors import ImageProblem, UsageError

MAX_BYTES = 256 * 2**20  # the default of Limits.max_bytes


def is_url(path: str) -> bool:
    """Whether fsspec opens `path`; `file://` is a local path."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme.replace("+", "").replace("-", "").replace(":", "").isalnum()


def local_path(spec: str) -> str:
    return spec.removeprefix("file://") if spec.startswith("file://") else spec


def filesystem(url: str) -> tuple[Any, str]:
    """(fsspec filesystem, path in it). Raises UsageError when nothing installed opens such a URL."""
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        # fsspec says which package opens the scheme ("Install s3fs to access S3").
        raise UsageError(f"cannot open {url}: {error}") from error
    except ValueError as error:
        raise UsageError(f"cannot open {url}: {error}") from error
    return fs, str(path)


@dataclass(frozen=True)
class FilePart:
    """`size` bytes of a file from `offset` on (None: to its end). Each call opens the file anew, so any thread may."""

    path: str
    offset: int = 0
    size: int | None = None

    def __call__(self, max_bytes: int = MAX_BYTES) -> bytes:
        """Raises ImageProblem: too_large beyond `max_bytes` (before reading), unreadable, truncated."""
        try:
            data = self._read_url(max_bytes) if is_url(self.path) else self._read_local(max_bytes)
        except ImageProblem:
            raise
        except OSError as error:
            raise ImageProblem("unreadable", f"cannot read: {error.strerror or error}") from error
        except Exception as error:  # storage libraries raise their own kinds
            raise ImageProblem("unreadable", f"cannot read: {type(error).__name__}: {error}") from error
        if self.size is not None and len(data) < self.size:
            raise ImageProblem("truncated", f"the file ends after {len(data):,} of {self.size:,} bytes")
        return data

    def _read_local(self, max_bytes: int) -> bytes:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0):
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ImageProblem("unsupported", "not a regular file")
            size = status.st_size - self.offset if self.size is None else self.size
            check_bytes(size, max_bytes)
            return _pread(descriptor, size, self.offset)

    def _read_url(self, max_bytes: int) -> bytes:
        fs, path = filesystem(self.path)
        size = fs.size(path) if self.size is None else self.size
        if size is not None:
            check_bytes(size, max_bytes)
        end = self.offset + size if size is not None else None
        return cast(bytes, fs.cat_file(path, start=self.offset, end=end))


@dataclass(frozen=True)
class HeldBytes:
    """Bytes that listing had to read anyway (compressed tars, Parquet cells)."""

    data: bytes

    def __call__(self, max_bytes: int = MAX_BYTES) -> bytes:
        check_bytes(len(self.data), max_bytes)
        return self.data


@dataclass(frozen=True)
class Failing:
    """An entry that a source lists but that cannot be read."""

    status: str
    message: str

    def __call__(self, max_bytes: int = MAX_BYTES) -> bytes:
        raise ImageProblem(self.status, self.message)


Reader = FilePart | HeldBytes | Failing


def read_within(read: Callable[[], bytes], max_bytes: int) -> bytes:
    """Read an image whose bytes may not exceed `max_bytes`; readers of this room check before they read."""
    data = read(max_bytes) if isinstance(read, FilePart | HeldBytes | Failing) else read()
    check_bytes(len(data), max_bytes)
    return data


def check_bytes(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ImageProblem("too_large", f"{size:,} bytes, the limit is {max_bytes:,}")


@contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """Open a local file or an fsspec URL for reading."""
    if is_url(path):
        fs, inner = filesystem(path)
        with fs.open(inner, "rb") as file:
            yield file
    else:
        with open(path, "rb") as file:
            yield file


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    parts = []
    while size > 0 and (part := os.pread(descriptor, min(size, 2**30), offset)):
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
