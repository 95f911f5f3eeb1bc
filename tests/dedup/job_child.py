"""Run by test_job.py in a child process: a job in small steps, so that it can be killed between and inside them."""

import sys

from copydet.dedup import near, pairs
from copydet.dedup.job import deduplicate
from copydet.engines import local
from copydet.shards import staging

if __name__ == "__main__":
    near.NEIGHBOURS = 3  # drawn pictures are all alike
    staging.CHUNK_IMAGES = local._BATCH = 16
    near.BLOCK = pairs.BLOCK = 8
    print("started", flush=True)
    source, output = sys.argv[1:]
    deduplicate(source, output, precision=0.9, device="cpu", workers=2)
