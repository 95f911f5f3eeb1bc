"""Building and searching as tasks of a Ray cluster, with the same bytes of result as in this process.

The flow is that of local.py and stays in the driver: listing, ids, training, and the one commit. What runs as tasks:
slices of the listing, each described into one chunk; shards; the search of each shard; blocks of the search for
duplicates. Every node must see the index, its sources and the output under the same names (a network file system);
sources may also be fsspec URLs, which each node reads by itself. The index may not: its files are mapped, renamed and
locked.

A task writes a chunk to a folder of its own, and only the driver gives it its name. So whatever a task, a node or an
earlier driver left half done is never taken for a chunk, and a task that was lost is done again. Images that repeat
others in the same slice are described once. Those that repeat others of another slice are described again: describing
depends on nothing but the picture, so the same bytes come out.
"""

import os
import socket
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from copydet.engines.engine import Each, Stage
from copydet.errors import CopydetError, MissingPackage, UsageError
from copydet.images.files import is_url
from copydet.images.loader import never_raising
from copydet.images.sources import Source, open_source
from copydet.progress import Progress, Silent
from copydet.records import Image
from copydet.shards import staging
from copydet.shards.chunks import Chunk
from copydet.store import atomic

_RETRIES = 3  # of a task whose worker or node died
_AHEAD = 2  # tasks that wait or run for each that can run, so that no node waits for the driver
_WORKERS = 4  # CPUs of a task unless the user says how many; the network's memory is needed once for each task
_CONNECT_SECONDS = 5  # Ray itself takes two minutes to find that nobody answers

# What the driver's process was told about threads; a worker's is told the same. Ray itself gives it as many OpenMP
# threads as its task has CPUs.
_PASSED_ON = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OPENBLAS_NUM_THREADS")


@contextmanager
def open_ray(
    address: str | None = None,
    *,
    workers: int | None = None,
    device: str = "auto",
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator["RayEngine"]:
    """Connect to the cluster at `address` (host:port; None: RAY_ADDRESS, or the one that runs on this machine).

    `workers` CPUs are what one task takes (None: 4, or all of the smallest node), and one GPU where the cluster has
    some and `device` (auto, cpu, openvino, torch, cuda) asks for no other; `environment` are variables of their
    processes. Raises MissingPackage, and UsageError where no cluster answers or no node has so many CPUs.
    """
    ray = _import_ray()
    if device.startswith("cuda:"):
        raise UsageError(f"--device {device}: Ray decides which GPU a task gets; use --device cuda")
    asked = address or os.environ.get("RAY_ADDRESS") or "auto"
    _check_address(asked)
    mine = not ray.is_initialized()
    if mine:
        _connect(ray, asked, environment)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        if not nodes:
            raise UsageError("no node of the Ray cluster has a CPU for tasks; start nodes with --num-cpus 1 or more")
        most = int(max(node["CPU"] for node in nodes))
        if workers is not None and workers > most:
            raise UsageError(f"--workers {workers}: no node of the Ray cluster has more than {most} CPUs")
        least = int(min(node["CPU"] for node in nodes))
        has_gpus = device in ("auto", "cuda") and any(node.get("GPU", 0) >= 1 for node in nodes)
        yield RayEngine(workers or min(_WORKERS, least), has_gpus, ray)
    finally:
        if mine:
            ray.shutdown()


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError:
        raise MissingPackage("ray", "ray") from None
    module: ModuleType = ray
    return module


def _check_address(asked: str) -> None:
    if "://" in asked:
        raise UsageError(f"--ray-address {asked}: name the cluster as host:port, and run copydet on one of its nodes")
    if asked != "auto" and not _answers(asked):
        raise UsageError(f"no Ray cluster answers at {asked}; start one with: ray start --head, or see ray status")


def _connect(ray: ModuleType, asked: str, environment: Mapping[str, str]) -> None:
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if paths := os.environ.get("PYTHONPATH"):
        passed_on["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
    try:
        ray.init(
            address=asked,
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=False,
            runtime_env={"env_vars": {"OPENBLAS_NUM_THREADS": "1", **passed_on, **environment}},
        )
    except ConnectionError as error:
        if asked == "auto":
            raise UsageError(
                "no Ray cluster runs on this machine; start one with: ray start --head, or name one with --ray-address"
            ) from None
        raise UsageError(f"cannot join the Ray cluster at {asked}: {_first_line(error)}") from None
    except (RuntimeError, ValueError, OSError) as error:
        raise UsageError(f"cannot join the Ray cluster at {asked}: {_first_line(error)}") from None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class RayEngine:
    """See Engine. Made by `open_ray`; `has_gpus`: whether a task that describes gets a GPU."""

    workers: int
    has_gpus: bool
    ray: ModuleType
    elsewhere: bool = True
    seen: tuple[str, ...] = ()  # paths that each task looks for before it starts

    @contextmanager
    def within(self, folder: Path, sources: Sequence[str] = ()) -> Iterator["RayEngine"]:
        """A file of a new name tells the folder from one that another node has under the same name."""
        mark = folder.absolute() / f".seen-by-all.tmp-{uuid.uuid4().hex}"
        paths = [path for spec in sources for path in open_source(spec).paths if not is_url(path)]
        mark.touch()
        try:
            yield replace(self, seen=(str(mark), *map(os.path.abspath, paths)))
        finally:
            mark.unlink(missing_ok=True)

    def list_images(self, specs: Sequence[str]) -> Iterator[Image]:
        """Tars of a range are listed by tasks: reading their heads takes longest."""
        sources = [open_source(spec) for spec in specs]
        return (image for source in sources for image in self._listed(source))

    def _listed(self, source: Source) -> Iterator[Image]:
        if len(source.paths) == 1 or not all(path.endswith(".tar") for path in source.paths):
            yield from source.images()
            return
        paths = (path if is_url(path) else os.path.abspath(path) for path in source.paths)
        for images, problem in self.each(_list, (replace(source, paths=(path,)) for path in paths)):
            yield from images
            if problem:
                raise RuntimeError(problem)

    def stage(
        self, stage: Stage, building: Path, images: Iterable[Image], staged: Sequence[Chunk], progress: Progress
    ) -> Iterator[Chunk]:
        listed = never_raising(images)
        slices = iter(lambda: list(islice(listed, staging.CHUNK_IMAGES)), [])
        task = partial(_stage_slice, stage, building)
        options = {"num_gpus": 1} if self.has_gpus else {}
        for number, written in zip(count(len(staged)), self._run(task, slices, options), strict=False):
            chunk = _take(written, building, number)
            progress.advance(chunk.images)
            yield chunk

    def each(self, task: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterator[Any]:
        return self._run(task, arguments, {})

    def spread(self, parts: Sequence[Any]) -> Each:
        """Tasks on one part run on one node while that lives, so that each node's memory holds its parts' files."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = sorted(node["NodeID"] for node in self.ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
        held = [self.ray.put(part) for part in parts]
        strategies = [NodeAffinitySchedulingStrategy(nodes[n % len(nodes)], soft=True) for n in range(len(parts))]
        return lambda task: self._run(task, held, {}, strategies)

    def _run(
        self,
        task: Callable[[Any], Any],
        arguments: Iterable[Any],
        options: dict[str, Any],
        strategies: Sequence[Any] = (),
    ) -> Iterator[Any]:
        remote = self.ray.remote(num_cpus=self.workers, max_retries=_RETRIES, scheduling_strategy="SPREAD", **options)(
            _call
        )
        sent = self.ray.put((self.seen, task))
        waiting: deque[Any] = deque()
        try:
            for number, argument in enumerate(arguments):
                if len(waiting) >= self._at_once():
                    yield self._result(waiting.popleft())
                chosen = remote.options(scheduling_strategy=strategies[number]) if strategies else remote
                waiting.append(chosen.remote(sent, argument))
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            for task_left in waiting:
                self.ray.cancel(task_left)

    def _at_once(self) -> int:
        """Nodes may come and go while the work lasts."""
        return _AHEAD * max(1, int(self.ray.cluster_resources().get("CPU", 1) // self.workers))

    def _result(self, waiting: Any) -> Any:
        errors = self.ray.exceptions
        try:
            return self.ray.get(waiting)
        except errors.RayTaskError as error:
            raise error.cause if isinstance(error.cause, CopydetError) else _broken(error.cause) from None
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
        ) as error:
            raise CopydetError(
                f"a task on the Ray cluster was lost {_RETRIES + 1} times ({type(error).__name__}): its worker died; "
                "see ray's logs on that node, allow tasks more memory with --workers, and run the same command again"
            ) from None
        except errors.RayError as error:
            raise CopydetError(f"the Ray cluster failed: {_first_line(error)}") from None


def _broken(error: BaseException) -> CopydetError:
    return CopydetError(
        f"a task on the Ray cluster failed with {type(error).__name__}: {_first_line(error)} "
        "(every node needs the same copydet)"
    )


def _call(sent: tuple[tuple[str, ...], Callable[[Any], Any]], argument: Any) -> Any:
    """What a worker does: a task with one argument. Errors travel as the plain ones of their exit code."""
    seen, task = sent
    try:
        for path in seen:
            if not os.path.lexists(path):
                shown = os.path.dirname(path) if ".tmp-" in path else path
                raise UsageError(f"{shown} is not the same place on every node: use a path or URL that all nodes share")
        return task(argument)
    except CopydetError as error:
        plain = UsageError if error.exit_code == UsageError.exit_code else CopydetError
        raise plain(f"{error} (on node {socket.gethostname()})") from None


def _list(source: Source) -> tuple[list[Image], str]:
    """The images of a source, and what ended it early, if anything did."""
    images: list[Image] = []
    try:
        images.extend(source.images())
    except CopydetError:
        raise
    except Exception as error:
        return images, str(error) or type(error).__name__
    return images, ""


def _stage_slice(stage: Stage, building: Path, images: list[Image]) -> Chunk:
    """Describe one slice of the listing into a chunk in a new folder."""
    folder = building / f".slice.tmp-{uuid.uuid4().hex}"
    folder.mkdir()
    (chunk,) = stage(folder, images, [], Silent())
    return chunk


def _take(written: Chunk, building: Path, number: int) -> Chunk:
    """Give a chunk that a task wrote its place and its name; its rows last, as staging does."""
    chunk = replace(written, number=number, folder=building)
    for source, target in zip(written.paths, chunk.paths, strict=True):
        atomic.replace(source, target)
    atomic.remove(written.folder)
    return chunk
