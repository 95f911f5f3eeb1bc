"""D-Rep: pairs of a generated and a real image with a level of replication, 0 (none) to 5 (total), given by people.

Wang et al., Image Copy Detection for Diffusion Models, NeurIPS 2024 (arXiv 2409.19952). Its Parquet files have the
columns Name, Level, generated_images and real_images. Predictions and labels are compared as shares of the highest
level, in [0, 1] (section 5.1):

    PCC    Pearson's correlation of predictions p and labels l
    RD     mean of |p - l| / max(l, 1 - l): the error as a share of the largest possible one; 0 is best

`fit_level` learns a level from the match that copydet makes of a pair, on any labelled pairs. It is advice: similarity
ranks what people call replication poorly (the paper's table 1), and no level ships with copydet.
"""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from copydet.comparison import compare_images
from copydet.decisions.decide import DEFAULT_PRECISION
from copydet.errors import ImageProblem, UsageError
from copydet.images.parquet_source import cell_reader
from copydet.matching import OpenDescriptor
from copydet.records import Image, Match
from copydet.store import atomic

LEVELS = 5  # the highest
_COLUMNS = ("Name", "Level", "generated_images", "real_images")
_ROWS = 64
_NAMES = ("similarity", "normalised_similarity", "score", "log_inliers", "query_overlap", "reference_overlap")
_RIDGES = 10.0 ** np.arange(-3, 4)
_FOLDS = 5


@dataclass(frozen=True)
class LabelledPair:
    """A pair and its level, 0 to LEVELS."""

    generated: Image
    real: Image
    level: int


def read_drep(path: Path) -> Iterator[LabelledPair]:
    """Pairs of a Parquet file, of all Parquet files of a folder, or of a table (.csv) with the columns Name, Level and
    paths generated_images and real_images, relative to the table. Raises UsageError for another layout or level.
    """
    if path.is_dir():
        files = sorted(path.glob("**/*.parquet"))
        if not files:
            raise UsageError(f"{path} holds no Parquet files; D-Rep's are data/Test-*.parquet and data/Train-*.parquet")
    elif path.is_file():
        files = [path]
    else:
        raise UsageError(f"no such file or folder: {path}")
    for file in files:
        yield from _pairs(file, _csv_rows(file) if file.suffix.lower() == ".csv" else _parquet_rows(file))


def _pairs(path: Path, rows: Iterator[dict[str, object]]) -> Iterator[LabelledPair]:
    for number, row in enumerate(rows):
        try:
            level = int(str(row["Level"]))
        except ValueError:
            level = -1
        if not 0 <= level <= LEVELS:
            raise UsageError(f"{path}, row {number}: the level is {row['Level']!r}; levels are 0 to {LEVELS}")
        sides = [
            Image(f"{row['Name']}/{side}", str(path), str(path), cell_reader(row[column], str(path.resolve())))
            for side, column in (("generated", "generated_images"), ("real", "real_images"))
        ]
        yield LabelledPair(sides[0], sides[1], level)


def _parquet_rows(path: Path) -> Iterator[dict[str, object]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_columns(file.schema_arrow.names, path)
            for batch in file.iter_batches(_ROWS, columns=list(_COLUMNS)):
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def _csv_rows(path: Path) -> Iterator[dict[str, object]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            _check_columns(rows.fieldnames or [], path)
            for row in rows:
                yield dict(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def _check_columns(names: Sequence[str], path: Path) -> None:
    if missing := [name for name in _COLUMNS if name not in names]:
        raise UsageError(f"{path} has no column {missing[0]}; it has {', '.join(names)}")


def match_pair(pair: LabelledPair, opened: OpenDescriptor) -> Match:
    """What copydet says of the pair (see compare_images). Raises UsageError where an image cannot be read."""
    try:
        generated, real = pair.generated.read(), pair.real.read()
    except ImageProblem as error:
        raise UsageError(f"{pair.generated.image_id} and its real image cannot be read: {error}") from error
    return compare_images(generated, real, opened, DEFAULT_PRECISION).match


def level_numbers(matches: Sequence[Match]) -> NDArray[np.float64]:
    """What a level is learnt from, float64 [matches, 6]: similarity and local evidence; 0 where nothing was found."""
    rows = [
        (
            match.similarity,
            match.normalised_similarity,
            match.score,
            math.log1p(match.inliers or 0),
            match.query_overlap or 0.0,
            match.reference_overlap or 0.0,
        )
        for match in matches
    ]
    return np.array(rows, np.float64).reshape(len(rows), len(_NAMES))


def pearson(predicted: ArrayLike, labels: ArrayLike) -> float | None:
    """PCC; None where predictions or labels are all alike, or fewer than two."""
    first, second = np.asarray(predicted, np.float64), np.asarray(labels, np.float64)
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def relative_deviation(predicted: ArrayLike, labels: ArrayLike) -> float:
    """RD of predictions and labels in [0, 1]. Raises UsageError for others, and for none."""
    first, second = np.asarray(predicted, np.float64), np.asarray(labels, np.float64)
    if not len(first) or not all((each.min() >= 0 and each.max() <= 1) for each in (first, second)):
        raise UsageError("relative deviation is defined for at least one pair, of shares between 0 and 1")
    return float(np.mean(np.abs(first - second) / np.maximum(second, 1 - second)))


@dataclass(frozen=True)
class LevelModel:
    """level = clip(intercept + weights @ (numbers - mean) / scale, 0, LEVELS); all tuples [names]. `pairs` says how
    many it was fitted on; `pcc` and `rd` are those of pairs that were held out in turn.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    intercept: float
    weights: tuple[float, ...]
    pairs: int
    pcc: float | None
    rd: float

    def level(self, matches: Sequence[Match]) -> NDArray[np.float64]:
        """The advisory level of each match, float64 [matches] in [0, LEVELS]."""
        standard = (level_numbers(matches) - self.mean) / self.scale
        level: NDArray[np.float64] = np.clip(self.intercept + standard @ np.asarray(self.weights), 0, LEVELS)
        return level


def fit_level(matches: Sequence[Match], levels: ArrayLike, seed: int = 0) -> LevelModel:
    """A ridge regression of levels (0 to LEVELS) on similarity and local evidence. The ridge is the one that predicts
    held-out pairs best. Raises UsageError for fewer than 2 x folds pairs, or levels that are all alike or out of range.
    """
    label = np.asarray(levels, np.float64)
    if len(matches) != len(label) or len(label) < 2 * _FOLDS:
        raise UsageError(f"a level needs at least {2 * _FOLDS} pairs with a level each; there are {len(label)}")
    if np.ptp(label) == 0 or label.min() < 0 or label.max() > LEVELS:
        raise UsageError(f"levels must lie between 0 and {LEVELS} and differ")
    numbers = level_numbers(matches)
    fold = np.random.default_rng(seed).permutation(len(label)) % _FOLDS
    held_out = [_held_out(numbers, label, fold, ridge) for ridge in _RIDGES]
    best = int(np.argmin([np.mean((each - label) ** 2) for each in held_out]))
    mean, scale, intercept, weights = _ridge(numbers, label, float(_RIDGES[best]))
    return LevelModel(
        names=_NAMES,
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        intercept=intercept,
        weights=tuple(weights.tolist()),
        pairs=len(label),
        pcc=pearson(held_out[best], label),
        rd=relative_deviation(held_out[best] / LEVELS, label / LEVELS),
    )


def _held_out(
    numbers: NDArray[np.float64], label: NDArray[np.float64], fold: NDArray[np.int64], ridge: float
) -> NDArray[np.float64]:
    predicted = np.zeros(len(label))
    for number in range(_FOLDS):
        asked = fold == number
        mean, scale, intercept, weights = _ridge(numbers[~asked], label[~asked], ridge)
        predicted[asked] = intercept + (numbers[asked] - mean) / scale @ weights
    return np.clip(predicted, 0, LEVELS)


def _ridge(
    numbers: NDArray[np.float64], label: NDArray[np.float64], ridge: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, NDArray[np.float64]]:
    """(mean, scale, intercept, weights) of the regression on standardised numbers."""
    mean, scale = numbers.mean(axis=0), np.maximum(numbers.std(axis=0), 1e-6)
    standard = (numbers - mean) / scale
    gram = standard.T @ standard + ridge * np.eye(standard.shape[1])
    return mean, scale, float(label.mean()), np.linalg.solve(gram, standard.T @ (label - label.mean()))


def write_level(model: LevelModel, path: Path) -> None:
    atomic.write_json(path, asdict(model))


def read_level(path: Path) -> LevelModel:
    """Raises UsageError for a file that holds no level model."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: tuple(values[name]) for name in ("names", "mean", "scale", "weights")}
        model = LevelModel(**{**values, **lists})
        sizes = {len(each) for each in lists.values()}
        numbers = (*model.mean, *model.scale, *model.weights, model.intercept)
        if sizes != {len(model.names)} or model.names != _NAMES or not all(map(math.isfinite, numbers)):
            raise ValueError("numbers missing, unknown or not finite")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"cannot read the level model {path}: {error}") from error
    return model
