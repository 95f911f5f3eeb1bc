"""The audit: generations against a training set, from images to the numbers of audit.json.

What is called a copy is decided by `matching`, as for any query. Beside it stand the numbers that the literature
reports, so that audits compare with it: similarity of whole images and its chance level, near-pixel distances,
duplication of what was matched, cliques among the generations.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from copydet.audit.chance import MATCHED, SAMPLE, Chance, matched_others, nearest_others
from copydet.audit.cliques import find_cliques
from copydet.audit.duplication import Repeats, count_repeats
from copydet.audit.generations import ROW, Looker, Muted, look_at_all
from copydet.audit.training_set import TrainingSet
from copydet.errors import UsageError
from copydet.index import Index
from copydet.matching import MatchOptions
from copydet.progress import Progress, Silent
from copydet.records import Image, Pixels, Vectors

_LEAST_MATCHED = 100  # training images for the chance level of copies: a short audit needs no long chance


@dataclass(frozen=True)
class Found:
    """All that was measured. `rows` has a row a generation, columns of generations.ROW first, then those of the source;
    `matched` and `others` are the repeats of matched and of random training images, `cliques` rows of generations.
    """

    rows: pa.Table
    metadata: tuple[str, ...]
    chance: Chance
    matched: Repeats
    others: Repeats
    cliques: list[list[int]]
    training_images: int
    local_features: bool


def measure(
    images: Iterable[Image],
    index: Index,
    options: MatchOptions,
    folder: Path,
    *,
    where: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Found:
    """Look at all generations. `folder` keeps what is done, so that the same call goes on where it was cut off.

    Raises UsageError where there is no generation that can be read, or no training image.
    """
    progress = progress or Silent()
    references, opened = index.references(where, votes=True, gist=True), index.opened
    training = TrainingSet(references)
    if not len(training):
        raise UsageError(f"{index.path} holds no training images" + (" that satisfy --where" if where else ""))
    settings = {
        "index": str(index.path.resolve()),
        "snapshot": [index.snapshot.number, index.snapshot.created_at],
        "descriptor": index.descriptor.hash,
        "scoring": opened.scoring,
        "where": where,
        "options": repr(replace(options, workers=None)),
    }
    looked = look_at_all(iter(images), Looker.open(training, opened, options), folder, settings, progress)
    kept = looked.rows
    _check(kept)
    progress.note("comparing training images with each other: the chance level")
    similarity, second = nearest_others(training, SAMPLE, seed, Silent())
    matched = chance_images(len(kept))
    chance = Chance(similarity, matched_others(training, opened, options, matched, seed, Muted(progress)), second)
    cliques = _cliques(looked.twins)
    rows, metadata = _with_metadata(kept, cliques)
    copied = [row["reference_id"] for row in rows.select(["reference_id", "verdict"]).to_pylist() if _is_match(row)]
    return Found(
        rows=rows,
        metadata=metadata,
        chance=chance,
        matched=count_repeats(training, training.places(set(copied))),
        others=count_repeats(training, training.sample(SAMPLE, seed + 2), only_first=True),
        cliques=cliques,
        training_images=len(training),
        local_features=training.has_local_features,
    )


def chance_images(generations: int) -> int:
    """How many training images are matched for the chance level of copies, at most. They take their time, too."""
    return min(MATCHED, max(_LEAST_MATCHED, generations // 2))


def _is_match(row: Mapping[str, Any]) -> bool:
    return row["verdict"] is not None and row["verdict"] != "no_match"


def _check(kept: pa.Table) -> None:
    if not len(kept):
        raise UsageError("the sources list no images; name a folder or a file of generations")
    if not any(status == "ok" for status in kept["status"].to_pylist()):
        first = kept.slice(0, 1).to_pylist()[0]
        raise UsageError(f"none of the {len(kept):,} generations can be read; {first['uri']}: {first['message']}")


def _cliques(twins: Sequence[tuple[int, Vectors, Pixels]]) -> list[list[int]]:
    """Rows of generations that are one picture."""
    found = find_cliques(np.stack([vector for _, vector, _ in twins]), [picture for _, _, picture in twins])
    return [[twins[number][0] for number in clique] for clique in found]


def _with_metadata(kept: pa.Table, cliques: list[list[int]]) -> tuple[pa.Table, tuple[str, ...]]:
    """The rows with `clique` (a number from 1, largest first; null outside of all) and the source's own columns; the
    names of those. A column named like one of ours gets the prefix `source_`.
    """
    numbers: list[int | None] = [None] * len(kept)
    for number, members in enumerate(cliques, 1):
        for row in members:
            numbers[row] = number
    table = kept.select(ROW.names).append_column("clique", pa.array(numbers, pa.int32()))
    values = [json.loads(text) for text in kept["metadata"].to_pylist()]
    added = []
    for name in dict.fromkeys(name for each in values for name in each):
        free = f"source_{name}" if name in table.column_names else name
        if free not in table.column_names:
            table = table.append_column(free, _typed([each.get(name) for each in values]))
            added.append(free)
    return table, tuple(added)


def _typed(values: list[Any]) -> pa.Array:
    """Text where the values have no common type that Parquet keeps."""
    try:
        found = pa.array(values)
        if not pa.types.is_nested(found.type) and not pa.types.is_null(found.type):
            return found
    except (pa.ArrowException, OverflowError):
        pass
    return pa.array([None if value is None else str(value) for value in values], pa.string())
