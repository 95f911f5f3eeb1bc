from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copydet.search import retrieve as module
from copydet.search.exact import exact_similarity
from copydet.search.retrieve import Candidates, retrieve

DIMENSION = 16


@dataclass
class ArrayShard:
    """A shard in memory, with real FAISS codes."""

    codes: Any
    descriptors: np.ndarray


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def draw(count: int, seed: int = 0, dimension: int = DIMENSION) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, dimension)))


def make_shards(vectors: np.ndarray, edges: list[int], trained: Any = None) -> list[ArrayShard]:
    """Cut rows at `edges` and encode each part with a copy of one trained index (Flat without)."""
    trained = trained or faiss.IndexFlatIP(vectors.shape[1])
    shards = []
    for start, stop in zip([0, *edges], [*edges, len(vectors)], strict=True):
        codes = faiss.clone_index(trained)
        stored = vectors[start:stop].astype(np.float16)
        codes.add(stored.astype(np.float32))
        shards.append(ArrayShard(codes, stored))
    return shards


def in_one_numbering(found: Candidates, edges: list[int]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.array([0, *edges, 0])  # the last is for shard -1
    return np.where(found.row < 0, -1, found.row + starts[found.shard]), found.similarity


def brute_force(vectors: np.ndarray, queries: np.ndarray, k: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    similarity = exact_similarity(queries, vectors)
    nearest = np.full((len(queries), k), -1)
    value = np.full((len(queries), k), -np.inf, np.float32)
    for query in range(len(queries)):
        order = rows[np.lexsort((rows, -similarity[query, rows]))][:k]
        nearest[query, : len(order)] = order
        value[query, : len(order)] = similarity[query, order]
    return nearest, value


@st.composite
def searches(draw_value: st.DrawFn) -> tuple[np.ndarray, list[int], np.ndarray, int, np.ndarray]:
    """References with many exact ties, a split in shards, queries, k, and a selection."""
    rng = np.random.default_rng(draw_value(st.integers(0, 2**32)))
    count = draw_value(st.integers(0, 60))
    different = draw(max(1, draw_value(st.integers(1, 60))), seed=int(rng.integers(1 << 30)))
    vectors = different[rng.integers(0, len(different), count)]
    edges = sorted(draw_value(st.lists(st.integers(0, count), max_size=4)))
    queries = unit(
        np.concatenate([different[:3], draw(3, 1)])[: draw_value(st.integers(0, 6))].reshape(-1, DIMENSION) + 1e-9
    )
    return vectors, edges, queries, draw_value(st.integers(1, 70)), rng.random(count) < draw_value(st.floats(0, 1))


@settings(max_examples=60, deadline=None)
@given(searches())
def test_flat_shards_give_what_a_sort_of_all_similarities_gives_however_they_are_split(search: Any) -> None:
    vectors, edges, queries, k, mask = search
    shards = make_shards(vectors, edges)
    masks = np.split(mask, edges)
    for selected, rows in ((None, np.arange(len(vectors))), (masks, np.flatnonzero(mask))):
        row, similarity = in_one_numbering(retrieve(shards, queries, k, selected=selected), edges)
        expected_row, expected_similarity = brute_force(vectors, queries, k, rows)
        np.testing.assert_array_equal(row, expected_row)
        np.testing.assert_array_equal(similarity, expected_similarity)


def test_flat_results_do_not_depend_on_blocks_threads_batches_or_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = draw(3000), draw(70, seed=1)
    vectors[500:2500:7] = vectors[3]
    queries[5] = vectors[3]
    expected = in_one_numbering(retrieve(make_shards(vectors, []), queries, 40), [])
    monkeypatch.setattr(module, "_BLOCK_ROWS", 97)
    monkeypatch.setattr(module, "_SCAN_QUERIES", 13)
    monkeypatch.setattr(module, "_RESCORE_BYTES", 4096)
    for threads, edges in ((1, [1]), (4, [700, 701, 2999])):
        monkeypatch.setattr(module, "_SCAN_THREADS", threads)
        shards = make_shards(vectors, edges)
        parts = [in_one_numbering(retrieve(shards, part, 40), edges) for part in np.array_split(queries, 9)]
        np.testing.assert_array_equal(np.concatenate([row for row, _ in parts]), expected[0])
        np.testing.assert_array_equal(np.concatenate([value for _, value in parts]), expected[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "factory",
    [
        "SQ8",
        "PQ8",
        "OPQ4,PQ4x4",
        "IVF8,Flat",
        "IVF8,SQ8",
        "IVF8,PQ4x4",
        "IVF8,PQ4x4fs",
        "IVF8,RaBitQ",
        "IVF8,RaBitQfs",
        "PCA8,IVF8,SQ8",
    ],
)
def test_codes_of_every_kind_give_selected_rows_with_exact_similarity_whatever_batch_threads_and_split(
    factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SCAN_ROWS", 0)
    vectors = draw(1200)
    queries = unit(vectors[:40] + 0.02 * draw(40, seed=1))
    trained = faiss.index_factory(DIMENSION, factory, faiss.METRIC_INNER_PRODUCT)
    trained.train(vectors)
    mask = np.random.default_rng(2).random(len(vectors)) < 0.7
    mask[:40] = True
    results = []
    for edges, batches, threads, rows in (([], 1, 2, 4096), ([], 40, 1, 4096), ([300, 350, 900], 3, 2, 100)):
        faiss.omp_set_num_threads(threads)
        monkeypatch.setattr(module, "_ONE_THREAD_ROWS", rows)
        monkeypatch.setattr(module, "CACHE_ROWS", rows)
        monkeypatch.setattr("copydet.search.exact.CACHE_ROWS", rows)
        monkeypatch.setattr(module, "_SEARCH_QUERIES", rows // 10)
        shards = make_shards(vectors, edges, trained)
        found = [
            retrieve(shards, part, 5, nprobe=4, candidates=80, selected=np.split(mask, edges))
            for part in np.array_split(queries, batches)
        ]
        numbered = [in_one_numbering(part, edges) for part in found]
        results.append([np.concatenate(column) for column in zip(*numbered, strict=True)])
    row, similarity = results[0]
    assert mask[row[row >= 0]].all()
    assert (row[:, 0] == np.arange(40)).mean() > 0.9
    exact = exact_similarity(queries, vectors).astype(np.float32)
    np.testing.assert_array_equal(similarity[row >= 0], np.take_along_axis(exact, row, 1)[row >= 0])
    for other in results[1:]:
        np.testing.assert_array_equal(other[0], row)
        np.testing.assert_array_equal(other[1], similarity)


def test_an_index_with_few_selected_rows_is_scanned_exactly_even_with_coarse_codes() -> None:
    vectors, queries = draw(2000), draw(9, seed=1)
    trained = faiss.index_factory(DIMENSION, "IVF32,PQ2x4", faiss.METRIC_INNER_PRODUCT)
    trained.train(vectors)
    found = retrieve(make_shards(vectors, [40], trained), queries, 5, nprobe=1, candidates=5)
    np.testing.assert_array_equal(
        in_one_numbering(found, [40])[0], brute_force(vectors, queries, 5, np.arange(2000))[0]
    )


@pytest.mark.parametrize("images", [0, 1, 2])
def test_places_that_no_image_can_fill_say_so(images: int) -> None:
    vectors = draw(images)
    found = retrieve(make_shards(vectors, []), draw(3, seed=1), 4)
    assert (found.row[:, images:] == -1).all()
    assert (found.shard[:, images:] == -1).all()
    assert np.isneginf(found.similarity[:, images:]).all()
    assert (np.sort(found.row[:, :images]) == np.arange(images)).all()


def test_no_shards_and_no_queries_give_empty_results() -> None:
    assert retrieve([], draw(2), 3).row.tolist() == [[-1] * 3] * 2
    assert retrieve(make_shards(draw(5), []), draw(0), 3).row.shape == (0, 3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from([64, 100, 1024]))
def test_similarities_in_tiles_are_those_of_one_product(first: int, second: int, dimension: int) -> None:
    one, other = draw(first, 0, dimension), draw(second, 1, dimension)
    expected = one.astype(np.float16).astype(float) @ other.astype(np.float16).astype(float).T
    np.testing.assert_array_equal(exact_similarity(one, other), expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([3, 64, 256, 1024]))
def test_similarity_is_the_same_both_ways_in_any_order_of_the_sum(seed: int, dimension: int) -> None:
    first, second = draw(2, seed, dimension), draw(3, seed + 1, dimension)
    similarity = exact_similarity(first, second)
    order = np.random.default_rng(seed).permutation(dimension)
    np.testing.assert_array_equal(similarity, exact_similarity(second, first).T)
    np.testing.assert_array_equal(similarity, exact_similarity(first[:, order], second[:, order]))
    np.testing.assert_array_equal(similarity[1:2, 2:], exact_similarity(first[1:2], second[2:]))
