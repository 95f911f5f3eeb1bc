"""Images -> batches of rows and pixels: decoded by threads, in source order, with a bound on what waits in memory."""

import hashlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from copydet.errors import CopydetError, ImageProblem
from copydet.images.decode import DEFAULT_LIMITS, Limits, decode, is_nearly_flat, prepare_process
from copydet.images.files import HeldBytes, read_within
from copydet.images.resize import Resize
from copydet.records import Batch, Image, ImageRow, Pixels

_FLAT_MESSAGE = "nearly flat: matches mean little"
_Loaded = tuple[ImageRow, Pixels | None]


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
) -> Iterator[Batch]:
    """Yield batches of `batch_size` images in source order; every image yields a row, whatever is wrong with it.

    At most two batches are decoded ahead, and pixels that wait stay below `queued_bytes` (plus one image a worker); a
    batch ends early when its own pixels reach that. Closing the generator ends the threads. What the source itself
    raises becomes a last row; only CopydetError, meant for the user, passes through.
    """
    prepare_process()
    gate = _Gate(queued_bytes)
    with ThreadPoolExecutor(workers, thread_name_prefix="copydet-decode") as pool:
        try:
            loaded = _in_order(
                pool, gate, _never_raising(images), resize, limits, 2 * batch_size + workers, queued_bytes
            )
            yield from _batches(loaded, batch_size, queued_bytes)
        finally:
            gate.close()
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor,
    gate: _Gate,
    images: Iterator[Image],
    resize: Resize,
    limits: Limits,
    ahead: int,
    queued_bytes: int,
) -> Iterator[_Loaded]:
    waiting: deque[tuple[Future[_Loaded], int]] = deque()
    submitted = taken = encoded = 0  # encoded: bytes that images in the queue carry themselves
    exhausted = False

    def work(position: int, image: Image) -> _Loaded:
        if not gate.enter(position):
            raise RuntimeError("the loader was closed")
        row, pixels = load_image(image, resize, limits)
        gate.hold(0 if pixels is None else pixels.nbytes)
        return row, pixels

    while True:
        while not exhausted and len(waiting) < ahead and (encoded < queued_bytes or not waiting):
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
        row, pixels = future.result()
        taken += 1
        encoded -= carried
        gate.release(0 if pixels is None else pixels.nbytes, taken)
        yield row, pixels


def _batches(loaded: Iterator[_Loaded], batch_size: int, max_bytes: int) -> Iterator[Batch]:
    rows: list[ImageRow] = []
    ok: list[int] = []
    pixels: list[Pixels] = []
    size = 0
    for row, image in loaded:
        if image is not None:
            ok.append(len(rows))
            pixels.append(image)
            size += image.nbytes
        rows.append(row)
        if len(rows) == batch_size or size >= max_bytes:
            yield Batch(tuple(rows), tuple(ok), tuple(pixels))
            rows, ok, pixels, size = [], [], [], 0
    if rows:
        yield Batch(tuple(rows), tuple(ok), tuple(pixels))


def load_image(image: Image, resize: Resize, limits: Limits = DEFAULT_LIMITS) -> tuple[ImageRow, Pixels | None]:
    """Read and decode one image: its row, and its pixels where they could be had. Raises nothing."""
    size = sha256 = None
    try:
        data = read_within(image.read, limits.max_bytes)
        size, sha256 = len(data), hashlib.sha256(data).hexdigest()
        decoded = decode(data, resize, limits)
    except ImageProblem as problem:
        return _row(image, problem.status, problem.message, size, sha256), None
    except Exception as error:  # a source's own `read` may raise anything
        return _row(image, "unreadable", f"{type(error).__name__}: {error}", size, sha256), None
    message = _FLAT_MESSAGE if is_nearly_flat(decoded.pixels) else ""
    row = ImageRow(
        image.image_id,
        image.uri,
        image.source,
        decoded.width,
        decoded.height,
        decoded.format,
        size,
        sha256,
        "ok",
        message,
        image.metadata,
    )
    return row, decoded.pixels


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


def _never_raising(images: Iterable[Image]) -> Iterator[Image]:
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
