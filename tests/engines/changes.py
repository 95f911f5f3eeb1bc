"""The four changes of an index, on drawn photos: run by test_faults.py, disturbed in every way.

As a program it reads lines `change index photos seconds` and runs each in a process of its own, which it kills after so
many seconds: a new interpreter for every kill would spend most of the time importing.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from drawn import DESCRIPTOR, ThumbnailRuntime

from copydet.engines import local
from copydet.engines.compaction import compact
from copydet.records import Pixels, Vectors
from copydet.shards import staging
from copydet.shards.deletions import remove_images
from copydet.shards.recipe import Recipe
from copydet.store.compact import remove_unused

RECIPE = Recipe("tiny-pq", "for tests", "IVF{lists},PQ{code_bytes}x4", 8, 200, 60, 50, 4, 20, 0, 10)
REMOVED = ("00003.jpg", "00021.jpg", "00101.jpg")


class SlowRuntime(ThumbnailRuntime):
    def describe(self, pixels: Sequence[Pixels]) -> Vectors:
        time.sleep(0.005)
        return super().describe(pixels)


def index(path: Path, photos: Path) -> None:
    local.build(path, [str(photos)], DESCRIPTOR, RECIPE, SlowRuntime(), workers=2)


def add(path: Path, photos: Path) -> None:
    local.add(path, [str(photos.with_name("more"))], DESCRIPTOR, SlowRuntime(), workers=2)


def remove(path: Path, photos: Path) -> None:
    remove_images(path, REMOVED)


def compact_all(path: Path, photos: Path) -> None:
    compact(path)
    remove_unused(path)


CHANGES: dict[str, Callable[[Path, Path], None]] = {
    "index": index,
    "add": add,
    "remove": remove,
    "compact": compact_all,
}


def small_batches() -> None:
    """So that a few photos cross every boundary."""
    staging.CHUNK_IMAGES = local._BATCH = 16


def kill_after(change: str, path: Path, photos: Path, seconds: float) -> str:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            CHANGES[change](path, photos)
            code = 0
        finally:
            os._exit(code)
    ended = select.select([os.pidfd_open(child)], [], [], seconds)[0]
    if not ended:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return "killed" if os.WIFSIGNALED(status) else f"ended {os.WEXITSTATUS(status)}"


if __name__ == "__main__":
    small_batches()
    print("ready", flush=True)
    for line in sys.stdin:
        change, path, photos, seconds = line.rstrip("\n").split("\t")
        print(kill_after(change, Path(path), Path(photos), float(seconds)), flush=True)
