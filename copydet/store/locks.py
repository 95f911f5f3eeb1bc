"""One writer at a time, and readers that keep what they read: advisory locks (flock), which the system releases however
a process ends.

A writer locks INDEX/lock. A reader shares the lock of its snapshot's file, and nothing waits for it: what it keeps from
being deleted is only deleted later.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from copydet.errors import CopydetError, IndexLocked

_POLL_SECONDS = 0.1


@contextmanager
def write_lock(index: Path, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the write lock of the index in folder `index`, which must exist. Readers never take it.

    Waits up to `wait_seconds` for another writer; raises IndexLocked, naming that writer's process id, when it stays.
    """
    try:
        file = os.open(index / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise CopydetError(f"cannot write to {index}: {error.strerror}") from error
    try:
        _take(file, index, time.monotonic() + wait_seconds)
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(file)  # releases the lock


def _take(file: int, index: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                writer = os.pread(file, 20, 0).decode("ascii", "replace") or "unknown"
                raise IndexLocked(
                    f"{index} is being written by another process (id {writer}); wait until it has ended and try again"
                ) from None
        time.sleep(_POLL_SECONDS)


class ReadHold:
    """A share of the lock of a file for as long as this object lives. Raises FileNotFoundError when the file is gone.

    Where the file system knows no locks, nothing is held.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY)
        with suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_SH)
        if os.fstat(self._file).st_nlink == 0:  # deleted between opening and locking
            raise FileNotFoundError(path)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


@contextmanager
def unless_held(path: Path) -> Iterator[bool]:
    """Whether nobody holds the file; if so, nobody can until the end of the block."""
    file = os.open(path, os.O_RDWR)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:
            free = False
        yield free
    finally:
        os.close(file)
