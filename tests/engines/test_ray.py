"""A real cluster of two nodes on this machine: the same bytes as in one process, whoever dies meanwhile."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from drawn import DESCRIPTOR, ThumbnailRuntime, draw_photos
from ray_child import RECIPE, SlowRuntime
from test_local import Notes, contents

from copydet.cli.main import run
from copydet.dedup import near
from copydet.engines import local
from copydet.engines.engine import HERE
from copydet.engines.ray import RayEngine, open_ray
from copydet.errors import CopydetError, UsageError
from copydet.search.retrieve import retrieve
from copydet.shards import staging
from copydet.shards.shard import open_shard
from copydet.store import snapshots

pytest.importorskip("ray", reason="ray is not installed: pip install 'copydet[ray]'")
RAY = Path(sys.executable).with_name("ray")
CHILD = Path(__file__).with_name("ray_child.py")
PATHS = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", "RAY_DISABLE_IMPORT_WARNING": "1"}
JOB = ("pairs.parquet", "clusters.parquet", "keep.txt", "drop.txt", "summary.json")
PATIENCE = 120  # seconds until something that comes at once on an idle machine


def wait_for(what: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


class Node:
    """`ray start --block` with all that it starts; stopped, nothing of it is left."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        options = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000", "--disable-usage-stats", "--block"]
        ports = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        self._log = (folder / "log").open("w+")
        self.process = psutil.Popen(
            [str(RAY), "start", *arguments, *options, *ports, f"--temp-dir={folder}"],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
        )
        wait_for(lambda: "Ray runtime started" in Path(self._log.name).read_text() or not self.is_alive())
        assert self.is_alive(), Path(self._log.name).read_text()

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def raylet(self) -> psutil.Process:
        return next(each for each in self.process.children() if each.name() == "raylet")

    def stop(self) -> None:
        started = [self.process, *(self.process.children(recursive=True) if self.is_alive() else [])]
        if self.is_alive():
            self.process.terminate()
        _, left = psutil.wait_procs(started, timeout=10)
        for each in left:
            each.kill()
        psutil.wait_procs(left, timeout=10)
        self._log.close()


class Cluster:
    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._folder, self._numbers = folder, itertools.count()
        self.address = f"127.0.0.1:{port}"
        self.nodes = [self._start("--head", f"--port={port}", "--include-dashboard=false")]

    def _start(self, *arguments: str) -> Node:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        return Node(folder, *arguments)

    def second(self) -> Node:
        """The second node; a new one where the last was killed."""
        if len(self.nodes) == 1 or not self.nodes[-1].is_alive():
            self.nodes.append(self._start(f"--address={self.address}"))
        return self.nodes[-1]

    def stop(self) -> None:
        for node in reversed(self.nodes):
            node.stop()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="cr-", dir="/tmp"))  # names of sockets may have 107 characters
    cluster = None
    try:
        cluster = Cluster(folder)
        cluster.second()
        yield cluster
    finally:
        if cluster is not None:
            cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def connected(cluster: Cluster) -> Iterator[RayEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATHS)  # workers need the modules of the tests, too
        with open_ray(cluster.address) as engine:
            yield engine


@pytest.fixture
def engine(connected: RayEngine, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> RayEngine:
    """Two nodes, and chunks and blocks so small that a few photos make many tasks."""
    cluster.second()
    wait_for(lambda: connected.ray.cluster_resources().get("CPU") == 2)
    monkeypatch.setattr(staging, "CHUNK_IMAGES", 16)
    monkeypatch.setattr("copydet.engines.memory.CHUNK_IMAGES", 16)
    monkeypatch.setattr(near, "BLOCK", 16)
    return connected


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 photos, and further on in the listing the same bytes, the same pixels, other sizes, and what is broken."""
    folder = draw_photos(tmp_path_factory.mktemp("ray") / "photos", 80, detailed=True)
    for number in (3, 40):
        picture = cv2.imread(str(folder / f"{number:05d}.jpg"))
        shutil.copy(folder / f"{number:05d}.jpg", folder / f"copy{number}.jpg")
        for name in (f"pixels{number}.png", f"again/pixels{number}.bmp"):
            (folder / name).parent.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / name), picture)
        cv2.imwrite(str(folder / f"small{number}.jpg"), cv2.resize(picture, (160, 120), interpolation=cv2.INTER_AREA))
    for name in ("00010-broken.jpg", "z-broken.jpg"):
        (folder / name).write_bytes((folder / "00009.jpg").read_bytes()[:900])
    (folder / "00060.txt").write_text("no image")
    cv2.imwrite(str(folder / "00020-flat.png"), np.full((90, 90, 3), 128, np.uint8))
    shutil.copy(folder / "00020-flat.png", folder / "z-flat.png")
    return folder


def build(index: Path, photos: Path, **options: object) -> None:
    local.build(index, [str(photos)], DESCRIPTOR, RECIPE, ThumbnailRuntime(), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """What one process makes of the photos, undisturbed."""
    index = tmp_path_factory.mktemp("whole") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "CHUNK_IMAGES", 16)
        patch.setattr("copydet.engines.memory.CHUNK_IMAGES", 16)
        build(index, photos)
    return index


@pytest.mark.slow
def test_index_and_add_make_the_bytes_of_one_process(
    engine: RayEngine, whole: Path, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "here")
    runtime = slow(tmp_path, 0)
    notes = build_slowly(tmp_path / "there", photos, runtime, engine)
    made = contents(tmp_path / "there")
    assert len([name for name in made if name.endswith("codes.faiss")]) == 2
    assert made == contents(tmp_path / "here")
    assert notes.images == len([path for path in photos.rglob("*") if path.is_file()])
    ok = sum(shard.described for shard in snapshots.read_current(tmp_path / "there").shards)
    within = 2  # the BMPs and the PNGs of two pictures lie in one slice; what repeats another slice is described again
    assert sum(path.stat().st_size for path in runtime.workers.iterdir()) == ok - within
    more = draw_photos(tmp_path / "more", 20, first=70, detailed=True)  # half of the ids are taken
    for number in range(3):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for path in sorted(more.iterdir())[number::3]:
                tar.add(path, path.name)
    (tmp_path / "1.tar").write_bytes((tmp_path / "1.tar").read_bytes()[:-20_000])  # cut within the last member
    tars = str(tmp_path / "{0..2}.tar")
    for index, where in (("here", HERE), ("there", engine)):
        local.add(tmp_path / index, [tars], DESCRIPTOR, ThumbnailRuntime(), engine=where)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    left = sorted(path.name for path in (tmp_path / "there").iterdir())
    assert left == ["CURRENT", "lock", "quantisers", "shards", "snapshots"]


@pytest.mark.slow
def test_commands_match_and_dedup_find_on_the_cluster_what_one_process_finds(
    engine: RayEngine, cluster: Cluster, tmp_path: Path
) -> None:
    photos = draw_photos(tmp_path / "photos", 20, detailed=True)
    for number in (3, 7):
        picture = cv2.imread(str(photos / f"{number:05d}.jpg"))
        cv2.imwrite(str(photos / f"small{number}.jpg"), cv2.resize(picture, (160, 120), interpolation=cv2.INTER_AREA))
        shutil.copy(photos / f"{number:05d}.jpg", photos / f"copy{number}.jpg")
    (photos / "z-broken.jpg").write_bytes(b"broken")
    there = ["--engine", "ray", "--ray-address", cluster.address]
    vectors = np.random.default_rng(1).standard_normal((300, 32)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    np.save(tmp_path / "queries.npy", vectors[::10] + 0.1)
    for name, where in (("here", []), ("there", there)):
        index, output = str(tmp_path / f"{name}.index"), str(tmp_path / f"{name}.csv")
        assert run(["index", str(photos), "--index", index, *where]) == 0
        queries = [str(photos / file) for file in ("00009.jpg", "small7.jpg", "z-broken.jpg")]
        assert run(["match", *queries, "--index", index, "--output", output, *where]) == 0
        assert run(["dedup", index, "--output", str(tmp_path / f"{name}.dedup"), *where]) == 0
        embedded, found = str(tmp_path / f"{name}.vectors"), str(tmp_path / f"{name}.jsonl")
        assert run(["index", str(tmp_path / "vectors.npy"), "--embeddings", "--index", embedded, *where]) == 0
        search = ["match", str(tmp_path / "queries.npy"), "--embeddings", "--index", embedded, "--output", found]
        assert run([*search, "--where", "image_id NOT LIKE '%7'", *where]) == 0
    assert contents(tmp_path / "there.index") == contents(tmp_path / "here.index")
    assert contents(tmp_path / "there.vectors") == contents(tmp_path / "here.vectors")
    for ending in (".csv", ".jsonl"):
        found = (tmp_path / f"there{ending}").read_bytes()
        assert found.count(b"\n") > 10
        assert found == (tmp_path / f"here{ending}").read_bytes()
    for file in JOB:
        assert (tmp_path / "there.dedup" / file).read_bytes() == (tmp_path / "here.dedup" / file).read_bytes(), file


def test_codes_searched_shard_by_shard_propose_the_same(engine: RayEngine, whole: Path) -> None:
    entries = snapshots.read_current(whole).shards
    shards = [open_shard(whole, entry, DESCRIPTOR.dimension) for entry in entries]
    queries = shards[1].descriptors[:9].astype(np.float32)
    masks = [np.arange(shard.described) % 3 > 0 for shard in shards]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("copydet.search.retrieve._SCAN_ROWS", 0)
        each = engine.spread(list(zip(shards, masks, strict=True)))
        there = retrieve(shards, queries, 3, nprobe=2, candidates=7, selected=masks, each=each)
        here = retrieve(shards, queries, 3, nprobe=2, candidates=7, selected=masks)
    for name in ("shard", "row", "similarity"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))
    assert len({int(each) for each in here.shard.ravel()}) > 1


@contextmanager
def meanwhile(kill: Callable[[], None]) -> Iterator[None]:
    """Kill something while the work goes on; it must have been possible."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            kill()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()
    assert not failed, failed


def slow(tmp_path: Path, seconds: float = 0.01) -> SlowRuntime:
    (tmp_path / "workers").mkdir()
    return SlowRuntime(tmp_path / "workers", seconds)


def build_slowly(index: Path, photos: Path, runtime: SlowRuntime, engine: RayEngine) -> Notes:
    notes = Notes()
    local.build(index, [str(photos)], DESCRIPTOR, RECIPE, runtime, engine=engine, progress=notes)
    return notes


def test_a_worker_killed_meanwhile_costs_its_tasks_only(
    engine: RayEngine, whole: Path, photos: Path, tmp_path: Path
) -> None:
    runtime = slow(tmp_path)

    def kill() -> None:
        wait_for(lambda: list(runtime.workers.iterdir()))
        os.kill(int(next(runtime.workers.iterdir()).name), signal.SIGKILL)

    with meanwhile(kill):
        notes = build_slowly(tmp_path / "index", photos, runtime, engine)
    assert contents(tmp_path / "index") == contents(whole)
    assert len(list(runtime.workers.iterdir())) > 1
    assert not any("continuing" in line for line in notes.lines)


@pytest.mark.slow
def test_a_driver_killed_meanwhile_is_resumed_by_the_same_command(
    engine: RayEngine, cluster: Cluster, whole: Path, photos: Path, tmp_path: Path
) -> None:
    runtime, index = slow(tmp_path), tmp_path / "index"
    arguments = [sys.executable, str(CHILD), cluster.address, str(index), str(photos), str(runtime.workers)]
    child = subprocess.Popen(arguments, env=ENVIRONMENT)
    try:
        wait_for(lambda: (index / "building" / "chunk-000001.parquet").exists() or child.poll() is not None)
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    notes = build_slowly(index, photos, runtime, engine)
    assert any("continuing an interrupted run" in line for line in notes.lines)
    assert contents(index) == contents(whole)


def test_what_a_task_cannot_do_is_one_line(engine: RayEngine, tmp_path: Path) -> None:
    with engine.within(tmp_path) as inside:
        assert list(inside.each(str.upper, ["a", "b"])) == ["A", "B"]
        next(tmp_path.iterdir()).unlink()  # as on a node that has another folder there
        with pytest.raises(UsageError, match=f"{tmp_path} is not the same place on every node"):
            list(inside.each(str.upper, ["a"]))
    with pytest.raises(CopydetError, match="failed with ZeroDivisionError"):
        list(engine.each((1).__truediv__, [0]))


def test_wrong_use_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*options: str) -> str:
        assert run(["index", str(tmp_path), "--index", str(tmp_path.parent / "ray.index"), *options]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1, line
        return line

    assert "--ray-address needs --engine ray" in said("--ray-address", "127.0.0.1:1")
    assert "no Ray cluster answers at 127.0.0.1:1" in said("--engine", "ray", "--ray-address", "127.0.0.1:1")
    assert "as host:port" in said("--engine", "ray", "--ray-address", "ray://127.0.0.1:10001")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "ray is not installed; run: pip install 'copydet[ray]'" in said("--engine", "ray")


@pytest.mark.slow
def test_a_node_killed_meanwhile_costs_its_tasks_only(
    engine: RayEngine, cluster: Cluster, whole: Path, photos: Path, tmp_path: Path
) -> None:
    runtime, node = slow(tmp_path), cluster.second()

    def working() -> set[int]:
        there = {each.pid for each in node.raylet().children(recursive=True)}
        return there & {int(path.name) for path in runtime.workers.iterdir()}

    def kill() -> None:
        wait_for(working)
        node.raylet().kill()

    with meanwhile(kill):
        build_slowly(tmp_path / "index", photos, runtime, engine)
    assert contents(tmp_path / "index") == contents(whole)
    wait_for(lambda: not node.is_alive())
