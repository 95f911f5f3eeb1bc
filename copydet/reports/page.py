"""Matches as one HTML page to look at: each query beside its best references, everything inside the file.

The page asks nothing of the network (its own content policy forbids it) and runs no text that came from a file name:
what is shown travels as JSON with `<`, `>` and `&` escaped and reaches the document as text nodes only. Thumbnails are
small WebP pictures in script elements that the browser does not look at until their row comes into view, and each image
is stored once.
"""

import base64
import html
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TextIO

from copydet.records import Match, QueryResult, Verdict
from copydet.reports.destination import check_destination, replacing

THUMBNAIL_EDGE = 240  # pixels, the longer one
REFERENCES_A_QUERY = 4

# A page is for eyes. Beyond these the table is the place; the page says how many it leaves out.
MOST_WITH_MATCH = 10_000
MOST_WITHOUT = 2_000

_MARK = "<!-- thumbnails, then rows -->"


def check_page(path: Path) -> None:
    """Refuse, before any work is done, a page that could not be written at the end: UsageError."""
    check_destination(path)


@contextmanager
def open_page(
    path: Path, title: str, facts: str, read: Callable[[str], bytes | None]
) -> Iterator[Callable[[QueryResult], None]]:
    """Yield a function that takes one query's result after the other; the page is there when the block has ended well.

    `facts` is a line below the title. `read` returns the encoded image behind a URI, or None where it cannot be had.
    """
    check_page(path)
    template = files("copydet.reports").joinpath("templates/page.html").read_text(encoding="utf-8")
    template = template.replace("{{title}}", html.escape(_text(title))).replace("{{facts}}", html.escape(_text(facts)))
    head, tail = template.split(_MARK)
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write(head)
        page = _Page(file, read)
        yield page.add
        page.write_rows()
        file.write(tail)


@dataclass
class _Page:
    """A page being written: thumbnails go to the file as they come, rows are kept until they can be sorted by score."""

    file: TextIO
    read: Callable[[str], bytes | None]
    rows: list[dict[str, object]] = field(default_factory=list)
    thumbnails: dict[str, int | None] = field(default_factory=dict)  # URI -> number of its script element
    shown: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    failed: int = 0
    left_out: int = 0

    def add(self, result: QueryResult) -> None:
        if result.status != "ok":
            self.failed += 1
        matched = any(match.verdict != "no_match" for match in result.matches)
        if self.shown[matched] >= (MOST_WITH_MATCH if matched else MOST_WITHOUT):
            self.left_out += 1
            return
        self.shown[matched] += 1
        best = sorted(result.matches, key=lambda match: match.rank)[:REFERENCES_A_QUERY]
        self.rows.append(
            {
                "id": _text(result.query_id),
                "uri": _text(result.uri),
                "image": self._thumbnail(result.uri),
                "status": result.status,
                "message": _text(result.message),
                "score": float(best[0].score) if best else None,
                "verdict": _verdict(result),
                "more": len(result.matches) - len(best),
                "references": [self._reference(match) for match in best],
            }
        )

    def _reference(self, match: Match) -> dict[str, object]:
        return {
            "id": _text(match.reference_id),
            "uri": _text(match.reference_uri),
            "image": self._thumbnail(match.reference_uri),
            "score": float(match.score),
            "verdict": match.verdict,
            "similarity": float(match.similarity),
            "normalised": float(match.normalised_similarity),
            "query_view": match.query_view,
            "reference_view": match.reference_view,
            "inliers": None if match.inliers is None else int(match.inliers),
            "query_overlap": None if match.query_overlap is None else float(match.query_overlap),
            "reference_overlap": None if match.reference_overlap is None else float(match.reference_overlap),
        }

    def _thumbnail(self, uri: str) -> int | None:
        """Write the image's thumbnail to the page unless it is there; its number, or None where there is no image."""
        if uri not in self.thumbnails:
            data = self.read(uri) if uri else None
            picture = None if data is None else make_thumbnail(data)
            self.thumbnails[uri] = None if picture is None else len(self.thumbnails)
            if picture is not None:
                url = "data:image/webp;base64," + base64.b64encode(picture).decode()
                self.file.write(f'<script type="text/plain" id="t{self.thumbnails[uri]}">{url}</script>\n')
        return self.thumbnails[uri]

    def write_rows(self) -> None:
        self.rows.sort(key=lambda row: (-float(row["score"] or 0.0), str(row["id"])))  # type: ignore[arg-type]
        data = {"rows": self.rows, "failed": self.failed, "left_out": self.left_out}
        self.file.write(f'<script type="application/json" id="data">{_json_for_script(data)}</script>\n')


def make_thumbnail(data: bytes) -> bytes | None:
    """A WebP picture of at most THUMBNAIL_EDGE pixels a side, or None where the image cannot be decoded."""
    from PIL import Image

    from copydet.errors import ImageProblem
    from copydet.images.decode import Resize, decode

    try:
        pixels = decode(data, Resize("short_edge", THUMBNAIL_EDGE)).pixels
    except ImageProblem:
        return None
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_EDGE, THUMBNAIL_EDGE))
    out = BytesIO()
    picture.save(out, "WEBP", quality=70)
    return out.getvalue()


def _verdict(result: QueryResult) -> Verdict | str:
    """The verdict of the query's best match; the status of a query that failed."""
    if result.status != "ok":
        return result.status
    best = min(result.matches, key=lambda match: match.rank, default=None)
    return best.verdict if best else "no_match"


def _json_for_script(data: object) -> str:
    """JSON that cannot end the script element that it stands in, nor open a comment or a tag."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()
