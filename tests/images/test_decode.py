"""Decoding: every format upright and right in colour, every bad file an ImageProblem with the right status."""

import contextlib
import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PilImage
from PIL import features

from copydet.errors import ImageProblem, UsageError
from copydet.images import decode as decode_module
from copydet.images.decode import DEFAULT_LIMITS, Limits, decode, is_nearly_flat, to_pixels
from copydet.images.resize import Resize, resize_pixels
from tests.images.conftest import JPEG, draw, encode

FULL = Resize("none")
PICTURE = draw()
WEBP = {"lossless": True}
FORMATS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "WEBP": WEBP,
    "TIFF": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100},
}
if "HEIF" in PilImage.SAVE:
    FORMATS["HEIF"] = {"quality": 100}


def problem(data: bytes, limits: Limits = DEFAULT_LIMITS, resize: Resize = FULL) -> ImageProblem:
    with pytest.raises(ImageProblem) as caught:
        decode(data, resize, limits)
    assert caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


def stored_for(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels that a camera stores so that `orientation` makes them upright (the inverse of EXIF 2.3, 0x0112)."""
    inverse = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda p: np.rot90(p, -1),
    }
    return np.ascontiguousarray(inverse[orientation](upright))


def exif(orientation: int) -> bytes:
    tags = PilImage.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def close(a: np.ndarray, b: np.ndarray, mean: float = 2.0) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(int) - b.astype(int)).mean()) <= mean


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_in_every_format_gives_the_same_upright_pixels(kind: str, orientation: int) -> None:
    data = encode(stored_for(PICTURE, orientation), kind, exif=exif(orientation), **FORMATS[kind])
    decoded = decode(data, FULL)
    assert close(decoded.pixels, PICTURE)
    assert (decoded.width, decoded.height) == (96, 64)
    assert decoded.format == kind.lower()
    assert decoded.pixels.flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", [Resize("square", 20), Resize("square", 120), Resize("short_edge", 30)])
def test_a_turned_image_gives_exactly_the_pixels_of_the_upright_one(orientation: int, resize: Resize) -> None:
    stored = encode(stored_for(PICTURE, orientation), "PNG", exif=exif(orientation))
    straight = decode(encode(PICTURE, "PNG"), resize).pixels
    turned = decode(stored, resize).pixels
    assert np.array_equal(turned, straight)


def test_the_orientation_applies_to_a_jpeg_that_its_decoder_scales_down() -> None:
    upright = draw(640, 400)
    straight = decode(encode(upright, quality=95), Resize("square", 60)).pixels
    for orientation in range(2, 9):
        data = encode(stored_for(upright, orientation), quality=95, exif=exif(orientation))
        decoded = decode(data, Resize("square", 60))
        assert close(decoded.pixels, straight, 1.0)
        assert (decoded.width, decoded.height) == (640, 400)


@pytest.mark.parametrize("size", [20, 40, 60, 100])
def test_scaling_down_inside_the_jpeg_decoder_hardly_changes_pixels(size: int) -> None:
    photo = encode(draw(500, 375), quality=90)
    whole = decode(photo, FULL).pixels
    for resize in (Resize("square", size), Resize("short_edge", size)):
        assert close(decode(photo, resize).pixels, resize_pixels(whole, resize), 3.5)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"optimize": True}]
)
def test_opencv_and_pillow_agree_on_a_jpeg(options: dict[str, Any]) -> None:
    data = encode(PICTURE, quality=92, **options)
    by_pillow = np.asarray(PilImage.open(io.BytesIO(data)))
    assert close(decode(data, FULL).pixels, by_pillow, 0.6)


def test_a_grey_jpeg_becomes_rgb() -> None:
    grey = PICTURE[:, :, 0]
    decoded = decode(encode(grey, quality=95), FULL)
    assert close(decoded.pixels, np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("resize", [FULL, Resize("square", 16)])
def test_a_cmyk_jpeg_has_the_colours_of_its_rgb_original(resize: Resize) -> None:
    # Pillow writes CMYK JPEGs the way Adobe does: inverted, with an Adobe marker.
    data = encode(PilImage.fromarray(PICTURE).convert("CMYK"), quality=95)
    assert b"Adobe" in data
    assert close(decode(data, resize).pixels, resize_pixels(PICTURE, resize), 3.0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_to_8_bits(kind: str) -> None:
    samples = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    samples[-1, -1] = 65535
    pixels = decode(encode(samples, kind), FULL).pixels
    assert np.abs(pixels[:, :, 0] - samples / 257).max() <= 0.5
    assert np.array_equal(pixels[:, :, 0], pixels[:, :, 2])


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_16_bit_rgb_is_scaled_to_8_bits(extension: str) -> None:
    done, data = cv2.imencode(extension, PICTURE[:, :, ::-1].astype(np.uint16) * 257)
    assert done
    assert close(decode(data.tobytes(), FULL).pixels, PICTURE, 1.0)


def test_transparent_pixels_lie_on_white_whatever_their_colour() -> None:
    rgba = np.dstack([PICTURE, np.full((64, 96), 255, np.uint8)])
    rgba[:32, :, 3] = 0
    rgba[32:40, :, 3] = 128
    for kind, options in (("PNG", {}), ("WEBP", WEBP), ("TIFF", {})):
        pixels = decode(encode(rgba, kind, **options), FULL).pixels
        assert (pixels[:32] == 255).all()
        assert np.array_equal(pixels[40:], PICTURE[40:])
        half = (PICTURE[32:40].astype(float) * 128 + 255 * 127) / 255
        assert np.abs(pixels[32:40] - half).max() <= 1


def test_grey_with_alpha_lies_on_white() -> None:
    data = encode(PilImage.merge("LA", [PilImage.new("L", (8, 8), 40), PilImage.new("L", (8, 8), 0)]), "PNG")
    assert (decode(data, FULL).pixels == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_colour_lies_on_white(kind: str) -> None:
    image = PilImage.new("P", (8, 8), 1)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.paste(0, (0, 0, 4, 8))
    pixels = decode(encode(image, kind, transparency=0), FULL).pixels
    assert (pixels[:, :4] == 255).all()
    assert (pixels[:, 4:] == [200, 0, 0]).all()


def test_a_palette_image_and_a_bilevel_image_become_rgb() -> None:
    palette = PilImage.fromarray(PICTURE).quantize(64)
    assert np.array_equal(decode(encode(palette, "PNG"), FULL).pixels, np.asarray(palette.convert("RGB")))
    bilevel = PilImage.fromarray(PICTURE).convert("1")
    assert set(np.unique(decode(encode(bilevel, "PNG"), FULL).pixels)) == {0, 255}


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_or_a_multi_page_file_gives_its_first_frame(kind: str) -> None:
    frames = [PilImage.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    options = {"save_all": True, "append_images": frames[1:]} | (WEBP if kind == "WEBP" else {})
    pixels = decode(encode(frames[0], kind, **options), FULL).pixels
    assert (pixels == [255, 0, 0]).all()


@pytest.mark.parametrize("kind", ["BMP", "PPM", "JPEG2000", "ICO"])
def test_other_formats_decode_too(kind: str) -> None:
    square = draw(64, 64)
    decoded = decode(encode(square, kind), FULL)
    assert close(decoded.pixels, square)
    assert decoded.format == kind.lower()


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (3, 2)])
@pytest.mark.parametrize("resize", [FULL, Resize("square", 32), Resize("short_edge", 16)])
def test_no_size_is_too_small_or_too_thin(size: tuple[int, int], resize: Resize) -> None:
    for kind in ("PNG", "JPEG"):
        decoded = decode(encode(PilImage.new("RGB", size, "teal"), kind), resize)
        assert (decoded.width, decoded.height) == size
        assert decoded.pixels.shape == (*resize.target(*size)[::-1], 3)
        assert np.ptp(decoded.pixels.reshape(-1, 3), axis=0).max() == 0


def test_a_short_edge_resize_of_a_strip_stays_small() -> None:
    assert Resize("short_edge", 288).target(1, 10_000) == (288, 288 * 8)
    assert Resize("short_edge", 288).target(640, 480) == (384, 288)
    assert Resize("short_edge", 288).target(480, 640) == (288, 384)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 600))
def test_a_long_edge_is_a_bound_that_keeps_the_form_and_enlarges_nothing(width: int, height: int, size: int) -> None:
    across, down = Resize("long_edge", size).target(width, height)
    assert max(across, down) == min(max(width, height), size)
    assert 1 <= across <= width
    assert 1 <= down <= height
    scale = min(size / max(width, height), 1)
    assert abs(across - width * scale) <= 1
    assert abs(down - height * scale) <= 1


@pytest.mark.parametrize("also", [Resize("long_edge", 40), Resize("long_edge", 500), Resize("square", 30), FULL])
@pytest.mark.parametrize("kind", ["JPEG", "CMYK", "PNG"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_second_size_changes_nothing_of_the_first_and_is_nearly_what_it_is_alone(
    also: Resize, kind: str, orientation: int
) -> None:
    upright = PilImage.fromarray(cv2.resize(PICTURE, (1920, 1280), interpolation=cv2.INTER_CUBIC))
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    upright.convert("CMYK" if kind == "CMYK" else "RGB").save(file, "PNG" if kind == "PNG" else "JPEG", exif=exif)
    data, square = file.getvalue(), Resize("square", 60)
    both = decode(data, square, also=also)
    assert both.also is not None
    assert np.array_equal(both.pixels, decode(data, square).pixels)
    assert close(both.also, decode(data, also).pixels, 1.0)
    assert decode(data, square).also is None


def test_up_to_the_detail_that_every_jpeg_is_decoded_with_a_second_size_takes_no_second_decoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    once = decode_module._decode_jpeg
    monkeypatch.setattr(decode_module, "_decode_jpeg", lambda *arguments: calls.append(1) or once(*arguments))
    for size in ((200, 150), (449, 448), (1000, 10), (3000, 2000)):
        data = encode(cv2.resize(PICTURE, size), "JPEG")
        calls.clear()
        decode(data, Resize("square", 60), also=decode_module.DETAIL)
        assert len(calls) == 1


@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([Resize("square", 24), Resize("short_edge", 24)]))
@settings(max_examples=60, deadline=None)
def test_a_flat_colour_stays_that_colour_at_every_size(width: int, height: int, resize: Resize) -> None:
    pixels = np.full((height, width, 3), (12, 200, 99), np.uint8)
    assert (resize_pixels(pixels, resize) == [12, 200, 99]).all()


def test_shrinking_averages_and_does_not_alias() -> None:
    checks = (np.indices((160, 160)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = resize_pixels(np.repeat(checks[:, :, None], 3, axis=2), Resize("square", 40))
    assert np.abs(pixels.astype(int) - 127).max() <= 1


def test_an_empty_file_is_unreadable() -> None:
    assert (problem(b"").status, problem(b"").message) == ("unreadable", "empty file")


def test_text_named_jpg_is_unsupported() -> None:
    found = problem(b"<html><body>404 Not Found</body></html>")
    assert found.status == "unsupported"
    assert "text" in found.message


@pytest.mark.parametrize("data", [b"\0" * 100, b"%PDF-1.4\n\xff", b"\x7fELF" + bytes(60), b"x"])
def test_bytes_of_no_known_image_format_are_unsupported(data: bytes) -> None:
    assert problem(data).status == "unsupported"


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("AVIF", {}), ("GIF", {}), ("BMP", {})],
)
def test_a_truncated_file_is_truncated_and_never_grey(kind: str, options: dict[str, Any], kept: float) -> None:
    noisy = np.random.default_rng(1).integers(0, 255, (80, 120, 3)).astype(np.uint8)
    data = encode(noisy, kind, **options)
    assert problem(data[: int(len(data) * kept)], resize=Resize("square", 32)).status == "truncated"


def test_a_jpeg_cut_at_any_byte_is_truncated() -> None:
    for kept in range(4, len(JPEG), 7):
        assert problem(JPEG[:kept]).status == "truncated", kept


def test_a_jpeg_that_lacks_only_its_end_mark_is_truncated_and_one_with_trailing_bytes_is_fine() -> None:
    assert problem(JPEG[:-2]).status == "truncated"
    assert np.array_equal(decode(JPEG + b"trailing" * 50, FULL).pixels, decode(JPEG, FULL).pixels)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def test_a_decompression_bomb_is_too_large_before_a_pixel_is_allocated() -> None:
    found = problem(png_header(100_000, 100_000))
    assert found.status == "too_large"
    assert "100,000 x 100,000" in found.message


def test_a_jpeg_bomb_is_too_large() -> None:
    start = JPEG.index(b"\xff\xc0")
    assert problem(JPEG[: start + 5] + b"\xff\xff\xff\xff" + JPEG[start + 9 :]).status == "too_large"


def test_the_limits_on_pixels_and_bytes_are_the_callers() -> None:
    assert problem(JPEG, Limits(max_pixels=96 * 64 - 1)).status == "too_large"
    assert problem(JPEG, Limits(max_bytes=len(JPEG) - 1)).status == "too_large"
    assert decode(JPEG, FULL, Limits(len(JPEG), 96 * 64)).width == 96


def test_a_progressive_jpeg_of_thousands_of_scans_is_refused() -> None:
    data = encode(PICTURE, progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert problem(data[:-2] + scan * 1000 + b"\xff\xd9").status == "unsupported"


@pytest.mark.parametrize("samples", [np.float32, np.int32])
def test_samples_without_a_known_white_are_unsupported(samples: type) -> None:
    found = problem(encode(PilImage.fromarray(np.ones((8, 8), samples)), "TIFF"))
    assert found.status == "unsupported"


def test_a_float_rgb_tiff_is_unsupported() -> None:
    _, data = cv2.imencode(".tiff", np.ones((8, 8, 3), np.float32))
    assert problem(data.tobytes()).status == "unsupported"


def test_a_damaged_exif_block_counts_as_upright() -> None:
    data = encode(PICTURE, exif=exif(6))
    start = data.index(b"Exif\0\0") + 6
    damaged = data[:start] + b"\xff" * 12 + data[start + 12 :]
    assert decode(damaged, FULL).pixels.shape == (64, 96, 3)


@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    st.floats(0, 1),
)
@settings(max_examples=250, deadline=None)
def test_damaged_bytes_never_raise_anything_but_an_image_problem(
    kind: str, changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(encode(draw(40, 30), kind))
    for place, value in changes:
        data[min(int(place * len(data)), len(data) - 1)] = value
    limits = Limits(max_pixels=4_000_000)
    for damaged in (bytes(data), bytes(data[: int(kept * len(data))])):
        with contextlib.suppress(ImageProblem):
            assert decode(damaged, Resize("square", 16), limits).pixels.shape == (16, 16, 3)


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"II*\0", b"GIF89a", b"BM", b"RIFF1234WEBP", b"P6"])
)
@settings(max_examples=200, deadline=None)
def test_random_bytes_behind_a_known_signature_are_an_image_problem_or_an_image(body: bytes, signature: bytes) -> None:
    with contextlib.suppress(ImageProblem):
        decode(signature + body, Resize("square", 8), Limits(max_pixels=1_000_000))


def test_decoding_is_deterministic() -> None:
    photo = encode(draw(500, 375), quality=85)
    first = decode(photo, Resize("square", 160)).pixels
    assert all(np.array_equal(first, decode(photo, Resize("square", 160)).pixels) for _ in range(3))


def test_even_pictures_are_nearly_flat_and_drawings_are_not() -> None:
    assert is_nearly_flat(np.full((32, 32, 3), 250, np.uint8))
    drawing = np.full((32, 32, 3), 255, np.uint8)
    drawing[10:12, 5:25] = 0
    assert not is_nearly_flat(drawing)


def test_the_python_api_accepts_paths_bytes_pillow_images_and_arrays(tmp_path: Any) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(PICTURE, "PNG"))
    for image in (path, str(path), f"file://{path}", path.read_bytes(), PilImage.open(path), PICTURE):
        assert np.array_equal(to_pixels(image), PICTURE)
    grey = PICTURE[:, :, 1]
    assert np.array_equal(to_pixels(grey)[:, :, 2], grey)
    assert (to_pixels(np.zeros((4, 4, 4), np.uint8)) == 255).all()
    turned = PilImage.open(io.BytesIO(encode(stored_for(PICTURE, 6), "PNG", exif=exif(6))))
    assert np.array_equal(to_pixels(turned), PICTURE)


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_an_array_that_is_no_image_is_a_usage_error(array: np.ndarray) -> None:
    with pytest.raises(UsageError, match="uint8"):
        to_pixels(array)


def test_avif_is_built_in() -> None:
    assert features.check("avif")
