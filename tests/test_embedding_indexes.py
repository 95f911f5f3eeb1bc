"""Indexes of embeddings that others made: the same shards, path to matches and commands as for images."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from thumbnail import DIMENSION, installed_photos, make_thumbnail_descriptor

import copydet
from copydet.cli.main import run as run_main
from copydet.errors import UsageError
from copydet.index import Index
from copydet.progress import Silent
from copydet.records import Match
from copydet.shards import staging
from copydet.store import snapshots

Floats = NDArray[np.float32]


def draw(count: int, dimension: int = 512, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def save(file: Path, vectors: NDArray[np.generic], ids: list[str] | None = None) -> Path:
    np.save(file, vectors)
    if ids is not None:
        file.with_suffix(".txt").write_text("".join(f"{each}\n" for each in ids), encoding="utf-8")
    return file


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `copydet ARGUMENTS`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_main([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def descriptor(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_thumbnail_descriptor(tmp_path_factory.mktemp("made") / "thumbnail"))


@pytest.fixture(scope="module")
def photos() -> list[Path]:
    return installed_photos()


@pytest.fixture
def small(tmp_path: Path) -> Index:
    """Ten vectors of 8 dimensions, whose descriptor nobody named."""
    return Index.build(save(tmp_path / "small.npy", draw(10, 8)), tmp_path / "small.index", embeddings=True)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_similarities_are_exactly_those_of_brute_force(tmp_path: Path, kind: type) -> None:
    references, queries = draw(700), draw(150, seed=1)
    queries[:50] += references[:50]
    references_file = save(tmp_path / "references.npy", references.astype(kind), [f"r{n}" for n in range(700)])
    index = Index.build(references_file, tmp_path / "index", embeddings=True)
    results = list(index.match(save(tmp_path / "queries.npy", queries), embeddings=True, top_k=20))
    given = (queries, references.astype(kind))
    stored = [unit(each.astype(np.float64)).astype(np.float32).astype(np.float16) for each in given]
    similarity = (stored[0].astype(np.float64) @ stored[1].astype(np.float64).T).astype(np.float32)
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :20]
    assert [result.query_id for result in results] == [f"queries/{n}" for n in range(150)]
    for query, result in enumerate(results):
        assert [match.reference_id for match in result.matches] == [f"r{n}" for n in best[query]]
        assert [match.similarity for match in result.matches] == similarity[query, best[query]].tolist()
        assert [match.score for match in result.matches] == sorted((m.score for m in result.matches), reverse=True)
    assert all(result.matches[0].verdict == "no_match" for result in results[50:])
    assert index.info().descriptor == "external-512"


def test_vectors_in_memory_get_the_same_matches_as_their_file(small: Index, tmp_path: Path) -> None:
    queries = draw(5, 8, seed=2)
    from_file = list(small.match([save(tmp_path / "q.npy", queries)], embeddings=True))
    from_memory = list(small.match(queries, embeddings=True))
    assert [result.query_id for result in from_memory] == [f"queries[{n}]" for n in range(5)]
    for one, other in zip(from_file, from_memory, strict=True):
        assert one.matches == tuple(replace(match, query_id=one.query_id) for match in other.matches)


def test_images_and_their_embeddings_give_the_same_index_and_the_same_matches(
    descriptor: str, photos: list[Path], tmp_path: Path
) -> None:
    vectors = copydet.describe(photos, descriptor=descriptor, device="cpu")
    file = save(tmp_path / "v.npy", vectors, [str(path) for path in photos])
    of_images = Index.build(photos, tmp_path / "images.index", descriptor=descriptor, device="cpu")
    of_vectors = Index.build(file, tmp_path / "vectors.index", descriptor=descriptor, embeddings=True)
    assert of_images.info().descriptor_hash == of_vectors.info().descriptor_hash

    def matches(index: Index, embeddings: bool) -> list[Match]:
        queries = file if embeddings else photos
        plain: dict[str, Any] = {"views": "whole", "votes": False, "verify": False}
        found = index.match(queries, embeddings=embeddings, top_k=50, **plain)
        return [replace(match, reference_uri="") for result in found for match in result.matches]

    expected = matches(of_images, embeddings=False)
    assert len(expected) == len(photos) ** 2
    assert any(match.normalised_similarity != match.similarity for match in expected)  # its bank was used
    assert matches(of_images, embeddings=True) == expected
    assert matches(of_vectors, embeddings=False) == expected
    assert matches(of_vectors, embeddings=True) == expected
    parts = [
        (tmp_path / f"{name}.index/shards/{entry.name}/descriptors.f16").read_bytes()
        for name in ("images", "vectors")
        for entry in snapshots.read_current(tmp_path / f"{name}.index").shards
    ]
    assert parts[0] == parts[1]


def test_rows_that_cannot_be_used_and_ids_that_are_taken_become_rows_that_say_so(tmp_path: Path) -> None:
    rows = [[1.0, 2.0], [float("nan"), 1.0], [0.0, 0.0], [1.0, 2.0, 3.0], None, [3.0, 1.0], [2.0, 1.0]]
    ids = ["a", "b", "c", "d", "e", "a", "f"]
    table = {"id": ids, "embedding": pa.array(rows, pa.list_(pa.float32())), "year": range(2000, 2007)}
    pq.write_table(pa.table(table), tmp_path / "v.parquet")
    index = Index.build(tmp_path / "v.parquet", tmp_path / "v.index", embeddings=True)
    assert index.info().statuses == {"ok": 2, "unreadable": 4, "duplicate_id": 1}
    stored = pq.read_table(next((tmp_path / "v.index").glob("shards/*/images.parquet"))).to_pylist()
    assert [row["image_id"] for row in stored] == ["a", "f", "b", "c", "d", "e", "a#2"]
    assert [row["year"] for row in stored] == [2000, 2006, 2001, 2002, 2003, 2004, 2005]
    assert "3 dimensions, 2 are needed" in stored[4]["message"]
    assert all(row[name] is None for row in stored for name in ("width", "height", "format", "bytes", "sha256"))
    (result,) = index.match(np.ones((1, 2), np.float32), embeddings=True, where="year > 2000")
    assert [match.reference_id for match in result.matches] == ["f"]


def test_queries_that_cannot_be_used_are_reported_in_their_place(small: Index) -> None:
    queries = draw(4, 8)
    queries[1], queries[2, 3] = 0, np.inf
    results = list(small.match(queries, embeddings=True))
    assert [result.status for result in results] == ["ok", "unreadable", "unreadable", "ok"]
    assert results[1].message == "the vector is zero"
    assert (results[1].matches, results[2].matches) == ((), ())
    assert [results[n].matches[0].reference_id for n in (0, 3)] == ["small/0", "small/3"]


def test_embeddings_can_be_added_and_removed(small: Index, tmp_path: Path) -> None:
    more = save(tmp_path / "more.npy", draw(3, 8, seed=5), ["small/1", "new", "newer"])
    assert small.add(more, embeddings=True) == 3
    assert small.info().statuses == {"ok": 12, "duplicate_id": 1}
    (result,) = small.match(draw(3, 8, seed=5)[1:2], embeddings=True)
    assert result.matches[0].reference_id == "new"
    small.remove("new")
    (result,) = small.match(draw(3, 8, seed=5)[1:2], embeddings=True)
    assert result.matches[0].reference_id != "new"


def test_images_and_embeddings_of_its_descriptor_share_an_index(
    descriptor: str, photos: list[Path], tmp_path: Path
) -> None:
    index = Index.build(photos[:3], tmp_path / "mixed.index", descriptor=descriptor, device="cpu")
    vectors = copydet.describe(photos[3:], descriptor=descriptor, device="cpu")
    index.add(save(tmp_path / "v.npy", vectors, [path.name for path in photos[3:]]), embeddings=True)
    results = list(index.match(photos[3:]))
    assert [result.matches[0].reference_id for result in results] == [path.name for path in photos[3:]]
    assert all(result.matches[0].similarity > 0.999 for result in results)


class Interrupting(Silent):
    """Ctrl-C after so many images."""

    def __init__(self, after: float) -> None:
        self.left, self.lines = after, list[str]()

    def advance(self, images: int) -> None:
        self.left -= images
        if self.left < 0:
            raise KeyboardInterrupt

    def note(self, line: str) -> None:
        self.lines.append(line)


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "CHUNK_IMAGES", 1000)
    file, path = save(tmp_path / "v.npy", draw(9000, 16)), tmp_path / "v.index"
    with pytest.raises(KeyboardInterrupt):
        Index.build(file, path, embeddings=True, progress=Interrupting(after=5000))
    with pytest.raises(UsageError, match="unfinished run"):
        Index.build(save(tmp_path / "w.npy", draw(10, 16)), path, embeddings=True)
    progress = Interrupting(after=float("inf"))
    index = Index.build(file, path, embeddings=True, progress=progress)
    assert "continuing an interrupted run: 6,000 images are described already" in progress.lines
    whole = Index.build(file, tmp_path / "whole.index", embeddings=True)
    assert index.info().statuses == whole.info().statuses == {"ok": 9000}
    codes = [next(folder.glob("shards/*/descriptors.f16")).read_bytes() for folder in (path, whole.path)]
    assert codes[0] == codes[1]


def test_an_index_whose_descriptor_nobody_named_says_what_to_do_with_images(
    small: Index, descriptor: str, photos: list[Path]
) -> None:
    for ask in (lambda: small.match(photos), lambda: small.add(photos), lambda: small.describe(photos)):
        with pytest.raises(UsageError, match=r"external-8 .* can't describe images: give embeddings \(--embeddings\)"):
            ask()
    assert small.info().images == 10
    with pytest.raises(UsageError, match="index them again with that --descriptor"):
        Index.open(small.path, descriptor=descriptor)


def test_another_dimension_is_one_line_and_changes_nothing(small: Index, descriptor: str, tmp_path: Path) -> None:
    wrong = save(tmp_path / "wrong.npy", draw(3, 9))
    for ask in (
        lambda: small.match(wrong, embeddings=True),
        lambda: small.match(draw(3, 9), embeddings=True),
        lambda: small.add(wrong, embeddings=True),
        lambda: Index.build(wrong, tmp_path / "wrong.index", descriptor=descriptor, embeddings=True),
    ):
        with pytest.raises(UsageError, match=f"9 dimensions, ({DIMENSION}|8) are needed"):
            ask()
    assert not (tmp_path / "wrong.index").exists()


def test_the_commands_take_embeddings(tmp_path: Path, photos: list[Path]) -> None:
    vectors, index = draw(len(photos), 8), tmp_path / "i"
    table = {"path": [str(path) for path in photos], "v": pa.array(list(vectors), pa.list_(pa.float32()))}
    pq.write_table(pa.table(table), tmp_path / "v.parquet")
    code, _, err = run("index", tmp_path / "v.parquet", "--embeddings", "--index", index)
    assert (code, "for decoding" in err) == (0, False)
    assert f"{len(photos)} images described" in err
    assert err.splitlines()[-1].startswith("Next: copydet match QUERIES.npy --embeddings --index")
    queries = save(tmp_path / "q.npy", np.concatenate([vectors[:2], 0 * vectors[:1]]))
    arguments = ("match", queries, "--embeddings", "--index", index, "--report", tmp_path / "m.html")
    code, out, err = run(*arguments, "--strict")
    assert code == 3
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [[f"q/{n}", str(photos[n])] for n in range(2)]
    assert "3 queries: 2 with a match, 0 without, 1 skipped (1 unreadable)" in err
    assert (tmp_path / "m.html").read_text().count("data:image/webp;base64,") >= 2  # the references are at hand
    code, out, _ = run(
        "add", save(tmp_path / "more.npy", draw(2, 8, seed=3)), "--embeddings", "--index", index, "--json"
    )
    assert (code, json.loads(out)["images_in_index"]) == (0, len(photos) + 2)
    assert "external-8, 8 dimensions" in run("inspect", "--index", index)[1]


def test_wrong_use_is_one_line_with_exit_code_2(small: Index, photos: list[Path], tmp_path: Path) -> None:
    np.save(tmp_path / "ints.npy", np.zeros((2, 2), int))
    (tmp_path / "folder").mkdir()
    save(tmp_path / "few.npy", draw(3, 8), ["a", "b"])
    new = ("--embeddings", "--index", tmp_path / "new.index")
    old = ("--index", small.path)
    for arguments, reason in (
        (("index", tmp_path / "ints.npy", *new), "expected floats"),
        (("index", tmp_path / "folder", *new), "embeddings are read from local .npy and .parquet files"),
        (("index", tmp_path / "missing.npy", *new), "no such source"),
        (("index", photos[0], *new), "embeddings are read from"),
        (("index", tmp_path / "few.npy", *new), "few.txt names 2 rows, "),
        (
            ("index", photos[0], "--descriptor", "external-8", "--index", tmp_path / "new.index"),
            "can't describe images",
        ),
        (("match", photos[0], *old), "can't describe images"),
        (("match", photos[0], "--embeddings", *old), "embeddings are read from"),
        (("add", photos[0], *old), "can't describe images"),
    ):
        code, out, err = run(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert reason in err
    assert not (tmp_path / "new.index").exists()
