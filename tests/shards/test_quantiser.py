from pathlib import Path

import faiss
import numpy as np
import pytest
from staged import row, stage, unit_vectors

from copydet.errors import CopydetError
from copydet.shards.quantiser import sample_vectors, train_quantiser, write_codes


def test_the_sample_has_no_repeats_and_is_the_same_each_time(tmp_path: Path) -> None:
    chunks = stage(tmp_path, [row(str(n), "ok" if n % 7 else "unreadable") for n in range(5000)])
    every = np.concatenate([chunk.vectors(16) for chunk in chunks])
    sample = sample_vectors(chunks, 16, 1000)
    assert sample.shape == (1000, 16)
    known = {vector.tobytes() for vector in every}
    drawn = {vector.astype(np.float16).tobytes() for vector in sample}
    assert len(drawn) == 1000
    assert drawn <= known
    assert np.array_equal(sample, sample_vectors(chunks, 16, 1000))
    assert len(sample_vectors(chunks, 16, 10**6)) == len(every)


def test_training_gives_the_same_bytes_whatever_the_number_of_threads() -> None:
    sample = unit_vectors(2000)
    threads = faiss.omp_get_max_threads()
    try:
        trained = []
        for count in (1, 2):
            faiss.omp_set_num_threads(count)
            trained.append(train_quantiser("OPQ4_16,IVF8,PQ4x8", sample).tobytes())
    finally:
        faiss.omp_set_num_threads(threads)
    assert trained[0] == trained[1]


@pytest.mark.parametrize("count", [0, 1, 9000])
def test_exact_codes_are_the_bytes_that_faiss_writes(tmp_path: Path, count: int) -> None:
    vectors = unit_vectors(count).astype(np.float16)
    write_codes(tmp_path / "ours", None, vectors)
    index = faiss.IndexFlatIP(16)
    index.add(vectors.astype(np.float32))
    faiss.write_index(index, str(tmp_path / "faiss"))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "faiss").read_bytes()


def test_too_small_a_sample_is_one_line() -> None:
    with pytest.raises(CopydetError, match="cannot train IVF64,Flat on 5 images") as caught:
        train_quantiser("IVF64,Flat", unit_vectors(5))
    assert "\n" not in str(caught.value)
