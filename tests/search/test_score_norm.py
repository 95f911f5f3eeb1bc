import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copydet.descriptors.background import Bank
from copydet.search import score_norm
from copydet.search.exact import exact_similarity
from copydet.search.score_norm import background_similarity


def draw(count: int, seed: int, dimension: int = 24) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_bank(count: int, seed: int = 9) -> Bank:
    return Bank(draw(count, seed).astype(np.float16), hash="")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(0, 9), st.integers(1, 5))
def test_it_is_the_mean_of_the_nearest_bank_similarities(seed: int, entries: int, queries: int, nearest: int) -> None:
    bank = make_bank(entries, seed)
    vectors = draw(queries, seed + 1)
    expected = np.sort(exact_similarity(vectors, bank.vectors), axis=1)[:, -nearest:].mean(axis=1)
    np.testing.assert_array_equal(background_similarity(vectors, bank, nearest), expected.astype(np.float32))


def test_tiles_and_batches_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, vectors = make_bank(1000), draw(50, 1)
    whole = background_similarity(vectors, bank)
    monkeypatch.setattr(score_norm, "_GROUP", 7)
    monkeypatch.setattr(score_norm, "_TILE_QUERIES", 3)
    np.testing.assert_array_equal(background_similarity(vectors, bank), whole)
    one_by_one = [background_similarity(vectors[i : i + 1], bank) for i in range(50)]
    np.testing.assert_array_equal(np.concatenate(one_by_one), whole)


def test_without_a_bank_nothing_is_taken_off() -> None:
    assert background_similarity(draw(3, 1), None).tolist() == [0, 0, 0]
    assert background_similarity(draw(3, 1), Bank(np.empty((0, 24), np.float16), "")).tolist() == [0, 0, 0]
    assert background_similarity(draw(0, 1), make_bank(5)).shape == (0,)


def test_entries_that_float32_cannot_tell_apart_are_told_apart_exactly() -> None:
    vectors = draw(4, 1)
    near = np.repeat(vectors.astype(np.float16), 300, axis=0)
    near[::7, 3] = np.nextafter(near[::7, 3], np.float16(1))
    bank = Bank(near, "")
    expected = np.sort(exact_similarity(vectors, bank.vectors), axis=1)[:, -3:].mean(axis=1)
    np.testing.assert_array_equal(background_similarity(vectors, bank), expected.astype(np.float32))
