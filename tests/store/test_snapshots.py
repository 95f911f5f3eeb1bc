import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from copydet.errors import CopydetError, IndexLocked, NotAnIndex, UsageError
from copydet.store import atomic, snapshots
from copydet.store.hashing import hash_bytes
from copydet.store.snapshots import DescriptorEntry, FileEntry, LocalEntry, ShardEntry, Snapshot

HASH = hash_bytes(b"")
FIRST = Snapshot(
    number=1,
    descriptor=DescriptorEntry("small", "abc", 256),
    recipe={"name": "flat"},
    shards=(ShardEntry("000001-0000", 3, 2, "Flat", {"codes.faiss": FileEntry(10, HASH)}, LocalEntry("orb-1", 7)),),
    quantiser=f"quantisers/{HASH}.faiss",
    deletions="deletions/000001.parquet",
    removed=1,
    files={f"quantisers/{HASH}.faiss": FileEntry(1, HASH), "deletions/000001.parquet": FileEntry(2, HASH)},
    operating_points={"0.95": {"nprobe": 8}},
    history="index: 3 images",
)


def test_a_committed_snapshot_reads_back_equal(tmp_path: Path) -> None:
    written = snapshots.commit(tmp_path, FIRST)
    assert snapshots.read_current(tmp_path) == written
    content = snapshots.snapshot_path(tmp_path, 1).read_bytes()
    assert (tmp_path / "CURRENT").read_text() == f"000001 {hash_bytes(content)}\n"
    assert (written.images, written.described) == (2, 2)


def test_a_snapshot_left_by_a_crash_before_current_is_not_seen_and_is_replaced(tmp_path: Path) -> None:
    snapshots.commit(tmp_path, FIRST)
    atomic.write_bytes(snapshots.snapshot_path(tmp_path, 2), b"{ half of a snap")
    assert snapshots.read_current(tmp_path).number == 1
    snapshots.commit(tmp_path, replace(FIRST, number=2))
    assert snapshots.read_current(tmp_path).number == 2


def test_a_commit_on_top_of_an_older_snapshot_is_refused(tmp_path: Path) -> None:
    snapshots.commit(tmp_path, FIRST)
    snapshots.commit(tmp_path, replace(FIRST, number=2, history="another writer"))
    with pytest.raises(IndexLocked, match="changed by another process"):
        snapshots.commit(tmp_path, replace(FIRST, number=2))
    assert snapshots.read_current(tmp_path).history == "another writer"


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_each_call_that_fails_in_turn_leaves_the_old_or_the_new_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    real = getattr(os, failing)
    for fatal in range(1, 12):
        index = tmp_path / f"{failing}-{fatal}"
        index.mkdir()
        snapshots.commit(index, FIRST)
        calls = 0

        def count(*arguments: Any, fatal: int = fatal) -> Any:
            nonlocal calls
            calls += 1
            if calls == fatal:
                raise OSError(5, "Input/output error")
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, failing, count)
            try:
                snapshots.commit(index, replace(FIRST, number=2))
                survived = True
            except CopydetError:
                survived = False
        number = snapshots.read_current(index).number
        assert number in (1, 2)
        snapshots.commit(index, replace(FIRST, number=number + 1))
        assert snapshots.read_current(index).number == number + 1
        if survived:
            return
    raise AssertionError("commit needs more calls than were tried")


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda folder: None, "does not exist"),
        (lambda folder: folder.write_text("a file"), "is a file"),
        (lambda folder: folder.mkdir(), "holds no index"),
        (lambda folder: (folder / "building").mkdir(parents=True), "run the same `copydet index` command again"),
    ],
)
def test_a_folder_without_an_index_is_named_with_the_next_step(tmp_path: Path, prepare: Any, words: str) -> None:
    prepare(tmp_path / "x")
    with pytest.raises(NotAnIndex, match=words):
        snapshots.read_current(tmp_path / "x")


def test_a_newer_format_is_refused_before_the_rest_is_read(tmp_path: Path) -> None:
    snapshots.commit(tmp_path, FIRST)
    snapshots.snapshot_path(tmp_path, 1).write_text('{"format_version": 99, "shards": "of another kind"}')
    with pytest.raises(UsageError, match="newer copydet"):
        snapshots.read_current(tmp_path)


def _set(value: Any, place: list[Any], new: Any) -> None:
    for key in place[:-1]:
        value = value[key]
    value[place[-1]] = new


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["shards", 0, "name"], "../../etc"),
        (["shards", 0, "name"], "/etc"),
        (["shards", 0, "files"], {"../codes.faiss": {"bytes": 1, "xxh3": HASH}}),
        (["shards", 0, "files", "codes.faiss", "bytes"], -1),
        (["shards", 0, "described"], 4),
        (["shards", 0, "images"], True),
        (["files"], {"../x.parquet": {"bytes": 1, "xxh3": HASH}}),
        (["deletions"], "deletions/000009.parquet"),
        (["quantiser"], "/etc/passwd"),
        (["descriptor", "dimension"], 1 << 40),
        (["number"], 2),
        (["shards"], 7),
        (["shards", 0, "local"], 7),
        (["shards", 0, "local", "codec"], "\x1b[2J"),
        (["shards", 0, "local", "features"], -1),
        (["recipe"], None),
    ],
)
def test_a_snapshot_with_a_strange_value_is_one_line(tmp_path: Path, place: list[Any], value: Any) -> None:
    snapshots.commit(tmp_path, FIRST)
    path = snapshots.snapshot_path(tmp_path, 1)
    content = json.loads(path.read_text())
    _set(content, place, value)
    path.write_text(json.dumps(content))
    with pytest.raises(CopydetError, match=r"000001\.json is damaged"):
        snapshots.read_current(tmp_path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_mutated_snapshot_is_read_or_refused_with_one_line(tmp_path: Path, data: st.DataObject) -> None:
    if not snapshots.has_index(tmp_path):
        snapshots.commit(tmp_path, FIRST)
    path = snapshots.snapshot_path(tmp_path, 1)
    whole = atomic.to_json(json.loads(json.dumps(FIRST, default=lambda value: value.__dict__)))
    mutated = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(mutated[: data.draw(st.integers(0, len(mutated)))])
    with suppress(CopydetError):  # anything else fails the test
        snapshots.read_current(tmp_path)


@pytest.mark.parametrize("content", ["../../x", "", "1\n2", "９９９９９９", "x" * 1000])
def test_a_damaged_current_is_one_line(tmp_path: Path, content: str) -> None:
    snapshots.commit(tmp_path, FIRST)
    (tmp_path / "CURRENT").write_text(content)
    with pytest.raises(CopydetError, match="CURRENT"):
        snapshots.read_current(tmp_path)


def test_a_file_of_the_wrong_size_or_a_missing_one_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"12345")
    entry = snapshots.file_entry(path)
    assert snapshots.check_file(tmp_path, "data", entry) == path
    path.write_bytes(b"1234")
    with pytest.raises(CopydetError, match="holds 4 bytes instead of 5"):
        snapshots.check_file(tmp_path, "data", entry)
    path.unlink()
    with pytest.raises(CopydetError, match="is missing"):
        snapshots.check_file(tmp_path, "data", entry)
