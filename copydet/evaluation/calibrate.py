"""Fitting a descriptor's scores on pairs with known answers, and writing its calibration.json.

The pairs are what a search really proposes: population.py makes references and queries, the references are indexed, and
the queries go through the matching that everybody's queries go through: views, votes, verification. A copy that the
search misses is no pair. A part of the queries is asked again after the references' files have gone, for the model that
judges without pixels.

Pictures of the population that the background bank holds are taken out of it first, or their normalised similarities
would come out too low.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from copydet.decisions.calibration import Calibration, find_thresholds, fit, write_calibration
from copydet.decisions.logistic import probability
from copydet.decisions.pair import PairNumbers
from copydet.decisions.verified import NUMBERS, PIXEL_NUMBERS, VerifiedCalibration, VerifiedModel, fit_verified
from copydet.descriptors.background import Bank
from copydet.descriptors.registry import load_descriptor
from copydet.engines import local
from copydet.evaluation.population import POOL, AskedAbout, Population, make_population, number_of
from copydet.evaluation.vectors import nearest
from copydet.images.sources import list_images
from copydet.matching import (
    MatchOptions,
    OpenDescriptor,
    References,
    find_pairs,
    open_descriptor,
    open_gists,
    open_local,
)
from copydet.progress import Progress, show
from copydet.records import Vectors
from copydet.shards.shard import open_shard

_IN_BANK = 0.97  # the bank is stored in 8 bits and was decoded at another size: the same image comes out below 1
_ASKED_AGAIN = 3  # one query in so many is asked without pixels, too
_FOLDS = 5
_BINS = 10
_LEAST_SCORE = 0.01  # below, reliability is not measured: most pairs are there, and all are told apart


@dataclass(frozen=True)
class CalibrationPairs:
    """Candidate pairs of labelled queries; all [pairs]. `query` numbers their queries.

    `numbers.compared` is 0 for pairs of the queries that were asked without pixels, which are marked in `blind`.
    `missed` counts copies whose reference was not proposed, `left_out` pairs of nearly the same picture or pasted
    together.
    """

    numbers: tuple[PairNumbers, ...]
    similarity: NDArray[np.float64]
    normalised_similarity: NDArray[np.float64]
    is_copy: NDArray[np.bool_]
    query: NDArray[np.int64]
    blind: NDArray[np.bool_]
    references: int
    queries: int
    missed: int
    left_out: int


def calibrate_descriptor(
    folder: Path,
    sources: Sequence[str],
    *,
    seed: int = 0,
    images: int = 3000,
    device: str = "auto",
) -> Calibration:
    """Calibrate the descriptor in `folder` on `images` images of `sources`, and write its calibration.json.

    Raises UsageError when the sources have too few images.
    """
    opened = open_descriptor(load_descriptor(str(folder)), device)
    pairs = make_pairs(opened, sources, seed=seed, images=images)
    message = (
        f"{len(pairs.is_copy):,} pairs, {int(pairs.is_copy.sum()):,} of them copies; {pairs.missed:,} copies were "
        f"not found, {pairs.left_out:,} pairs left out as nearly the same picture or pasted together"
    )
    print(message, file=sys.stderr)
    calibration = fit_pairs(pairs, population=population(pairs, sources), seed=seed)
    write_calibration(calibration, Path(folder) / "calibration.json")
    return calibration


def population(pairs: CalibrationPairs, sources: Sequence[str]) -> str:
    """The words that say what the calibration's probabilities are shares of."""
    return (
        f"pairs that a search of {pairs.references:,} references proposes for {pairs.queries:,} queries, of which "
        "somewhat more than half are copies of one of them, edited in equal parts easy, medium, hard and extreme, and "
        "a fifth look-alikes, a twentieth second photographs of a reference; images of "
        + ", ".join(Path(source).name for source in sources)
    )


def make_pairs(
    opened: OpenDescriptor,
    sources: Sequence[str],
    *,
    seed: int = 0,
    images: int = 3000,
) -> CalibrationPairs:
    """Labelled pairs from `images` images of the sources: see the module. The same for the same seed. Shows progress.

    Raises UsageError when the sources have too few images.
    """
    with tempfile.TemporaryDirectory(prefix="copydet-calibrate-") as name:
        folder = Path(name)
        with show("choosing images", images * POOL) as progress:
            made = make_population(
                opened.runtime, list_images(sources), folder, images=images, seed=seed, progress=progress
            )
        opened = replace(opened, bank=outside(made.vectors, opened.bank))
        references = _index(folder / "index", made.references, opened)
        asked_again = made.queries[::_ASKED_AGAIN]
        with show("calibrating", len(made.queries) + len(asked_again), "queries") as progress:
            asked = _ask(made, made.queries, references, opened, progress)
            shutil.rmtree(made.references)
            again = _ask(made, asked_again, references, opened, progress)
    return _joined(made, asked, again)


def outside(vectors: Vectors, bank: Bank | None) -> Bank | None:
    """The bank without the images that `vectors` [n, dimension] describe."""
    if bank is None or not len(bank.vectors):
        return bank
    _, similarity = nearest(bank.vectors.astype(np.float32), vectors, 1)
    return Bank(bank.vectors[similarity[:, 0] < _IN_BANK], bank.hash)


def _index(folder: Path, images: Path, opened: OpenDescriptor) -> References:
    descriptor = opened.descriptor
    snapshot = local.build(folder, [str(images)], descriptor, None, opened.runtime)
    shards = tuple(open_shard(folder, entry, descriptor.dimension) for entry in snapshot.shards)
    nprobe, candidates = snapshot.recipe.get("nprobe", 0), snapshot.recipe.get("candidates", 0)
    return References(shards, open_local(shards), open_gists(shards), (None,) * len(shards), nprobe, candidates)


@dataclass(frozen=True)
class _Labelled:
    """`is_copy` None: nearly the same picture without being a copy, or one that the query was pasted onto."""

    numbers: PairNumbers
    similarity: float
    normalised_similarity: float
    query: int
    is_copy: bool | None


def _ask(
    made: Population,
    queries: Sequence[AskedAbout],
    references: References,
    opened: OpenDescriptor,
    progress: Progress,
) -> list[_Labelled]:
    labelled = []
    results = find_pairs([each.image for each in queries], references, opened, MatchOptions(), progress)
    for asked, (row, pairs) in zip(queries, results, strict=True):
        for pair in pairs:
            reference = number_of(pair.reference.image_id)
            is_copy: bool | None = asked.is_copy and reference == asked.parent
            if reference in asked.others or (reference != asked.parent and made.nearly_same(asked.parent, reference)):
                is_copy = None
            seen = pair.similarity, pair.normalised_similarity
            labelled.append(_Labelled(pair.numbers, *seen, int(row.image_id), is_copy))
    return labelled


def _joined(made: Population, asked: Sequence[_Labelled], again: Sequence[_Labelled]) -> CalibrationPairs:
    kept = [each for each in (*asked, *again) if each.is_copy is not None]
    first_blind = sum(each.is_copy is not None for each in asked)
    blind = [number >= first_blind for number in range(len(kept))]
    found = sum(bool(each.is_copy) for each in asked)
    return CalibrationPairs(
        numbers=tuple(each.numbers for each in kept),
        similarity=np.array([each.similarity for each in kept]),
        normalised_similarity=np.array([each.normalised_similarity for each in kept]),
        is_copy=np.array([bool(each.is_copy) for each in kept]),
        query=np.array([each.query for each in kept]),
        blind=np.array(blind, bool),
        references=made.reference_count,
        queries=len(made.queries),
        missed=sum(each.is_copy for each in made.queries) - found,
        left_out=sum(each.is_copy is None for each in asked),
    )


def fit_pairs(pairs: CalibrationPairs, *, population: str, seed: int | None = None) -> Calibration:
    """Both models of a calibration. Raises UsageError as `fit` does."""
    seen = ~pairs.blind
    calibration = fit(
        pairs.similarity[seen],
        pairs.normalised_similarity[seen],
        pairs.is_copy[seen],
        population=population,
        seed=seed,
    )
    held_out = held_out_scores(pairs)
    rows = np.flatnonzero(seen)
    error, table = reliability(held_out[rows], pairs.is_copy[rows])
    models = _fit_models(pairs, np.ones(len(seen), bool))
    return replace(
        calibration,
        verified=replace(
            models,
            thresholds=find_thresholds(held_out[rows], pairs.is_copy[rows]),
            population=population,
            pairs=len(rows),
            copies=int(pairs.is_copy[rows].sum()),
            calibration_error=error,
            reliability=table,
            seed=seed,
        ),
    )


def held_out_scores(pairs: CalibrationPairs) -> NDArray[np.float64]:
    """The score of each pair by models that were fitted without its query and a fifth of all queries, [pairs].

    Thresholds and reliability come from these: the model's own pairs would flatter it.
    """
    # Not the generator that shuffled the population: it would undo that, and what was made alike would share a fold.
    fold = np.random.default_rng([_FOLDS, 1]).permutation(int(pairs.query.max()) + 1)[pairs.query] % _FOLDS
    scores = np.zeros(len(fold))
    for number in range(_FOLDS):
        models, rows = _fit_models(pairs, fold != number), np.flatnonzero(fold == number)
        scores[rows] = probability(models.logit([pairs.numbers[row] for row in rows.tolist()]))
    return scores


def _fit_models(pairs: CalibrationPairs, used: NDArray[np.bool_]) -> VerifiedCalibration:
    def model(names: tuple[str, ...], rows: NDArray[np.bool_]) -> VerifiedModel:
        numbers = [pairs.numbers[row] for row in np.flatnonzero(rows).tolist()]
        return fit_verified(numbers, pairs.is_copy[rows], names)

    sighted, blind = model(NUMBERS + PIXEL_NUMBERS, used & ~pairs.blind), model(NUMBERS, used & pairs.blind)
    return VerifiedCalibration(sighted, blind, thresholds={}, population="", pairs=0, copies=0)


def reliability(
    score: NDArray[np.float64], is_copy: NDArray[np.bool_]
) -> tuple[float | None, tuple[tuple[float, float, int], ...]]:
    """The expected calibration error over bins of equally many pairs (Naeini et al. 2015), and (mean score, share of
    copies, pairs) of each; of the pairs that score at least .01. None where these are fewer than the bins.
    """
    rows = np.flatnonzero(score >= _LEAST_SCORE)
    if len(rows) < _BINS:
        return None, ()
    ordered = rows[np.argsort(score[rows], kind="stable")]
    bins = np.array_split(ordered, _BINS)
    table = tuple((float(score[each].mean()), float(is_copy[each].mean()), len(each)) for each in bins)
    error = sum(abs(mean - share) * count for mean, share, count in table) / len(rows)
    return float(error), table
