"""Encoded bytes -> upright RGB pixels, within limits. Every way in which bytes can be bad ends as an ImageProblem.

Two roads give the same pixels: OpenCV for plain JPEG (twice as fast), Pillow for all else and whenever OpenCV says
no, so that Pillow alone decides what is truncated. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size by its own
transform where that is still no smaller than the resize and DETAIL want. Colours: alpha over white, CMYK by Pillow's
formula, embedded profiles ignored. Animations and multi-page files: the first frame or page.
"""

import io
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import UnidentifiedImageError

from copydet.errors import ImageProblem, UsageError
from copydet.images.files import MAX_BYTES, FilePart, check_bytes, local_path, read_within
from copydet.images.formats import is_cut, sniff
from copydet.images.resize import Resize, resize_pixels, resize_to
from copydet.records import Pixels

# What Pillow may open. Left out are formats that run other programs (EPS) and those without a signature.
_PIL_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "TIFF", "BMP", "DIB", "ICO", "PPM", "JPEG2000")
_FORMAT_NAMES = {"MPO": "jpeg", "DIB": "bmp"}
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# A JPEG is decoded at least so large, for what is done with it beside describing (local features): so its descriptor is
# the same with and without that, and one decoding serves both.
DETAIL = Resize("long_edge", 320)
_MAX_SCANS = 200  # of a progressive JPEG: a hostile file can hold thousands, each as dear as a whole decode
_FLAT = 3.0  # standard deviation, in grey levels, below which a picture has nothing to describe


@dataclass(frozen=True)
class Limits:
    """What is refused as `too_large`, before anything is allocated: bytes of the file, pixels of the image."""

    max_bytes: int = MAX_BYTES
    max_pixels: int = 250_000_000


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Decoded:
    """`pixels` are upright, RGB and resized; `width` and `height` are those of the upright original.

    `also` are pixels of a second size, where one was asked for. Both may be views of the same memory. `content` is a
    hash of the whole upright image, where one was asked for and the format is not decoded at a reduced size (JPEG is).
    """

    pixels: Pixels
    width: int
    height: int
    format: str
    also: Pixels | None = None
    content: bytes | None = None


def decode(
    data: bytes,
    resize: Resize,
    limits: Limits = DEFAULT_LIMITS,
    also: Resize | None = None,
    *,
    hashed: bool = False,
) -> Decoded:
    """Decode one image for `resize` and, where given, for `also`: the pixels for `resize` are the same either way.

    A JPEG is decoded a second time where `also` wants more pixels than that took, which up to DETAIL it does not.
    Raises ImageProblem: unreadable (empty, damaged), too_large, truncated, unsupported.
    """
    check_bytes(len(data), limits.max_bytes)
    if not data:
        raise ImageProblem("unreadable", "empty file")
    prepare_process()
    name = sniff(data)
    try:
        return _decode(data, limits, resize, also, hashed)
    except ImageProblem:
        raise
    except PilImage.DecompressionBombError as error:
        raise ImageProblem("too_large", str(error)) from error
    except MemoryError as error:
        raise ImageProblem("too_large", "not enough memory to decode it") from error
    except Exception as error:  # decoders of hostile bytes raise whatever they please
        raise _problem(data, name, error) from error


def _decode(data: bytes, limits: Limits, resize: Resize, also: Resize | None, hashed: bool) -> Decoded:
    content = None
    with PilImage.open(io.BytesIO(data), formats=_openable()) as image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise ImageProblem("too_large", f"{width:,} x {height:,} pixels, the limit is {limits.max_pixels:,}")
        name = _FORMAT_NAMES.get(str(image.format), str(image.format).lower())
        if name == "jpeg":
            pixels, detailed, width, height = _jpeg(data, image, resize, also)
        else:
            pixels = _to_rgb(image)
            # Pillow turns some formats upright itself (TIFF) and says so only after loading.
            detailed = pixels = _turn(pixels, _orientation(image))
            height, width = pixels.shape[:2]
            content = hash_pixels(pixels) if hashed else None
    # The target is that of the whole image: a reduced one rounds differently.
    second = resize_to(detailed, *also.target(width, height)) if also else None
    return Decoded(resize_to(pixels, *resize.target(width, height)), width, height, name, second, content)


def hash_pixels(pixels: Pixels) -> bytes:
    """xxh3-128 of a picture uint8 [h, w, 3], its size included."""
    digest = xxhash.xxh3_128(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _jpeg(data: bytes, image: PilImage.Image, resize: Resize, also: Resize | None) -> tuple[Pixels, Pixels, int, int]:
    """(upright pixels for `resize`, those for `also`, both perhaps scaled down; width and height of the upright whole).

    Both are the same where `also` wants no more than DETAIL. What `resize` gets never depends on `also`.
    """
    if "progressive" in image.info and data.count(b"\xff\xda") > _MAX_SCANS:
        raise ImageProblem("unsupported", f"a JPEG of more than {_MAX_SCANS} scans")
    orientation = _orientation(image)
    size = _turned(image.size, orientation)
    reduction = min(_reduction(size, each.target(*size)) for each in (resize, DETAIL))
    pixels = detailed = _turn(_decode_jpeg(data, image, reduction), orientation)
    if also and (finer := _reduction(size, also.target(*size))) < reduction:
        detailed = _turn(_decode_jpeg(data, image, finer), orientation)
    return pixels, detailed, *size


def _decode_jpeg(data: bytes, image: PilImage.Image, reduction: int) -> Pixels:
    """The JPEG at 1/`reduction` of its size, not turned. OpenCV refuses cut files; what it refuses, Pillow judges."""
    # libjpeg rounds a reduced size up and pads; to the nearest, what it stands for is off by half a pixel at most.
    across, down = (max(round(side / reduction), 1) for side in image.size)
    if image.mode in ("RGB", "L"):
        flags = _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if decoded is not None:
            return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)[:down, :across]  # type: ignore[return-value]
    with PilImage.open(io.BytesIO(data), formats=_openable()) as fresh:  # can be decoded once only
        width, height = fresh.size
        fresh.draft(None, (max(width // reduction, 1), max(height // reduction, 1)))
        return _to_rgb(fresh)[:down, :across]


def _reduction(size: tuple[int, int], target: tuple[int, int]) -> int:
    """The largest step at which the reduced image is still no smaller than the target, in both directions."""
    scale = min(size[0] / target[0], size[1] / target[1])
    return next(step for step in (8, 4, 2, 1) if scale >= step or step == 1)


def _orientation(image: PilImage.Image) -> int:
    """EXIF orientation 1-8; damaged EXIF counts as 1."""
    try:
        value = image.getexif().get(0x0112)
    except Exception:  # EXIF is parsed from hostile bytes
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation >= 5 else size


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Stored pixels -> upright pixels (EXIF 2.3, tag 0x0112)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _to_rgb(image: PilImage.Image) -> Pixels:
    """First frame as RGB uint8 [h, w, 3]: 16 bits scaled to 8, alpha over white. Raises ImageProblem for others."""
    image.load()
    if image.mode.startswith("I;16"):
        return _grey(_to_8_bits(np.asarray(image)))
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return _grey(_to_8_bits(np.asarray(image)))
    if image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "floating-point"
        raise ImageProblem("unsupported", f"{kind} samples: what is black and what is white is not said")
    if image.has_transparency_data:
        return _over_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _to_8_bits(samples: NDArray[Any]) -> Pixels:
    return ((samples.clip(0, 65535).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _grey(samples: Pixels) -> Pixels:
    return np.repeat(samples[:, :, None], 3, axis=2)


def _over_white(rgba: Pixels) -> Pixels:
    alpha = rgba[:, :, 3:].astype(np.uint16)
    return ((rgba[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def is_nearly_flat(pixels: Pixels) -> bool:
    """Whether the picture is so even that its descriptor says nothing."""
    _, deviation = cv2.meanStdDev(pixels[::2])  # every other row: half the time, and nothing hides between rows
    return float(deviation.max()) < _FLAT


def _problem(data: bytes, name: str | None, error: Exception) -> ImageProblem:
    if name is None:
        looks = (
            "it looks like text"
            if data[:512].isascii() and b"\0" not in data[:512]
            else f"starts with {data[:8].hex()}"
        )
        return ImageProblem("unsupported", f"not an image of a known format ({looks})")
    if is_cut(data, name) or "truncated" in str(error).lower():
        return ImageProblem("truncated", f"the {name} file ends too early")
    if name not in _readable_names():
        return ImageProblem("unsupported", f"{name} needs pip install 'copydet[heic]'")
    if isinstance(error, UnidentifiedImageError):
        # Pillow says no more than that; of TIFF there are many kinds that it doesn't know.
        status = "unsupported" if name == "tiff" else "unreadable"
        return ImageProblem(status, f"a damaged {name} header, or a kind of {name} that is not supported")
    return ImageProblem("unreadable", f"damaged {name}: {' '.join(str(error).split()) or type(error).__name__}")


@cache
def _openable() -> tuple[str, ...]:
    PilImage.init()
    return tuple(name for name in _PIL_FORMATS if name in PilImage.OPEN)


@cache
def _readable_names() -> frozenset[str]:
    return frozenset(_FORMAT_NAMES.get(name, name.lower()) for name in _openable())


@cache
def prepare_process() -> None:
    """Make this process's settings that decoding needs, once.

    OpenCV gets one thread (the loader has the threads), HEIC is read where pillow-heif is installed, and Pillow's own
    pixel limit and warnings are off: `Limits` is checked from the header before any pixel is allocated.
    """
    cv2.setNumThreads(1)
    PilImage.MAX_IMAGE_PIXELS = None
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def to_pixels(
    image: "str | Path | bytes | PilImage.Image | NDArray[np.uint8]", limits: Limits = DEFAULT_LIMITS
) -> Pixels:
    """Full-size upright RGB pixels of whatever the Python API accepts as an image.

    That is a path or URL, encoded bytes, a Pillow image, or a uint8 array [h, w], [h, w, 3] (RGB) or [h, w, 4] (RGBA).
    Raises UsageError for an array of another kind, ImageProblem for what can't be decoded.
    """
    if isinstance(image, str | Path):
        image = read_within(FilePart(local_path(str(image))), limits.max_bytes)
    if isinstance(image, bytes):
        return decode(image, Resize("none"), limits).pixels
    if isinstance(image, PilImage.Image):
        pixels = _to_rgb(image)
        return _turn(pixels, _orientation(image))
    if (
        image.dtype != np.uint8
        or image.ndim not in (2, 3)
        or image.size == 0
        or image.shape[2:] not in ((), (3,), (4,))
    ):
        raise UsageError(
            f"an image array is uint8 [h, w], [h, w, 3] or [h, w, 4], not {image.dtype} {list(image.shape)}"
        )
    if image.ndim == 2:
        return _grey(image)
    return _over_white(image) if image.shape[2] == 4 else np.ascontiguousarray(image)


__all__ = ["Decoded", "Limits", "Resize", "decode", "is_nearly_flat", "prepare_process", "resize_pixels", "to_pixels"]
