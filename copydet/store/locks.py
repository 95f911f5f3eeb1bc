"""One writer at a time: an advisory lock on INDEX/lock, which the system releases however the writer ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
