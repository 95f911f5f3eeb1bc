import os
import subprocess
import sys
from pathlib import Path

import pytest

from copydet.engines.memory import MIB, memory_plan, resident_bytes, total_memory
from copydet.errors import UsageError
from copydet.images.decode import Limits
from copydet.local_features.describe import RECORD_BYTES
from copydet.local_features.gist import GIST_BYTES
from copydet.shards.recipe import load_recipe
from copydet.shards.staging import CHUNK_IMAGES

SMALL = Limits(max_bytes=16 * MIB, max_pixels=20_000_000)

# Indexes `argv[2]` images made in memory and prints the peak of the process in KiB (not ru_maxrss: a child's starts at
# its parent's).
GROW = """
import re, sys
from pathlib import Path
import numpy as np
from drawn import DESCRIPTOR, ThumbnailRuntime
from copydet.engines import engine, local
from copydet.records import Image
import cv2

count = int(sys.argv[2])
data = cv2.imencode(".jpg", np.full((24, 24, 3), 128, np.uint8))[1].tobytes()
engine.list_images = lambda specs: (Image(f"{n:09d}", f"/p/{n}", "p", lambda: data, {"n": n}) for n in range(count))
local.open_source = lambda spec: type("Source", (), {"kind": "file", "paths": ()})
local.build(Path(sys.argv[1]), ["p"], DESCRIPTOR, None, ThumbnailRuntime(), workers=2, max_memory=1 << 30,
            limits=local.Limits(1 << 24, 20_000_000))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def test_the_parts_stay_below_the_whole_and_the_line_says_them() -> None:
    given = (1 << 30) + resident_bytes()  # of the whole test run, which may be much
    plan = memory_plan(given, workers=2, limits=SMALL, local_features=100)
    assert plan.process + plan.decode + plan.staged + plan.queue <= plan.max_memory
    assert plan.process + plan.work == plan.max_memory
    assert f"{given / MIB:,.0f} MiB at most" in plan.text
    assert "\n" not in plan.text


def test_local_features_that_wait_are_taken_from_the_queue_and_said() -> None:
    size = 2 * CHUNK_IMAGES * (100 * RECORD_BYTES + GIST_BYTES)
    given = (1 << 30) + resident_bytes()
    without, with_some = (memory_plan(given, 2, SMALL, count) for count in (0, 100))
    assert (without.staged, with_some.staged) == (0, size)
    assert with_some.process + with_some.decode + with_some.staged + with_some.queue <= given
    assert "for local features" in with_some.text
    assert "local features" not in without.text
    with pytest.raises(UsageError, match="too few"):
        memory_plan(without.process + without.decode + 16 * MIB, 2, SMALL, 100)


def test_too_little_memory_is_one_line_with_the_least_amount() -> None:
    with pytest.raises(UsageError, match=r"100 MiB of memory are too few: this needs [\d,]+ MiB"):
        memory_plan(100 * MIB, workers=2, limits=SMALL, local_features=100)


def test_sample_and_shards_shrink_with_the_memory() -> None:
    recipe = load_recipe("flat")
    large, small = memory_plan(8 << 30, 2, SMALL, 100), memory_plan(700 * MIB + resident_bytes(), 2, SMALL, 100)
    assert large.shard_images(recipe, 512) == recipe.shard_images
    assert 2048 <= small.shard_images(recipe, 4096) < recipe.shard_images
    pq = load_recipe("ivf-pq")
    many = 100_000_000
    assert small.sample_images(pq, 512, many) < large.sample_images(pq, 512, many) == pq.sample_images(many)


def test_without_a_limit_half_of_the_memory_is_taken() -> None:
    if total_memory() // 2 > 1 << 30:
        assert memory_plan(None, 1, SMALL, 100).max_memory == total_memory() // 2


@pytest.mark.slow
def test_the_peak_does_not_grow_with_the_collection(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}:{Path(__file__).parent}"}
    peaks = []
    for count in (1_000, 20_000):
        arguments = [sys.executable, "-c", GROW, str(tmp_path / str(count)), str(count)]
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < 1 << 20
