"""Progress on stderr: a rich bar with an honest ETA on a terminal, a line every half minute elsewhere, silence when
asked.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Told how many more images are done; `note` prints one line that stays."""

    def advance(self, images: int) -> None: ...

    def note(self, line: str) -> None: ...


class Silent:
    """For library use: says nothing."""

    def advance(self, images: int) -> None:
        pass

    def note(self, line: str) -> None:
        pass


class _Lines:
    """Off a terminal: one line every `every` seconds, so that a log shows rate and time left without a bar's control
    codes.
    """

    def __init__(self, task: str, total: int | None, noun: str = "images", every: float = 30.0) -> None:
        self._task, self._total, self._noun, self._every = task, total, noun, every
        self._done, self._started = 0, time.monotonic()
        self._next = self._started + every

    def advance(self, images: int) -> None:
        self._done += images
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every
        rate = self._done / (now - self._started)
        left = f", {(self._total - self._done) / rate:.0f} s left" if self._total and rate > 0 else ""
        print(f"{self._task}: {self._done:,} {self._noun}, {rate:.0f}/s{left}", file=sys.stderr, flush=True)

    def note(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def show(task: str, total: int | None, noun: str = "images") -> Iterator[Progress]:
    """Show progress of `task` over `total` images, or what `noun` says (None: not known, so no ETA is claimed)."""
    if not sys.stderr.isatty():
        yield _Lines(task, total, noun)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with RichProgress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        bar_task = bar.add_task(task, total=total, rate="")
        started = time.monotonic()

        class _Bar:
            def advance(self, images: int) -> None:
                bar.advance(bar_task, images)
                rate = bar.tasks[0].completed / max(time.monotonic() - started, 1e-9)
                bar.update(bar_task, rate=f"{rate:.0f} {noun}/s")

            def note(self, line: str) -> None:
                console.print(line, markup=False, highlight=False)

        yield _Bar()
