"""What codes propose."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from copydet.search.code_search import NOWHERE, Nearest, best_of, cut_to_best


@given(st.integers(0, 1 << 30), st.integers(1, 12), st.integers(1, 12))
def test_a_cut_keeps_the_best_and_of_equals_those_with_the_lowest_numbers(seed: int, k: int, more: int) -> None:
    rng = np.random.default_rng(seed)
    number = np.argsort(rng.random((4, k + more)), axis=1).astype(np.int64)
    similarity = rng.integers(0, 4, number.shape) / 4
    unused = rng.random(number.shape) < 0.3
    lists = Nearest(np.where(unused, NOWHERE, number), np.where(unused, -np.inf, similarity))
    cut, best = best_of(cut_to_best(lists, k), k), best_of(lists, k)
    assert np.array_equal(cut.number, best.number)
    assert np.array_equal(cut.similarity, best.similarity)
