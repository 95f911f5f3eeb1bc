from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import pytest

from copydet.errors import UsageError
from copydet.records import StoredVectors
from copydet.search.operating_points import OperatingPoint, find_points, read_points
from copydet.search.retrieve import retrieve


@dataclass(frozen=True)
class OneShard:
    descriptors: StoredVectors
    codes: Any


def clusters(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors around 60 centres, as those of photos are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((60, 32))
    vectors = centres[rng.integers(0, 60, count)] + 0.7 * rng.standard_normal((count, 32))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def shard(vectors: Any, factory: str) -> OneShard:
    codes = faiss.index_factory(32, factory, faiss.METRIC_INNER_PRODUCT)
    codes.train(vectors)
    codes.add(vectors)
    return OneShard(vectors.astype(np.float16), codes)


@pytest.fixture(scope="module")
def compressed() -> list[OneShard]:
    return [shard(clusters(3000, seed), "IVF40,PQ8x4") for seed in (1, 2)]


@pytest.fixture
def no_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("copydet.search.retrieve._SCAN_ROWS", 0)


@pytest.mark.usefixtures("no_scan")
def test_a_point_has_the_recall_that_it_says_and_a_higher_one_costs_no_less(compressed: list[OneShard]) -> None:
    queries, targets = clusters(100, 9), (0.5, 0.8, 0.95)
    points, highest = find_points(compressed, [None, None], queries, targets)
    assert list(points) == list(targets)
    assert highest >= 0.95
    exact = [OneShard(each.descriptors, faiss.IndexFlatIP(32)) for each in compressed]
    truth = retrieve(exact, queries, 10)
    cost = 0.0
    for target, point in points.items():
        found = retrieve(compressed, queries, 10, nprobe=point.nprobe, candidates=point.candidates)
        hits = [
            len(set(zip(*a, strict=True)) & set(zip(*b, strict=True)))
            for a, b in zip(
                zip(truth.shard, truth.row, strict=True), zip(found.shard, found.row, strict=True), strict=True
            )
        ]
        assert np.mean(hits) / 10 == pytest.approx(point.recall)
        assert point.recall >= target
        assert (point.queries, point.images) == (100, 6000)
        read = 6000 * 4 * point.nprobe / 40 + 4096 * point.candidates
        assert read >= cost
        cost = read


@pytest.mark.usefixtures("no_scan")
def test_a_recall_that_codes_cannot_reach_is_left_out() -> None:
    rough = [shard(clusters(6000, 1), "IVF1,PQ1x4")]  # 16 values
    points, highest = find_points(rough, [None], clusters(50, 9), (0.1, 0.999))
    assert 0.1 in points
    assert 0.999 not in points
    assert 0.1 <= highest < 0.999


def test_exact_codes_have_every_recall_and_small_indexes_get_a_point_that_stays_right_when_they_grow(
    compressed: list[OneShard],
) -> None:
    queries = clusters(20, 9)
    points, _ = find_points([shard(clusters(500, 1), "Flat")], [None], queries, (0.99,))
    assert points[0.99].recall == 1
    points, _ = find_points(compressed, [None, None], queries, (0.9,))
    assert (points[0.9].nprobe, points[0.9].recall) == (40, 1)


def test_points_that_make_no_sense_are_one_line() -> None:
    good = {"nprobe": 4, "candidates": 10, "recall": 0.96, "queries": 9, "images": 5}
    assert read_points({"0.95": good, "0.9": good}) == {0.9: OperatingPoint(**good), 0.95: OperatingPoint(**good)}
    for bad in ({"0.95": {**good, "nprobe": -1}}, {"0.95": 7}, {"x": good}, {"0.95": {"nprobe": 1}}):
        with pytest.raises(UsageError, match="tune it again"):
            read_points(bad)
