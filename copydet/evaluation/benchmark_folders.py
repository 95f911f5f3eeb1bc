"""Benchmarks on disk: which images are queries and references, and which pairs are copies.

Three layouts are known by what the folder holds:

    copydet    queries.csv (query_id, kind, level, edits, reference_id), queries/, references/
               kind: copy, hard_negative (alike but not a copy), non_copy; edits joined by +
    DISC21     val_query/, val_ref/, val_groundtruth_matches.csv (the layout of SSCD's evaluation)
    Copydays   original/ and any other folders of edited copies: strong/, crops/10/, jpegqual/3/ ...
               the first four characters of a file's name say which original it comes from (Jegou et al. 2008)

Each may also hold training/: images that are neither queries nor references, from which whitening is fitted and whose
descriptors are the background bank. Folders may be links.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from copydet.errors import UsageError
from copydet.evaluation.ground_truth import plain_id, read_ground_truth
from copydet.evaluation.metrics import Pair
from copydet.images.sources import open_source

Kind = Literal["copy", "hard_negative", "non_copy"]
TRAINING = "training"
KINDS: tuple[Kind, ...] = ("copy", "hard_negative", "non_copy")


@dataclass(frozen=True)
class Query:
    """`level` and `edits` say how hard the copy is and how it was made; empty where the benchmark doesn't say."""

    kind: Kind
    level: str = ""
    edits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """`queries` by id; `truth` holds the copies. Sources are what `images.sources` opens.

    `query_sources`: what stands before the ids of a source's images -> the source. With such a prefix an id goes on
    with the image's path without extension (Copydays, where folders share file names), without one it is the image's
    plain name. `lists_all`: every query image must be in `queries`; otherwise what is not listed is no copy.
    `neighbours`: how many references each query proposes, as the benchmark's own evaluators have it.
    """

    name: str
    queries: Mapping[str, Query]
    truth: frozenset[Pair]
    query_sources: Mapping[str, str]
    reference_source: str
    training_source: str | None = None
    lists_all: bool = True
    neighbours: int = 10


def query_id(prefix: str, image_id: str) -> str:
    return prefix + _path_id(image_id) if prefix else plain_id(image_id)


def read_benchmark(folder: Path) -> Benchmark:
    """Read a benchmark folder of one of the layouts above. Raises UsageError when it is none, or names the bad line."""
    if (folder / "queries.csv").is_file():
        return _read_own(folder)
    if (folder / "val_groundtruth_matches.csv").is_file():
        return _read_disc21(folder)
    if (folder / "original").is_dir():
        return _read_copydays(folder)
    raise UsageError(
        f"{folder} is not a benchmark: it holds neither queries.csv nor val_groundtruth_matches.csv (DISC21) "
        "nor original/ (Copydays)"
    )


def _read_own(folder: Path) -> Benchmark:
    path = folder / "queries.csv"
    queries: dict[str, Query] = {}
    truth: set[Pair] = set()
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"query_id", "kind", "level", "edits", "reference_id"} - set(reader.fieldnames or ())
        if missing:
            raise UsageError(f"{path} has no column {sorted(missing)[0]}")
        for row in reader:
            kind: Kind | None = next((known for known in KINDS if known == row["kind"]), None)
            if kind is None or row["query_id"] in queries:
                what = f"kind {row['kind']!r}" if kind is None else f"a second row for {row['query_id']}"
                raise UsageError(f"{path}, line {reader.line_num}: {what}")
            queries[row["query_id"]] = Query(
                kind, row["level"], tuple(part for part in row["edits"].split("+") if part)
            )
            if kind == "copy":
                truth.add((row["query_id"], row["reference_id"]))
    sources = _folder(folder, "queries"), _folder(folder, "references")
    return Benchmark(folder.name, queries, frozenset(truth), {"": sources[0]}, sources[1], _training(folder))


def _read_disc21(folder: Path) -> Benchmark:
    ground_truth = read_ground_truth(folder / "val_groundtruth_matches.csv")
    copies = {query for query, _ in ground_truth.pairs}
    queries = {query: Query("copy" if query in copies else "non_copy") for query in ground_truth.query_ids}
    sources = _folder(folder, "val_query"), _folder(folder, "val_ref")
    return Benchmark(
        "DISC21", queries, ground_truth.pairs, {"": sources[0]}, sources[1], _training(folder), lists_all=False
    )


def _read_copydays(folder: Path) -> Benchmark:
    blocks = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != TRAINING)
    sources = {f"{name}/": str(folder / name) for name in blocks}
    ids = [
        query_id(prefix, image.image_id) for prefix, source in sources.items() for image in open_source(source).images()
    ]
    originals: dict[str, list[str]] = {}
    for image_id in ids:
        block, _, name = image_id.rpartition("/")
        if block == "original":
            originals.setdefault(name[:4], []).append(name)
    queries: dict[str, Query] = {}
    truth: set[Pair] = set()
    for image_id in ids:
        block, _, name = image_id.rpartition("/")
        queries[image_id] = Query("copy" if name[:4] in originals else "non_copy", level=block)
        truth |= {(image_id, original) for original in originals.get(name[:4], [])}
    if not originals:
        raise UsageError(f"{folder / 'original'} holds no images")
    references = str(folder / "original")
    return Benchmark("Copydays", queries, frozenset(truth), sources, references, _training(folder), neighbours=100)


def _folder(folder: Path, name: str) -> str:
    if not (folder / name).is_dir():
        raise UsageError(f"{folder} has no folder {name}/")
    return str(folder / name)


def _training(folder: Path) -> str | None:
    return str(folder / TRAINING) if (folder / TRAINING).is_dir() else None


def _path_id(image_id: str) -> str:
    parent, slash, name = image_id.rpartition("/")
    return parent + slash + plain_id(name)
