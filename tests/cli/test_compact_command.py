"""`copydet compact` as users meet it."""

import json
from collections.abc import Callable
from pathlib import Path

from conftest import Done

from copydet.index import Index


def test_a_dry_run_shows_the_plan_and_changes_nothing_then_compacting_does_it(
    run: Callable[..., Done], index: Path, another_photo: Path
) -> None:
    assert run("add", another_photo, "--index", index, "--device", "cpu").code == 0
    assert run("remove", "coffee.png", "--index", index).code == 0
    before = sorted((path, path.stat().st_mtime_ns) for path in index.rglob("*"))
    shown = run("compact", "--index", index, "--dry-run")
    assert shown.code == 0
    assert "000001-0000 to 000002-0000" in shown.out
    assert "They would become 1 shard, 1 in all." in shown.err
    assert sorted((path, path.stat().st_mtime_ns) for path in index.rglob("*")) == before
    plan = json.loads(run("compact", "--index", index, "--dry-run", "--json").out)
    assert [(join["images"], join["removed"]) for join in plan["joins"]] == [(7, 1)]
    done = run("compact", "--index", index)
    assert (done.code, done.out) == (0, "")
    assert "7 images in 1 shard" in done.err
    assert "coffee.png" not in run("inspect", "--index", index, "--failed").out
    again = run("compact", "--index", index, "--dry-run")
    assert (again.code, again.out) == (0, "")
    assert "nothing to join or to drop" in again.err


def test_an_open_index_answers_on_while_another_process_compacts(
    run: Callable[..., Done], index: Path, descriptor: Path, photos: Path
) -> None:
    reader = Index.open(index, descriptor=str(descriptor), device="cpu")  # nothing but its codes was touched so far
    assert run("remove", "coffee.png", "--index", index).code == 0
    done = run("compact", "--index", index)
    assert done.code == 0
    assert "1 older snapshot still being read" in done.err
    (result,) = reader.match([photos / "coffee.png"], where="width > 1")
    assert result.matches[0].reference_id == "coffee.png"
    fresh = Index.open(index, descriptor=str(descriptor), device="cpu")
    (result,) = fresh.match([photos / "coffee.png"])
    assert "coffee.png" not in {match.reference_id for match in result.matches}
    del reader, result
    assert fresh.compact().held == 0
    assert [path.name for path in (index / "shards").iterdir()] == ["000003-0000"]


def test_compacting_no_index_is_one_line(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("compact", "--index", tmp_path / "none")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
