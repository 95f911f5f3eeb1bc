"""Images -> batches of rows and pixels, in source order, with a bound on what waits in memory.

Threads read and decode, which leaves Python's lock alone; where more is to be done with each image, they hand decoding
and that over to worker processes.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from copydet.errors import CopydetError, ImageProblem
from copydet.images.decode import DEFAULT_LIMITS, Limits, decode, is_nearly_flat, prepare_process
from copydet.images.files import HeldBytes, read_within
from copydet.images.repeats import Repeats
from copydet.images.resize import Resize
from copydet.records import Batch, Image, ImageRow, Pixels
from copydet.workers import WorkerDied, Workers

_FLAT_MESSAGE = "nearly flat: matches mean little"


@dataclass(frozen=True)
class Also:
    """A second thing to do with each image where it is decoded: `work` gets its pixels as `resize` wants them (to read,
    not to write), in a worker process if it can be pickled, else in several threads at once.

    Where `work` raises, the image becomes an `unreadable` row with the exception's text. While a result waits, it
    counts by its `nbytes`, if it has such.
    """

    resize: Resize
    work: Callable[[Pixels], Any]


class Loaded(NamedTuple):
    """One image: its row; its pixels where they could be had (else None); what `Also.work` returned for it.

    `contents` are the hashes that tell whether it repeats another (see Repeats).
    """

    row: ImageRow
    pixels: Pixels | None
    also: Any = None
    contents: tuple[bytes, ...] = ()

    @property
    def nbytes(self) -> int:
        return 0 if self.pixels is None else self.pixels.nbytes + int(getattr(self.also, "nbytes", 0))


class _Gate:
    """Keeps decoded pixels that wait for the consumer below a number of bytes.

    A worker passes with its image when there is room, or when the consumer waits for this very image: so it never
    locks up.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held, self._next, self._closed = limit, 0, 0, False
        self._changed = threading.Condition()

    def enter(self, position: int) -> bool:
        """Wait for room; False when the loader was closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._held < self._limit or position <= self._next)
            return not self._closed

    def hold(self, size: int) -> None:
        with self._changed:
            self._held += size

    def release(self, size: int, next_position: int) -> None:
        with self._changed:
            self._held -= size
            self._next = next_position
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def load(
    images: Iterable[Image],
    resize: Resize,
    *,
    batch_size: int,
    workers: int,
    limits: Limits = DEFAULT_LIMITS,
    queued_bytes: int = 256 * 2**20,
    also: Also | None = None,
    repeats: Repeats | None = None,
    first_position: int = 0,
    processes: Workers | None = None,
) -> Iterator[Batch]:
    """Yield batches of `batch_size` images in source order; every image yields a row, whatever is wrong with it.

    With `also`, each image is decoded once for both, and Batch.also holds the results. With `repeats`, an image whose
    bytes came before is not decoded, and one whose pixels came before is left without them: Batch.repeats says where
    (positions are counted from `first_position` on). At most two batches are decoded ahead, and what waits stays below
    `queued_bytes` (plus one image a worker); a batch ends early when its own pixels and results reach that. `processes`
    do what `also` wants; None: as many of its own as `workers`. Closing the generator ends the threads. What the source
    itself raises becomes a last row; only CopydetError, meant for the user, passes through.
    """
    prepare_process()
    gate = _Gate(queued_bytes)
    with (
        Workers(workers) if processes is None else nullcontext(processes) as helping,
        ThreadPoolExecutor(workers, thread_name_prefix="copydet-decode") as pool,
    ):
        load_one = partial(
            load_image, resize=resize, limits=limits, also=also, repeats=repeats, processes=helping if also else None
        )
        try:
            queue = _Queue(2 * batch_size + workers, queued_bytes, first_position)
            loaded = _in_order(pool, gate, never_raising(images), load_one, queue)
            yield from _batches(loaded, batch_size, queued_bytes, also is not None, repeats, first_position)
        finally:
            gate.close()
            pool.shutdown(wait=True, cancel_futures=True)


class _Queue(NamedTuple):
    """How many images, and how many bytes of images that carry their own, wait at most; position of the first."""

    ahead: int
    most_bytes: int
    first_position: int


def _in_order(
    pool: ThreadPoolExecutor,
    gate: _Gate,
    images: Iterator[Image],
    load_one: Callable[..., Loaded],
    queue: _Queue,
) -> Iterator[Loaded]:
    waiting: deque[tuple[Future[Loaded], int]] = deque()
    submitted = taken = encoded = 0  # encoded: bytes that images in the queue carry themselves
    exhausted = False

    def work(position: int, image: Image) -> Loaded:
        if not gate.enter(position):
            raise RuntimeError("the loader was closed")
        loaded = load_one(image, position=queue.first_position + position)
        gate.hold(loaded.nbytes)
        return loaded

    while True:
        while not exhausted and len(waiting) < queue.ahead and (encoded < queue.most_bytes or not waiting):
            image = next(images, None)
            if image is None:
                exhausted = True
                break
            carried = len(image.read.data) if isinstance(image.read, HeldBytes) else 0
            encoded += carried
            waiting.append((pool.submit(work, submitted, image), carried))
            submitted += 1
        if not waiting:
            return
        future, carried = waiting.popleft()
        loaded = future.result()
        taken += 1
        encoded -= carried
        gate.release(loaded.nbytes, taken)
        yield loaded


def _batches(
    loaded: Iterator[Loaded],
    batch_size: int,
    max_bytes: int,
    has_also: bool,
    repeats: Repeats | None,
    first_position: int,
) -> Iterator[Batch]:
    rows: list[ImageRow] = []
    ok: list[int] = []
    pixels: list[Pixels] = []
    also: list[Any] = []
    repeated: list[tuple[int, int]] = []
    size = 0
    for position, image in enumerate(loaded, first_position):
        # All before this one have been seen by now, whichever thread was faster.
        first = (
            min((repeats.first(each, position) for each in image.contents), default=position) if repeats else position
        )
        if first < position:
            repeated.append((len(rows), first))
        elif image.pixels is not None:
            ok.append(len(rows))
            pixels.append(image.pixels)
            if has_also:
                also.append(image.also)
            size += image.nbytes
        rows.append(image.row)
        if len(rows) == batch_size or size >= max_bytes:
            yield Batch(tuple(rows), tuple(ok), tuple(pixels), tuple(also), tuple(repeated))
            rows, ok, pixels, also, repeated, size = [], [], [], [], [], 0
    if rows:
        yield Batch(tuple(rows), tuple(ok), tuple(pixels), tuple(also), tuple(repeated))


class _Looked(NamedTuple):
    """A decoded image: what is known of it, its pixels, and what `Also.work` made of it."""

    width: int
    height: int
    format: str
    pixels: Pixels
    content: bytes | None
    also: Any


def _here(function: Callable[..., _Looked], *args: Any) -> _Looked:
    return function(*args)


def _decode(data: bytes, resize: Resize, limits: Limits, also: Also | None, hashed: bool) -> _Looked:
    decoded = decode(data, resize, limits, also.resize if also else None, hashed=hashed)
    result = None if also is None or decoded.also is None else also.work(decoded.also)
    return _Looked(decoded.width, decoded.height, decoded.format, decoded.pixels, decoded.content, result)


def load_image(
    image: Image,
    resize: Resize,
    limits: Limits = DEFAULT_LIMITS,
    also: Also | None = None,
    repeats: Repeats | None = None,
    position: int = 0,
    processes: Workers | None = None,
) -> Loaded:
    """Read and decode one image, and do what is asked for `also`, unless `repeats` knows its content from a lower
    position; decoding is done here, or by `processes`. Raises nothing.
    """
    run = processes.run if processes else _here
    size = sha256 = None
    contents: tuple[bytes, ...] = ()
    try:
        data = read_within(image.read, limits.max_bytes)
        digest = hashlib.sha256(data)
        size, sha256, contents = len(data), digest.hexdigest(), (digest.digest(),)
        if repeats and repeats.first(contents[0], position) < position:
            return Loaded(_row(image, "ok", "", size, sha256), None, None, contents)
        seen = run(_decode, data, resize, limits, also, repeats is not None)
        contents += () if seen.content is None else (seen.content,)
        if repeats and seen.content is not None:
            repeats.first(seen.content, position)
    except ImageProblem as problem:
        return Loaded(_row(image, problem.status, problem.message, size, sha256), None, None, contents)
    except WorkerDied as error:
        return Loaded(_row(image, "unreadable", f"decoding it crashed: {error}", size, sha256), None, None, contents)
    except Exception as error:  # a source's own `read` may raise anything, and so may `work`
        return Loaded(_row(image, "unreadable", f"{type(error).__name__}: {error}", size, sha256), None, None, contents)
    row = ImageRow(
        image.image_id,
        image.uri,
        image.source,
        seen.width,
        seen.height,
        seen.format,
        size,
        sha256,
        "ok",
        _FLAT_MESSAGE if is_nearly_flat(seen.pixels) else "",
        image.metadata,
    )
    return Loaded(row, seen.pixels, seen.also, contents)


def _row(image: Image, status: str, message: str, size: int | None, sha256: str | None) -> ImageRow:
    return ImageRow(
        image.image_id,
        image.uri,
        image.source,
        bytes=size,
        sha256=sha256,
        status=status,  # type: ignore[arg-type]
        message=message,
        metadata=image.metadata,
    )


def never_raising(images: Iterable[Image]) -> Iterator[Image]:
    """The images; where the source raises, one last entry that says after which image."""
    last: Image | None = None
    try:
        for image in images:
            yield image
            last = image
    except CopydetError:
        raise
    except Exception as error:
        yield _broken(last, error)


def _broken(last: Image | None, error: Exception) -> Image:
    from copydet.images.files import Failing

    after = f"after {last.image_id}" if last else "at its start"
    source = last.source if last else "source"
    return Image(f"{source}#broken", "", source, Failing("unreadable", f"the source broke {after}: {error}"))
