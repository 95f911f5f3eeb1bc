"""Measure the rates behind docs/scale.md, each in processor seconds of one core, so that a busy machine tells them too.

    .venv/bin/python scripts/benchmark_scale.py --work build/scale --images 200000 --lists 1024

Descriptors are random ones of length 1: how long codes take does not depend on what they say. Steps:

    list      what a source lists: members of a tar, files of a folder
    send      what the driver of a cluster sends for a slice of the listing
    stage     chunks: rows, descriptors
    ids       ids that occur twice, found in DuckDB
    shard     one shard of `--images`, by the recipe, of a quantiser of `--lists` lists
    search    a query in one shard: at two numbers of lists, so that the cost of a code that is looked at comes out;
              and what a further candidate costs, which is scored again from its float16 descriptor
    background   the similarity of an image to the background bank; one product of the bank and a block of images
    merge     pairs of duplicates, each once and sorted, in DuckDB
"""

import argparse
import io
import json
import pickle
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from copydet.process import prepare_process  # noqa: E402

prepare_process()

import numpy as np  # noqa: E402

DIMENSION, LISTED, QUERIES = 256, 20_000, 256


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of all threads, and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def measure_listing(work: Path) -> dict[str, float]:
    from copydet.images.sources import list_images

    folder, tar = work / "files", work / "members.tar"
    folder.mkdir()
    with tarfile.open(tar, "w") as out:
        for number in range(LISTED):
            member = tarfile.TarInfo(f"{number:09d}.jpg")
            member.size = 100
            out.addfile(member, io.BytesIO(bytes(100)))
            (folder / member.name).touch()
    of_tar, images = seconds(lambda: list(list_images([str(tar)])))
    of_folder, files = seconds(lambda: list(list_images([str(folder)])))
    assert len(images) == len(files) == LISTED
    sending, sent = seconds(lambda: [pickle.dumps(images[at : at + 2048]) for at in range(0, LISTED, 2048)])
    return {
        "list: members of a tar a second": LISTED / of_tar,
        "list: files of a folder a second": LISTED / of_folder,
        "send: images a second": LISTED / sending,
        "send: bytes an image": sum(map(len, sent)) / LISTED,
    }


def described(count: int) -> Iterator[Any]:
    from copydet.records import Described, ImageRow

    rng = np.random.default_rng(1)
    for start in range(0, count, 2048):
        size = min(2048, count - start)
        vectors = rng.standard_normal((size, DIMENSION)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = [
            ImageRow(f"{n // 10_000:05d}/{n:09d}.jpg", f"/d.tar#{n}", "d", 640, 480, "jpeg", 90_000, f"{n:064x}")
            for n in range(start, start + size)
        ]
        yield Described(rows, range(size), vectors)


def measure_building(work: Path, images: int, recipe_name: str, lists: int) -> tuple[dict[str, float], Any, Path]:
    from copydet.progress import Silent
    from copydet.shards import staging
    from copydet.shards.build import Codes, build_shard, common_schema
    from copydet.shards.duplicates import find_duplicates
    from copydet.shards.quantiser import sample_vectors, train_quantiser
    from copydet.shards.recipe import load_recipe

    building = work / "building"
    building.mkdir()
    batches = list(described(images))
    staging_seconds, chunks = seconds(
        lambda: list(staging.write_chunks(building, batches, DIMENSION, [], Silent(), has_local=False))
    )
    batches.clear()
    taken = work / "duplicates.parquet"
    id_seconds, _ = seconds(lambda: find_duplicates(taken, chunks, {}, None, 1 << 30))
    recipe = load_recipe(recipe_name)
    factory = recipe.codes(DIMENSION, (lists // 4) ** 2, 39 * lists)
    sample = sample_vectors(chunks, DIMENSION, 39 * lists)
    train_seconds, trained = seconds(lambda: train_quantiser(factory, sample))
    folder = work / "index/shards/000001-0000"
    folder.parent.mkdir(parents=True)
    shard_seconds, entry = seconds(
        lambda: build_shard(folder, chunks, common_schema(chunks), taken, Codes(factory, trained), DIMENSION)
    )
    rates = {
        "stage: images a second": images / staging_seconds,
        "ids: images a second": images / id_seconds,
        f"train {factory} on {len(sample):,}: seconds": train_seconds,
        "shard: images a second": images / shard_seconds,
        "shard: bytes of codes an image": entry.files["codes.faiss"].bytes / images,
        "shard: bytes of images.parquet an image": entry.files["images.parquet"].bytes / images,
    }
    return rates, entry, folder.parent.parent


def measure_search(index: Path, entry: Any, images: int, lists: int) -> dict[str, float]:
    from copydet.search.retrieve import retrieve
    from copydet.shards.shard import open_shard

    opening, shard = seconds(lambda: open_shard(index, entry, DIMENSION))
    queries = shard.descriptors[:QUERIES].astype(np.float32)

    def search(nprobe: int, candidates: int) -> float:
        return min(
            seconds(lambda: retrieve([shard], queries, 10, nprobe=nprobe, candidates=candidates))[0] for _ in "123"
        )

    search(lists // 16, 500)  # reads the file
    few, many, more = search(lists // 16, 500), search(lists // 8, 500), search(lists // 16, 1000)
    visited = images / 16  # codes in so many lists, on average
    return {
        "search: opening a shard, seconds": opening,
        f"search: ms a query at {lists // 16} of {lists} lists, 500 candidates": 1000 * few / QUERIES,
        "search: codes looked at a second": visited * QUERIES / (many - few),
        "search: further candidates a second, proposed and scored again": 500 * QUERIES / (more - few),
    }


def measure_join(work: Path) -> dict[str, float]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from copydet.dedup.near import _SCHEMA, _merge
    from copydet.descriptors.background import load_bank
    from copydet.descriptors.registry import load_descriptor
    from copydet.search.score_norm import background_similarity

    bank = load_bank(load_descriptor("small"))
    assert bank is not None
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((1024, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    background, _ = seconds(lambda: background_similarity(vectors, bank))
    entries = bank.vectors.astype(np.float32)
    product, _ = seconds(lambda: (entries @ vectors.T).max(axis=1))
    pairs, images = 2_000_000, 1_000_000
    one, other = rng.integers(0, images, (2, pairs))
    files = [work / f"near-{number}.parquet" for number in range(4)]
    for number, path in enumerate(files):
        part = slice(number * pairs // 4, (number + 1) * pairs // 4)
        columns = [one[part], other[part], np.zeros(pairs // 4, np.float32)]
        pq.write_table(pa.table(columns, schema=_SCHEMA), path)

    class Ranked:
        rank = np.arange(images)

        def __len__(self) -> int:
            return images

    merging, _ = seconds(lambda: _merge(Ranked(), files, work / "near.parquet", work / "spill"))  # type: ignore[arg-type]
    return {
        f"background: images a second against {len(entries):,} entries": len(vectors) / background,
        "background: images a second whose entries are looked for in the bank": len(vectors) / product,
        "merge: pairs a second": pairs / merging,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build/scale", help="emptied first, and at the end")
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--lists", type=int, default=1024)
    parser.add_argument("--recipe", default="ivf-hnsw-pq")
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    results = measure_listing(options.work)
    built, entry, index = measure_building(options.work, options.images, options.recipe, options.lists)
    results |= built | measure_search(index, entry, options.images, options.lists) | measure_join(options.work)
    shutil.rmtree(options.work)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
