from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from copydet.search.merge import merge_views, view_offsets
from copydet.search.retrieve import Candidates


def draw(counts: list[int], k: int, seed: int) -> tuple[Candidates, np.ndarray]:
    """Random finds with many ties, some places unused, each reference once a view."""
    rng = np.random.default_rng(seed)
    lines = sum(counts)
    shard, row = np.full((lines, k), -1, np.int32), np.full((lines, k), -1, np.int64)
    similarity = np.full((lines, k), -np.inf, np.float32)
    for line in range(lines):
        used = int(rng.integers(k + 1))
        chosen = rng.choice(12, used, replace=False)
        shard[line, :used], row[line, :used] = chosen // 4, chosen % 4
        similarity[line, :used] = rng.integers(0, 4, used) / 4
    return Candidates(shard, row, similarity), (rng.integers(0, 3, lines) / 4).astype(np.float32)


def merge_slowly(found: Candidates, taken_off: np.ndarray, first: int, last: int, k: int) -> list[tuple]:
    best: dict[tuple[int, int], tuple] = {}
    for line in range(first, last):
        for shard, row, similarity in zip(found.shard[line], found.row[line], found.similarity[line], strict=True):
            entry = (similarity - taken_off[line], line - first, similarity)
            if row >= 0 and ((shard, row) not in best or entry[0] > best[shard, row][0]):
                best[shard, row] = entry
    order = sorted(best, key=lambda each: (-best[each][0], each))
    return [(*each, *best[each]) for each in order[:k]]


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 8), st.integers(1, 15), st.integers(0, 2**32)
)
def test_each_reference_keeps_its_best_view(counts: list[int], k: int, top: int, seed: int) -> None:
    found, taken_off = draw(counts, k, seed)
    offsets = view_offsets([range(count) for count in counts])
    merged = merge_views(found, taken_off, offsets, top)
    for query in range(len(counts)):
        expected = merge_slowly(found, taken_off, offsets[query], offsets[query + 1], top)
        used = int((merged.row[query] >= 0).sum())
        columns = (merged.shard, merged.row, merged.normalised, merged.view, merged.similarity)
        assert list(zip(*(column[query, :used].tolist() for column in columns), strict=True)) == expected
        for column, empty in zip(columns, (-1, -1, -np.inf, -1, -np.inf), strict=True):
            assert (column[query, used:] == empty).all()


def test_one_view_a_query_is_what_was_found() -> None:
    found, _ = draw([1] * 6, 5, seed=3)
    merged = merge_views(found, np.zeros(6, np.float32), np.arange(7), 5)
    assert (merged.view[merged.row >= 0] == 0).all()
    np.testing.assert_array_equal(np.sort(merged.similarity, axis=1), np.sort(found.similarity, axis=1))


def test_a_batch_changes_nothing() -> None:
    counts = [3, 0, 2, 5]
    found, taken_off = draw(counts, 6, seed=5)
    offsets = view_offsets([[0] * count for count in counts])
    together = merge_views(found, taken_off, offsets, 4)
    for query, (first, last) in enumerate(pairwise(offsets)):
        part = Candidates(found.shard[first:last], found.row[first:last], found.similarity[first:last])
        alone = merge_views(part, taken_off[first:last], np.array([0, last - first]), 4)
        np.testing.assert_array_equal(alone.row[0], together.row[query])
        np.testing.assert_array_equal(alone.view[0], together.view[query])


def test_no_queries_give_no_lines() -> None:
    found, taken_off = draw([], 3, seed=0)
    assert merge_views(found, taken_off, view_offsets([]), 3).row.shape == (0, 3)
