"""Matches as one HTML page to look at: each query beside its best references, and why they match.

The page asks nothing of the network (its own content policy forbids it) and runs no text that came from a file name:
what is shown travels as JSON with `<`, `>` and `&` escaped and reaches the document as text nodes only. Pictures are
small WebP files in script elements that the browser does not look at until their row comes into view, and each is
stored once. Outlines and overlays are drawn by the browser from the transform, so every match that has one shows them;
larger pictures and difference maps are made for the best matches only, or the page would have no bound.
"""

import base64
import html
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, TextIO

from copydet.progress import show
from copydet.records import Match, QueryResult, Verdict
from copydet.reports.destination import check_destination, replacing
from copydet.reports.pictures import Picture, closer_look, geometry, make_picture, paint, webp
from copydet.verification.outline import ALL
from copydet.verification.words import transform_in_words

THUMBNAIL_EDGE = 160  # pixels, the longer one
LARGE_EDGE = 400  # of the pictures of matches that have evidence
DIFFERENCE_EDGE = 320
REFERENCES_A_QUERY = 4

# A page is for eyes. Beyond these the table is the place; the page says what it leaves out.
MOST_WITH_MATCH = 10_000
MOST_WITHOUT = 2_000
MOST_EVIDENCE = 300  # matches with a difference map and larger pictures, those of the highest score
MOST_PICTURE_BYTES = 96 << 20  # of thumbnails; from the half on, only matches get them

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
    head, tail = page_around("page", title, facts)
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write(head)
        page = _Page(file, read)
        yield page.add
        page.finish()
        file.write(tail)


def page_around(name: str, title: str, facts: str) -> tuple[str, str]:
    """What stands before and behind the pictures and the data of the page `name`, with style and script inside. The
    style of another page than the first one adds to that one's.
    """
    folder = files("copydet.reports").joinpath("templates")
    styles = dict.fromkeys(("page.css", f"{name}.css"))
    page, script, *style = (
        folder.joinpath(file).read_text(encoding="utf-8") for file in (f"{name}.html", f"{name}.js", *styles)
    )
    title, facts = (html.escape(plain_text(each)) for each in (title, facts))
    parts = {"title": title, "facts": facts, "style": "".join(style), "script": script}
    # Split first and filled in in one pass, so that no part is read for a mark or for others.
    head, tail = (re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], half) for half in page.split(_MARK))
    return head, tail


@dataclass
class _Page:
    """A page being written: thumbnails go to the file as they come, rows are kept until they can be sorted by score."""

    file: TextIO
    read: Callable[[str], bytes | None]
    rows: list["_Row"] = field(default_factory=list)
    thumbnails: dict[str, dict[str, Any] | None] = field(default_factory=dict)  # URI -> number and size of the original
    pictures: int = 0
    picture_bytes: int = 0
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
        image = self._thumbnail(result.uri, matched)
        shown = {
            "id": plain_text(result.query_id),
            "uri": plain_text(result.uri),
            "image": image,
            "status": result.status,
            "message": plain_text(result.message),
            "score": float(best[0].score) if best else None,
            "verdict": _verdict(result),
            "more": len(result.matches) - len(best),
            "references": [self._reference(match, image) for match in best],
        }
        self.rows.append(_Row(shown, result.uri, best))

    def _reference(self, match: Match, query: dict[str, Any] | None) -> dict[str, Any]:
        image = self._thumbnail(match.reference_uri, match.verdict != "no_match")
        return {
            "id": plain_text(match.reference_id),
            "uri": plain_text(match.reference_uri),
            "image": image,
            "score": float(match.score),
            "verdict": match.verdict,
            "similarity": float(match.similarity),
            "normalised": float(match.normalised_similarity),
            "query_view": match.query_view,
            "reference_view": match.reference_view,
            "inliers": None if match.inliers is None else int(match.inliers),
            "query_overlap": None if match.query_overlap is None else float(match.query_overlap),
            "reference_overlap": None if match.reference_overlap is None else float(match.reference_overlap),
            **_shown_geometry(match, query, image),
        }

    def _thumbnail(self, uri: str, matched: bool) -> dict[str, Any] | None:
        """Write the image's thumbnail unless it is there; its number and the original's size, None if it has none."""
        if uri not in self.thumbnails:
            bound = MOST_PICTURE_BYTES if matched else MOST_PICTURE_BYTES // 2
            data = self.read(uri) if uri and self.picture_bytes < bound else None
            self.thumbnails[uri] = self._write_picture(None if data is None else make_picture(data, THUMBNAIL_EDGE))
        return self.thumbnails[uri]

    def _write_picture(self, picture: Picture | None) -> dict[str, Any] | None:
        if picture is None:
            return None
        return {"n": self._write(picture.webp), "width": picture.size[0], "height": picture.size[1]}

    def _write(self, encoded: bytes) -> int:
        """Write one WebP file to the page; the number of its script element."""
        url = "data:image/webp;base64," + base64.b64encode(encoded).decode()
        self.file.write(f'<script type="text/plain" id="t{self.pictures}">{url}</script>\n')
        self.picture_bytes += len(url)
        self.pictures += 1
        return self.pictures - 1

    def finish(self) -> None:
        """Write the evidence of the best matches, and all rows."""
        self.rows.sort(key=lambda row: (-float(row.shown["score"] or 0.0), str(row.shown["id"])))
        evidence = self._write_evidence()
        data = {
            "rows": [row.shown for row in self.rows],
            "failed": self.failed,
            "left_out": self.left_out,
            "evidence": evidence,
        }
        self.file.write(f'<script type="application/json" id="data">{json_for_script(data)}</script>\n')

    def _write_evidence(self) -> dict[str, int]:
        """Difference maps and larger pictures for the best MOST_EVIDENCE verified matches; how many there are."""
        wanted = [
            (row, reference, match)
            for row in self.rows
            for reference, match in zip(row.shown["references"], row.matches, strict=True)
            if "lay" in reference and match.verdict != "no_match"
        ]
        best = wanted[:MOST_EVIDENCE]
        if best:
            with show("drawing evidence", len(best)) as progress:
                for row, reference, match in best:
                    self._write_evidence_of(row, reference, match)
                    progress.advance(1)
        return {"made": len(best), "of": len(wanted)}

    def _write_evidence_of(self, row: "_Row", reference: dict[str, Any], match: Match) -> None:
        query, original = self.read(row.uri), self.read(match.reference_uri)
        if query is None or original is None or match.transform is None:
            return
        # An image has one record, whichever rows show it, so a larger picture is made once.
        for image, data in ((row.shown["image"], query), (reference["image"], original)):
            if "large" not in image and (picture := make_picture(data, LARGE_EDGE)) is not None:
                image["large"] = self._write(picture.webp)
        seen = closer_look(query, original, match.transform, DIFFERENCE_EDGE, match.part or ALL)
        if seen is not None:
            number = self._write(webp(paint(seen.aligned.difference)))
            reference["difference"] = {"n": number, "box": _rounded(seen.box), "changed": round(seen.changed, 4)}


@dataclass(frozen=True)
class _Row:
    """A query's row: what the page's script gets, and what its evidence is made of."""

    shown: dict[str, Any]
    uri: str
    matches: list[Match]


def _shown_geometry(match: Match, query: dict[str, Any] | None, reference: dict[str, Any] | None) -> dict[str, Any]:
    """What the page draws and says of the transform; nothing where there is none, or a size is not known."""
    if match.transform is None or query is None or reference is None:
        return {}
    sizes = (query["width"], query["height"]), (reference["width"], reference["height"])
    words = transform_in_words(match.transform, *sizes, match.query_overlap, match.reference_overlap, match.part)
    shared = geometry(match.transform, *sizes, match.part or ALL)
    if shared is None:
        return {"words": words}
    return {
        "words": words,
        "in_query": _rounded(shared.in_query.ravel()),
        "in_reference": _rounded(shared.in_reference.ravel()),
        "part": match.part is not None,
        "lay": [float(f"{value:.7g}") for value in shared.lay.ravel()],
    }


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]


def _verdict(result: QueryResult) -> Verdict | str:
    """The verdict of the query's best match; the status of a query that failed."""
    if result.status != "ok":
        return result.status
    best = min(result.matches, key=lambda match: match.rank, default=None)
    return best.verdict if best else "no_match"


def json_for_script(data: object) -> str:
    """JSON that cannot end the script element that it stands in, nor open a comment or a tag."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def plain_text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()
