"""OriPID: its files, its measures, and a linear map that undoes what hides the origin."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copydet.errors import UsageError
from copydet.evaluation.oripid import OriginVectors, read_oripid, score_origins
from copydet.training.linear_map import LinearMapConfig, load_linear_map, save_linear_map, train_linear_map


def vectors_of(vectors: np.ndarray, origins: list[int]) -> OriginVectors:
    return OriginVectors(tuple(f"T{origin}_0.npy" for origin in origins), vectors.astype(np.float32), np.array(origins))


def hidden(origins: int, each: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of `each` translations: an origin tells itself in 8 of 64 numbers, the others are noise."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(origins, 8)).repeat(each, 0)
    noise = 1.2 * rng.normal(size=(origins * each, 56))
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(64, 64)))[0]
    return (np.hstack([own, noise]) @ turn).astype(np.float32), np.arange(origins).repeat(each)


def test_a_folder_of_embeddings_is_read_by_name(tmp_path: Path) -> None:
    for name, value in (("T000002_1", 2.0), ("T000002_0", 1.0), ("Q7", 3.0)):
        np.save(tmp_path / f"{name}.npy", np.full((1, 2, 2), value, np.float16))
    found = read_oripid(tmp_path)
    assert found.names == ("Q7.npy", "T000002_0.npy", "T000002_1.npy")
    assert found.origins.tolist() == [7, 2, 2]
    assert found.vectors.tolist() == [[3.0] * 4, [1.0] * 4, [2.0] * 4]


def test_what_is_no_embedding_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \.npy files"):
        read_oripid(tmp_path)
    for name, content, words in (
        ("photo.npy", np.ones(4), "does not tell its origin"),
        ("T1_0.npy", np.zeros(4), "holds no embedding"),
        ("T1_0.npy", np.array([1.0, np.nan]), "holds no embedding"),
        ("T1_0.npy", np.array([{}], object), "cannot read"),
    ):
        np.save(tmp_path / name, content, allow_pickle=True)
        with pytest.raises(UsageError, match=words):
            read_oripid(tmp_path)
        (tmp_path / name).unlink()
    np.save(tmp_path / "T1_0.npy", np.ones(4))
    np.save(tmp_path / "T2_0.npy", np.ones(5))
    with pytest.raises(UsageError, match="holds 5 numbers"):
        read_oripid(tmp_path)


@given(st.integers(1, 12), st.integers(0, 100))
def test_with_one_origin_each_map_is_the_mean_of_one_over_rank(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    references = vectors_of(rng.normal(size=(count, 6)), list(range(count)))
    queries = vectors_of(rng.normal(size=(5, 6)), rng.integers(0, count, 5).tolist())
    unit = [each.vectors / np.linalg.norm(each.vectors, axis=1, keepdims=True) for each in (queries, references)]
    cosine = unit[0] @ unit[1].T
    ranks = [np.sum(line >= line[origin]) for line, origin in zip(cosine, queries.origins, strict=True)]
    found = score_origins(queries, references)
    assert found.mean_ap == pytest.approx(np.mean(1 / np.array(ranks)))
    assert found.accuracy == pytest.approx(np.mean(np.array(ranks) == 1))


def test_equal_cosines_count_against_the_query_and_several_originals_average() -> None:
    references = vectors_of(np.array([[1, 0], [1, 0], [0, 1]]), [1, 2, 1])
    found = score_origins(vectors_of(np.array([[1.0, 0.0]]), [1]), references)
    assert found.mean_ap == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_a_query_without_its_origin_and_sizes_that_do_not_fit_are_errors() -> None:
    references = vectors_of(np.eye(3), [0, 1, 2])
    with pytest.raises(UsageError, match="not among the references"):
        score_origins(vectors_of(np.eye(3), [0, 1, 5]), references)
    with pytest.raises(UsageError, match="2 numbers, references 3"):
        score_origins(vectors_of(np.eye(2), [0, 1]), references)
    with pytest.raises(UsageError, match="takes 4 numbers"):
        score_origins(references, references, np.eye(4, dtype=np.float32))


def test_a_linear_map_finds_origins_that_cosine_does_not(tmp_path: Path) -> None:
    seen, of_seen = hidden(200, 8, seed=1)
    config = LinearMapConfig(out=8, steps=400, rate=1e-2, average=0.98)
    linear_map = train_linear_map(seen, of_seen, config)
    new, of_new = hidden(40, 2, seed=2)
    queries, references = (vectors_of(new[side::2], of_new[side::2].tolist()) for side in (0, 1))
    before, after = score_origins(queries, references), score_origins(queries, references, linear_map)
    assert before.mean_ap < 0.35
    assert after.mean_ap > 0.95
    assert np.array_equal(train_linear_map(seen, of_seen, config), linear_map)
    save_linear_map(tmp_path / "map.safetensors", linear_map)
    assert np.array_equal(load_linear_map(tmp_path / "map.safetensors"), linear_map)


def test_nothing_to_learn_from_and_no_map_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two origins"):
        train_linear_map(np.eye(4, dtype=np.float32), np.arange(4))
    (tmp_path / "map.safetensors").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="no linear map"):
        load_linear_map(tmp_path / "map.safetensors")
