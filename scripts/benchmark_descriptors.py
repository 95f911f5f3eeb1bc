"""Compare networks, resolutions and dimensions for a descriptor: micro-AP on a benchmark per millisecond of the CPU.

    .venv/bin/python scripts/benchmark_descriptors.py --benchmark ../shared/data/dev \\
        --images "../shared/data/train/shard-{000..010}.tar" --work build/descriptors \\
        mobilenet_v2_s16:copydet/descriptors/weights/small/model.safetensors:160:256 \\
        mobilenet_v2_s16:copydet/descriptors/weights/small/model.safetensors:128:256

A candidate is NETWORK:WEIGHTS:PIXELS:DIMENSION; weights are a finished descriptor's or a bare trunk's (safetensors).
Each candidate gets a projection of its own, solved from the training images (copydet/training/projection.py), and a
bank of the same --bank of them, so that the rows differ by what their names say. Forward time is taken in turns, the
median of --rounds; it is that of OpenVINO on all cores. Candidates finished before are not made again.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from copydet.process import prepare_process

prepare_process()

import numpy as np  # noqa: E402

from copydet.descriptors.background import save_bank  # noqa: E402
from copydet.descriptors.registry import FILES, load_descriptor  # noqa: E402
from copydet.descriptors.runtimes import Runtime, open_runtime  # noqa: E402
from copydet.errors import CopydetError, UsageError  # noqa: E402
from copydet.evaluation.benchmarks import Row, evaluate_benchmark  # noqa: E402
from copydet.evaluation.vectors import describe_images, share_of  # noqa: E402
from copydet.images.resize import Resize  # noqa: E402
from copydet.images.sources import list_images  # noqa: E402

if TYPE_CHECKING:
    from copydet.training.augment import Augmenter

LEVELS = ("easy", "medium", "hard", "extreme")


@dataclass(frozen=True)
class Candidate:
    network: str
    weights: Path
    pixels: int
    dimension: int

    @property
    def name(self) -> str:
        return f"{self.network}-{self.weights.parent.name}-{self.pixels}-{self.dimension}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", nargs="+", metavar="NETWORK:WEIGHTS:PIXELS:DIMENSION")
    parser.add_argument("--benchmark", type=Path, required=True)
    parser.add_argument("--images", nargs="+", required=True, help="training images for projections and banks")
    parser.add_argument("--work", type=Path, required=True, help="folder for the candidates' descriptors")
    parser.add_argument("--bank", type=int, default=5000, help="images of the bank (default: 5000)")
    parser.add_argument("--forwards", type=int, default=512, help="images a forward round (default: 512)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    try:
        candidates = [parse(text) for text in arguments.candidates]
        make(candidates, arguments.images, arguments.work, arguments.bank)
        runtimes = [open_runtime(load_descriptor(str(arguments.work / each.name)), "auto") for each in candidates]
        rows = [scored(arguments.benchmark, runtime) for runtime in runtimes]
    except CopydetError as error:
        sys.exit(f"benchmark_descriptors: {error}")
    times = forward_times(runtimes, arguments.forwards, arguments.rounds)
    report(candidates, rows, times)


def parse(text: str) -> Candidate:
    parts = text.split(":")
    if len(parts) != 4 or not parts[2].isdecimal() or not parts[3].isdecimal():
        raise UsageError(f"{text}: a candidate is NETWORK:WEIGHTS:PIXELS:DIMENSION")
    if not Path(parts[1]).is_file():
        raise UsageError(f"{parts[1]}: no such file; WEIGHTS are a network's or a trunk's (safetensors)")
    return Candidate(parts[0], Path(parts[1]), int(parts[2]), int(parts[3]))


def make(candidates: list[Candidate], images: list[str], work: Path, bank: int) -> None:
    """Write the descriptor folders that are missing."""
    import torch

    from copydet.training.augment import Augmenter
    from copydet.training.data import read_images
    from copydet.training.glyphs import draw_glyphs
    from copydet.training.warp import make_sources

    missing = [each for each in candidates if not (work / each.name / FILES["background"]).exists()]
    if not missing:
        return
    sources = make_sources(*read_images(images, 160))
    glyphs = draw_glyphs(600, 1)
    bank_images = sorted(list_images(images), key=lambda image: share_of(image.image_id))[:bank]
    for each in missing:
        torch.manual_seed(0)
        _make_one(each, Augmenter(sources, glyphs, each.pixels), work / each.name)
        runtime = open_runtime(load_descriptor(str(work / each.name)), "auto")
        save_bank(work / each.name / FILES["background"], describe_images(runtime, bank_images)[0].vectors)
        print(f"made {each.name}", file=sys.stderr, flush=True)


def _make_one(candidate: Candidate, augmenter: "Augmenter", folder: Path) -> None:
    from copydet.descriptors.export import export_descriptor
    from copydet.descriptors.network import NetworkSpec, build_network, load_trunk
    from copydet.training.projection import solve_projection

    network = build_network(NetworkSpec(candidate.network, candidate.dimension))
    load_trunk(network, candidate.network, candidate.weights)
    solve_projection(network, augmenter)
    export_descriptor(
        folder,
        network,
        name=candidate.name,
        trunk=candidate.network,
        dimension=candidate.dimension,
        resize=Resize("square", candidate.pixels),
    )


def scored(benchmark: Path, runtime: Runtime) -> Row:
    """The row of exact search with normalised similarities."""
    rows = evaluate_benchmark(benchmark, runtime)
    return next(row for row in rows if row.setting.score_normalised and not row.setting.whitened)


def forward_times(runtimes: list[Runtime], images: int, rounds: int) -> list[float]:
    """Milliseconds an image of each runtime, the median of `rounds` taken in turns."""
    generator = np.random.default_rng(0)
    times: list[list[float]] = [[] for _ in runtimes]
    for number in range(rounds + 1):
        for own, runtime in zip(times, runtimes, strict=True):
            side = runtime.descriptor.resize.size
            pixels = list(generator.integers(0, 256, (images, side, side, 3), np.uint8))
            began = time.perf_counter()
            runtime.describe(pixels)
            if number:  # the first round warms up
                own.append(1000 * (time.perf_counter() - began) / images)
    return [statistics.median(own) for own in times]


def report(candidates: list[Candidate], rows: list[Row], times: list[float]) -> None:
    print(
        "| network | pixels | dimensions | ms an image | of the first | micro-AP | without hard negatives | recall@P90 "
        "| recall@1 " + " / ".join(LEVELS) + " | micro-AP a ms |"
    )
    print("| --- " * 10 + "|")
    for candidate, row, spent in zip(candidates, rows, times, strict=True):
        scores = row.scores
        recalls = " / ".join(f"{scores.recall_at_1_by_level[level]:.3f}" for level in LEVELS)
        print(
            f"| {candidate.network}, {candidate.weights.parent.name} | {candidate.pixels} | {candidate.dimension} "
            f"| {spent:.2f} | {spent / times[0]:.2f} | {scores.micro_ap:.3f} "
            f"| {scores.micro_ap_without_hard_negatives:.3f} | {scores.recall_at_p90:.3f} | {recalls} "
            f"| {scores.micro_ap / spent:.3f} |"
        )


if __name__ == "__main__":
    main()
