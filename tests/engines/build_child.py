"""Run by test_kill.py in a child process: `build` or `add` with small chunks, slow enough to be killed inside."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from drawn import DESCRIPTOR, ThumbnailRuntime

from copydet.engines import local
from copydet.records import Pixels, Vectors
from copydet.shards import staging
from copydet.shards.recipe import Recipe

RECIPE = Recipe("tiny-pq", "for tests", "IVF{lists},PQ{code_bytes}x4", 8, 200, 60, 50, 4, 20, 0, 50)


class SlowRuntime(ThumbnailRuntime):
    def describe(self, pixels: Sequence[Pixels]) -> Vectors:
        time.sleep(0.01)
        return super().describe(pixels)


def main(command: str, index: str, photos: str) -> None:
    staging.CHUNK_IMAGES = local._BATCH = 16
    runtime = SlowRuntime()
    if command == "build":
        local.build(Path(index), [photos], DESCRIPTOR, RECIPE, runtime, workers=2)
    else:
        local.add(Path(index), [photos], DESCRIPTOR, runtime, workers=2)


if __name__ == "__main__":
    print("started", flush=True)
    main(*sys.argv[1:])
