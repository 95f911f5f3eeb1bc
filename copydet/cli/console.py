"""What commands say: data to stdout, everything else to stderr, and always what to do next."""

import json
import os
import shlex
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import click

from copydet.errors import CopydetError

SKIPPED = 3


class Interrupted(CopydetError):
    """Ctrl-C: the line says what is kept and how to go on."""

    exit_code = 130


@contextmanager
def if_interrupted(line: str) -> Iterator[None]:
    """Inside, Ctrl-C ends the command with this line: what is kept, and that the same command goes on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {line}") from None


def say(line: str) -> None:
    """Print a line for the user to stderr."""
    click.echo(line, err=True)


def say_next(line: str) -> None:
    """Tell a new user what to do after this command."""
    click.echo(f"Next: {line}", err=True)


def print_json(summary: Mapping[str, object]) -> None:
    """Print a summary to stdout as one JSON document."""
    click.echo(json.dumps(summary, indent=2, ensure_ascii=False, default=str))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns to stdout; numbers, dashes and their heads to the right. Nothing is ever cut off."""
    cells = [tuple(printable(cell) for cell in row) for row in (head, *rows)]
    columns = list(zip(*cells, strict=True))
    widths = [max(map(_width, column)) for column in columns]
    right = [bool(rows) and all(_is_number(cell) for cell in column[1:]) for column in columns]
    for row in cells:
        parts = []
        for cell, width, to_right in zip(row, widths, right, strict=True):
            space = " " * (width - _width(cell))
            parts.append(space + cell if to_right else cell + space)
        click.echo("  ".join(parts).rstrip())


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").replace("-", "").replace(" %", "").isdigit() or cell == "-"


def printable(text: str) -> str:
    """File names may hold line ends and codes that command a terminal: write those as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def _width(text: str) -> int:
    """Columns that the text takes on a terminal: East Asian characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def quote(path: str | os.PathLike[str]) -> str:
    """A path as the user's shell takes it."""
    return shlex.quote(os.fspath(path))


def count(number: int, noun: str) -> str:
    """`1 image`, `1,200 images`, `2 matches`, `3 queries`."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}{'es' if noun.endswith(('ch', 's')) else 's'}"


def by_status(skipped: Mapping[str, int]) -> str:
    """`3 unreadable, 1 truncated`: most frequent first."""
    return ", ".join(f"{n:,} {status}" for status, n in sorted(skipped.items(), key=lambda item: (-item[1], item[0])))


def size(amount: int) -> str:
    """Bytes as people read them: `4.0 GB`."""
    value = float(amount)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError
