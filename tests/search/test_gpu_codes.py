from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
from test_retrieve import DIMENSION, draw, make_shards

from copydet.search import retrieve as module
from copydet.search.gpu_codes import GpuCodes, _Clone
from copydet.search.retrieve import retrieve

NO_GPU = not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0


@pytest.mark.parametrize("factory", ["IVF8,PQ4x4", "IVF8,RaBitQ", "SQ8"])
def test_what_a_gpu_cannot_search_is_searched_on_the_cpu_and_said_once(
    factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SCAN_ROWS", 0)
    vectors, queries = draw(1200), draw(20, seed=1)
    trained = faiss.index_factory(DIMENSION, factory, faiss.METRIC_INNER_PRODUCT)
    trained.train(vectors)
    shards = make_shards(vectors, [300, 700], trained)
    codes, notes = GpuCodes(), list[str]()
    for _ in range(2):
        codes.clone(shards, notes.append)
    if NO_GPU:
        assert len(notes) == 1
        assert "3 of 3 shards" in notes[0]
        assert "copydet doctor" in notes[0]
    mask = np.random.default_rng(2).random(1200) < 0.5
    for selected in (None, np.split(mask, [300, 700])):
        ours, theirs = (
            retrieve(shards, queries, 5, nprobe=8, candidates=50, selected=selected, search=each)
            for each in (codes, None)
        )
        same = (ours.row == theirs.row) & (ours.shard == theirs.shard)
        assert same.all() if NO_GPU else same.mean() > 0.95


def test_exact_codes_need_no_clone() -> None:
    notes: list[str] = []
    GpuCodes().clone(make_shards(draw(50), [20]), notes.append)
    assert notes == []


def test_what_a_gpu_cannot_do_in_a_search_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clone stands in for one on a GPU: it is never asked."""
    monkeypatch.setattr(module, "_SCAN_ROWS", 0)
    vectors, queries = draw(1200), draw(20, seed=1)
    trained = faiss.index_factory(DIMENSION, "IVF8,PQ4x4", faiss.METRIC_INNER_PRODUCT)
    trained.train(vectors)
    (shard,) = make_shards(vectors, [], trained)
    codes, notes = GpuCodes(), list[str]()
    codes.clone([shard], notes.append)
    notes.clear()
    with ThreadPoolExecutor(1) as owner:
        codes._clones[id(shard.codes)] = _Clone(shard.codes, None, owner)
        mask = np.arange(1200) % 3 > 0
        for _ in range(2):
            found = retrieve([shard], queries, 5, nprobe=8, candidates=50, selected=[mask], search=codes)
            retrieve([shard], queries, 5, nprobe=8, candidates=3000, search=codes)
    assert mask[found.row].all()
    assert len(notes) == 2
    assert "--where" in notes[0]
    assert "2,048" in notes[1]
