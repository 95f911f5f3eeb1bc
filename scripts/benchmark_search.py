"""Measure searching at scale: recall against exact search, speed against raw FAISS, memory, opening, adding.

    .venv/bin/python scripts/benchmark_search.py SOURCE... --work build/search --images 1000000 --recipe ivf-pq

SOURCE: photographs that were not used for the descriptor's tests. Those that are there are described with their views
(--photos of them); from then on descriptors are real ones plus noise of length --noise, which is what another
photograph of the same thing looks like to a descriptor. Queries are edited copies of --queries of the photographs.

Every step writes its result to WORK/results.json and is skipped when it is there, so an interrupted run goes on with
the same command. Steps that are timed or whose memory is measured run in processes of their own, one at a time.

    codes     how many of the ten nearest are among the best 50 to 1,000 by each kind of codes alone, with 256 lists; on
              a hundred thousand of the descriptors at most
    build     `Index.build` of all descriptors: seconds, and peak memory of the process
    open      `Index.open` in a new process: seconds, memory that it adds
    search    recall@10 after re-scoring at the recipe's settings and at operating points; queries a second in batches
              of 1,000 and one by one; and the same codes searched with FAISS alone, the shards of one quantiser as one
              index, in turns in the same process
    add       1,000 more to this index and to an empty one, in turns: embeddings, and photographs that are described

Where other work shares the machine, look at the ratios of CPU time (`..._cpu`), which it changes least.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TARGETS = (0.9, 0.95, 0.99)
BATCH, SINGLE, ROUNDS, ADDED, PHOTO_ROUNDS = 1000, 100, 7, 1000, 1
DESCRIPTOR = "small"
FACTORIES = ("RR256,IVF256,RaBitQ", "OPQ32_256,IVF256,PQ32x8", "OPQ48_240,IVF256,PQ48x8")
MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--work", type=Path, required=True, help="folder for vectors, indexes and results")
    parser.add_argument("--images", type=int, default=1_000_000, help="descriptors in the index")
    parser.add_argument("--photos", type=int, default=20_000, help="photographs to describe, with their views")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--noise", type=float, default=0.6, help="length of the noise beside a descriptor of length 1")
    parser.add_argument("--recipe", action="append", help="may be given again; by default ivf-pq")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(STEPS[arguments.step](arguments)))
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    results = Results(arguments.work / "results.json")
    size = f"{arguments.images:,}"
    results.once("vectors", lambda: describe_all(arguments))
    grow(arguments)
    for recipe in arguments.recipe or ["ivf-pq"]:
        for step in ("build", "open", "search", "add"):
            results.once(f"{size} {recipe} {step}", lambda step=step, recipe=recipe: child(step, recipe))
    results.once(f"{size} codes", lambda: child("codes", "ivf-pq"))
    print(json.dumps(results.values, indent=1))


class Results:
    """A JSON file of what was measured, written after each step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def once(self, name: str, measure: Callable[[], Any]) -> None:
        if name not in self.values:
            print(name, file=sys.stderr, flush=True)
            self.values[name] = measure()
            self.path.write_text(json.dumps(self.values, indent=1) + "\n")


def child(step: str, recipe: str) -> Any:
    """Run a step in a process of its own, with this process's arguments."""
    command = [sys.executable, __file__, *sys.argv[1:], "--step", step]
    kept = [word for place, word in enumerate(command) if "--recipe" not in (word, command[place - 1])]
    done = subprocess.run([*kept, "--recipe", recipe], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def describe_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """real.npy: descriptors of photographs and their views; queries.npy: of edited copies of some photographs."""
    from itertools import islice

    import numpy as np

    from copydet.descriptors.registry import load_descriptor
    from copydet.descriptors.runtimes import open_runtime
    from copydet.images.edits import edit_image
    from copydet.images.loader import load
    from copydet.images.resize import Resize, resize_pixels
    from copydet.images.sources import list_images
    from copydet.search.views import query_views

    runtime = open_runtime(load_descriptor(DESCRIPTOR), "auto")
    resize = runtime.descriptor.resize
    every = max(1, arguments.photos // arguments.queries)
    rng = np.random.default_rng(1)
    real, queries, photos = [], [], 0
    images = islice(list_images(arguments.sources), arguments.photos)
    for batch in load(images, Resize("long_edge", 480), batch_size=32, workers=1):
        views = [view.pixels for pixels in batch.pixels for view in query_views(pixels, "quarters")]
        real.append(runtime.describe([resize_pixels(view, resize) for view in views]).astype(np.float16))
        asked = [pixels for place, pixels in enumerate(batch.pixels) if (photos + place) % every == 0]
        copies = [
            edit_image(pixels.copy(), ("easy", "medium", "hard")[number % 3], rng).pixels
            for number, pixels in enumerate(asked)
        ]
        if copies:
            queries.append(runtime.describe([resize_pixels(copy, resize) for copy in copies]))
        photos += len(batch.pixels)
    np.save(arguments.work / "real.npy", np.concatenate(real))
    np.save(arguments.work / "queries.npy", np.concatenate(queries)[: arguments.queries])
    return {"photos": photos, "real": sum(map(len, real)), "queries": min(arguments.queries, sum(map(len, queries)))}


def grow(arguments: argparse.Namespace) -> None:
    """The .npy file of all descriptors, and one of ADDED others: real ones first, then real ones plus noise."""
    import numpy as np
    from numpy.lib.format import open_memmap

    if vectors_of(arguments).exists():
        return
    real = np.load(arguments.work / "real.npy", mmap_mode="r")
    rng = np.random.default_rng(2)
    count, dimension = arguments.images + ADDED, real.shape[1]
    path = vectors_of(arguments).with_suffix(".part.npy")
    grown = open_memmap(path, "w+", np.float16, (arguments.images, dimension))
    added = np.empty((ADDED, dimension), np.float16)
    for start in range(0, count, len(real)):
        block = np.asarray(real[: min(len(real), count - start)], np.float32)
        if start:
            noise = rng.standard_normal(block.shape, np.float32)
            block = block + arguments.noise / np.sqrt(dimension) * noise
            block /= np.linalg.norm(block, axis=1, keepdims=True)
        inside = min(len(block), max(0, arguments.images - start))
        grown[start : start + inside] = block[:inside]
        added[max(0, start - arguments.images) :][: len(block) - inside] = block[inside:]
    grown.flush()
    np.save(arguments.work / f"added-{arguments.images}.npy", added)
    path.rename(vectors_of(arguments))


def vectors_of(arguments: argparse.Namespace) -> Path:
    return Path(arguments.work / f"vectors-{arguments.images}.npy")


def index_of(arguments: argparse.Namespace) -> Path:
    return Path(arguments.work / f"{arguments.recipe[0].replace('/', '_')}-{arguments.images}.index")


def compare_codes(arguments: argparse.Namespace) -> dict[str, Any]:
    import faiss
    import numpy as np

    from copydet.shards.quantiser import train_quantiser

    vectors = np.load(vectors_of(arguments), mmap_mode="r")[:100_000].astype(np.float32)
    queries = np.load(arguments.work / "queries.npy")[:200]
    exact = faiss.IndexFlatIP(vectors.shape[1])
    exact.add(vectors)
    nearest = exact.search(queries, 10)[1]
    found: dict[str, Any] = {}
    for factory in FACTORIES:
        codes = faiss.deserialize_index(train_quantiser(factory, vectors[::4].copy()))
        codes.add(vectors)
        for nprobe in (16, 64, 256):
            faiss.ParameterSpace().set_index_parameter(codes, "nprobe", nprobe)
            best = codes.search(queries, 1000)[1]
            found[f"{factory} nprobe {nprobe}"] = {
                count: round(
                    float(np.mean([np.isin(n, b[:count]).mean() for n, b in zip(nearest, best, strict=True)])), 3
                )
                for count in (50, 100, 200, 500, 1000)
            }
    return found


def build(arguments: argparse.Namespace) -> dict[str, Any]:
    from copydet.index import Index

    if (index_of(arguments) / "CURRENT").exists():  # whole, but its times were not written down
        shutil.rmtree(index_of(arguments))
    resumed = index_of(arguments).exists()
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    index = Index.build(
        vectors_of(arguments), index_of(arguments), embeddings=True, descriptor=DESCRIPTOR, recipe=arguments.recipe[0]
    )
    seconds = time.perf_counter() - start
    shards = index.snapshot.shards
    codes = sum(shard.files["codes.faiss"].bytes for shard in shards)
    everything = sum(file.bytes for shard in shards for file in shard.files.values())
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "resumed": resumed,  # then the seconds are those of the last run alone
        "peak_mib": round(peak() / MIB),
        "before_mib": round(before / MIB),
        "codes": sorted({shard.codes for shard in shards}),
        "shards": len(shards),
        "code_bytes_per_image": round(codes / arguments.images, 1),
        "disk_bytes_per_image": round(everything / arguments.images, 1),
    }


def open_index(arguments: argparse.Namespace) -> dict[str, Any]:
    from copydet.engines.memory import resident_bytes
    from copydet.index import Index

    before, start = resident_bytes(), time.perf_counter()
    index = Index.open(index_of(arguments))
    seconds = time.perf_counter() - start
    return {
        "seconds": round(seconds, 3),
        "added_mib": round((resident_bytes() - before) / MIB),
        "shards": len(index.snapshot.shards),
    }


def search(arguments: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from copydet.index import Index
    from copydet.search.operating_points import find_points
    from copydet.search.retrieve import retrieve

    index = Index.open(index_of(arguments))
    shards, recipe = index._shards, index.snapshot.recipe
    everything: list[None] = [None] * len(shards)
    queries = np.load(arguments.work / "queries.npy")
    points, highest = find_points(shards, everything, queries, TARGETS)
    together = as_faiss_would(shards)
    settings = {"recipe": (recipe["nprobe"], recipe["candidates"])}
    settings |= {f"recall {target:g}": (point.nprobe, point.candidates) for target, point in points.items()}
    found: dict[str, Any] = {"highest_recall": round(highest, 4)}
    found["operating_points"] = {f"{target:g}": vars(point) for target, point in points.items()}
    batch = np.resize(queries, (BATCH, queries.shape[1]))
    for name, (nprobe, candidates) in settings.items():

        def ours(asked: Any, nprobe: int = nprobe, candidates: int = candidates) -> None:
            retrieve(shards, asked, 10, nprobe=nprobe or None, candidates=candidates)

        def raw(asked: Any, nprobe: int = nprobe, candidates: int = candidates) -> None:
            for codes in together:
                search_raw(codes, asked, nprobe, max(candidates, 10))

        both = [(timed(ours, batch), timed(raw, batch)) for _ in range(ROUNDS)]
        single = [(timed(ours, query[None]), timed(raw, query[None])) for query in queries[:SINGLE]]
        found[name] = {
            "nprobe": nprobe,
            "candidates": candidates,
            "queries_per_second": round(BATCH / statistics.median(o.seconds for o, _ in both), 1),
            "raw_faiss_per_second": round(BATCH / statistics.median(r.seconds for _, r in both), 1),
            "of_raw_faiss": round(statistics.median(r.seconds / o.seconds for o, r in both), 3),
            "of_raw_faiss_cpu": round(statistics.median(r.cpu / o.cpu for o, r in both), 3),
            "single_query_ms": round(1000 * statistics.median(o.seconds for o, _ in single), 2),
            "raw_single_query_ms": round(1000 * statistics.median(r.seconds for _, r in single), 2),
        }
    return {**found, "peak_mib": round(peak() / MIB)}


class Timed(NamedTuple):
    """Of one call: `cpu` is of all threads, and what other work on the machine does to it is little."""

    seconds: float
    cpu: float


def timed(call: Callable[[Any], object], asked: Any) -> Timed:
    start, cpu = time.perf_counter(), time.process_time()
    call(asked)
    return Timed(time.perf_counter() - start, time.process_time() - cpu)


def as_faiss_would(shards: Any) -> list[Any]:
    """The codes of all shards as FAISS alone would search them: those of one quantiser as one index."""
    import faiss

    from copydet.search.stacked_lists import find_stacks

    codes = [shard.codes for shard in shards]
    stacks = find_stacks(codes)
    found = [codes[place] for place in set(range(len(codes))).difference(*(stack.places for stack in stacks))]
    for stack in stacks:
        index, chain = faiss.IndexPreTransform(stack.stacked), codes[stack.places[0]].chain
        for place in reversed(range(chain.size())):
            index.prepend_transform(faiss.downcast_VectorTransform(chain.at(place)))
        found.append(index)
    return found


def search_raw(codes: Any, queries: Any, nprobe: int, count: int) -> None:
    """Codes with FAISS alone: no selection, no exact scores."""
    import faiss

    if nprobe:
        faiss.ParameterSpace().set_index_parameter(codes, "nprobe", nprobe)
    codes.search(queries, count)


def add(arguments: argparse.Namespace) -> dict[str, Any]:
    """ADDED embeddings, then ADDED photographs, in copies of the indexes that hold none of these ids. Hard links: files
    of an index never change."""
    embeddings = str(arguments.work / f"added-{arguments.images}.npy")
    found = {"embeddings": add_in_turns(arguments, embeddings, embeddings=True, rounds=ROUNDS)}
    found["photographs"] = add_in_turns(arguments, photographs(arguments), embeddings=False, rounds=PHOTO_ROUNDS)
    return found


def add_in_turns(arguments: argparse.Namespace, source: str, *, embeddings: bool, rounds: int) -> dict[str, Any]:
    import os

    from copydet.index import Index

    warm = arguments.work / "copy.index"  # what a process does once belongs to neither
    shutil.rmtree(warm, ignore_errors=True)
    first = source if embeddings else f"{source}/0.jpg"
    Index.create(warm, descriptor=DESCRIPTOR, recipe=arguments.recipe[0]).add(first, embeddings=embeddings)
    seconds: dict[str, list[Timed]] = {"large": [], "empty": []}
    untouched = True
    for _ in range(rounds):
        for name in seconds:
            copy = arguments.work / "copy.index"
            shutil.rmtree(copy, ignore_errors=True)
            if name == "large":
                shutil.copytree(index_of(arguments), copy, copy_function=os.link)
                os.unlink(copy / "lock")
            else:
                Index.create(copy, descriptor=DESCRIPTOR, recipe=arguments.recipe[0])
            before = {path: path.stat().st_mtime_ns for path in copy.glob("shards/*/*")}
            seconds[name].append(timed(lambda path: Index.open(path).add(source, embeddings=embeddings), copy))
            untouched &= all(path.stat().st_mtime_ns == then for path, then in before.items())
            shutil.rmtree(copy)
    return {
        "large_s": round(statistics.median(each.seconds for each in seconds["large"]), 3),
        "empty_s": round(statistics.median(each.seconds for each in seconds["empty"]), 3),
        "ratio": round(statistics.median(a.seconds / b.seconds for a, b in zip(*seconds.values(), strict=True)), 2),
        "ratio_cpu": round(statistics.median(a.cpu / b.cpu for a, b in zip(*seconds.values(), strict=True)), 2),
        "untouched": untouched,
    }


def photographs(arguments: argparse.Namespace) -> str:
    """A folder of ADDED photographs of the sources."""
    from itertools import islice

    from copydet.images.sources import list_images

    folder = Path(arguments.work / "photographs")
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(islice(list_images(arguments.sources), ADDED)):
        (folder / f"{number}.jpg").write_bytes(image.read())
    return str(folder)


def peak() -> int:
    """Bytes that this process held at most. Not ru_maxrss, which begins with what the parent held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


STEPS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "codes": compare_codes,
    "build": build,
    "open": open_index,
    "search": search,
    "add": add,
}

if __name__ == "__main__":
    main()
