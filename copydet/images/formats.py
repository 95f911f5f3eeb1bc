"""What the first bytes of a file say: the image format, and whether the file ends before its own structure does."""

from collections.abc import Callable

# First bytes of each format that copydet reads. `None` in a pattern's place is not needed: ISO media (AVIF, HEIF) and
# RIFF (WebP) are told by a second mark further on, see `sniff`.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"BM", "bmp"),
    (b"\0\0\1\0", "ico"),
    *((b"P%d" % kind, "ppm") for kind in range(1, 7)),
)
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")

# fmt: off
IMAGE_EXTENSIONS = frozenset({
    "jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "avif", "gif", "tif", "tiff", "bmp", "dib", "heic", "heif",
    "hif", "jp2", "j2k", "ico", "ppm", "pgm", "pbm", "pnm",
})
# fmt: on


def sniff(data: bytes) -> str | None:
    """Name the image format by the first bytes (32 are enough), or None."""
    if data[:4] == b"RIFF":
        return "webp" if data[8:12] == b"WEBP" else None
    if data[4:8] == b"ftyp":
        brands = (data[8:12], *(data[start : start + 4] for start in range(16, min(len(data), 64), 4)))
        if any(brand in _AVIF_BRANDS for brand in brands):
            return "avif"
        return "heif" if any(brand in _HEIF_BRANDS for brand in brands) else None
    return next((name for signature, name in _SIGNATURES if data.startswith(signature)), None)


def is_cut(data: bytes, name: str) -> bool:
    """Whether the file ends before its own structure says it should.

    Only asked about files that did not decode, to tell `truncated` from damaged; formats that carry neither a length
    nor an end mark are never called cut here.
    """
    check = _CUT.get(name)
    return check is not None and check(data)


def _riff_is_cut(data: bytes) -> bool:
    return len(data) < 12 or len(data) < int.from_bytes(data[4:8], "little") + 8


def _iso_media_is_cut(data: bytes) -> bool:
    position = 0
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if size == 0:
            return False
        if size < 8 or position + size > len(data):
            return True
        position += size
    return False


def _bmp_is_cut(data: bytes) -> bool:
    return len(data) < 26 or len(data) < int.from_bytes(data[2:6], "little")


_CUT: dict[str, Callable[[bytes], bool]] = {
    "jpeg": lambda data: b"\xff\xd9" not in data[-64:],
    "png": lambda data: b"IEND" not in data[-64:],
    "gif": lambda data: b"\x3b" not in data[-8:],
    "webp": _riff_is_cut,
    "avif": _iso_media_is_cut,
    "heif": _iso_media_is_cut,
    "bmp": _bmp_is_cut,
}
