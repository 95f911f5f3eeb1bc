"""The page: everything inside, nothing run that came from a name, sorted, lazy, usable by keyboard."""

import base64
import html
import json
import re
import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage
from PIL import Image
from records import HOSTILE, a_match, a_result

from copydet.images.decode import to_pixels
from copydet.images.edits import EDITS
from copydet.records import QueryResult
from copydet.reports import page
from copydet.reports.page import DIFFERENCE_EDGE, LARGE_EDGE, THUMBNAIL_EDGE, open_page
from copydet.reports.pictures import make_picture
from copydet.verification.outline import apply, frame

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
    match = a_match(reference_uri="hub.png", transform=None)
    results = [a_result(match, query_id=f"q{n}", uri=f"{n}.jpg") for n in range(5)]
    text = write(tmp_path / "m.html", *results)
    assert text.count("data:image/webp;base64,") == 6
    assert len(text) < 100_000


def test_the_bytes_of_thumbnails_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_PICTURE_BYTES", 20_000)
    results = [a_result(a_match(transform=None, reference_uri="hub.png"), uri=f"{n}.jpg") for n in range(40)]
    text = write(tmp_path / "m.html", *results)
    assert 15_000 < sum(map(len, re.findall(r"data:image/webp;base64,[\w/+=]+", text))) < 26_000
    assert len(data_of(text)["rows"]) == 40


def test_a_thumbnail_is_bounded_and_keeps_its_shape_and_size() -> None:
    tall = BytesIO()
    Image.new("RGB", (400, 2000), "red").save(tall, "PNG")
    for data, shape, size in ((PHOTO, (160, 107), (600, 400)), (tall.getvalue(), (32, 160), (400, 2000))):
        picture = make_picture(data, THUMBNAIL_EDGE)
        assert picture is not None
        assert picture.size == size
        with Image.open(BytesIO(picture.webp)) as image:
            assert image.size == shape
    assert make_picture(b"no image", THUMBNAIL_EDGE) is None


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


def edited(name: str, strength: float = 0.6, seed: int = 0) -> tuple[bytes, tuple[float, ...]]:
    """A copy of PHOTO with a word written over it, encoded, and its transform as Match has it."""
    pixels = to_pixels(PHOTO)
    copy = EDITS[name](pixels, strength, np.random.default_rng(seed), [pixels[::-1]])
    written = copy.pixels.copy()
    cv2.putText(written, "copied", (written.shape[1] // 3, written.shape[0] // 2), cv2.FONT_HERSHEY_SIMPLEX, 2, 255, 6)
    out = BytesIO()
    Image.fromarray(written).save(out, "PNG")
    assert copy.homography is not None
    return out.getvalue(), tuple(float(value) for value in np.linalg.inv(copy.homography).ravel())


def write_copies(path: Path, *names: str) -> str:
    """A page of edited copies, one a row, with their true transforms."""
    images = {"original.png": PHOTO}
    results = []
    for number, name in enumerate(names):
        uri = f"{number}-{name}.png"
        images[uri], transform = edited(name)
        match = a_match(
            query_id=uri, reference_uri="original.png", transform=transform, score=1 - number / (len(names) + 1)
        )
        other = a_match(query_id=uri, score=0.01, verdict="no_match", transform=None, rank=2, reference_id="other")
        results.append(a_result(match, other, query_id=uri, uri=uri))
    with open_page(path, "Copies", "edited against original", images.get) as add:
        for result in results:
            add(result)
    return path.read_text(encoding="utf-8")


def picture_of(text: str, number: int) -> Image.Image:
    found = re.search(rf'id="t{number}">data:image/webp;base64,([^<]+)<', text)
    assert found
    return Image.open(BytesIO(base64.b64decode(found[1])))


def test_a_verified_match_has_outlines_words_and_a_difference_map(tmp_path: Path) -> None:
    text = write_copies(tmp_path / "m.html", "hflip", "crop", "paste")
    flipped, cropped, pasted = (row["references"][0] for row in data_of(text)["rows"])  # type: ignore[index]
    assert flipped["words"] == "the whole reference, mirrored"
    assert cropped["words"].startswith("cropped to ")
    assert pasted["words"].startswith("the whole reference")
    assert sorted(flipped["in_query"]) == pytest.approx([0, 0, 0, 0, 1, 1, 1, 1], abs=0.01)
    assert sorted(cropped["in_query"]) == pytest.approx([0, 0, 0, 0, 1, 1, 1, 1], abs=0.01)
    assert max(cropped["in_reference"]) - min(cropped["in_reference"]) < 0.99
    for reference in (flipped, cropped, pasted):
        difference = reference["difference"]
        assert 0.005 < difference["changed"] < 0.15  # the word, and little else
        picture = picture_of(text, difference["n"])
        assert picture.mode == "RGBA"
        assert max(picture.size) <= DIFFERENCE_EDGE
        assert picture_of(text, reference["image"]["large"]).size == (LARGE_EDGE, 267)


def test_evidence_is_made_for_the_best_matches_and_the_page_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "MOST_EVIDENCE", 2)
    data = data_of(write_copies(tmp_path / "m.html", "hflip", "crop", "jpeg", "rotate"))
    assert data["evidence"] == {"made": 2, "of": 4}
    assert ["difference" in row["references"][0] for row in data["rows"]] == [True, True, False, False]  # type: ignore[index]
    assert all("lay" in row["references"][0] for row in data["rows"])  # type: ignore[index]


@pytest.mark.parametrize("transform", [(0.0,) * 9, (float("nan"),) * 9, (1.0, 0.0, 1e6, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)])
def test_a_transform_that_shows_nothing_is_no_trouble(tmp_path: Path, transform: tuple[float, ...]) -> None:
    match = a_match(transform=transform, reference_uri="r.png")
    (row,) = data_of(write(tmp_path / "m.html", a_result(match, uri="q.png")))["rows"]
    assert row["references"][0]["words"] == "nothing of the reference is seen"  # type: ignore[index]


def look_at(
    path: Path, script: str = "", screenshot: Path | None = None, width: int = 1300, clock: str = "virtual"
) -> tuple[str, str]:
    """The document as Chromium has it after the page's scripts and `script` ran, and what the console said.

    A virtual clock jumps to the next thing to happen, so nothing is missed; a real one is for timings.
    """
    watched = path.with_suffix(".watched.html")
    watched.write_text(path.read_text(encoding="utf-8") + f"<script>{script}</script>", encoding="utf-8")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},1000"]
    options += ["--enable-logging=stderr", f"--user-data-dir={path.parent / 'profile'}"]
    options += ["--virtual-time-budget=5000"] if clock == "virtual" else []
    wanted = "--dump-dom" if screenshot is None else f"--screenshot={screenshot}"
    command = [str(CHROMIUM), *options, wanted, watched.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(said)


def answers(path: Path, script: str, clock: str = "virtual") -> list[str]:
    """What `script` appended to `said`, after a look at the page that left the console silent."""
    helpers = """
        const said = [];
        const press = (key, at = document.activeElement) =>
            at.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
        const type = (id, value) => { const box = document.getElementById(id); box.value = value;
            box.dispatchEvent(new Event("input")); };
        const chosen = () => document.querySelector('.row[aria-selected=true] .id').textContent;
        const all = query => document.querySelectorAll(query).length;
    """
    document, console = look_at(path, f"{{{helpers}{script}; document.title = said.join(' | ')}}", clock=clock)
    assert not console
    found = re.search(r"<title>(.*?)</title>", document)
    assert found
    return html.unescape(found[1]).split(" | ")


@needs_chromium
def test_in_a_browser_rows_appear_and_names_stay_text(tmp_path: Path) -> None:
    results = [
        a_result(a_match(reference_id=attack, reference_uri="r.png"), query_id=attack, uri="q.jpg")
        for attack in ATTACKS
    ]
    write(tmp_path / "m.html", *results, a_result(query_id="bad.jpg", status="truncated", message="cut off"))
    walk = "for (let i = 0; i < 9; i++) press('j');"
    document, console = look_at(tmp_path / "m.html", f"const press = key => acts[key](); {walk}")
    assert not console
    assert "<title>Matches</title>" in document
    assert document.count('role="option"') == len(ATTACKS) + 1
    assert document.count('<span class="pill" style="--tone: var(--copy);">copy</span>') == len(ATTACKS)
    assert "truncated: cut off" in document
    assert 'src="x"' not in document


@needs_chromium
def test_in_a_browser_ten_thousand_rows_cost_no_more_than_a_screen(tmp_path: Path) -> None:
    matches = [a_match(score=n / 10_000, transform=None) for n in range(10_000)]
    write(tmp_path / "m.html", *(a_result(match, query_id=f"q{n:05}") for n, match in enumerate(matches)))
    said = answers(
        tmp_path / "m.html",
        """
        said.push(all(".row") > 5 && all(".row") < 40, performance.getEntriesByName("first row")[0].startTime);
        const begun = performance.now();
        press("End"); said.push(chosen());
        press("Home"); said.push(chosen());
        for (let i = 0; i < 50; i++) press("j");
        said.push(chosen());
        type("text", "q00012"); said.push(chosen(), all(".row"));
        type("text", ""); said.push(all(".row") < 40, performance.now() - begun);
        """,
        clock="real",
    )
    first, later = float(said.pop(1)), float(said.pop())
    assert 0 < first < 5000  # milliseconds, on a busy machine; a quiet one takes a tenth
    assert 0 < later < 5000
    assert said == ["true", "q00000", "q09999", "q09949", "q00012", "1", "true"]


@needs_chromium
def test_in_a_browser_keys_walk_and_filters_filter(tmp_path: Path) -> None:
    write(tmp_path / "m.html", *results_for(30))
    said = answers(
        tmp_path / "m.html",
        """
        press("j"); press("ArrowDown"); press("j"); press("k"); press("ArrowUp");
        said.push(chosen());
        press("/");
        said.push(document.activeElement.id);
        type("text", "Q0001"); said.push(seen.length);
        document.querySelector("#verdicts button").click(); said.push(seen.length);
        type("text", ""); document.querySelector("#verdicts button").click(); type("least", 50); said.push(seen.length);
        press("Escape"); said.push(document.activeElement.id);
        press("?"); said.push(document.getElementById("keys").hidden);
        const before = isDark(); document.getElementById("theme").click(); said.push(before !== isDark());
        """,
    )
    # q00028 is the second best of thirty; ten ids begin with q0001, and three of them (12, 15, 18) are no match.
    assert said == ["q00028", "text", "10", "3", "15", "list", "true", "true"]


@needs_chromium
def test_in_a_browser_evidence_opens_and_its_layers_toggle(tmp_path: Path) -> None:
    write_copies(tmp_path / "m.html", "hflip", "crop", "perspective")
    said = answers(
        tmp_path / "m.html",
        """
        const head = () => document.querySelector("#evidence h2").textContent;
        const layers = () => [all("#evidence .laid:not([hidden])"), all("#evidence .heat:not([hidden])")].join();
        said.push(head(), all("#evidence figure"), layers());
        press("o"); said.push(layers());
        press("d"); said.push(layers());
        press("o"); press("d"); said.push(layers());
        press("l"); said.push(head(), all("#evidence figure"));
        press("h"); press("Enter"); said.push(document.body.className, document.activeElement.id);
        press("j"); said.push(head().split(" ")[0]);
        press("Escape"); said.push(document.body.className, document.activeElement.id);
        const box = document.querySelector("#evidence .wiped"), place = box.getBoundingClientRect();
        box.setPointerCapture = () => {};
        const at = {clientX: place.left + place.width / 4, buttons: 1, bubbles: true, cancelable: true};
        box.dispatchEvent(new PointerEvent("pointerdown", at));
        said.push(document.querySelector("#evidence input[type=range]").value);
        type("text", "perspective"); said.push(seen.length, head().includes("in perspective"));
        """,
    )
    assert said == [
        *("the whole reference, mirrored", "4", "1,1", "0,1", "0,0", "1,1", "No match", "2"),
        *("open", "evidence", "cropped", "", "list", "25", "1", "true"),
    ]


@needs_chromium
def test_in_a_browser_the_overlay_lies_where_the_copy_is(tmp_path: Path) -> None:
    """The corners of the reference, laid over the query by the style sheet, are where the transform has them."""
    names = ("hflip", "crop", "perspective", "paste_turned", "quarter_turn")
    rows = data_of(write_copies(tmp_path / "m.html", *names))["rows"]
    said = answers(
        tmp_path / "m.html",
        """
        for (const row of seen) {
            const box = document.querySelector("#evidence .laid").parentElement, img = box.querySelector(".laid img");
            box.fit();
            const whole = box.getBoundingClientRect(), moved = img.getBoundingClientRect();
            said.push((moved.left - whole.left) / whole.width, (moved.top - whole.top) / whole.height,
                (moved.right - whole.left) / whole.width, (moved.bottom - whole.top) / whole.height);
            press("j");
        }
        """,
    )
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        query, original = row["image"], row["references"][0]["image"]  # type: ignore[index]
        _, transform = edited(name)
        back = np.linalg.inv(np.array(transform).reshape(3, 3))
        corners = apply(back, frame((original["width"], original["height"])))
        shares = (corners + 0.5) / (query["width"], query["height"])  # type: ignore[index]
        found = [float(value) for value in said[4 * number : 4 * number + 4]]
        assert found == pytest.approx([*shares.min(axis=0), *shares.max(axis=0)], abs=0.01), name


def write_part(path: Path) -> dict[str, Any]:
    """A page of a query that shares its top left quarter with the reference; what it holds of the match."""
    pixels = to_pixels(PHOTO)
    query = pixels[::-1].copy()
    height, width = (side // 2 for side in pixels.shape[:2])
    query[:height, :width] = pixels[:height, :width]
    out = BytesIO()
    Image.fromarray(query).save(out, "PNG")
    match = a_match(query_id="q", reference_uri="r", transform=(1.0, 0, 0, 0, 1, 0, 0, 0, 1), part=(0.0, 0.0, 0.5, 0.5))
    with open_page(path, "Part", "one against one", {"r": PHOTO, "q": out.getvalue()}.get) as add:
        add(a_result(match, query_id="q", uri="q"))
    return data_of(path.read_text(encoding="utf-8"))["rows"][0]["references"][0]  # type: ignore[index,no-any-return]


def test_where_only_a_part_is_shared_it_is_outlined_and_looked_at(tmp_path: Path) -> None:
    reference = write_part(tmp_path / "m.html")
    for outline in ("in_query", "in_reference"):
        assert sorted(reference[outline]) == pytest.approx([0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5], abs=0.01)
    assert reference["words"] == "a part of 25 %, pasted at a quarter of the query"
    assert reference["difference"]["box"] == pytest.approx([0, 0, 0.5, 0.5], abs=0.02)
    assert reference["difference"]["changed"] < 0.01


@needs_chromium
def test_in_a_browser_only_the_shared_part_is_laid_over_the_query(tmp_path: Path) -> None:
    write_part(tmp_path / "m.html")
    clip = "said.push(document.querySelector('#evidence .laid img').style.clipPath)"
    (clipped,) = answers(tmp_path / "m.html", clip)
    numbers = [float(value) for value in re.findall(r"[\d.]+", clipped)]
    assert clipped.startswith("polygon(")
    assert sorted(numbers) == pytest.approx([0, 0, 0, 0, 50, 50, 50, 50], abs=0.2)


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize(("width", "script"), [(1440, ""), (1440, "theme.click(); open()"), (600, "open()")])
def test_in_a_browser_the_page_is_drawn(tmp_path: Path, width: int, script: str) -> None:
    write_copies(tmp_path / "m.html", "perspective", "crop")
    _, console = look_at(tmp_path / "m.html", script, tmp_path / "m.png", width)
    assert not console
    with Image.open(tmp_path / "m.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] == width
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 2000  # photos, not a blank page
    if "theme" in script:
        assert np.median(pixels) < 60
