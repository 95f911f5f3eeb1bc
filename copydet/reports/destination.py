"""Results appear whole or not at all: written beside their final place, then moved there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from copydet.errors import UsageError
from copydet.store import atomic


def check_destination(path: Path) -> None:
    """Refuse, before any work is done, a result file that could not be written at the end: UsageError."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} does not exist; make the folder first or write elsewhere")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path.parent} is not writable; write elsewhere")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; at the end it takes the place of `path`, after an error it is removed.

    Unlike `atomic.new_file` it leaves errors as they are: the whole matching happens while a result file is open.
    """
    partial = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        atomic.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
