import os
from pathlib import Path

import pytest

from copydet.errors import CopydetError
from copydet.store import atomic


def test_a_new_file_appears_whole_with_its_name_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "data"
    with atomic.new_file(target) as path:
        path.write_bytes(b"half")
        assert not target.exists()
        path.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, problem: type[BaseException]
) -> None:
    target = tmp_path / "data"
    atomic.write_bytes(target, b"old")

    def write_and_fail() -> None:
        with atomic.new_file(target) as path:
            path.write_bytes(b"new")
            raise problem

    with pytest.raises(problem):
        write_and_fail()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_when_a_call_of_the_system_fails_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    target = tmp_path / "data"
    atomic.write_bytes(target, b"old")

    def disk_is_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, disk_is_full)
        with pytest.raises(CopydetError, match=r"cannot write .*data: No space left on device"):
            atomic.write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["data"]


def test_exclusive_creation_refuses_a_file_that_is_there(tmp_path: Path) -> None:
    atomic.create_bytes(tmp_path / "data", b"first")
    with pytest.raises(FileExistsError):
        atomic.create_bytes(tmp_path / "data", b"second")
    assert (tmp_path / "data").read_bytes() == b"first"


def test_equal_values_are_equal_json_bytes(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a", {"x": 1, "y": "ü"})
    atomic.write_json(tmp_path / "b", {"y": "ü", "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    atomic.remove(tmp_path / "nothing")
    atomic.make_folder(tmp_path / "a" / "b")
    atomic.write_bytes(tmp_path / "a" / "b" / "c", b"")
    atomic.remove(tmp_path / "a")
    assert os.listdir(tmp_path) == []
