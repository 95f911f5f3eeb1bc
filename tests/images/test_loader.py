"""The loader: ordered, bounded, complete, and gone when it is closed."""

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from copydet.errors import ImageProblem, UsageError
from copydet.images.decode import Limits, Resize
from copydet.images.files import Failing, HeldBytes
from copydet.images.loader import Also, load, load_image
from copydet.images.repeats import Repeats
from copydet.records import Batch, Image, Pixels
from tests.images.conftest import JPEG, draw, encode

SMALL = Resize("square", 16)
BAD: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"hello",
    "cut": lambda: JPEG[:300],
    "raises": lambda: (_ for _ in ()).throw(RuntimeError("the disk is on fire")),
    "problem": Failing("unreadable", "gone"),
}
POOL = [Image(name, name, "s", read, {"n": n}) for n, (name, read) in enumerate(BAD.items())] + [
    Image(f"ok{n}", f"ok{n}", "s", HeldBytes(encode(draw(40 + n, 30, n), kind)), {"n": n})
    for n, kind in enumerate(["JPEG", "PNG", "WEBP", "GIF"])
]


def flat(batches: Iterator[Batch]) -> list[tuple[object, bytes | None]]:
    """(row, pixels) of every image in order."""
    found: list[tuple[object, bytes | None]] = []
    for batch in batches:
        assert len(batch.ok) == len(batch.pixels)
        pixels = dict(zip(batch.ok, batch.pixels, strict=True))
        for place, row in enumerate(batch.rows):
            assert (row.status == "ok") == (place in pixels)
            found.append((row, pixels[place].tobytes() if place in pixels else None))
    return found


def alone(images: list[Image]) -> list[tuple[object, bytes | None]]:
    loaded = [load_image(image, SMALL) for image in images]
    return [(each.row, None if each.pixels is None else each.pixels.tobytes()) for each in loaded]


def mean_and_shape(pixels: Pixels) -> NDArray[np.float64]:
    return np.array([pixels.mean(), *pixels.shape])


def decode_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("copydet-decode")]


@given(
    st.lists(st.sampled_from(POOL), max_size=40),
    st.integers(1, 9),
    st.integers(1, 6),
    st.sampled_from([1, 2000, 2**28]),
)
@settings(max_examples=60, deadline=None)
def test_the_output_is_that_of_one_after_the_other_for_any_workers_and_batches(
    images: list[Image], batch_size: int, workers: int, queued_bytes: int
) -> None:
    batches = list(load(iter(images), SMALL, batch_size=batch_size, workers=workers, queued_bytes=queued_bytes))
    assert flat(iter(batches)) == alone(images)
    assert all(0 < len(batch.rows) <= batch_size for batch in batches)
    if queued_bytes == 2**28:
        assert [len(batch.rows) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert not decode_threads()


def test_a_row_says_what_the_bytes_were() -> None:
    image = Image("a", "file:a", "here", lambda: JPEG, {"label": 3})
    loaded, decoded, *_ = load_image(image, SMALL)
    assert decoded is not None
    assert decoded.shape == (16, 16, 3)
    assert (loaded.width, loaded.height, loaded.format, loaded.bytes) == (96, 64, "jpeg", len(JPEG))
    assert loaded.sha256 == hashlib.sha256(JPEG).hexdigest()
    assert (loaded.image_id, loaded.uri, loaded.source, loaded.metadata) == ("a", "file:a", "here", {"label": 3})
    assert (loaded.status, loaded.message) == ("ok", "")


def test_a_file_that_does_not_decode_still_has_its_size_and_hash() -> None:
    row, pixels, *_ = load_image(Image("a", "a", "s", lambda: b"hello"), SMALL)
    assert pixels is None
    assert (row.status, row.bytes, row.sha256) == ("unsupported", 5, hashlib.sha256(b"hello").hexdigest())


def test_what_a_reader_raises_becomes_an_unreadable_row_with_its_text() -> None:
    row = load_image(POOL[3], SMALL).row
    assert (row.status, row.message) == ("unreadable", "RuntimeError: the disk is on fire")


def test_a_nearly_flat_picture_is_ok_with_a_message() -> None:
    white = encode(np.full((40, 40, 3), 254, np.uint8), "PNG")
    row, pixels, *_ = load_image(Image("a", "a", "s", lambda: white), SMALL)
    assert (row.status, row.message) == ("ok", "nearly flat: matches mean little")
    assert pixels is not None


def test_the_limits_reach_the_decoder() -> None:
    (batch,) = load([Image("a", "a", "s", lambda: JPEG)], SMALL, batch_size=4, workers=1, limits=Limits(max_pixels=10))
    assert batch.rows[0].status == "too_large"


def test_what_the_source_raises_becomes_a_last_row() -> None:
    def breaking() -> Iterator[Image]:
        yield POOL[-1]
        raise OSError("connection lost")

    rows = [row for batch in load(breaking(), SMALL, batch_size=8, workers=2) for row in batch.rows]
    assert [row.status for row in rows] == ["ok", "unreadable"]
    assert rows[1].message == f"the source broke after {POOL[-1].image_id}: connection lost"


def test_an_error_meant_for_the_user_passes_through_and_leaves_no_thread() -> None:
    def refusing() -> Iterator[Image]:
        yield POOL[-1]
        raise UsageError("no such column")

    with pytest.raises(UsageError, match="no such column"):
        list(load(refusing(), SMALL, batch_size=8, workers=2))
    assert not decode_threads()


def test_closing_early_ends_the_threads() -> None:
    endless = (Image(str(number), "", "s", lambda: JPEG) for number in itertools.count())
    batches = load(endless, SMALL, batch_size=4, workers=3)
    assert [row.image_id for row in next(batches).rows] == ["0", "1", "2", "3"]
    batches.close()  # type: ignore[attr-defined]
    assert not decode_threads()


def test_no_more_images_are_taken_ahead_than_two_batches() -> None:
    taken = []

    def counting() -> Iterator[Image]:
        for number in range(1000):
            taken.append(number)
            yield Image(str(number), "", "s", lambda: JPEG)

    batches = load(counting(), SMALL, batch_size=5, workers=2)
    next(batches)
    assert len(taken) <= 5 + 2 * 5 + 2
    batches.close()  # type: ignore[attr-defined]


def test_waiting_pixels_stay_below_the_bound_whatever_the_images_size() -> None:
    decoded = []
    picture = encode(draw(200, 200), "PNG")
    one = 200 * 200 * 3

    def image(number: int) -> Image:
        def read() -> bytes:
            decoded.append(number)
            return picture

        return Image(str(number), "", "s", read)

    batches = load(map(image, range(60)), Resize("none"), batch_size=30, workers=2, queued_bytes=4 * one)
    first = next(batches)
    time.sleep(0.3)
    assert len(first.rows) == 4  # a batch ends early when its pixels reach the bound
    assert len(decoded) <= 4 + 4 + 2
    rest = [row for batch in batches for row in batch.rows]
    assert [row.image_id for row in (*first.rows, *rest)] == [str(number) for number in range(60)]


def test_images_that_carry_their_bytes_are_not_taken_without_bound() -> None:
    taken = []

    def streaming() -> Iterator[Image]:
        for number in range(100):
            taken.append(number)
            yield Image(str(number), "", "s", HeldBytes(JPEG + bytes(10_000)))

    batches = load(streaming(), SMALL, batch_size=50, workers=2, queued_bytes=50_000)
    first = next(batches)
    assert len(first.rows) == 50
    assert len(taken) <= 50 + 50_000 // 10_000 + 1
    batches.close()  # type: ignore[attr-defined]


def test_an_interrupt_in_the_consumer_ends_the_threads() -> None:
    def consume() -> None:
        for _ in load((Image(str(n), "", "s", lambda: JPEG) for n in range(100)), SMALL, batch_size=4, workers=2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert not decode_threads()


def test_slow_images_do_not_disturb_the_order() -> None:
    def image(number: int) -> Image:
        def read() -> bytes:
            time.sleep(0.02 if number % 3 == 0 else 0)
            if number % 5 == 0:
                raise ImageProblem("unreadable", "no")
            return JPEG

        return Image(str(number), "", "s", read)

    rows = [row for batch in load(map(image, range(30)), SMALL, batch_size=7, workers=4) for row in batch.rows]
    assert [row.image_id for row in rows] == [str(number) for number in range(30)]
    assert [row.status for row in rows] == ["unreadable" if n % 5 == 0 else "ok" for n in range(30)]


def test_no_images_give_no_batches() -> None:
    assert list(load([], SMALL, batch_size=4, workers=2)) == []


ALSO = Also(Resize("long_edge", 32), mean_and_shape)


@given(st.lists(st.sampled_from(POOL), max_size=20), st.integers(1, 9), st.integers(1, 4), st.sampled_from([1, 2**28]))
@settings(max_examples=30, deadline=None)
def test_a_second_result_of_each_image_comes_with_its_pixels_for_any_workers_and_batches(
    images: list[Image], batch_size: int, workers: int, queued_bytes: int
) -> None:
    batches = list(load(images, SMALL, batch_size=batch_size, workers=workers, queued_bytes=queued_bytes, also=ALSO))
    assert all(len(batch.also) == len(batch.pixels) for batch in batches)
    wanted = [load_image(image, Resize("long_edge", 32)).pixels for image in images]
    found = [result for batch in batches for result in batch.also]
    assert np.array_equal(found, [mean_and_shape(pixels) for pixels in wanted if pixels is not None])
    assert [row for batch in batches for row in batch.rows] == [row for row, _ in alone(images)]


def test_without_a_second_thing_to_do_there_are_no_results_of_it() -> None:
    (batch,) = load([POOL[-1]], SMALL, batch_size=4, workers=1)
    assert (len(batch.pixels), batch.also) == (1, ())


def test_what_the_second_thing_raises_makes_an_unreadable_row_with_its_text() -> None:
    def work(pixels: Pixels) -> object:
        raise ValueError(f"no feature in {pixels.shape[1]} columns")

    also = Also(Resize("long_edge", 32), work)
    (batch,) = load([POOL[-1], POOL[0]], SMALL, batch_size=4, workers=1, also=also)
    assert (batch.ok, batch.pixels, batch.also) == ((), (), ())
    assert [(row.status, row.message) for row in batch.rows] == [
        ("unreadable", "ValueError: no feature in 32 columns"),
        ("unreadable", "empty file"),
    ]
    assert batch.rows[0].sha256 is not None


def test_results_that_wait_count_for_the_bound() -> None:
    begun = []

    def work(pixels: Pixels) -> NDArray[np.uint8]:
        begun.append(1)
        return np.zeros(10_000, np.uint8)

    images = (Image(str(number), "", "s", lambda: JPEG) for number in range(60))
    also = Also(Resize("long_edge", 8), work)
    batches = load(images, SMALL, batch_size=30, workers=2, queued_bytes=40_000, also=also)
    first = next(batches)
    time.sleep(0.3)
    assert len(first.rows) == 4
    assert len(begun) <= 4 + 4 + 2
    batches.close()  # type: ignore[attr-defined]


@given(st.lists(st.sampled_from(POOL), max_size=30), st.integers(1, 9), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_what_repeats_an_earlier_image_says_which_and_has_no_pixels_for_any_workers_and_batches(
    images: list[Image], batch_size: int, workers: int
) -> None:
    first: dict[str, int] = {}
    position = 100
    for batch in load(
        iter(images), SMALL, batch_size=batch_size, workers=workers, repeats=Repeats(), first_position=position
    ):
        repeats = dict(batch.repeats)
        for place, row in enumerate(batch.rows):
            seen = row.sha256 in first
            assert repeats.get(place) == (first[row.sha256] if seen and row.sha256 else None)
            assert (place in batch.ok) == (not seen and row.status == "ok")
            if row.sha256:
                first.setdefault(row.sha256, position)
            position += 1


def test_a_file_of_another_format_with_the_same_pixels_is_a_repeat_with_a_row_of_its_own() -> None:
    pixels = draw(50, 40, 3)
    images = [Image(kind, kind, "s", HeldBytes(encode(pixels, kind))) for kind in ("PNG", "BMP", "TIFF", "JPEG")]
    (batch,) = load(iter(images), SMALL, batch_size=9, workers=2, repeats=Repeats())
    assert dict(batch.repeats) == {1: 0, 2: 0}
    assert batch.ok == (0, 3)
    assert [row.format for row in batch.rows] == ["png", "bmp", "tiff", "jpeg"]


def test_contents_that_are_known_from_before_are_repeats() -> None:
    known = [(hashlib.sha256(JPEG).digest(), 7)]
    (batch,) = load(
        [Image("a", "a", "s", HeldBytes(JPEG))],
        SMALL,
        batch_size=1,
        workers=1,
        repeats=Repeats(known),
        first_position=9,
    )
    assert batch.repeats == ((0, 7),)
    assert batch.pixels == ()
