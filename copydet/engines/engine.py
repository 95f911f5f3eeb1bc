"""Where work runs: this process, or the tasks of a cluster (ray.py). Whichever it is, the result is the same bytes.

What is handed to an engine is pure and can be done twice: it writes under temporary names and renames, and depends on
nothing but its arguments and the files that they name. So an engine may send it elsewhere, and again when it was lost.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from copydet.images.sources import list_images
from copydet.process import usable_cpus
from copydet.progress import Progress
from copydet.records import Image
from copydet.shards.chunks import Chunk

# (folder, images, chunks that lie before them in the listing, progress) -> the chunks of the images, once each is on
# disk in the folder.
Stage = Callable[[Path, Iterable[Image], Sequence[Chunk], Progress], Iterator[Chunk]]

# Does a task with each of the parts that were spread; results in their order.
Each = Callable[[Callable[[Any], Any]], Iterator[Any]]


class Engine(Protocol):
    """`workers` threads are what one task may use; `elsewhere` says whether tasks run in other processes, which open
    what they need (a network, shards) by themselves.
    """

    @property
    def workers(self) -> int: ...

    @property
    def elsewhere(self) -> bool: ...

    def within(self, folder: Path, sources: Sequence[str] = ()) -> AbstractContextManager["Engine"]:
        """An engine whose tasks raise UsageError where they don't see the same `folder` and `sources` as here."""
        ...

    def list_images(self, specs: Sequence[str]) -> Iterator[Image]:
        """All images of all sources in order. Raises UsageError at once when a source does not exist."""
        ...

    def stage(
        self, stage: Stage, building: Path, images: Iterable[Image], staged: Sequence[Chunk], progress: Progress
    ) -> Iterator[Chunk]:
        """Describe images and stage them in `building` behind the chunks `staged`; yields the chunks in order."""
        ...

    def each(self, task: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterator[Any]:
        """The result of `task` for each argument, in order."""
        ...

    def spread(self, parts: Sequence[Any]) -> Each:
        """As `each`, for parts that many tasks will be done with: they are sent once, and stay where they are."""
        ...


class ThisProcess:
    """One after the other, here: what runs inside of a task divides itself among threads."""

    elsewhere = False

    @property
    def workers(self) -> int:
        return usable_cpus()

    def within(self, folder: Path, sources: Sequence[str] = ()) -> AbstractContextManager[Engine]:
        return nullcontext(self)

    def list_images(self, specs: Sequence[str]) -> Iterator[Image]:
        return list_images(specs)

    def stage(
        self, stage: Stage, building: Path, images: Iterable[Image], staged: Sequence[Chunk], progress: Progress
    ) -> Iterator[Chunk]:
        return stage(building, images, staged, progress)

    def each(self, task: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterator[Any]:
        return map(task, arguments)

    def spread(self, parts: Sequence[Any]) -> Each:
        return lambda task: map(task, parts)


HERE = ThisProcess()
