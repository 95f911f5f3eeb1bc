"""Reading a tar's headers one after the other, without extracting: bounded memory, and an exact word on where it broke.

The standard library parses the header block. Walking is done here because `tarfile` ends silently at a damaged header
and keeps every member in memory.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_BLOCK = tarfile.BLOCKSIZE
_MAX_HEADER_BYTES = 2**20  # a long name or a pax record; beyond this the archive is damaged or hostile


class TarBrokenError(Exception):
    """The archive ends or is damaged at a byte that the message names."""


@dataclass(frozen=True)
class Member:
    """One entry: `name` with surrogate escapes, data at [offset, offset + size)."""

    name: str
    offset: int
    size: int
    kind: str  # "file", "folder", or what else it is, in words


_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.DIRTYPE: "folder",
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "named pipe",
    tarfile.GNUTYPE_SPARSE: "sparse file",
}
_NO_DATA = frozenset({"folder", "hard link", "symbolic link", "device", "named pipe"})


def tar_members(file: BinaryIO, seekable: bool = True) -> Iterator[Member]:
    """Yield the members in order. With `seekable` False data is skipped by reading, and the caller may read a member's
    data between two steps (it tells by `file.tell()`).

    Raises TarBrokenError when the archive is cut, a header is damaged, or the end mark is missing.
    """
    next_header, pax, whole_pax, long_name = 0, {}, {}, None
    while True:
        _skip_to(file, next_header, seekable)
        block = file.read(_BLOCK)
        if not block:
            end = file.seek(0, 2) if seekable else file.tell()
            raise TarBrokenError(f"it is cut at byte {end:,}" if end else "the file is empty")
        header = _parse(block, next_header)
        if header is None:
            return
        offset = next_header + _BLOCK
        if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE, *_LONG_TYPES):
            data = _read_extension(file, header, offset)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                long_name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif header.type == tarfile.XGLTYPE:
                whole_pax.update(_parse_pax(data, offset))
            elif header.type != tarfile.GNUTYPE_LONGLINK:
                pax = _parse_pax(data, offset)
            next_header = offset + _padded(header.size)
            continue
        member = _member(header, offset, {**whole_pax, **pax}, long_name)
        yield member
        next_header = offset + _padded(0 if member.kind in _NO_DATA else member.size)
        pax, long_name = {}, None


_LONG_TYPES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


def _member(header: tarfile.TarInfo, offset: int, pax: dict[str, str], long_name: str | None) -> Member:
    name = pax.get("path") or long_name or header.name
    kind = _KINDS.get(header.type, f"entry of type {header.type!r}")
    if any(key.startswith("GNU.sparse") for key in pax):
        kind = "sparse file"
        name = pax.get("GNU.sparse.name", name)
    elif header.type == tarfile.AREGTYPE and name.endswith("/"):
        kind = "folder"  # as very old archives write them
    try:
        size = int(pax.get("size", header.size))
    except ValueError as error:
        raise TarBrokenError(f"the size of {name!r} is damaged, at byte {offset:,}") from error
    return Member(name, offset, size, kind)


def _parse(block: bytes, position: int) -> tarfile.TarInfo | None:
    """The header in `block`; None at the end mark."""
    if len(block) < _BLOCK:
        raise TarBrokenError(f"it is cut inside a header, at byte {position + len(block):,}")
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        return None
    except tarfile.HeaderError as error:
        raise TarBrokenError(
            f"the header at byte {position:,} is damaged" if position else "it is not a tar"
        ) from error


def _read_extension(file: BinaryIO, header: tarfile.TarInfo, offset: int) -> bytes:
    if not 0 <= header.size <= _MAX_HEADER_BYTES:
        raise TarBrokenError(f"a name or pax header of {header.size:,} bytes at byte {offset:,} is damaged")
    data = file.read(header.size)
    if len(data) < header.size:
        raise TarBrokenError(f"it is cut inside a header, at byte {offset + len(data):,}")
    return data


def _parse_pax(data: bytes, offset: int) -> dict[str, str]:
    """Records of a pax header, each `LENGTH KEY=VALUE\\n` (POSIX.1-2001, pax Interchange Format)."""
    records, position = {}, 0
    while position < len(data) and data[position : position + 1] != b"\0":
        digits, _, _ = data[position : position + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = data[position : position + length]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not equals or len(record) < length:
            raise TarBrokenError(f"the pax header at byte {offset:,} is damaged")
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        position += length
    return records


def _skip_to(file: BinaryIO, position: int, seekable: bool) -> None:
    if seekable:
        file.seek(position)
        return
    missing = position - file.tell()
    while missing > 0:
        part = file.read(min(missing, 2**20))
        if not part:
            raise TarBrokenError(f"it is cut at byte {file.tell():,}")
        missing -= len(part)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
