"""Operating points: how far an index must be searched to find what exact search finds.

A setting is measured against exact search over the float16 descriptors, on queries that are given. Of the settings that
reach a recall the one is taken that reads fewest bytes: codes of the lists that are visited, and a page of memory for
each candidate that is scored again. So the choice does not depend on the machine, nor on what else it does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from copydet.errors import UsageError
from copydet.records import StoredVectors, Vectors
from copydet.search import retrieve as retrieval
from copydet.search.code_search import SearchableShard
from copydet.search.retrieve import Candidates, retrieve

NEIGHBOURS = 10  # of exact search that are to be found: what match verifies
_CANDIDATES = (10, 20, 50, 100, 200, 500, 1000, 2000)
_PAGE = 4096
_NO_GAIN = 0.002  # of recall


@dataclass(frozen=True)
class OperatingPoint:
    """`nprobe` and `candidates` as in a recipe, and the recall that `queries` queries had with them among `images`."""

    nprobe: int
    candidates: int
    recall: float
    queries: int
    images: int


@dataclass(frozen=True)
class _Scanned:
    """A shard without codes: it is searched exactly."""

    descriptors: StoredVectors
    codes: Any


def find_points(
    shards: Sequence[SearchableShard],
    selected: Sequence[NDArray[np.bool_] | None],
    queries: Vectors,
    targets: Sequence[float],
) -> tuple[dict[float, OperatingPoint], float]:
    """The cheapest setting for each of the recalls `targets`, and the highest recall that was measured.

    `selected` as in retrieve; `queries` float32 [n, dimension]. A target that no setting reaches is left out.
    """
    exact = [_Scanned(shard.descriptors, faiss.IndexFlatIP(queries.shape[1])) for shard in shards]
    truth = retrieve(exact, queries, NEIGHBOURS, selected=selected)
    images = sum(
        len(shard.descriptors) if mask is None else int(mask.sum())
        for shard, mask in zip(shards, selected, strict=True)
    )
    lists = max((_lists(shard.codes) for shard in shards), default=0)
    probes, counts = _steps(lists), list(_CANDIDATES)
    if images <= retrieval._SCAN_ROWS:  # codes are not looked at: what would do for them shows when there are more
        probes, counts = probes[-1:], counts[-1:]
    measured: list[OperatingPoint] = []
    for nprobe in probes:
        enough = [point for point in measured if point.recall >= max(targets)]
        least = min((_bytes_read(shards, point.nprobe, point.candidates) for point in enough), default=math.inf)
        if least <= _bytes_read(shards, nprobe, counts[0]):
            break  # so many lists can only cost more
        before = 0.0
        for candidates in counts:
            found = retrieve(
                shards, queries, candidates, nprobe=nprobe or None, candidates=candidates, selected=selected
            )
            recall = _recall(truth, found)
            measured.append(OperatingPoint(nprobe, candidates, recall, len(queries), images))
            if recall >= max(targets) or recall - before < _NO_GAIN:
                break  # what is missing lies in other lists
            before = recall
    measured.sort(key=lambda point: (_bytes_read(shards, point.nprobe, point.candidates), point.nprobe))
    reached = {target: [point for point in measured if point.recall >= target] for target in targets}
    points = {target: found[0] for target, found in reached.items() if found}
    return points, max(point.recall for point in measured)


def read_points(stored: Mapping[str, Any]) -> dict[float, OperatingPoint]:
    """The operating points of a snapshot, lowest recall first. Raises UsageError when they make no sense."""
    try:
        points = {float(target): OperatingPoint(**values) for target, values in stored.items()}
        for point in points.values():
            settings = (point.nprobe, point.candidates, point.images)
            if not all(isinstance(each, int) and 0 <= each <= 1 << 40 for each in settings):
                raise ValueError(f"{point} holds other than whole numbers")
    except (TypeError, ValueError) as error:
        raise UsageError(f"the index holds operating points that make no sense: {error}; tune it again") from error
    return dict(sorted(points.items()))


def _steps(lists: int) -> list[int]:
    """1, 2, 4, ... up to all lists; 0 alone where there are none."""
    if not lists:
        return [0]
    powers = [1 << power for power in range(lists.bit_length()) if 1 << power < lists]
    return [*powers, lists]


def _lists(codes: Any) -> int:
    """Inverted lists of a FAISS index, 0 where it has none."""
    index = faiss.downcast_index(codes)
    if isinstance(index, faiss.IndexPreTransform):
        return _lists(index.index)
    return int(index.nlist) if isinstance(index, faiss.IndexIVF) else 0


def _bytes_read(shards: Sequence[SearchableShard], nprobe: int, candidates: int) -> float:
    """For one query."""
    codes = 0.0
    for shard in shards:
        lists = _lists(shard.codes)
        size = int(shard.codes.ntotal) * int(shard.codes.sa_code_size())
        codes += size * min(nprobe, lists) / lists if lists else size
    return codes + candidates * _PAGE


def _recall(truth: Candidates, found: Candidates) -> float:
    """Share of the nearest references by exact search that were found."""
    hits = total = 0
    for line in range(len(truth.row)):
        used = truth.row[line] >= 0
        wanted = set(zip(truth.shard[line, used].tolist(), truth.row[line, used].tolist(), strict=True))
        there = set(zip(found.shard[line].tolist(), found.row[line].tolist(), strict=True))
        hits += len(wanted & there)
        total += len(wanted)
    return hits / max(total, 1)
