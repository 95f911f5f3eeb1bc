"""Fitting a descriptor's scores on pairs with known answers, and writing its calibration.json.

The pairs are what a search really proposes: population.py makes references and queries, the references are indexed, and
the queries go through the matching that everybody's queries go through: views, votes, verification. A copy that the
search misses is no pair. A part of the queries is asked again after the references' files have gone, for the model that
judges without pixels. Then all of them are searched for duplicates as one collection, for the scores of de-duplication
(stored_pairs.py).

Pictures of the population that the background bank holds are taken out of it first, or their normalised similarities
would come out too low.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from copydet.decisions.calibration import Calibration, fit, write_calibration
from copydet.decisions.pair import PairNumbers
from copydet.descriptors.background import Bank
from copydet.descriptors.registry import load_descriptor
from copydet.engines import local
from copydet.evaluation.fitting import LabelledPairs, enough, fit_labelled, label_pairs
from copydet.evaluation.population import POOL, AskedAbout, Population, make_population, number_of
from copydet.evaluation.stored_pairs import gone, look_at_stored
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


@dataclass(frozen=True)
class CalibrationPairs:
    """Labelled pairs: `searched` are candidates of queries, with the query's number and both similarities [searched
    pairs]; `stored` are those of de-duplication. Their groups are the images that they were made from.

    `missed` counts copies whose reference was not proposed, `left_out` pairs of nearly the same picture or pasted
    together; both are about `searched`.
    """

    searched: LabelledPairs
    query: NDArray[np.int64]
    similarity: NDArray[np.float64]
    normalised_similarity: NDArray[np.float64]
    stored: LabelledPairs
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
    descriptor = load_descriptor(str(folder))
    # Without the calibration that is there: nothing here asks for a score, and a damaged one is what a new one is for.
    files = {kind: path for kind, path in descriptor.files.items() if kind != "calibration"}
    opened = open_descriptor(replace(descriptor, files=files), device)
    pairs = make_pairs(opened, sources, seed=seed, images=images)
    is_copy, stored = pairs.searched.is_copy, pairs.stored.is_copy
    message = (
        f"{len(is_copy):,} pairs, {int(is_copy.sum()):,} of them copies; {pairs.missed:,} copies were not found, "
        f"{pairs.left_out:,} pairs left out as nearly the same picture or pasted together; {len(stored):,} pairs of "
        f"stored images, {int(stored.sum()):,} of them copies"
    )
    print(message, file=sys.stderr)
    if not enough(pairs.stored):
        print("pairs of stored images are too few: copydet dedup will use the scores of match", file=sys.stderr)
    calibration = fit_pairs(pairs, sources=sources, seed=seed)
    write_calibration(calibration, Path(folder) / "calibration.json")
    return calibration


def population(pairs: CalibrationPairs, sources: Sequence[str]) -> str:
    """The words that say what the calibration's probabilities are shares of."""
    return (
        f"pairs that a search of {pairs.references:,} references proposes for {pairs.queries:,} queries, of which "
        f"{_QUERIES}; images of {_names(sources)}"
    )


def stored_population(pairs: CalibrationPairs, sources: Sequence[str]) -> str:
    """The same for pairs of stored images."""
    return (
        f"pairs that de-duplication looks at in a collection of {pairs.references:,} photographs and {pairs.queries:,} "
        f"queries, of which {_QUERIES}; images of {_names(sources)}"
    )


_QUERIES = (
    "somewhat more than half are copies of one of them, edited in equal parts easy, medium, hard and extreme, and a "
    "fifth look-alikes, a twentieth second photographs of a reference"
)


def _names(sources: Sequence[str]) -> str:
    return ", ".join(Path(source).name for source in sources)


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
            with gone(made.references):
                again = _ask(made, asked_again, references, opened, progress)
        stored = look_at_stored(made, folder / "stored", opened)
    return _joined(made, asked, again, stored)


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
    parent: int
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
            labelled.append(_Labelled(pair.numbers, *seen, int(row.image_id), asked.parent, is_copy))
    return labelled


def _joined(
    made: Population, asked: Sequence[_Labelled], again: Sequence[_Labelled], stored: LabelledPairs
) -> CalibrationPairs:
    seen, blind = ([each for each in some if each.is_copy is not None] for some in (asked, again))
    found = sum(bool(each.is_copy) for each in asked)
    return CalibrationPairs(
        searched=label_pairs(
            *([(each.numbers, bool(each.is_copy), each.parent) for each in some] for some in (seen, blind))
        ),
        query=np.array([each.query for each in (*seen, *blind)]),
        similarity=np.array([each.similarity for each in (*seen, *blind)]),
        normalised_similarity=np.array([each.normalised_similarity for each in (*seen, *blind)]),
        stored=stored,
        references=made.reference_count,
        queries=len(made.queries),
        missed=sum(each.is_copy for each in made.queries) - found,
        left_out=len(asked) - len(seen),
    )


def fit_pairs(pairs: CalibrationPairs, *, sources: Sequence[str], seed: int | None = None) -> Calibration:
    """All models of a calibration, without `stored` where its pairs are too few. Raises UsageError as `fit` does."""
    seen, said = ~pairs.searched.blind, population(pairs, sources)
    calibration = fit(
        pairs.similarity[seen],
        pairs.normalised_similarity[seen],
        pairs.searched.is_copy[seen],
        population=said,
        seed=seed,
    )
    verified = fit_labelled(pairs.searched, population=said, seed=seed)
    if not enough(pairs.stored):
        return replace(calibration, verified=verified)
    # They learn from the searched pairs, too: alone they are of small pictures, and call too much of large ones a copy.
    stored = fit_labelled(pairs.stored, also=pairs.searched, population=stored_population(pairs, sources), seed=seed)
    return replace(calibration, verified=verified, stored=stored)
