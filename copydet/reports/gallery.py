"""Clusters of duplicates as one HTML page to look at: what is kept, what is dropped, and how surely.

Like the page of matches it asks nothing of the network and runs no text that came from a file name. A page is for eyes:
of many clusters it shows the largest and those with the weakest links, where mistakes are.
"""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow.parquet as pq

from copydet.reports.destination import replacing
from copydet.reports.page import json_for_script, page_around, plain_text
from copydet.reports.pictures import make_picture

THUMBNAIL_EDGE = 130  # pixels, the longer one
MOST_CLUSTERS = 400
MOST_MEMBERS = 12  # of a cluster: its representative, and those with the weakest links
MOST_PICTURE_BYTES = 64 << 20

_COLUMNS = (
    *("cluster_id", "image_id", "representative", "similarity", "score", "keep"),
    *("exact", "against", "uri", "size", "weakest", "diameter"),
)


def write_gallery(path: Path, clusters: Path, title: str, facts: str, read: Callable[[str], bytes | None]) -> None:
    """Write the page of the file `clusters` (clusters.parquet of a de-duplication job).

    `facts` is a line below the title. `read` returns the encoded image behind a URI, or None where it cannot be had.
    """
    chosen, total = _choose(clusters)
    wanted = [("cluster_id", "in", chosen)] if chosen else [("cluster_id", "<", 0)]
    rows = pq.read_table(clusters, columns=list(_COLUMNS), filters=wanted).to_pylist()
    head, tail = page_around("gallery", title, facts)
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write(head)
        pictures = _Pictures(file, read)
        data = {"total": total, "clusters": [_cluster(each, pictures) for each in _by_cluster(rows)]}
        file.write(f'<script type="application/json" id="data">{json_for_script(data)}</script>\n')
        file.write(tail)


def _choose(clusters: Path) -> tuple[list[int], int]:
    """Which clusters are shown, and how many there are."""
    table = pq.read_table(clusters, columns=["cluster_id", "size", "weakest"])
    number, first = np.unique(table["cluster_id"].to_numpy(), return_index=True)
    size, weakest = table["size"].to_numpy()[first], table["weakest"].to_numpy()[first]
    largest = np.argsort(-size, kind="stable")
    if len(number) > MOST_CLUSTERS:
        doubtful = np.argsort(weakest, kind="stable")[: MOST_CLUSTERS // 2]
        rest = largest[~np.isin(largest, doubtful)][: MOST_CLUSTERS - len(doubtful)]
        largest = np.concatenate([doubtful, rest])
    return number[largest].tolist(), len(number)


def _by_cluster(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["cluster_id"], []).append(row)
    return list(found.values())


def _cluster(rows: list[dict[str, Any]], pictures: "_Pictures") -> dict[str, Any]:
    first = rows[0]
    others = sorted(rows[1:], key=lambda row: (row["score"], row["image_id"]))
    shown = [first, *others[: MOST_MEMBERS - 1]]
    members = [
        {
            "id": plain_text(row["image_id"]),
            "uri": plain_text(row["uri"]),
            "image": pictures.write(row["uri"]),
            "representative": row is first,
            **{name: row[name] for name in ("keep", "exact", "against", "score", "similarity")},
        }
        for row in shown
    ]
    about = {name: first[name] for name in ("size", "weakest", "diameter")}
    return {"id": first["cluster_id"], **about, "members": members}


class _Pictures:
    """Writes thumbnails to the page as they are asked for, up to a bound."""

    def __init__(self, file: TextIO, read: Callable[[str], bytes | None]) -> None:
        self._file, self._read = file, read
        self._count = self._bytes = 0

    def write(self, uri: str) -> int | None:
        """The number of the image's script element, None where it has none."""
        data = self._read(uri) if uri and self._bytes < MOST_PICTURE_BYTES else None
        picture = None if data is None else make_picture(data, THUMBNAIL_EDGE)
        if picture is None:
            return None
        url = "data:image/webp;base64," + base64.b64encode(picture.webp).decode()
        self._file.write(f'<script type="text/plain" id="t{self._count}">{url}</script>\n')
        self._bytes += len(url)
        self._count += 1
        return self._count - 1
