"""Measuring a network while it is trained: the benchmark's images are decoded once, then described again and again."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from copydet.evaluation.benchmark_folders import query_id, read_benchmark
from copydet.evaluation.ground_truth import NamedVectors, plain_id
from copydet.evaluation.scoring import evaluate_vectors
from copydet.images.loader import load
from copydet.images.resize import Resize
from copydet.images.sources import list_images
from copydet.records import Pixels

if TYPE_CHECKING:
    from copydet.descriptors.network import CopyNetwork

_BATCH = 64


def measure_on(folder: Path, size: int) -> Callable[["CopyNetwork"], dict[str, float]]:
    """A function that returns micro-AP (without score normalisation), recall@P90 and recall@1 of a network on a
    benchmark folder, by exact search, whole images at `size` x `size` pixels.
    """
    benchmark = read_benchmark(folder)
    query_ids: list[str] = []
    queries: list[Pixels] = []
    for prefix, source in benchmark.query_sources.items():
        ids, pixels = _decode(source, size, partial(query_id, prefix))
        query_ids, queries = query_ids + ids, queries + pixels
    reference_ids, references = _decode(benchmark.reference_source, size, plain_id)

    from copydet.training.trainer import describe_pixels

    def measure(network: "CopyNetwork") -> dict[str, float]:
        asked = NamedVectors(tuple(query_ids), describe_pixels(network, queries))
        known = NamedVectors(tuple(reference_ids), describe_pixels(network, references))
        scores, _ = evaluate_vectors(benchmark, asked, known)
        return {
            "micro_ap": scores.micro_ap,
            "recall_at_p90": scores.recall_at_p90,
            **{f"recall_at_1_{level}": value for level, value in scores.recall_at_1_by_level.items()},
        }

    return measure


def _decode(source: str, size: int, name: Callable[[str], str]) -> tuple[list[str], list[Pixels]]:
    ids: list[str] = []
    pixels: list[Pixels] = []
    for batch in load(list_images([source]), Resize("square", size), batch_size=_BATCH, workers=2):
        ids += [name(batch.rows[i].image_id) for i in batch.ok]
        pixels += batch.pixels
    return ids, pixels
