"""What test_ray.py runs on the cluster; as a program, a driver of its own that can be killed."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from drawn import DESCRIPTOR, ThumbnailRuntime

from copydet.descriptors.registry import Descriptor
from copydet.engines import local
from copydet.engines.ray import open_ray
from copydet.records import Pixels, Vectors
from copydet.shards import staging
from copydet.shards.recipe import Recipe

RECIPE = Recipe("tiny-pq", "for tests", "IVF{lists},PQ{code_bytes}x4", 8, 200, 60, 50, 4, 20, 0, 50)


@dataclass(frozen=True)
class SlowRuntime:
    """Describes slowly enough to be killed meanwhile; a file for each process in `workers` grows by a byte an image."""

    workers: Path
    seconds: float
    name: str = "slow thumbnail"
    batch_size: int = 16
    descriptor: Descriptor = DESCRIPTOR

    @cached_property
    def _thumbnail(self) -> ThumbnailRuntime:
        return ThumbnailRuntime()

    def describe(self, pixels: Sequence[Pixels]) -> Vectors:
        with (self.workers / str(os.getpid())).open("a") as described:
            described.write("." * len(pixels))
        time.sleep(self.seconds * len(pixels))
        return self._thumbnail.describe(pixels)


def main(address: str, index: str, photos: str, workers: str) -> None:
    staging.CHUNK_IMAGES = 16
    with open_ray(address) as engine:
        local.build(Path(index), [photos], DESCRIPTOR, RECIPE, SlowRuntime(Path(workers), 0.02), engine=engine)


if __name__ == "__main__":
    import ray_child  # workers find the runtime's class under this name

    ray_child.main(*sys.argv[1:])
