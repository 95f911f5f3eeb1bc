"""Shards that one quantiser made use one of it, and find what they found before."""

import gc
from typing import Any

import faiss
import numpy as np
import pytest
from test_retrieve import ArrayShard, draw, make_shards, unit

from copydet.search import retrieve as module
from copydet.search.retrieve import retrieve
from copydet.shards.shared_quantiser import inverted_lists, quantiser_identity, share_quantisers

KINDS = ["OPQ4_16,IVF8,PQ4x4", "OPQ4_16,IVF8_HNSW4,PQ4x4", "OPQ4_16,IVF8_HNSW4,RaBitQ", "IVF8,SQ8", "IVF8,PQ4x4fs"]


def _trained(kind: str, vectors: np.ndarray) -> Any:
    index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    return index


def _shards(kind: str, count: int = 1_200) -> tuple[list[ArrayShard], np.ndarray]:
    vectors = draw(count)
    queries = unit(vectors[:: count // 40] + 0.3 * draw(len(vectors[:: count // 40]), 5))
    return make_shards(vectors, [300, 300, 700], _trained(kind, vectors[:800])), queries


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chosen", [False, True])
def test_shards_with_one_quantiser_find_what_each_with_its_own_finds(
    kind: str, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SCAN_ROWS", 0)
    shards, queries = _shards(kind)
    selected = [np.arange(len(shard.descriptors)) % 12 != 0 for shard in shards] if chosen else None

    def found(shards: list[ArrayShard], some: np.ndarray) -> tuple[np.ndarray, ...]:
        result = retrieve(shards, some, 10, nprobe=4, candidates=40, selected=selected)
        return result.shard, result.row, result.similarity

    sharing = _shards(kind)[0]
    share_quantisers([shard.codes for shard in sharing])
    assert len({quantiser_identity(shard.codes) for shard in shards}) == len(shards)
    assert len({quantiser_identity(shard.codes) for shard in sharing}) == 1
    for some in (queries, queries[:1]):
        assert all(map(np.array_equal, found(shards, some), found(sharing, some)))


def test_a_shared_quantiser_lives_as_long_as_one_of_its_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SCAN_ROWS", 0)
    shards, queries = _shards("OPQ4_16,IVF8,PQ4x4")
    share_quantisers([shard.codes for shard in shards])
    expected = retrieve(shards[2:], queries, 5, nprobe=4).row
    last = shards[2:]
    del shards
    gc.collect()
    assert np.array_equal(retrieve(last, queries, 5, nprobe=4).row, expected)


def test_only_equal_quantisers_become_one() -> None:
    one, other = _trained("OPQ4_16,IVF8,PQ4x4", draw(800)), _trained("OPQ4_16,IVF8,PQ4x4", draw(800, 9))
    turned = faiss.clone_index(one)
    rotation = faiss.downcast_VectorTransform(turned.chain.at(0))
    faiss.copy_array_to_vector(-faiss.vector_to_array(rotation.A), rotation.A)
    exact = faiss.IndexFlatIP(16)
    codes = [one, exact, other, turned, faiss.clone_index(one)]
    share_quantisers(codes)
    identities = [quantiser_identity(each) for each in codes]
    assert identities[0] == identities[4]
    assert len({*identities[:4]}) == 4
    assert identities[1] == 0
    assert inverted_lists(exact) is None


def test_sharing_again_changes_nothing_and_takes_in_what_came() -> None:
    trained = _trained("IVF8,PQ4x4", draw(800))
    codes = [faiss.clone_index(trained) for _ in range(3)]
    share_quantisers(codes)
    before = quantiser_identity(codes[2])
    more = [*codes[1:], faiss.clone_index(trained)]  # the first is gone
    del codes
    gc.collect()
    share_quantisers(more)
    assert {quantiser_identity(each) for each in more} == {before}
