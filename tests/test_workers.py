"""Worker processes: the same results, errors and all, whatever runs where."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

from copydet.errors import ImageProblem
from copydet.images.decode import decode
from copydet.images.resize import Resize
from copydet.index import Index
from copydet.workers import WorkerDied, Workers


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    monkeypatch.setattr("copydet.workers.WORTH_SECONDS", 0)
    with Workers(2) as both:
        deadline = time.monotonic() + 60
        while both.run(os.getpid) == os.getpid():
            assert time.monotonic() < deadline, "no process started"
            time.sleep(0.05)
        yield both


def test_work_is_done_by_other_processes_and_its_results_come_back(workers: Workers) -> None:
    def ask(number: int) -> tuple[int, np.ndarray]:
        return workers.run(os.getpid), workers.run(np.full, 1_000_000, number)

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(ask, range(20)))
    assert os.getpid() not in {process for process, _ in answers}
    for number, (_, array) in enumerate(answers):
        np.testing.assert_array_equal(array, np.full(1_000_000, number))


def test_what_work_raises_is_raised_here(workers: Workers) -> None:
    with pytest.raises(ImageProblem) as problem:
        workers.run(decode, b"not an image", Resize("square", 8))
    assert problem.value.status == "unsupported"
    assert "\n" not in problem.value.message


def test_what_cannot_be_sent_is_done_here(workers: Workers) -> None:
    assert workers.run(lambda: os.getpid()) == os.getpid()


def test_a_worker_that_dies_is_replaced_and_its_work_done_again(workers: Workers) -> None:
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(workers.run, time.sleep, 2)
        time.sleep(0.5)
        busy = {process for process in children() if process not in (idle := {workers.run(os.getpid)})} - idle
        for process in busy:
            os.kill(process, signal.SIGKILL)
        begin = time.monotonic()
        assert slow.result() is None
        assert time.monotonic() - begin > 1, "the work was not done again"
    assert {workers.run(os.getpid) for _ in range(4)}.isdisjoint({os.getpid()} | busy)


def test_work_that_kills_every_worker_is_an_error_that_says_so(workers: Workers) -> None:
    with pytest.raises(WorkerDied, match="signal 6"):
        workers.run(os.abort)
    assert workers.run(os.getpid) != os.getpid()


def test_little_work_starts_no_process() -> None:
    before = children()
    with Workers(2) as few:
        assert few.run(os.getpid) == os.getpid()
        assert children() == before


def test_closing_ends_the_processes(workers: Workers) -> None:
    assert len(children()) >= 1
    mine = {workers.run(os.getpid) for _ in range(4)}
    workers.close()
    assert mine.isdisjoint(children())
    assert not [thread for thread in threading.enumerate() if thread.name == "copydet-worker"]


def test_products_are_undivided_there_and_here_until_the_last_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("copydet.workers.WORTH_SECONDS", 0)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        assert set(before) == {2}
        with Workers(1) as one:
            with Workers(1):
                assert set(blas_threads()) == {1}
            assert set(blas_threads()) == {1}
            deadline = time.monotonic() + 60
            while one.run(os.getpid) == os.getpid():
                assert time.monotonic() < deadline, "no process started"
                time.sleep(0.05)
            assert set(one.run(blas_threads)) == {1}
        assert blas_threads() == before
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
        with Workers(1):
            assert blas_threads() == before


def blas_threads() -> list[int]:
    """Of the libraries of products that have threads of their own, as NumPy's does."""
    return [each["num_threads"] for each in threadpool_info() if each.get("threading_layer") == "pthreads"]


def test_a_worker_that_nobody_waits_for_any_more_ends_without_a_word() -> None:
    mine, its = multiprocessing.Pipe()
    mine.close()
    program = f"from copydet.workers import serve; serve({its.fileno()})"
    done = subprocess.run([sys.executable, "-c", program], pass_fds=(its.fileno(),), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_processes_end_when_who_started_them_is_killed() -> None:
    program = (
        "import os, sys, time, copydet.workers as w\n"
        "w.WORTH_SECONDS = 0\n"
        "both = w.Workers(2)\n"
        "while (pid := both.run(os.getpid)) == os.getpid(): time.sleep(.05)\n"
        "print(pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{worker}/cmdline").exists() and Path(f"/proc/{worker}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_match_is_the_same_to_the_bit_in_threads_and_in_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3)).astype(np.uint8)
        picture = Image.fromarray(pixels).resize((400, 300), Image.Resampling.BICUBIC)
        (tmp_path / "refs").mkdir(exist_ok=True)
        (tmp_path / "queries").mkdir(exist_ok=True)
        picture.save(tmp_path / "refs" / f"{number}.png")
        picture.crop((40, 20, 330, 280)).save(tmp_path / "queries" / f"{number}.jpg", quality=60)
    found = []
    for worth in (float("inf"), 0):
        monkeypatch.setattr("copydet.workers.WORTH_SECONDS", worth)
        index = Index.build([tmp_path / "refs"], tmp_path / f"{worth}.index")
        queries = sorted((tmp_path / "queries").iterdir()) * 8
        found.append([result.matches for result in index.match(queries)])
    assert found[0] == found[1]
    assert all(matches[0].inliers for matches in found[0]), "nothing was verified"


def children() -> set[int]:
    """Worker processes that this one started and that still run; other tests have started other processes."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            is_worker = b"copydet.workers" in status.with_name("cmdline").read_bytes()
        except OSError:
            continue
        if is_worker and int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.add(int(status.parent.name))
    return found
