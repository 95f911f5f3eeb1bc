"""How the memory that the user grants is divided, worked out and said before the start."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from copydet.errors import UsageError
from copydet.images.decode import Limits
from copydet.local_features.describe import RECORD_BYTES
from copydet.local_features.gist import GIST_BYTES
from copydet.shards.recipe import Recipe
from copydet.shards.staging import CHUNK_IMAGES

MIB = 2**20
_LIBRARIES = 250 * MIB  # FAISS, Arrow, DuckDB and the runtime's buffers, not all loaded when the plan is made
_DECODE = 48 * MIB  # a photo of 12 megapixels, decoded, and its bytes
_WORKER = 128 * MIB  # a process that decodes and extracts local features, beside the image that it holds
_LEAST_QUEUE, _MOST_QUEUE = 16 * MIB, 512 * MIB
_LEAST_WORK = 160 * MIB  # DuckDB's floor, Parquet buffers and some chunks


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes for each part. Describing takes `process + decode + staged + queue`, what follows `process + work`."""

    max_memory: int
    process: int
    decode: int
    staged: int
    queue: int
    work: int
    workers: int
    text: str

    def sample_images(self, recipe: Recipe, dimension: int, images: int) -> int:
        """How many of `images` images training takes: FAISS holds the sample twice (rotated) and its assignment."""
        return min(recipe.sample_images(images), self.work // (12 * dimension))

    def shard_images(self, recipe: Recipe, dimension: int) -> int:
        """How many images a shard may hold: its codes grow in memory by doubling."""
        most = (self.work - _LEAST_WORK // 2) // (2 * recipe.memory_bytes(dimension))
        return max(CHUNK_IMAGES, min(recipe.shard_images, most))


def memory_plan(
    max_memory: int | None, workers: int, limits: Limits, local_features: int, view_numbers: int = 0
) -> MemoryPlan:
    """Divide `max_memory` bytes (None: half of the memory that this machine or container has) over the parts.

    Decoding counts one ordinary photo for each worker (0: nothing is decoded) and one image as large as `limits` allow;
    `local_features` of each image, and the `view_numbers` of the descriptors of its parts, wait until their chunk is
    full, and are there twice while it is written.
    Raises UsageError with the least amount when it is too little.
    """
    given = max_memory if max_memory is not None else total_memory() // 2
    process = resident_bytes() + _LIBRARIES + (workers * _WORKER if local_features else 0)
    decode = workers * _DECODE + limits.max_bytes + 3 * limits.max_pixels
    features = local_features * RECORD_BYTES + (GIST_BYTES if local_features else 0)
    staged = 2 * CHUNK_IMAGES * (features + 4 * view_numbers)
    least = process + max(decode + staged + _LEAST_QUEUE, _LEAST_WORK)
    if given < least:
        raise UsageError(
            f"{given / MIB:,.0f} MiB of memory are too few: this needs {least / MIB:,.0f} MiB, of which "
            f"{decode / MIB:,.0f} MiB for decoding; allow more, use fewer workers, or lower the limit on pixels"
        )
    queue = min(_MOST_QUEUE, given - process - decode - staged)
    plan = MemoryPlan(given, process, decode, staged, queue, given - process, workers, "")
    text = f"memory: {given / MIB:,.0f} MiB at most: {process / MIB:,.0f} for the program"
    if workers:
        text += f", {decode / MIB:,.0f} for decoding with {workers} workers, {queue / MIB:,.0f} for images that wait"
    if staged:
        text += f", {staged / MIB:,.0f} for local features{' and views' if view_numbers else ''}"
    return MemoryPlan(**{**plan.__dict__, "text": text})


def resident_bytes() -> int:
    """Memory that this process holds now (Linux), or held at its peak (elsewhere)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if os.uname().sysname == "Darwin" else peak * 1024


def total_memory() -> int:
    """Bytes of memory of this machine, or of the container where that has less."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return min(physical, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return physical
