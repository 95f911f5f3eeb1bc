from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copydet.descriptors.runtimes import Runtime
from copydet.errors import UsageError
from copydet.evaluation.ground_truth import NamedVectors
from copydet.evaluation.vectors import (
    check_ids,
    describe_source,
    fit_whitening,
    nearest,
    negative_distance,
    share_of,
    split_bank,
)
from copydet.records import Vectors


def unit_vectors(count: int, dimension: int, seed: int = 0) -> Vectors:
    values = np.random.default_rng(seed).normal(size=(count, dimension))
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


@given(st.integers(0, 6), st.integers(0, 40), st.integers(1, 12))
def test_nearest_is_the_head_of_the_full_sort(queries: int, references: int, k: int) -> None:
    q, r = unit_vectors(queries, 8), unit_vectors(references, 8, seed=1)
    rows, similarity = nearest(q, r, k)
    full = q.astype(np.float16).astype(float) @ r.astype(np.float16).astype(float).T
    assert rows.shape == (queries, min(k, references))
    assert np.allclose(similarity, -np.sort(-full, axis=1)[:, :k], atol=1e-6)
    assert np.allclose(np.take_along_axis(full, rows, axis=1), similarity, atol=1e-6)


def test_equal_references_come_in_their_order() -> None:
    one = unit_vectors(1, 8)
    rows, _ = nearest(one, np.repeat(one, 3, axis=0), 3)
    assert rows.tolist() == [[0, 1, 2]]


def test_tiles_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    q, r = unit_vectors(30, 16), unit_vectors(200, 16, seed=1)
    whole = nearest(q, r, 7)
    monkeypatch.setattr("copydet.evaluation.vectors._TILE_REFERENCES", 33)
    monkeypatch.setattr("copydet.evaluation.vectors._TILE_QUERIES", 7)
    tiled = nearest(q, r, 7)
    assert np.array_equal(whole[0], tiled[0])
    assert np.array_equal(whole[1], tiled[1])


def test_negative_distance_is_minus_the_squared_euclidean_distance() -> None:
    q, r = unit_vectors(4, 8) * 3, unit_vectors(5, 8, seed=1)
    expected = -((q[:, None].astype(float) - r[None]) ** 2).sum(axis=2)
    assert np.allclose(negative_distance(q, r), expected)


def test_whitened_bank_has_unit_covariance_before_normalisation() -> None:
    mixed = unit_vectors(500, 6) @ np.random.default_rng(2).normal(size=(6, 6))
    whitening = fit_whitening(mixed)
    moved = (mixed - whitening.mean) @ whitening.matrix
    assert np.allclose(np.cov(moved, rowvar=False, bias=True), np.eye(6), atol=1e-6)
    assert np.allclose(np.linalg.norm(whitening(mixed), axis=1), 1, atol=1e-6)


def test_whitening_leaves_out_what_the_bank_does_not_span() -> None:
    flat = unit_vectors(50, 6)
    flat[:, 3:] = 0
    assert fit_whitening(flat).matrix.shape == (6, 3)
    with pytest.raises(UsageError, match="at least two"):
        fit_whitening(flat[:1])


@given(st.lists(st.text(), unique=True, max_size=50), st.floats(0, 1), st.integers(0, 3))
def test_bank_and_rest_share_no_image_and_lose_none(ids: list[str], share: float, seed: int) -> None:
    pool = NamedVectors(tuple(ids), unit_vectors(len(ids), 4))
    bank, rest = split_bank(pool, share, seed)
    assert sorted(bank.ids + rest.ids) == sorted(ids)
    assert len(bank.vectors) == len(bank.ids)
    larger, _ = split_bank(pool, min(1.0, share + 0.2), seed)
    assert set(bank.ids) <= set(larger.ids), "a larger bank holds the smaller one"
    assert all(0 <= share_of(image_id, seed) < 1 for image_id in ids)


def test_the_share_of_an_id_never_changes() -> None:
    assert share_of("T00000") == pytest.approx(0.4528411612892401, abs=1e-12)


def test_describing_reports_what_failed(runtime: Runtime, pool_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes((pool_folder / "000.png").read_bytes())
    (tmp_path / "b.jpg").write_text("no image")
    named, failed = describe_source(runtime, str(tmp_path))
    assert named.ids == ("a.png",)
    assert [problem.image_id for problem in failed] == ["b.jpg"]


def test_ids_that_fall_together_are_refused() -> None:
    with pytest.raises(UsageError, match="two queries have the id Q1"):
        check_ids(["Q1", "Q2", "Q1"], "queries")
