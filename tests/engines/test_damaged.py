"""Mutated files of an index: one line and the right exit code, or the same answer; never a crash, a hang, or another
answer. Files whose checksums a stranger has made right are read in a process that may die of them, and does not.
"""

import contextlib
import io
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from drawn import DIMENSION, draw_photos
from test_local import TINY_PQ, add, build

from copydet.cli.main import run as run_main
from copydet.errors import CopydetError
from copydet.search import retrieve as retrieval
from copydet.search.stacked_lists import find_stacks
from copydet.shards.deletions import read_deletions, remove_images
from copydet.shards.shard import open_shard
from copydet.shards.shared_quantiser import share_quantisers
from copydet.store import snapshots
from copydet.store.check import named_files, verify_small
from copydet.store.hashing import hash_file

SECONDS, MEMORY = 20, 4 << 30
FILES = [
    *("CURRENT", "snapshot", "quantiser", "deletions"),
    *("codes.faiss", "descriptors.f16", "images.parquet", "local.features", "local.offsets", "local.gists"),
]
COUNTS = [10, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]


@dataclass(frozen=True)
class Whole:
    index: Path
    answer: str


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    index = folder / "index"
    build(index, draw_photos(folder / "photos", 60, detailed=True), recipe=TINY_PQ)
    (folder / "more").mkdir()
    (folder / "more" / "bad.jpg").write_bytes(b"")
    add(index, draw_photos(folder / "more", 9, first=100, detailed=True))
    remove_images(index, ["00007.jpg", "00103.jpg"])
    opened = [open_shard(index, entry, DIMENSION).codes for entry in snapshots.read_current(index).shards]
    share_quantisers(opened)
    assert len(find_stacks(opened)) == 1, "these shards are not searched together"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_SCAN_ROWS", 0)
        return Whole(index, answer(index))


def path_of(index: Path, name: str) -> Path:
    snapshot = snapshots.read_current(index)
    loose = {
        "CURRENT": "CURRENT",
        "snapshot": f"snapshots/{snapshot.number:06d}.json",
        "quantiser": str(snapshot.quantiser),
        "deletions": str(snapshot.deletions),
    }
    return index / loose.get(name, f"shards/{snapshot.shards[0].name}/{name}")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Bits flipped, bytes set, a part overwritten, cut or repeated; the head of a file as often as all of it."""
    mutated = bytearray(data)
    zone = min(len(mutated), 256) if rng.random() < 0.5 else len(mutated)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(zone)
        mutated[place] = rng.choice([0, 255, mutated[place] ^ (1 << rng.randrange(8)), rng.randrange(256)])
    match rng.randrange(6):
        case 0:
            return bytes(mutated[: rng.randrange(len(mutated))])
        case 1:
            return bytes(mutated + mutated[rng.randrange(len(mutated)) :])
        case 2:
            start = rng.randrange(len(mutated))
            mutated[start : start + 8] = rng.choice([b"\xff" * 8, b"\x00" * 8, (1 << 40).to_bytes(8, "little")])
    return bytes(mutated)


def answer(index: Path) -> str:
    """What is read and found: everything that a match takes from an index."""
    snapshot, held = snapshots.hold_current(index)
    verify_small(index, snapshot)
    shards, stacked = [[open_shard(index, entry, DIMENSION, held) for entry in snapshot.shards] for _ in range(2)]
    share_quantisers([shard.codes for shard in stacked])
    removed = read_deletions(index, snapshot)
    queries = np.random.default_rng(3).standard_normal((5, DIMENSION)).astype(np.float32)
    masks = []
    for shard in shards:
        gone = removed.get(shard.name, np.empty(0, np.int64))
        masks.append(~np.isin(np.arange(shard.described), gone))
    nprobe, candidates = snapshot.recipe["nprobe"], snapshot.recipe["candidates"]
    found = [
        retrieval.retrieve(some, queries, 5, nprobe=nprobe, candidates=candidates, selected=selected)
        for some, selected in itertools.product((shards, stacked), (masks, None))
    ]
    local = [shard.local for shard in shards]
    return repr(
        (
            snapshot.images,
            [s.image_columns(range(s.images), ("image_id", "status", "uri")).to_pylist() for s in shards],
            [(each.shard, each.row, each.similarity) for each in found],
            [
                tuple(np.asarray(stored).sum() for stored in (each.features, each.offsets, each.gists))
                for each in local
                if each is not None
            ],
        )
    )


def inspect(index: Path) -> tuple[int, str, str]:
    """Exit code, stderr and stdout of `copydet inspect`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_main(["inspect", "--index", str(index)])
    return code, err.getvalue(), out.getvalue()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_one_line_or_does_not_matter(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    monkeypatch.setattr(retrieval, "_SCAN_ROWS", 0)
    index = tmp_path / whole.index.name
    shutil.copytree(whole.index, index)
    path, rng = path_of(index, name), random.Random(name)
    data = path.read_bytes()
    refused = 0
    for _ in range(count):
        path.write_bytes(mutate(data, rng))
        try:
            assert answer(index) == whole.answer
        except CopydetError:
            refused += 1
            if refused % 10 == 1:
                code, err, _ = inspect(index)
                assert code in (1, 2)
                assert len(err.splitlines()) == 1
                assert "failed with" not in err
        path.write_bytes(data)
    assert refused > count / 2
    assert answer(index) == whole.answer


def in_a_child(work: Callable[[], object]) -> str:
    """How a process that was forked for `work` ended: `done`, `refused`, the name of another exception, or a signal."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            signal.alarm(SECONDS)
            work()
            said = "done"
        except CopydetError:
            said = "refused"
        except BaseException as error:
            said = type(error).__name__
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitpid(child, 0)[1]
    return said or f"signal {os.WTERMSIG(status)}"


def make_right(index: Path, path: Path) -> None:
    """Name the file's size and checksum in the snapshot, and the snapshot's in CURRENT."""
    snapshot = snapshots.read_current(index)
    old = named_files(snapshot)[str(path.relative_to(index))]
    json = snapshots.snapshot_path(index, snapshot.number)
    text = json.read_text().replace(old.xxh3, hash_file(path))
    json.write_text(text.replace(f'"bytes": {old.bytes},', f'"bytes": {path.stat().st_size},'))
    snapshots.name_current(index, snapshot.number, hash_file(json))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", FILES[2:])
def test_a_strange_file_with_the_right_checksum_crashes_nothing(
    whole: Whole, tmp_path: Path, name: str, count: int
) -> None:
    index = Path(shutil.copytree(whole.index, tmp_path / "index"))
    command = [sys.executable, str(Path(__file__).with_name("strange_child.py")), str(index), name, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"done", "refused"}
    assert "refused" in done.stdout or name == "descriptors.f16"  # any two bytes are a number
