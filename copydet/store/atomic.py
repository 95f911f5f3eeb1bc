"""The only writer of committed files: a file appears under its name whole and on disk, or not at all.

Each function leaves the target as it was when it fails, and removes its own temporary file, also on Ctrl-C. After `kill
-9` a temporary file named `.<name>.tmp-<pid>` can stay; `remove_leftovers` deletes those under the write lock.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from copydet.errors import CopydetError


def make_folder(path: Path) -> None:
    """Make `path` and its parents where they are missing, on disk before this returns."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with _clear_errors(path):
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; at the end it is synced to disk and takes the name `path`."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with _clear_errors(path):
            yield temporary
            _sync_file(temporary)
        replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write or replace a whole file."""
    with new_file(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: object) -> None:
    """Write or replace a file of indented JSON with sorted keys, so that equal values are equal bytes."""
    write_bytes(path, to_json(value))


def to_json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def create_bytes(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet. Raises FileExistsError when it does."""
    created = False
    try:
        with _clear_errors(path), open(path, "xb") as file:
            created = True
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with _clear_errors(path):
            _sync_folder(path.parent)
    except BaseException:
        if created:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise


def replace(source: Path, target: Path) -> None:
    """Rename within one file system; the rename is on disk before this returns."""
    with _clear_errors(target):
        os.replace(source, target)
        _sync_folder(target.parent)


def remove(path: Path) -> None:
    """Delete a file or a folder, and do nothing when there is none."""
    with _clear_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.exists() or path.is_symlink():
            path.unlink()
        else:
            return
        _sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that killed writers left below `folder`. Only under the write lock."""
    for leftover in folder.glob("**/.*.tmp-*"):
        remove(leftover)


def _sync_file(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """Disk full, no permission, a name too long: one line that names the file, instead of a traceback."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise CopydetError(f"cannot write {path}: {error.strerror or error}") from error
