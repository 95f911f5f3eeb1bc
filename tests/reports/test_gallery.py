"""The gallery of clusters: everything inside, nothing run that came from a name, the largest and the most doubtful."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage
from test_page import ATTACKS, answers, needs_chromium

from copydet.reports import gallery
from copydet.reports.gallery import MOST_MEMBERS, write_gallery

PHOTO = (Path(skimage.data_dir) / "coffee.png").read_bytes()


def a_row(cluster: int, name: str, **changed: Any) -> dict[str, Any]:
    return {
        **{"cluster_id": cluster, "image_id": name, "representative": "first.png", "similarity": 0.8, "score": 0.95},
        **{"keep": False, "exact": "", "against": False, "uri": f"/photos/{name}", "size": 2, "weakest": 0.95},
        **{"diameter": 1, **changed},
    }


def a_cluster(number: int, size: int = 2, weakest: float = 0.95) -> list[dict[str, Any]]:
    about = {"size": size, "weakest": weakest}
    first = a_row(number, f"{number}-first.png", keep=True, score=1.0, **about)
    return [first, *(a_row(number, f"{number}-{other}.png", **about) for other in range(1, size))]


def write(folder: Path, rows: list[dict[str, Any]], title: str = "Duplicates") -> str:
    empty = pa.Table.from_pylist([a_row(0, "")]).slice(0, 0)
    pq.write_table(pa.Table.from_pylist(rows) if rows else empty, folder / "clusters.parquet")
    write_gallery(
        folder / "gallery.html", folder / "clusters.parquet", title, "facts", lambda uri: PHOTO if uri else None
    )
    return (folder / "gallery.html").read_text(encoding="utf-8")


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_each_image_has_its_picture_inside_and_nothing_is_fetched(tmp_path: Path) -> None:
    text = write(tmp_path, [*a_cluster(0), *a_cluster(1, 3)])
    assert text.count("data:image/webp;base64,") == 5
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text)
    assert "default-src 'none'" in text


def test_names_are_data_and_never_markup(tmp_path: Path) -> None:
    text = write(tmp_path, [a_row(0, name) for name in ATTACKS], title=ATTACKS[1])
    assert "<script>document.title" not in text
    assert [each["id"] for each in data_of(text)["clusters"][0]["members"]][:1] == [ATTACKS[0]]


def test_of_many_clusters_the_largest_and_the_most_doubtful_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "MOST_CLUSTERS", 4)
    rows = [row for number in range(8) for row in a_cluster(number, 2 + (number == 3) * 5, 0.9 - 0.01 * number)]
    data = data_of(write(tmp_path, rows))
    assert data["total"] == 8
    assert {each["id"] for each in data["clusters"]} == {7, 6, 3, 0}


def test_a_large_cluster_shows_its_weakest_members(tmp_path: Path) -> None:
    rows = a_cluster(0, 40)
    rows[30]["score"] = 0.5
    (shown,) = data_of(write(tmp_path, rows))["clusters"]
    assert len(shown["members"]) == MOST_MEMBERS
    assert [each["id"] for each in shown["members"]][:2] == ["0-first.png", "0-30.png"]
    assert shown["size"] == 40


def test_no_clusters_and_no_originals_are_a_page_too(tmp_path: Path) -> None:
    assert data_of(write(tmp_path, []))["clusters"] == []
    rows = [{**row, "uri": ""} for row in a_cluster(0)]
    assert all(each["image"] is None for each in data_of(write(tmp_path, rows))["clusters"][0]["members"])


@needs_chromium
def test_in_a_browser_clusters_appear_are_sorted_and_filtered_and_names_stay_text(tmp_path: Path) -> None:
    write(tmp_path, [*a_cluster(0), *a_cluster(1, 3, 0.6), *[a_row(2, name, weakest=0.7) for name in ATTACKS[:2]]])
    script = """
        const shown = () => [...document.querySelectorAll(".cluster h2")].map(each => each.textContent).join();
        said.push(shown());
        document.querySelectorAll("#orders button")[1].click();
        said.push(shown());
        type("text", "1-FIRST");
        said.push(shown(), all(".member"), document.title);
    """
    said = answers(tmp_path / "gallery.html", script)
    assert said == ["Cluster 1,Cluster 0,Cluster 2", "Cluster 1,Cluster 2,Cluster 0", "Cluster 1", "3", "Duplicates"]
