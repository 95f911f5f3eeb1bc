"""The page: everything inside, nothing run that came from a name, sorted, lazy, usable by keyboard."""

import json
import re
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
import skimage
from PIL import Image
from records import HOSTILE, a_match, a_result

from copydet.records import QueryResult
from copydet.reports import page
from copydet.reports.page import THUMBNAIL_EDGE, make_thumbnail, open_page

PHOTO = (Path(skimage.data_dir) / "coffee.png").read_bytes()
CHROMIUM = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)
ATTACKS = (
    "<img src=x onerror=\"document.title='owned'\">.jpg",
    "</script><script>document.title='owned'</script>",
    "<!-- thumbnails, then rows -->",
    "{{facts}}",
    "\u2028'\"&amp;",
    HOSTILE,
)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to look at the page")


def photo(uri: str) -> bytes | None:
    return PHOTO if uri.endswith((".jpg", ".png")) else None


def write(path: Path, *results: QueryResult, title: str = "Matches", facts: str = "a against b") -> str:
    with open_page(path, title, facts, photo) as add:
        for result in results:
            add(result)
    return path.read_text(encoding="utf-8")


def data_of(text: str) -> dict[str, list[dict[str, object]]]:
    """What the page's script reads: the rows."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, list[dict[str, object]]] = json.loads(found[1])
    return data


def results_for(count: int) -> list[QueryResult]:
    return [
        a_result(
            a_match(query_id=f"q{n}", score=n / count, verdict="copy" if n % 3 else "no_match"), query_id=f"q{n:05}"
        )
        for n in range(count)
    ]


def test_a_page_holds_every_value_that_it_shows(tmp_path: Path) -> None:
    match = a_match(score=0.25, similarity=0.5, reference_overlap=0.75)
    (row,) = data_of(write(tmp_path / "m.html", a_result(match, uri="q.jpg")))["rows"]
    assert (row["id"], row["score"], row["verdict"]) == ("query.jpg", 0.25, "copy")
    (reference,) = row["references"]  # type: ignore[misc]
    assert (reference["id"], reference["similarity"], reference["reference_overlap"]) == ("reference.jpg", 0.5, 0.75)


def test_a_page_asks_nothing_of_the_network(tmp_path: Path) -> None:
    text = write(tmp_path / "m.html", a_result(a_match(reference_uri="https://example.org/a.gif"), uri="q.jpg"))
    assert "default-src 'none'" in text
    shown = re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.DOTALL)
    assert not re.findall(r"https?://", shown)
    assert not re.findall(r"(?:\bsrc|\bhref)\s*=\s*[\"']|@import|\burl\(", shown)


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_name_can_leave_its_place(tmp_path: Path, attack: str) -> None:
    plain = write(tmp_path / "plain.html", a_result(a_match(), uri="q.jpg"))
    match = a_match(query_id=attack, reference_id=attack, reference_uri=attack)
    result = a_result(match, query_id=attack, uri=attack, message=attack, status="truncated")
    text = write(tmp_path / "m.html", result, title=attack, facts=attack)
    for tag in ("<script", "</script", "<img", "<b>", "<!--"):
        assert text.count(tag) <= plain.count(tag), tag
    assert data_of(text)["rows"][0]["id"] == attack


def test_rows_are_sorted_by_score_and_failed_queries_come_last(tmp_path: Path) -> None:
    results = [*results_for(7), a_result(query_id="bad", status="unreadable", message="empty file")]
    rows = data_of(write(tmp_path / "m.html", *results))["rows"]
    assert [row["id"] for row in rows] == ["q00006", "q00005", "q00004", "q00003", "q00002", "q00001", "bad", "q00000"]
    assert next(row for row in rows if row["id"] == "bad")["message"] == "empty file"


def test_each_image_is_stored_once_and_small(tmp_path: Path) -> None:
    results = [a_result(a_match(reference_uri="hub.png"), query_id=f"q{n}", uri=f"{n}.jpg") for n in range(5)]
    text = write(tmp_path / "m.html", *results)
    assert text.count("data:image/webp;base64,") == 6
    assert len(text) < 150_000


def test_a_thumbnail_is_bounded_and_keeps_its_shape() -> None:
    tall = BytesIO()
    Image.new("RGB", (400, 2000), "red").save(tall, "PNG")
    for data, shape in ((PHOTO, (240, 160)), (tall.getvalue(), (48, 240))):
        thumbnail = make_thumbnail(data)
        assert thumbnail is not None
        with Image.open(BytesIO(thumbnail)) as image:
            assert image.size == shape
            assert max(image.size) == THUMBNAIL_EDGE
    assert make_thumbnail(b"no image") is None


def test_an_image_out_of_reach_is_said_and_not_fatal(tmp_path: Path) -> None:
    (row,) = data_of(write(tmp_path / "m.html", a_result(a_match(reference_uri="gone"), uri="")))["rows"]
    assert row["image"] is None
    assert row["references"][0]["image"] is None  # type: ignore[index]


def test_a_page_has_a_bound_and_says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_WITH_MATCH", 3)
    monkeypatch.setattr(page, "MOST_WITHOUT", 1)
    data = data_of(write(tmp_path / "m.html", *results_for(9)))
    assert len(data["rows"]) == 4
    assert data["left_out"] == 5


def test_an_error_leaves_the_earlier_page_and_nothing_else(tmp_path: Path) -> None:
    before = write(tmp_path / "m.html", a_result(a_match()))

    def fail() -> None:
        with open_page(tmp_path / "m.html", "t", "f", photo) as add:
            add(a_result())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "m.html").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.html"]


def look_at(path: Path, script: str = "") -> tuple[str, str]:
    """The document as Chromium has it after the page's scripts and `script` ran, and what the console said."""
    watched = path.with_suffix(".watched.html")
    watched.write_text(path.read_text(encoding="utf-8") + f"<script>{script}</script>", encoding="utf-8")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,1000", "--enable-logging=stderr"]
    command = [str(CHROMIUM), *options, "--virtual-time-budget=5000", "--dump-dom", watched.as_uri()]
    folder = f"--user-data-dir={path.parent / 'profile'}"
    done = subprocess.run([*command, folder], capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(said)


@needs_chromium
def test_in_a_browser_rows_appear_and_names_stay_text(tmp_path: Path) -> None:
    results = [
        a_result(a_match(reference_id=attack, reference_uri="r.png"), query_id=attack, uri="q.jpg")
        for attack in ATTACKS
    ]
    write(tmp_path / "m.html", *results, a_result(query_id="bad.jpg", status="truncated", message="cut off"))
    document, console = look_at(tmp_path / "m.html")
    assert not console
    assert "<title>Matches</title>" in document
    assert document.count('<article class="row"') == len(ATTACKS) + 1
    assert document.count('<span class="pill">copy</span>') == len(ATTACKS)
    assert "truncated: cut off" in document
    assert 'src="x"' not in document
    assert document.count('<img alt="') == 2 * len(ATTACKS) + 1  # the one that failed has a picture, too


@needs_chromium
def test_in_a_browser_thousands_of_rows_cost_no_more_than_a_screen(tmp_path: Path) -> None:
    write(tmp_path / "m.html", *results_for(3000))
    document, console = look_at(tmp_path / "m.html")
    assert not console
    assert document.count("<article") == 3000
    assert 5 < document.count("<figcaption") < 100


@needs_chromium
def test_in_a_browser_keys_walk_and_filters_filter(tmp_path: Path) -> None:
    write(tmp_path / "m.html", *results_for(30))
    document, console = look_at(
        tmp_path / "m.html",
        """
        const press = key => document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
        const shown = () => document.querySelectorAll("article:not([hidden])").length;
        const said = [];
        press("j"); press("j"); press("j"); press("k");
        said.push(document.activeElement.row.id);
        press("/");
        said.push(document.activeElement.id);
        document.activeElement.value = "Q0001"; document.activeElement.dispatchEvent(new Event("input"));
        said.push(shown());
        document.querySelector("#verdicts button").click();
        said.push(shown());
        document.getElementById("theme").click();
        said.push(document.documentElement.dataset.theme);
        document.title = said.join(" ");
        """,
    )
    assert not console
    found = re.search(r"<title>(.*?)</title>", document)
    assert found
    # q00028 is the second best of thirty; ten ids begin with q0001, and three of them (12, 15, 18) are no match.
    assert found[1].split()[:4] == ["q00028", "text", "10", "3"]
    assert found[1].split()[4] in ("dark", "light")
