"""`copydet inspect --check` and `--repair` as users meet them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Done


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("depth", [[], ["names"], ["sums"], ["rows"]])
def test_a_whole_index_passes_at_every_depth(run: Callable[..., Done], built: Path, depth: list[str]) -> None:
    done = run("inspect", "--index", built, "--check", *depth)
    assert (done.code, done.out) == (0, "")
    assert "is as its snapshot says" in done.err


def test_each_problem_is_a_line_with_exit_code_4_and_repair_describes_the_originals_again(
    run: Callable[..., Done], index: Path, descriptor: Path, photos: Path
) -> None:
    shard = index / "shards" / "000001-0000"
    kept = (shard / "local.features").read_bytes()
    for name in ("codes.faiss", "local.features"):
        damage(shard / name)
    done = run("inspect", "--check", "--index", index)
    assert done.code == 4
    assert [line.split(": ")[0] for line in done.out.splitlines()] == [
        "shards/000001-0000/codes.faiss",
        "shards/000001-0000/local.features",
    ]
    assert "Next: copydet inspect --index" in done.err
    asked = run("match", photos / "coffee.png", "--index", index, "--device", "cpu")
    assert asked.code == 1
    assert "codes.faiss: its contents have changed" in asked.err
    assert len(asked.err.splitlines()) == 1
    mended = run("inspect", "--repair", "--index", index, "--device", "cpu")
    assert mended.code == 0, mended.err
    assert "codes.faiss, local.features made again" in mended.out
    assert (index / "shards" / "000002-0000" / "local.features").read_bytes() == kept
    found = run("match", photos / "coffee.png", "--index", index, "--device", "cpu")
    assert (found.code, "coffee.png" in found.out) == (0, True)


def test_problems_and_what_is_left_of_them_as_json(run: Callable[..., Done], index: Path) -> None:
    damage(index / "shards" / "000001-0000" / "images.parquet")
    done = run("inspect", "--check", "--json", "--index", index)
    assert done.code == 4
    assert [problem["path"] for problem in json.loads(done.out)["problems"]] == ["shards/000001-0000/images.parquet"]
    left = run("inspect", "--repair", "--json", "--index", index)
    assert left.code == 4
    assert json.loads(left.out)["mended"] == []


def test_only_one_of_the_things_that_inspect_does_can_be_asked_for(run: Callable[..., Done], built: Path) -> None:
    done = run("inspect", "--failed", "--repair", "--index", built)
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
