"""Ids from file names, keys from member names, plain values from metadata."""

import datetime
import decimal
import json
import os
import re
from collections.abc import Mapping

_ESCAPE = re.compile(r"\\(\\|x[0-9a-f]{2})")


def readable_name(name: str | bytes) -> str:
    """A file name as valid UTF-8, reversibly: bytes that are not UTF-8 become `\\xff`, a backslash is doubled.

    `name` is raw bytes or a str with surrogate escapes (os.fsdecode).
    """
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
    return raw.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def original_name(readable: str) -> str:
    """The file name that `readable_name` was given, as a str with surrogate escapes."""

    def raw(found: re.Match[bytes]) -> bytes:
        return b"\\" if found[1] == b"\\" else bytes.fromhex(found[1][1:].decode())

    encoded = readable.encode("utf-8", "surrogateescape")
    return re.sub(_ESCAPE.pattern.encode(), raw, encoded).decode("utf-8", "surrogateescape")


def split_key(member: str) -> tuple[str, str]:
    """(key, extension) by WebDataset's rule, cut at the last part's first dot: `a.b/c.d.jpg` -> (`a.b/c`, `d.jpg`).

    A name without a dot, or a hidden one (`.name`), is its own key with an empty extension.
    """
    folder, slash, base = member.rpartition("/")
    stem, dot, extension = base.partition(".")
    return (folder + slash + stem, extension) if stem and dot else (member, "")


def extension_of(name: str) -> str:
    """The part after the last dot of the last path part, in lower case, without the dot."""
    return os.path.splitext(name.rpartition("/")[2])[1][1:].lower()


def plain_value(value: object) -> object:
    """A metadata value as a plain Python scalar; what is nested becomes JSON text, an integer beyond 64 bits a str."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float | bytes | datetime.date | datetime.time | datetime.timedelta | decimal.Decimal):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def plain_values(metadata: Mapping[str, object]) -> dict[str, object]:
    return {str(plain_value(str(name))): plain_value(value) for name, value in metadata.items()}
