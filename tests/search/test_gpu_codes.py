import faiss
import numpy as np
import pytest
from test_retrieve import DIMENSION, draw, make_shards

from copydet.search import retrieve as module
from copydet.search.gpu_codes import GpuCodes
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
