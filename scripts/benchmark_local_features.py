"""Compare kinds of local features as a road to candidates: what a reference costs, in time and bytes; what is found.

    .venv/bin/python scripts/benchmark_local_features.py --output build/benchmark-local.json

References of the folder --benchmark are described, its edited copies (every --step th) vote: each of a query's features
for the references of its five nearest features, a vote weighing as much as it is nearer than the fifth. Of the
30 references with most votes the largest set counts that agrees on a place (as in copydet/search/votes.py). Times are
processor time of one thread for a reference. Bytes are those that a shard would keep: vectors and 4 for a frame.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from copydet.process import prepare_process

prepare_process()

import cv2  # noqa: E402  (after the process is prepared)
import faiss  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from copydet.descriptors.registry import load_descriptor  # noqa: E402
from copydet.descriptors.torch_runtime import load_network  # noqa: E402
from copydet.evaluation.benchmark_folders import read_benchmark  # noqa: E402
from copydet.evaluation.ground_truth import plain_id  # noqa: E402
from copydet.images.decode import decode  # noqa: E402
from copydet.images.resize import Resize, resize_pixels  # noqa: E402
from copydet.images.sources import list_images  # noqa: E402
from copydet.local_features.codes import shipped_codec  # noqa: E402
from copydet.local_features.describe import describe_local, query_features  # noqa: E402
from copydet.local_features.extract import extract  # noqa: E402
from copydet.local_features.frames import VARIANTS, agreeing  # noqa: E402
from copydet.records import Pixels  # noqa: E402
from copydet.shards.recipe import load_recipe  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
COUNT, QUERY_COUNT, QUERY_EDGE = load_recipe("flat").local_features, 450, 512
NEIGHBOURS, SHORTLIST = 5, 30
FRAME_BYTES = 4
CODED_BYTES = shipped_codec().record_bytes - FRAME_BYTES

Features = tuple[np.ndarray, np.ndarray]  # frames float32 [n, 4], vectors [n, d]: float32, or uint8 for bits
Variant = tuple[Features, tuple[bool, bool]]  # of a query: mirrored, negative
Ranking = dict[int, float]


@dataclass(frozen=True)
class Kind:
    """How references and queries are described; `by_place`: whether votes must agree on one."""

    edge: int
    bytes_a_feature: int
    reference: Callable[[Pixels], Features]
    query: Callable[[Pixels], list[Variant]]
    by_place: bool = True


def _shipped(pixels: Pixels) -> Features:
    return shipped_codec().decode(describe_local(pixels, COUNT))


def _shipped_query(pixels: Pixels) -> list[Variant]:
    found = query_features(pixels)
    return [((found.frames, vectors), variant) for vectors, variant in zip(found.vectors, VARIANTS, strict=True)]


def _root_sift(pixels: Pixels) -> Features:
    found = extract(pixels, COUNT, contrast=0.35)
    return found.frames, found.descriptors


def _root_sift_query(pixels: Pixels) -> list[Variant]:
    def described(seen: Pixels) -> Features:
        return _both(extract(seen, QUERY_COUNT, contrast=0.7, doubled=True, further=0.8, favour=1.0))

    return _with_mirror(pixels, described)


def _both(found: Any) -> Features:
    return found.frames, found.descriptors


def _opencv(detector: Any, scale: float) -> Callable[[Pixels], Features]:
    """Features of one of OpenCV's detectors; `scale`: what makes its sizes sigmas."""

    def described(pixels: Pixels) -> Features:
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        points, vectors = detector.detectAndCompute(grey, None)
        if vectors is None:
            return np.empty((0, 4), np.float32), np.empty((0, detector.descriptorSize()), np.uint8)
        longer = max(grey.shape)
        frames = [
            (p.pt[0] / longer, p.pt[1] / longer, p.size * scale / longer, np.deg2rad(p.angle) % (2 * np.pi))
            for p in points
        ]
        best = np.argsort([-p.response for p in points], kind="stable")[: detector.getMaxFeatures()]
        return np.array(frames, np.float32)[best], vectors[best]

    return described


def _with_mirror(pixels: Pixels, describe: Callable[[Pixels], Features]) -> list[Variant]:
    """The query as it is, and described again from its mirror image with the frames turned back."""
    frames, vectors = describe(np.ascontiguousarray(pixels[:, ::-1]))
    frames = frames.copy()
    frames[:, 0] = pixels.shape[1] / max(pixels.shape[:2]) - frames[:, 0]
    return [(describe(pixels), (False, False)), ((frames, vectors), (True, False))]


def _orb(count: int) -> Callable[[Pixels], Features]:
    return _opencv(cv2.ORB_create(count), 1 / 31)


@cache
def _network() -> Any:
    return load_network(load_descriptor("small")).eval()


def _map(pixels: Pixels) -> Features:
    """The stride-16 map of the descriptor's network: 10 x 10 places of 96 numbers."""
    descriptor = load_descriptor("small")
    small = resize_pixels(pixels, descriptor.resize).astype(np.float32) / 255
    planes = ((small - descriptor.mean) / descriptor.std).transpose(2, 0, 1)[None].astype(np.float32)
    with torch.inference_mode():
        cells = _network().pooled(torch.from_numpy(planes))[1][0].numpy()
    depth, rows, columns = cells.shape
    vectors = cells.reshape(depth, -1).T - cells.mean(axis=(1, 2))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    y, x = np.divmod(np.arange(rows * columns), columns)
    frames = np.stack([(x + 0.5) / columns, (y + 0.5) / rows, np.full(len(x), 0.1), np.zeros(len(x))], axis=1)
    return frames.astype(np.float32), np.ascontiguousarray(vectors, np.float32)


KINDS: dict[str, Kind] = {
    "DoG at 320, coded (shipped)": Kind(320, CODED_BYTES, _shipped, _shipped_query),
    "DoG at 224, coded": Kind(224, CODED_BYTES, _shipped, _shipped_query),
    "DoG at 160, coded": Kind(160, CODED_BYTES, _shipped, _shipped_query),
    "DoG at 320, RootSIFT as floats": Kind(320, 512, _root_sift, _root_sift_query),
    "ORB at 320": Kind(320, 32, _orb(COUNT), lambda pixels: _with_mirror(pixels, _orb(QUERY_COUNT))),
    "network's stride-16 map": Kind(320, 96, _map, lambda pixels: _with_mirror(pixels, _map), by_place=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", type=Path, default=ROOT.parent / "shared/data/dev")
    parser.add_argument("--step", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    benchmark = read_benchmark(arguments.benchmark)
    references = [plain_id(image.image_id) for image in list_images([benchmark.reference_source])]
    number = {name: place for place, name in enumerate(references)}
    copied = dict(sorted(benchmark.truth))
    wanted = sorted(copied)[:: arguments.step]
    answers = [number[copied[name]] for name in wanted]
    levels = [benchmark.queries[name].level for name in wanted]
    rows, rankings = [], {}
    for name, kind in KINDS.items():
        facts, rankings[name] = _measured(kind, benchmark, wanted)
        rows.append({"kind": name, **facts, **_quality(rankings[name], answers, levels)})
        print(json.dumps(rows[-1]), flush=True)
    first = next(iter(KINDS))
    for name in ("ORB at 320", "network's stride-16 map"):
        both = [_joined(one, other) for one, other in zip(rankings[first], rankings[name], strict=True)]
        rows.append({"kind": f"shipped and {name}", **_quality(both, answers, levels)})
        print(json.dumps(rows[-1]), flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _measured(kind: Kind, benchmark: Any, wanted: Sequence[str]) -> tuple[dict[str, float], list[Ranking]]:
    pictures = [pixels for _, pixels in _images(benchmark.reference_source, kind.edge)]
    kind.reference(pictures[0])
    started = time.thread_time()
    described = [kind.reference(pixels) for pixels in pictures]
    seconds = time.thread_time() - started
    owner = np.repeat(np.arange(len(described)), [len(frames) for frames, _ in described])
    frames, vectors = (np.concatenate([each[part] for each in described]) for part in (0, 1))
    index = _index(vectors)
    chosen = set(wanted)
    found = {}
    for source in benchmark.query_sources.values():
        for name, pixels in _images(source, QUERY_EDGE, chosen):
            found[name] = _votes(kind, kind.query(pixels), index, owner, frames)
    kept = len(vectors) * (kind.bytes_a_feature + FRAME_BYTES) / len(described)
    facts = {"ms_a_reference": 1000 * seconds / len(described), "bytes_a_reference": kept}
    return facts, [found[name] for name in wanted]


def _images(source: str, edge: int, chosen: set[str] | None = None) -> Iterator[tuple[str, Pixels]]:
    for image in list_images([source]):
        name = plain_id(image.image_id)
        if chosen is None or name in chosen:
            yield name, decode(image.read(1 << 28), Resize("long_edge", edge)).pixels


def _index(vectors: np.ndarray) -> Any:
    lists, dimension = 1024, vectors.shape[1]
    if vectors.dtype == np.uint8:
        index: Any = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(8 * dimension), 8 * dimension, lists)
    else:
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dimension), dimension, lists)
    index.train(vectors)
    index.add(vectors)
    index.nprobe = 8
    return index


def _votes(kind: Kind, query: list[Variant], index: Any, owner: np.ndarray, places: np.ndarray) -> Ranking:
    best: Ranking = {}
    for (frames, vectors), (mirrored, negative) in query:
        if not len(frames):
            continue
        distance, feature = index.search(np.ascontiguousarray(vectors), NEIGHBOURS)
        last = np.maximum(distance[:, -1:].astype(np.float64), 1e-9)
        asker, rank = np.nonzero((feature >= 0) & (distance < last))
        answer, weight = feature[asker, rank], (1 - distance / last)[asker, rank]
        total = np.bincount(owner[answer], weight)
        for image in np.argsort(-total, kind="stable")[:SHORTLIST]:
            here = np.flatnonzero(owner[answer] == image)[:200]
            value = weight[here].sum()
            if kind.by_place:
                flags = (np.full(len(here), flag) for flag in (mirrored, negative))
                seed = np.arange(len(here))
                same = agreeing(frames[asker[here]], places[answer[here]], *flags, seed[:, None], seed)
                value = (same @ weight[here]).max(initial=0.0)
            best[int(image)] = max(best.get(int(image), 0.0), float(value))
    return best


def _joined(one: Ranking, other: Ranking) -> Ranking:
    """Both rankings by their shares of their best."""
    tops = [max(each.values(), default=1.0) or 1.0 for each in (one, other)]
    return {key: one.get(key, 0.0) / tops[0] + other.get(key, 0.0) / tops[1] for key in one.keys() | other.keys()}


def _quality(rankings: Sequence[Ranking], answers: Sequence[int], levels: Sequence[str]) -> dict[str, float]:
    facts = {}
    for level in ("easy", "medium", "hard", "extreme"):
        ranks = []
        for ranking, answer, of in zip(rankings, answers, levels, strict=True):
            if of == level:
                order = sorted(ranking, key=lambda key: -ranking[key])
                ranks.append(order.index(answer) if answer in ranking else SHORTLIST)
        facts[f"recall@1 {level}"] = float(np.mean(np.array(ranks) < 1))
        facts[f"recall@10 {level}"] = float(np.mean(np.array(ranks) < 10))
    return facts


if __name__ == "__main__":
    main()
