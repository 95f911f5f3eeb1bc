"""Candidates are the nearest contents, whatever the blocks and the shards, and bounded for each."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from planted import groups, index_vectors
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from copydet.dedup import near
from copydet.dedup.collection import open_collection
from copydet.dedup.exact import find_contents
from copydet.dedup.near import LEAST_SIMILARITY, NEIGHBOURS, find_near
from copydet.index import Index
from copydet.progress import Silent

Pairs = dict[tuple[str, str], float]


def pairs_of(work: Path, *own: Index, against: tuple[Index, ...] = ()) -> Pairs:
    work.mkdir()
    collection = open_collection(own, against)
    found = find_near(collection, find_contents(collection, work), work, Silent(), votes=False)
    table = pq.read_table(found.path)
    assert len(table) == found.pairs
    one, other = ([row.image_id for row in collection.rows(table[name].to_numpy())] for name in ("one", "other"))
    return dict(zip(zip(one, other, strict=True), table["similarity"].to_pylist(), strict=True))


def names(count: int) -> list[str]:
    return [f"{number:05}" for number in np.random.default_rng(5).permutation(count)]


def test_a_few_images_give_every_pair_that_is_near_once_by_id(tmp_path: Path) -> None:
    vectors = groups([3, 2, 4, 1])
    found = pairs_of(tmp_path / "work", index_vectors(tmp_path / "v", vectors, list("jihgfedcba")))
    exact = vectors.astype(np.float16).astype(np.float64)
    similarity = exact @ exact.T
    wanted = {}
    for i, one in enumerate("jihgfedcba"):
        for j, other in enumerate("jihgfedcba"):
            if one < other and similarity[i, j] >= LEAST_SIMILARITY:
                wanted[one, other] = pytest.approx(similarity[i, j], abs=1e-6)
    assert found == wanted
    assert list(found) == sorted(found)


def test_candidates_do_not_depend_on_blocks_tiles_or_on_the_order_of_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = groups([20] * 20, spread=0.15)
    ids = names(len(vectors))
    whole = pairs_of(tmp_path / "whole", index_vectors(tmp_path / "v1", vectors, ids))
    order = np.random.default_rng(1).permutation(len(vectors))
    shuffled = index_vectors(tmp_path / "v2", vectors[order], [ids[number] for number in order])
    monkeypatch.setattr(near, "BLOCK", 64)
    monkeypatch.setattr(near, "_TILE", 100)
    assert pairs_of(tmp_path / "parts", shuffled) == whole


def test_a_crowd_has_a_bounded_number_of_pairs_and_is_linked_all_the_same(tmp_path: Path) -> None:
    vectors = groups([600, 1, 1], spread=0.03)
    found = pairs_of(tmp_path / "work", index_vectors(tmp_path / "v", vectors, names(len(vectors))))
    assert len(found) <= 602 * (NEIGHBOURS + 1)
    ends = np.array([[int(name) for name in pair] for pair in found]).T
    graph = csr_matrix((np.ones(len(found)), (ends[0], ends[1])), shape=(602, 602))
    _, labels = connected_components(graph, directed=False)
    assert np.bincount(labels).max() == 600


def test_without_a_crowd_an_image_proposes_few(tmp_path: Path) -> None:
    vectors = groups([300], dimension=64, spread=0.11)  # similar, but not very alike
    found = pairs_of(tmp_path / "work", index_vectors(tmp_path / "v", vectors, names(300)))
    assert 300 <= len(found) <= 300 * NEIGHBOURS


def test_codes_propose_the_same_where_they_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = groups([5] * 40, spread=0.1)
    index = index_vectors(tmp_path / "v", vectors, names(len(vectors)))
    multiplied = pairs_of(tmp_path / "multiplied", index)
    monkeypatch.setattr(near, "EXACT_CONTENTS", 0)
    assert pairs_of(tmp_path / "retrieved", index) == multiplied


def test_images_of_the_other_collection_are_not_compared_with_each_other(tmp_path: Path) -> None:
    vectors = groups([4, 4])
    own = index_vectors(tmp_path / "own", vectors[:2], ["a", "b"])
    other = index_vectors(tmp_path / "other", vectors[2:], ["a", "c", "d", "e", "f", "g"])
    found = pairs_of(tmp_path / "work", own, against=(other,))
    assert set(found) == {("a", "b"), ("a", "a"), ("a", "c"), ("b", "a"), ("b", "c")}


def test_a_finished_block_is_not_searched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_vectors(tmp_path / "v", groups([5] * 40, spread=0.1), names(200))
    monkeypatch.setattr(near, "BLOCK", 50)
    wanted = pairs_of(tmp_path / "work", index)
    work = tmp_path / "work"
    stamps = {path: path.stat().st_mtime_ns for path in work.glob("near-*")}
    assert len(stamps) == 4
    for path in (work / "near.parquet", work / "near-000002.parquet"):
        path.unlink()
    collection = open_collection([index])
    find_near(collection, find_contents(collection, work), work, Silent(), votes=False)
    changed = {path.stem for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert changed == {"near-000002"}
    assert len(pq.read_table(work / "near.parquet")) == len(wanted)
