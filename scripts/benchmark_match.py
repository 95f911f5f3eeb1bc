"""Measure the query stage on a benchmark folder: the default, each of its parts switched off, and what others reach.

    .venv/bin/python scripts/benchmark_match.py --output build/benchmark-match.json

The folder --benchmark (see docs/evaluation.md) is indexed once for each number of --distractors; then all its queries
are matched in every setting, and every list of matches is scored in the same way. Times are wall-clock of the whole
process from the first query to the last, divided by the queries: nothing else should run meanwhile. Peers, over the
same images: PDQ (256 bits, smallest Hamming distance), plain RootSIFT (OpenCV, votes, MAGSAC inliers),
and fastdup 2.54 (cosine of its own vectors) where --fastdup names a Python that has it.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from copydet.process import prepare_process

prepare_process()

import cv2  # noqa: E402  (after the process is prepared)
import faiss  # noqa: E402
import numpy as np  # noqa: E402

import copydet.pairs  # noqa: E402
from copydet.evaluation.benchmark_folders import Benchmark, query_id, read_benchmark  # noqa: E402
from copydet.evaluation.ground_truth import plain_id  # noqa: E402
from copydet.evaluation.metrics import Predictions  # noqa: E402
from copydet.evaluation.scoring import evaluate_predictions  # noqa: E402
from copydet.images.decode import decode  # noqa: E402
from copydet.images.resize import Resize  # noqa: E402
from copydet.images.sources import list_images  # noqa: E402
from copydet.index import Index  # noqa: E402
from copydet.pairs import Asked, Pair, PreparedQuery  # noqa: E402
from copydet.records import ImageRow  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "without verification": {"verify": False},
    "without votes": {"votes": False},
    "without gists": {"gist": False},
    "without views": {"views": "whole"},
    "views alone": {"votes": False, "gist": False, "verify": False},
    "the whole image's descriptor alone": {"views": "whole", "votes": False, "gist": False, "verify": False},
}
PEERS = {
    "pdq": "PDQ",
    "rootsift": "plain RootSIFT, 25 kB a reference",
    "fastdup": "fastdup 2.54 (without its own start)",
}
Row = tuple[str, str, float]  # query, reference, score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", type=Path, default=ROOT.parent / "shared/data/dev")
    parser.add_argument("--distractors", nargs="*", default=[], help="sources of further references")
    parser.add_argument("--recipe", default="auto", help="name or TOML file: what is indexed of a reference")
    parser.add_argument("--settings", nargs="*", choices=tuple(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--peers", nargs="*", choices=tuple(PEERS), default=["pdq", "rootsift"])
    parser.add_argument("--fastdup", type=Path, help="a Python that has fastdup")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    # Said now, not when everything else has been measured.
    if "pdq" in arguments.peers and find_spec("pdqhash") is None:
        parser.error("PDQ needs the package pdqhash: pip install pdqhash, or name other --peers")
    if "fastdup" in arguments.peers and arguments.fastdup is None:
        parser.error("name a Python that has fastdup with --fastdup, or other --peers")
    benchmark = read_benchmark(arguments.benchmark)
    rows = []
    with tempfile.TemporaryDirectory() as work:
        if arguments.settings:  # else only peers are asked for
            sources = [benchmark.reference_source, *arguments.distractors]
            index, index_facts = _index(sources, arguments.recipe, Path(work) / "benchmark.index")
        for name in arguments.settings:
            rows.append(_scored(name, benchmark, lambda name=name: _matched(benchmark, index, SETTINGS[name])))
            rows[-1] |= index_facts
        peers: dict[str, Callable[[], list[Row]]] = {
            "pdq": lambda: _pdq(benchmark),
            "rootsift": lambda: _rootsift(benchmark),
            "fastdup": lambda: _fastdup(benchmark, arguments.fastdup, Path(work) / "fastdup"),
        }
        if "default" in arguments.settings:
            rows[arguments.settings.index("default")]["verified_pairs_a_second_and_core"] = _verified(benchmark, index)
        rows += [_scored(PEERS[name], benchmark, peers[name]) for name in arguments.peers]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _scored(name: str, benchmark: Benchmark, run: Callable[[], list[Row]]) -> dict[str, Any]:
    started, used = time.perf_counter(), _processor_seconds()
    found = run()
    seconds, used = time.perf_counter() - started, _processor_seconds() - used
    columns = zip(*found, strict=True)
    queries, references, scores = columns
    result, _ = evaluate_predictions(benchmark, Predictions(queries, references, np.array(scores, np.float64)))
    row = {"setting": name, "ms_a_query": 1000 * seconds / len(benchmark.queries), **asdict(result)}
    row["processor_ms_a_query"] = 1000 * used / len(benchmark.queries)
    print(_line(row), flush=True)
    return row


def _processor_seconds() -> float:
    """Of this process and of the worker processes that have ended."""
    return sum(os.times()[:4])


def _line(row: dict[str, Any]) -> str:
    levels = " / ".join(f"{value:.3f}" for value in row["recall_at_1_by_level"].values())
    return (
        f"{row['setting']:<36}micro-AP {row['micro_ap']:.3f}  recall@P90 {row['recall_at_p90']:.3f}  "
        f"recall@1 {levels}  accepted {row['accepted_by_kind']}  {row['ms_a_query']:.0f} ms a query, "
        f"{row['processor_ms_a_query']:.0f} of the processor's"
    )


def _index(sources: list[str], recipe: str, path: Path) -> tuple[Index, dict[str, Any]]:
    started, used = time.perf_counter(), _processor_seconds()
    index = Index.build(sources, path, recipe=recipe)
    seconds, used, info = time.perf_counter() - started, _processor_seconds() - used, index.info()
    local = sum(each.stat().st_size for each in path.glob("shards/*/local.*"))
    described = info.statuses["ok"]
    return index, {
        "references": described,
        "index_images_a_second": described / seconds,
        "index_processor_ms_an_image": 1000 * used / described,
        "bytes_a_reference": info.bytes / described,
        "local_bytes_a_reference": local / described,
    }


def _matched(benchmark: Benchmark, index: Index, setting: dict[str, Any]) -> list[Row]:
    return [
        (query_id("", result.query_id), plain_id(match.reference_id), match.score)
        for result in index.match(list(benchmark.query_sources.values()), **setting)
        for match in result.matches
    ]


def _verified(benchmark: Benchmark, index: Index) -> float:
    """How many of the default's pairs one core verifies in a second, references' pixels included."""
    verify, pairs, seconds = copydet.pairs.verify_pairs, 0, 0.0

    def timed(query: PreparedQuery, row: ImageRow, asked: Sequence[Asked]) -> list[Pair]:
        nonlocal pairs, seconds
        started = time.thread_time()
        found = verify(query, row, asked)
        pairs, seconds = pairs + len(asked), seconds + time.thread_time() - started
        return found

    copydet.pairs.verify_pairs = timed  # cannot be sent to a worker process, so it runs here
    try:
        _matched(benchmark, index, {"workers": 1})
    finally:
        copydet.pairs.verify_pairs = verify
    print(f"{pairs:,} pairs verified, {pairs / seconds:.0f} a second and core", flush=True)
    return pairs / seconds


def _images(source: str, edge: int) -> Iterator[tuple[str, np.ndarray]]:
    for image in list_images([source]):
        pixels = decode(image.read(1 << 28), Resize("long_edge", edge)).pixels
        yield plain_id(image.image_id), cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def _pdq(benchmark: Benchmark) -> list[Row]:
    import pdqhash

    def hashes(source: str) -> tuple[list[str], np.ndarray]:
        named = [(name, pdqhash.compute(np.dstack([grey] * 3))[0]) for name, grey in _images(source, 512)]
        return [name for name, _ in named], np.packbits(np.array([bits for _, bits in named], np.uint8), axis=1)

    references, stored = hashes(benchmark.reference_source)
    found = []
    for source in benchmark.query_sources.values():
        for query, code in zip(*hashes(source), strict=True):
            away = np.bitwise_count(stored ^ code).sum(axis=1)
            found += [(query, references[row], -float(away[row])) for row in np.argsort(away, kind="stable")[:10]]
    return found


def _rootsift(benchmark: Benchmark) -> list[Row]:
    """200 features of a reference at 320 px, 600 of a query and of its mirror image at 480 px, 20 candidates."""
    names, frames, owner, described = [], [], [], []
    for number, (name, grey) in enumerate(_images(benchmark.reference_source, 320)):
        points, vectors = _sift(grey, 200)
        names.append(name)
        frames.append(points)
        described.append(vectors)
        owner.append(np.full(len(points), number))
    place, image, vectors = np.concatenate(frames), np.concatenate(owner), np.concatenate(described)
    index = faiss.index_factory(128, "IVF1024,Flat")
    index.train(vectors)
    index.add(vectors)
    index.nprobe = 16
    found = []
    for source in benchmark.query_sources.values():
        for query, grey in _images(source, 480):
            best: dict[int, int] = {}
            for picture in (grey, np.ascontiguousarray(grey[:, ::-1])):
                points, vectors = _sift(picture, 600)
                for reference, inliers in _inliers(points, vectors, index, image, place):
                    best[reference] = max(best.get(reference, 0), inliers)
            ranked = sorted(best.items(), key=lambda each: -each[1])[:10]
            found += [(query, names[reference], float(inliers)) for reference, inliers in ranked]
    return found


def _sift(grey: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    points, vectors = cv2.SIFT.create(nfeatures=count, contrastThreshold=0.02).detectAndCompute(grey, None)
    if vectors is None:
        return np.empty((0, 2), np.float32), np.empty((0, 128), np.float32)
    vectors = np.sqrt(vectors / np.maximum(vectors.sum(axis=1, keepdims=True), 1e-9)).astype(np.float32)
    return np.array([point.pt for point in points[:count]], np.float32), vectors[:count]


def _inliers(
    points: np.ndarray, vectors: np.ndarray, index: Any, image: np.ndarray, place: np.ndarray
) -> Iterator[tuple[int, int]]:
    if not len(points):
        return
    distance, feature = index.search(vectors, 6)
    weight = np.maximum(0, distance[:, -1:] - distance)
    votes = np.bincount(image[feature].ravel(), weight.ravel())
    for reference in np.argsort(-votes, kind="stable")[:20]:
        asker, rank = np.nonzero((image[feature] == reference) & (weight > 0))
        inliers = len(set(feature[asker, rank]))
        if inliers >= 4:
            here, there = place[feature[asker, rank]], points[asker]
            _, mask = cv2.findHomography(here, there, cv2.USAC_MAGSAC, 4.0)
            kept = np.zeros(len(asker), bool) if mask is None else mask.ravel().astype(bool)
            inliers = len(set(feature[asker, rank][kept]))
        if inliers:
            yield int(reference), inliers


_FASTDUP = """
import sys, fastdup, numpy as np
job = fastdup.create(work_dir=sys.argv[2], input_dir=sys.argv[1])
job.run(ccthreshold=0.9, threshold=0.9, num_threads=2, overwrite=True)
files, vectors = fastdup.load_binary_feature(sys.argv[2] + "/atrain_features.dat", 576)
np.savez(sys.argv[2] + "/vectors.npz", files=np.array(files), vectors=vectors)
"""


def _fastdup(benchmark: Benchmark, python: Path, work: Path) -> list[Row]:
    """The vectors of fastdup's own run over all images, compared by cosine."""
    work.mkdir()
    photos = work / "photos"
    photos.mkdir()
    for role, source in (
        ("r", benchmark.reference_source),
        *(("q", each) for each in benchmark.query_sources.values()),
    ):
        for file in Path(source).iterdir():
            (photos / f"{role}-{file.name}").symlink_to(file.resolve())
    subprocess.run([python, "-c", _FASTDUP, str(photos), str(work)], check=True, stdout=subprocess.DEVNULL)
    loaded = np.load(work / "vectors.npz")
    vectors = loaded["vectors"] / np.linalg.norm(loaded["vectors"], axis=1, keepdims=True)
    names = np.array([Path(file).name for file in loaded["files"]])
    is_query = np.char.startswith(names, "q-")
    references = [plain_id(name[2:]) for name in names[~is_query]]
    found = []
    for name, vector in zip(names[is_query], vectors[is_query], strict=True):
        similarity = vectors[~is_query] @ vector
        best = np.argsort(-similarity, kind="stable")[:10]
        found += [(plain_id(name[2:]), references[row], float(similarity[row])) for row in best]
    return found


if __name__ == "__main__":
    main()
