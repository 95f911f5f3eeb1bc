"""Real kills: a child process is stopped by SIGKILL at random instants, then the same command is run again."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drawn import draw_photos
from test_local import contents, ids_of, shards_of

from copydet.errors import NotAnIndex
from copydet.store import snapshots

CHILD = Path(__file__).with_name("build_child.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


def run(command: str, index: Path, photos: Path, kill_after: float | None = None) -> float | None:
    """Run the child; with `kill_after`, kill it so many seconds after its imports. Seconds that it took, None if
    killed.
    """
    arguments = [sys.executable, str(CHILD), command, str(index), str(photos)]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    start = time.monotonic()
    try:
        _, problem = child.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        return None
    assert child.returncode == 0, problem
    return time.monotonic() - start


def ended(command: str, index: Path, photos: Path, kill_after: float | None) -> bool:
    """Run; whether the work is done. A process killed after its very last step has nothing left to resume."""
    took = run(command, index, photos, kill_after)
    committed = number_of(index) == {"build": 1, "add": 2}[command]
    return took is not None or (committed and not (index / "building").exists())


def number_of(index: Path) -> int:
    """The committed snapshot's number, 0 where there is none; every image that it names can be read."""
    try:
        snapshot = snapshots.read_current(index)
    except NotAnIndex:
        return 0
    assert len(ids_of(index)) == snapshot.images
    return snapshot.number


def has_local_features(index: Path) -> bool:
    """Whether those of every shard are among what is compared."""
    names = {f"shards/{shard.name}/local.{each}" for shard in shards_of(index) for each in ("features", "offsets")}
    compared = contents(index)
    return names <= set(compared) and all(compared[name] for name in names)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_indexing_killed_at_random_instants_ends_like_an_undisturbed_run(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 150, detailed=True)
    (photos / "bad.jpg").write_bytes(b"")
    seconds = run("build", tmp_path / "whole", photos)
    assert seconds
    assert has_local_features(tmp_path / "whole")
    rng, kills = random.Random(5), 0
    rounds = itertools.count()
    while kills < 6:
        index = tmp_path / f"killed{next(rounds)}"
        while not ended("build", index, photos, rng.uniform(0, 0.7 * seconds) if kills < 6 else None):
            kills += 1
            assert number_of(index) in (0, 1)
        assert contents(index) == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_adding_killed_at_random_instants_keeps_the_old_index_readable_and_ends_like_an_undisturbed_run(
    tmp_path: Path,
) -> None:
    photos, more = (
        draw_photos(tmp_path / name, 70, first=first, detailed=True) for name, first in (("photos", 0), ("more", 60))
    )
    assert run("build", tmp_path / "before", photos)
    shutil.copytree(tmp_path / "before", tmp_path / "whole")
    seconds = run("add", tmp_path / "whole", more)
    assert seconds
    assert has_local_features(tmp_path / "whole")
    rng, kills = random.Random(6), 0
    rounds = itertools.count()
    while kills < 6:
        index = tmp_path / f"killed{next(rounds)}"
        shutil.copytree(tmp_path / "before", index)
        while not ended("add", index, more, rng.uniform(0, 0.7 * seconds) if kills < 6 else None):
            kills += 1
            assert number_of(index) in (1, 2)
        assert number_of(index) == 2
        assert contents(index) == contents(tmp_path / "whole")
