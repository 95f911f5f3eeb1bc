"""Faults that are really done: whatever ends a change of an index, readers see the state before it or the one after it,
and the same change run again ends as if nothing had happened.
"""

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from changes import CHANGES, small_batches
from drawn import draw_photos
from test_local import ids_of

from copydet.errors import CopydetError, NotAnIndex
from copydet.shards import staging
from copydet.shards.check import check_index
from copydet.store import atomic, snapshots

ORDER = list(CHANGES)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
State = dict[str, Any]


def seen(index: Path) -> State:
    """What a reader sees: the living images, and every file that the snapshot names, but for times and their hashes."""
    try:
        snapshot = snapshots.read_current(index)
    except NotAnIndex:
        return {}
    assert list(check_index(index, "sums")) == []
    state: State = {"living": ids_of(index), "shards": [replace(s, files={}) for s in snapshot.shards]}
    for shard in snapshot.shards:
        for name in shard.files:
            path = snapshots.shard_folder(index, shard.name) / name
            if path.suffix == ".parquet":
                state[f"{shard.name}/{name}"] = pq.read_table(path).drop_columns(["indexed_at"]).to_pydict()
            else:
                state[f"{shard.name}/{name}"] = path.read_bytes()
    return state


@dataclass(frozen=True)
class Stages:
    """An index before and after each of the four changes, undisturbed; `states[change]`: what a reader sees then."""

    photos: Path
    before: dict[str, Path]
    states: dict[str, tuple[State, State]]

    def start(self, change: str, folder: Path) -> Path:
        """A copy of the index as it is before the change."""
        index = folder / "index"
        shutil.rmtree(index, ignore_errors=True)
        if self.before[change].exists():
            shutil.copytree(self.before[change], index)
        return index

    def is_legal(self, change: str, index: Path) -> bool:
        """Whether it is done; fails when readers see neither the state before it nor the one after it."""
        now = seen(index)
        before, after = self.states[change]
        assert now in (before, after)
        return now == after

    def finish(self, change: str, index: Path) -> None:
        """Run the same change again, as its user does, unless it was done to the end."""
        done = self.is_legal(change, index)
        unfinished = (index / "building").exists()
        if change == "compact" or not done or (unfinished and change != "remove"):
            CHANGES[change](index, self.photos)
        assert seen(index) == self.states[change][1]
        if change == "compact":
            snapshot = snapshots.read_current(index)
            assert {path.name for path in (index / "shards").iterdir()} == {shard.name for shard in snapshot.shards}


@pytest.fixture(scope="module", autouse=True)
def _small_batches() -> Iterator[None]:
    kept = staging.CHUNK_IMAGES, sys.modules["copydet.engines.local"]._BATCH  # type: ignore[attr-defined]
    small_batches()
    yield
    staging.CHUNK_IMAGES, sys.modules["copydet.engines.local"]._BATCH = kept  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory, _small_batches: None) -> Stages:
    folder = tmp_path_factory.mktemp("stages")
    photos = draw_photos(folder / "photos", 70)
    (photos / "bad.jpg").write_bytes(b"")
    draw_photos(folder / "more", 20, first=100, detailed=True)
    index, before, states = folder / "index", {}, {}
    for change in ORDER:
        before[change] = folder / f"before-{change}"
        if index.exists():
            shutil.copytree(index, before[change])
        first = seen(index)
        CHANGES[change](index, photos)
        states[change] = first, seen(index)
    return Stages(photos, before, states)


@pytest.fixture(scope="module")
def kill(stages: Stages) -> Iterator[Callable[[str, Path, float], str]]:
    """Run a change of an index and kill it after so many seconds; says how it ended."""
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("changes.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
    )
    assert server.stdin
    assert server.stdout
    assert server.stdout.readline() == "ready\n"

    def ask(change: str, index: Path, seconds: float) -> str:
        assert server.stdin
        assert server.stdout
        server.stdin.write(f"{change}\t{index}\t{stages.photos}\t{seconds}\n")
        server.stdin.flush()
        return server.stdout.readline().strip()

    yield ask
    server.stdin.close()
    server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("change", ORDER)
@pytest.mark.parametrize("kills", [3, pytest.param(25, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_killed_at_random_instants(
    stages: Stages, kill: Callable[[str, Path, float], str], tmp_path: Path, change: str, kills: int
) -> None:
    start = time.monotonic()
    assert kill(change, stages.start(change, tmp_path), 60) == "ended 0"
    seconds = time.monotonic() - start
    rng, killed = random.Random(11), 0
    for _ in range(4 * kills):
        index = stages.start(change, tmp_path)
        while killed < kills and kill(change, index, rng.uniform(0, seconds)) == "killed":
            killed += 1
            if stages.is_legal(change, index):
                break
        stages.finish(change, index)
        if killed >= kills:
            return
    raise AssertionError(f"only {killed} of {kills} kills came in time")


CALLS = ("make_folder", "new_file", "write_bytes", "create_bytes", "replace", "remove")


def fail_at(patch: pytest.MonkeyPatch, fatal: int, *, afterwards: bool) -> list[str]:
    """Let call number `fatal` of the functions of store/atomic.py fail; with `afterwards`, when it has done its work.
    Returns the list of the calls, which grows.
    """
    calls: list[str] = []

    def failing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            fails = len(calls) == fatal
            if fails and not afterwards:
                raise CopydetError("cannot write: Input/output error")
            result = real(*arguments)
            if fails and name != "new_file":
                raise CopydetError("cannot write: Input/output error")
            return result

        return call

    for name in CALLS:
        patch.setattr(atomic, name, failing(name, getattr(atomic, name)))
    return calls


@pytest.mark.parametrize("change", ORDER)
@pytest.mark.parametrize("step", [23, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_each_call_that_writes_failing_in_turn(stages: Stages, tmp_path: Path, change: str, step: int) -> None:
    fatal, failed, calls = 1, 0, ["first"]
    while fatal <= len(calls):
        for afterwards in (False, True):
            index = stages.start(change, tmp_path)
            with pytest.MonkeyPatch.context() as patch:
                calls = fail_at(patch, fatal, afterwards=afterwards)
                try:
                    CHANGES[change](index, stages.photos)
                except CopydetError:
                    failed += 1
            stages.is_legal(change, index)
            stages.finish(change, index)
        fatal += step
    assert failed


def fill(filler: Path) -> None:
    """Take all but one page of the disk."""
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - 4096)


@pytest.mark.parametrize("change", ORDER)
def test_a_full_disk_is_one_line_and_leaves_a_legal_state(stages: Stages, tmp_path: Path, change: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    before = stages.start(change, tmp_path)
    used = sum(path.stat().st_size for path in before.rglob("*") if path.is_file()) if before.exists() else 0
    size = -(-used // 4096) * 4096 + 4096 * (8 + len(list(before.rglob("*"))))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        index = disk / "index"
        if before.exists():
            shutil.copytree(before, index)
        filler = disk / "filler"
        fill(filler)
        with pytest.raises(CopydetError, match="No space left on device"):
            CHANGES[change](index, stages.photos)
        stages.is_legal(change, index)
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        stages.finish(change, index)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def in_a_child(work: Callable[[], None]) -> str:
    """What CopydetError said in a process that was forked for `work`; "" when there was none."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
        except CopydetError as error:
            os.write(writing, str(error).encode())
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.mark.parametrize("change", ORDER)
def test_files_that_may_not_grow_further_are_one_line(stages: Stages, tmp_path: Path, change: str) -> None:
    index = stages.start(change, tmp_path)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        CHANGES[change](index, stages.photos)

    assert "File too large" in in_a_child(limited)
    stages.is_legal(change, index)
    stages.finish(change, index)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not write")
@pytest.mark.parametrize("change", ["add", "remove", "compact"])
def test_a_folder_that_may_not_be_written_is_one_line_and_can_be_read(stages: Stages, change: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        index = stages.start(change, folder)
        photos = shutil.copytree(stages.photos, folder / "photos")
        shutil.copytree(stages.photos.with_name("more"), folder / "more")
        before = stages.states[change][0]

        def as_nobody() -> None:
            os.setuid(65534)
            assert seen(index) == before
            CHANGES[change](index, photos)

        said = in_a_child(as_nobody)
        assert "Permission denied" in said
        assert str(index) in said
        assert seen(index) == before


def test_an_index_that_was_moved_is_the_same(stages: Stages, tmp_path: Path) -> None:
    index = stages.start("compact", tmp_path)
    moved = index.rename(tmp_path / "elsewhere")
    assert seen(moved) == stages.states["compact"][0]
    CHANGES["compact"](moved, stages.photos)
    assert seen(moved) == stages.states["compact"][1]
