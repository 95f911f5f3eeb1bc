"""Evaluating a descriptor on a benchmark in all settings: a row a setting, with everything needed to make it again.

Settings: exact search or a recipe's index; similarities as they are or score-normalised; the descriptor as it is or
whitened; the benchmark's references alone or among distractors. Every query brings its best references: 10 as in SSCD's
evaluation, 100 for Copydays (the challenge itself let queries share one global list, which gives other numbers).

The bank is the benchmark's training/ where it has one. Otherwise bank and distractors are taken apart from one source:
its images whose `share_of` is below `bank_share` become the bank of the run, and the rest the distractors. The same
bank serves the rows without distractors, so that these rows differ by the distractors alone. Without training/ and
distractors the bank is the descriptor's own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copydet.descriptors.background import load_bank
from copydet.descriptors.runtimes import Runtime
from copydet.evaluation.benchmark_folders import Benchmark, query_id, read_benchmark
from copydet.evaluation.ground_truth import NamedVectors, plain_id
from copydet.evaluation.metrics import Curve
from copydet.evaluation.scoring import Scores, evaluate_predictions, to_predictions, whitened
from copydet.evaluation.vectors import check_ids, describe_source, joined, nearest, split_bank
from copydet.images.sources import count_images
from copydet.progress import show
from copydet.shards.recipe import Recipe, load_recipe


@dataclass(frozen=True)
class Subject:
    """What was evaluated on what. `undescribed` counts images of the benchmark that failed; their copies are missed."""

    benchmark: str
    descriptor: str
    descriptor_hash: str
    dimension: int
    resolution: str
    runtime: str
    references: int
    neighbours: int
    seed: int
    undescribed: int


@dataclass(frozen=True)
class Setting:
    """`recipe` is "exact" or a recipe's name; `bank` says which images the bank holds, empty where none is used."""

    recipe: str
    score_normalised: bool
    whitened: bool
    distractors: int
    bank: str
    bank_images: int


@dataclass(frozen=True)
class Row:
    subject: Subject
    setting: Setting
    scores: Scores
    curve: Curve = field(repr=False, compare=False)

    def fields(self) -> dict[str, Any]:
        """All of it but the curve as one dictionary, for JSON."""
        return {**asdict(self.subject), **asdict(self.setting), **asdict(self.scores)}


@dataclass(frozen=True)
class _Data:
    """Everything described once; `distractors` is empty where none were asked for, `bank` None where there is none."""

    queries: NamedVectors
    references: NamedVectors
    distractors: NamedVectors
    bank: NDArray[Any] | None
    bank_name: str
    undescribed: int


def evaluate_benchmark(
    folder: Path,
    runtime: Runtime,
    *,
    recipes: Sequence[str] = (),
    distractors: str | None = None,
    bank_share: float = 0.1,
    neighbours: int | None = None,
    seed: int = 0,
) -> list[Row]:
    """Evaluate the runtime's descriptor on a benchmark folder in all settings; progress on stderr.

    `recipes` are names or files; each searches the descriptor as it is. `distractors` is a source of images that are in
    no query. Settings that need a bank are left out when there is none. Raises UsageError when the folder, a recipe or
    the source cannot be used.
    """
    benchmark = read_benchmark(folder)
    neighbours = neighbours or benchmark.neighbours
    loaded = [load_recipe(name) for name in recipes]
    data = _describe(benchmark, runtime, distractors, bank_share, seed)
    subject = _subject(benchmark, runtime, data, neighbours, seed)
    rows: list[Row] = []
    for extra in (0, len(data.distractors)) if len(data.distractors) else (0,):
        references = joined(data.references, data.distractors) if extra else data.references
        for whiten in (False,) if data.bank is None else (False, True):
            for normalised, scores, curve in _exact(benchmark, data, references, whiten, neighbours):
                rows.append(Row(subject, _setting(data, "exact", normalised, whiten, extra), scores, curve))
        for recipe in loaded:
            for normalised, scores, curve in _through(benchmark, data, references, recipe, neighbours):
                rows.append(Row(subject, _setting(data, recipe.name, normalised, False, extra), scores, curve))
    return rows


def _describe(benchmark: Benchmark, runtime: Runtime, distractors: str | None, bank_share: float, seed: int) -> _Data:
    nothing = NamedVectors((), np.zeros((0, runtime.descriptor.dimension), np.float32))
    queries, failed = nothing, 0
    for prefix, source in benchmark.query_sources.items():
        part, missing = _described(runtime, source, "queries", partial(query_id, prefix))
        queries, failed = joined(queries, part), failed + missing
    references, missing = _described(runtime, benchmark.reference_source, "references", plain_id)
    failed += missing
    bank: NDArray[Any] | None = None
    bank_name, rest = "", nothing
    if distractors is not None:
        # Distractors are named apart, so that one that is called like a reference is not taken for it.
        rest, missing = _described(runtime, distractors, "distractors", "distractor:{}".format)
        failed += missing
    if benchmark.training_source is not None:
        training, missing = _described(runtime, benchmark.training_source, "training images", str)
        bank, bank_name, failed = training.vectors, benchmark.training_source, failed + missing
    elif distractors is not None:
        part, rest = split_bank(rest, bank_share, seed)
        bank, bank_name = part.vectors, f"{bank_share:g} of {distractors}"
    elif (own := load_bank(runtime.descriptor)) is not None:
        bank, bank_name = own.vectors, f"the descriptor's own ({own.hash})"
    return _Data(queries, references, rest, bank if bank is not None and len(bank) else None, bank_name, failed)


def _described(runtime: Runtime, source: str, what: str, name: Callable[[str], str]) -> tuple[NamedVectors, int]:
    """The source's descriptors under the benchmark's ids, and how many images failed; each of them is said."""
    with show(f"describing {what}", count_images([source])) as progress:
        named, problems = describe_source(runtime, source, progress=progress)
        for problem in problems:
            progress.note(f"not described: {problem.image_id}: {problem.message}")
    ids = tuple(name(image_id) for image_id in named.ids)
    check_ids(ids, what)
    return NamedVectors(ids, named.vectors), len(problems)


def _exact(
    benchmark: Benchmark, data: _Data, references: NamedVectors, whiten: bool, neighbours: int
) -> Iterator[tuple[bool, Scores, Curve]]:
    """(normalised, scores, curve) by exact search; one search serves both."""
    queries, bank = data.queries, data.bank
    if whiten and bank is not None:
        queries, references, bank = whitened(queries, references, bank)
    rows, found = nearest(queries.vectors, references.vectors, neighbours)
    yield from _both(benchmark, queries, references, rows, found, bank)


def _through(
    benchmark: Benchmark, data: _Data, references: NamedVectors, recipe: Recipe, neighbours: int
) -> Iterator[tuple[bool, Scores, Curve]]:
    from copydet.evaluation.recipe_search import search_with_recipe

    rows, found = search_with_recipe(recipe, data.queries.vectors, references.vectors, neighbours)
    yield from _both(benchmark, data.queries, references, rows, found, data.bank)


def _both(
    benchmark: Benchmark,
    queries: NamedVectors,
    references: NamedVectors,
    rows: NDArray[np.int64],
    found: NDArray[Any],
    bank: NDArray[Any] | None,
) -> Iterator[tuple[bool, Scores, Curve]]:
    for used in (None,) if bank is None else (None, bank):
        predictions = to_predictions(queries, references, rows, found, used)
        yield used is not None, *evaluate_predictions(benchmark, predictions)


def _subject(benchmark: Benchmark, runtime: Runtime, data: _Data, neighbours: int, seed: int) -> Subject:
    descriptor = runtime.descriptor
    return Subject(
        benchmark=benchmark.name,
        descriptor=descriptor.name,
        descriptor_hash=descriptor.hash,
        dimension=descriptor.dimension,
        resolution=f"{descriptor.resize.kind} {descriptor.resize.size}",
        runtime=runtime.name,
        references=len(data.references),
        neighbours=neighbours,
        seed=seed,
        undescribed=data.undescribed,
    )


def _setting(data: _Data, recipe: str, normalised: bool, whiten: bool, distractors: int) -> Setting:
    bank = data.bank if normalised or whiten else None
    name, images = ("", 0) if bank is None else (data.bank_name, len(bank))
    return Setting(recipe, normalised, whiten, distractors, name, images)
