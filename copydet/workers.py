"""Worker processes: work made of many small NumPy calls holds Python's lock, so that threads give it one core's speed.

Threads hand such work over and wait. A process takes half a second to start, so none is started before there has been
work for longer than that: one query is answered at once, by the threads. What crashes (a decoder on hostile bytes)
takes its process along and nothing else.

Not concurrent.futures' processes: those import the caller's script again, which runs it again where it has no guard,
and one that dies ends the pool.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from copydet.errors import CopydetError
from copydet.process import BLAS, UNDIVIDED_PRODUCTS, prepare_worker

WORTH_SECONDS = 1.0  # of work done by threads, after which processes are started
_PATIENCE = 5.0  # seconds that a process has to end
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from copydet.workers import serve; serve(int(sys.argv[1]))"
)

P = ParamSpec("P")
R = TypeVar("R")


class WorkerDied(CopydetError):
    """A process ended in the middle of its work, and so did the one that tried again."""


class Workers:
    """Up to `count` processes, for any number of threads. Closing it ends them; it must not be used after that."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._spent = 0.0
        self._ready = self._closed = False
        self._starters: list[threading.Thread] = []
        self._processes: set[_Process] = set()
        self._idle: SimpleQueue[_Process | None] = SimpleQueue()  # None: there are none to wait for

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """function(*args, **kwargs) in an idle process, or in this thread where none has started yet.

        What cannot be sent (a lambda) runs in this thread too. Raises what the function raises, and WorkerDied.
        """
        if not self._ready:
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._spend(time.perf_counter() - begin)
        try:
            work = pickle.dumps((function, args, kwargs), protocol=5)
        except Exception:  # pickling raises whatever an object's own methods do
            return function(*args, **kwargs)
        for _ in range(2):
            process = self._idle.get()
            if process is None:
                self._idle.put(None)
                return function(*args, **kwargs)
            try:
                kind, value = process.do(work)
            except (EOFError, OSError):
                end = process.end()
                self._replace(process)
                continue
            self._idle.put(process)
            if kind == "unknown":  # not to be found under its name in another process, as what a script defines
                return function(*args, **kwargs)
            if kind == "raised":
                raise value
            result: R = value
            return result
        raise WorkerDied(f"a worker process ended in the middle of its work, twice ({end})")

    def close(self) -> None:
        with self._lock:
            self._closed = True
        for thread in self._starters:
            thread.join()
        for process in self._processes:
            process.end()

    def __enter__(self) -> "Workers":
        UNDIVIDED_PRODUCTS.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        finally:
            UNDIVIDED_PRODUCTS.__exit__()

    def _spend(self, seconds: float) -> None:
        self._spent += seconds  # a sum that loses a few in a race will do
        if self._spent > WORTH_SECONDS:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._starters or self._closed:
                return
            self._starters = [threading.Thread(target=self._add, daemon=True) for _ in range(self._count)]
            for thread in self._starters:
                thread.start()

    def _add(self) -> None:
        try:
            process = _Process()
        except (EOFError, OSError):  # no Python to start, no memory: threads do the work
            self._idle.put(None)
            return
        with self._lock:
            if self._closed:
                process.end()
                return
            self._processes.add(process)
        self._idle.put(process)
        self._ready = True

    def _replace(self, process: "_Process") -> None:
        with self._lock:
            self._processes.discard(process)
        self._add()


class _Process:
    """One worker process and the way to it. Starting raises EOFError or OSError where it does not answer."""

    def __init__(self) -> None:
        self._connection, there = Pipe()
        with there:
            number = there.fileno()
            command = [sys.executable, "-c", _START, str(number), json.dumps(sys.path)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[number], env=BLAS | dict(os.environ)
            )
        try:
            self._connection.recv()
        except (EOFError, OSError):
            self.end()
            raise

    def do(self, work: bytes) -> tuple[str, Any]:
        self._connection.send_bytes(work)
        answer: tuple[str, Any] = pickle.loads(self._connection.recv_bytes())
        return answer

    def end(self) -> str:
        """End it, and say how it ended."""
        self._connection.close()
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"signal {-code}: {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"


def serve(descriptor: int) -> None:
    """What a worker process does: answer work that comes through a file descriptor, until the other side closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    prepare_worker()
    connection = Connection(descriptor)
    try:
        connection.send(None)
        while True:
            connection.send_bytes(_answer(connection.recv_bytes()))
    except (EOFError, OSError):
        os._exit(0)  # at once: nothing here needs to be put in order


def _answer(work: bytes) -> bytes:
    try:
        function, args, kwargs = pickle.loads(work)
    except Exception:
        return pickle.dumps(("unknown", None))
    try:
        return pickle.dumps(("done", function(*args, **kwargs)), protocol=5)
    except Exception as error:
        try:
            return pickle.dumps(("raised", error))
        except Exception:
            return pickle.dumps(("raised", RuntimeError(f"{type(error).__name__}: {error}")))
