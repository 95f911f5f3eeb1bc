"""`copydet tune` and `copydet match --recall` as users meet them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Done

from copydet.errors import IndexLocked
from copydet.index import Index
from copydet.store import snapshots


def test_tuning_keeps_operating_points_that_match_takes(
    run: Callable[..., Done], index: Path, descriptor: Path, queries: Path
) -> None:
    match = ("match", queries, "--index", index, "--device", "cpu")
    before = run(*match, "--recall", "0.9")
    assert before.code == 2
    assert "no operating point for recall 0.9 (there is none)" in before.err
    done = run("tune", "--index", index, "--recall", "0.9", "--recall", "0.95", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    points = json.loads(done.out)["operating_points"]
    assert {name: point["recall"] for name, point in points.items()} == {"0.9": 1.0, "0.95": 1.0}
    assert snapshots.read_current(index).operating_points == points
    assert "tuned for   recall 0.9, 0.95" in run("inspect", "--index", index).out
    found = run(*match, "--recall", "0.93")
    assert found.code == 0, found.err
    assert "coffee.png" in found.out
    beyond = run(*match, "--recall", "0.97")
    assert beyond.code == 2
    assert "(there are 0.9, 0.95)" in beyond.err
    assert "copydet tune" in beyond.err


def test_a_change_while_it_is_measured_is_not_lost(run: Callable[..., Done], index: Path, descriptor: Path) -> None:
    measuring = Index.open(index, descriptor=str(descriptor), device="cpu")
    assert run("remove", "coffee.png", "--index", index).code == 0
    with pytest.raises(IndexLocked, match="was changed while it was measured"):
        measuring.tune([0.9], queries=3)
    assert snapshots.read_current(index).removed == 1


def test_tuning_without_originals_is_one_line(
    run: Callable[..., Done], index: Path, photos: Path, tmp_path: Path
) -> None:
    away = photos.rename(photos.with_name("away"))
    try:
        done = run("tune", "--index", index, "--device", "cpu")
    finally:
        away.rename(photos)
    assert done.code == 2
    assert "only 0 of 5 originals can be read" in done.err
