"""Inverted lists of several shards are searched as one, and find what each shard's own lists find."""

import gc
import weakref
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from test_retrieve import ArrayShard, draw, make_shards, unit

from copydet.errors import CopydetError
from copydet.search import retrieve as module
from copydet.search.retrieve import Candidates, retrieve
from copydet.search.stacked_lists import find_stacks
from copydet.shards.quantiser import train_quantiser
from copydet.shards.shared_quantiser import inverted_lists, share_quantisers

EDGES = [300, 310, 310, 900, 1_700]


def trained(kind: str = "OPQ4_16,IVF8,PQ4x8", seed: int = 0) -> Any:
    return faiss.deserialize_index(train_quantiser(kind, draw(1_000, seed)))


def shards_and_queries(index: Any) -> tuple[list[ArrayShard], np.ndarray]:
    vectors = draw(2_000)
    vectors[500:560] = vectors[499]  # equals, in one shard and over the edge of two
    vectors[890:905] = vectors[889]
    return make_shards(vectors, EDGES, index), unit(vectors[::19] + 0.2 * draw(len(vectors[::19]), 5))


def codes_of(shards: list[ArrayShard]) -> list[Any]:
    return [shard.codes for shard in shards]


def assert_same(one: Candidates, other: Candidates) -> None:
    for name in ("shard", "row", "similarity"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def removed(shards: list[ArrayShard], share: float, seed: int) -> list[np.ndarray | None]:
    rng = np.random.default_rng(seed)
    masks: list[np.ndarray | None] = [rng.random(len(shard.descriptors)) > share for shard in shards]
    masks[0] = None
    return masks


@pytest.mark.parametrize("kind", ["OPQ4_16,IVF8,PQ4x8", "RR16,IVF8_HNSW4,RaBitQ"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.8])
def test_shards_stacked_find_what_each_alone_finds(share: float, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SCAN_ROWS", 0)
    alone, queries = shards_and_queries(trained(kind))
    stacked = shards_and_queries(trained(kind))[0]
    share_quantisers(codes_of(stacked))
    assert [stack.places for stack in find_stacks(codes_of(stacked))] == [(0, 1, 2, 3, 4, 5)]
    assert find_stacks(codes_of(alone)) == ()
    masks = removed(stacked, share, 3) if share else None
    for candidates, some in ((40, queries), (40, queries[:1]), (7, queries), (5_000, queries[:9])):
        ours = retrieve(stacked, some, 10, nprobe=3, candidates=candidates, selected=masks)
        theirs = retrieve(alone, some, 10, nprobe=3, candidates=candidates, selected=masks)
        assert_same(ours, theirs)
        assert len(np.unique(ours.shard)) > 2


@pytest.mark.parametrize("wrong", [10**12, -7])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_row_that_a_shard_does_not_have_is_an_error_that_says_so(
    wrong: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SCAN_ROWS", 0)
    alone, queries = shards_and_queries(trained())
    stacked = shards_and_queries(trained())[0]
    for shards in (alone, stacked):
        lists: Any = inverted_lists(shards[3].codes).invlists
        for number in range(lists.nlist):
            faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))[:] = wrong
    share_quantisers(codes_of(stacked))
    masks = removed(stacked, share, 3) if share else None
    # In one shard FAISS itself leaves out what is below 0, and what no mask selects.
    for shards in (stacked, alone) if wrong > 0 and not share else (stacked,):
        with pytest.raises(CopydetError, match="codes of the index are damaged: they name row"):
            retrieve(shards, queries, 10, nprobe=8, candidates=40, selected=masks)


def test_what_was_removed_does_not_stand_in_the_way_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest five hundred of one query are removed: many more than a stack asks for at first."""
    monkeypatch.setattr(module, "_SCAN_ROWS", 0)
    stacked, queries = shards_and_queries(trained())
    alone, _ = shards_and_queries(trained())
    share_quantisers(codes_of(stacked))
    queries[7] = stacked[4].descriptors[0]
    everything = retrieve(stacked, queries[7:8], 2_000, nprobe=8, candidates=2_000)
    selected = [np.ones(len(shard.descriptors), bool) for shard in stacked]
    for shard, row in zip(everything.shard[0, :500], everything.row[0, :500], strict=True):
        selected[shard][row] = False
    ours, theirs = (
        retrieve(each, queries, 10, nprobe=8, candidates=60, selected=selected) for each in (stacked, alone)
    )
    assert_same(ours, theirs)
    assert (ours.row[7] >= 0).all()


@pytest.mark.parametrize("kind", ["OPQ4_16,IVF8,PQ4x8", "RR16,IVF8,RaBitQ", "IVF8,SQ8"])
def test_of_equals_the_first_are_found_however_images_are_cut_into_shards(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three hundred times the same, of which a few are asked for; some that are better come after them."""
    monkeypatch.setattr(module, "_SCAN_ROWS", 0)
    index, vectors, all_equals = trained(kind), draw(2_000), [3, *range(200, 1_700, 5)]
    vectors[200:1_700:5] = vectors[3]
    query = unit(vectors[3:4] + 0.1 * draw(1, 9))
    vectors[1_990:] = unit(query + 0.05 * draw(10, 6))
    for edges in ([], [1_000], EDGES):
        for share in (False, True):
            shards = make_shards(vectors, edges, index)
            if share:
                share_quantisers(codes_of(shards))
            found = retrieve(shards, query, 20, nprobe=8, candidates=20)
            numbers = (np.array([0, *edges])[found.shard[0]] + found.row[0]).tolist()
            equals = [number for number in numbers if number in all_equals]
            assert len(equals) > 4
            assert equals == all_equals[: len(equals)]


def test_shards_of_several_quantisers_and_exact_ones_are_searched_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SCAN_ROWS", 0)

    def mixed() -> tuple[list[ArrayShard], np.ndarray]:
        kinds = [trained(), trained(seed=4), faiss.IndexFlatIP(16)]
        of_kinds = [shards_and_queries(kind)[0] for kind in kinds]
        return [of_kinds[number % 3][number] for number in range(6)], shards_and_queries(kinds[0])[1]

    alone, queries = mixed()
    stacked, _ = mixed()
    share_quantisers(codes_of(stacked))
    assert [stack.places for stack in find_stacks(codes_of(stacked))] == [(0, 3), (1, 4)]
    assert_same(*(retrieve(each, queries, 10, nprobe=3, candidates=40) for each in (stacked, alone)))


def test_codes_that_are_mapped_from_files_are_stacked_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SCAN_ROWS", 0)
    shards, queries = shards_and_queries(trained())
    mapped = []
    for number, shard in enumerate(shards):
        faiss.write_index(shard.codes, str(tmp_path / str(number)))
        codes = faiss.read_index(str(tmp_path / str(number)), faiss.IO_FLAG_MMAP_IFC)
        mapped.append(ArrayShard(codes, shard.descriptors))
    share_quantisers(codes_of(mapped))
    assert_same(*(retrieve(each, queries, 10, nprobe=3, candidates=40) for each in (mapped, shards)))


def test_a_stack_is_made_once_and_keeps_no_shard_alive() -> None:
    shards, _ = shards_and_queries(trained())
    share_quantisers(codes_of(shards))
    (stack,) = find_stacks(codes_of(shards))
    assert find_stacks(codes_of(shards)) == (stack,)
    (fewer,) = find_stacks(codes_of(shards[:4]))
    assert fewer.places == (0, 1, 2, 3)
    first, gone = weakref.ref(shards[0].codes), weakref.ref(fewer)
    del shards, stack, fewer
    gc.collect()
    assert first() is None
    assert gone() is None
