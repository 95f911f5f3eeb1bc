"""`copydet dedup` as users meet it: files, lines, exit codes."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from copydet.images.sources import list_images

Run = Callable[..., Any]


@pytest.fixture
def collection(tmp_path: Path, photos: Path) -> Path:
    """Three photos; one of them again, byte by byte and smaller; and what is no image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("astronaut.png", "chelsea.png", "coffee.png"):
        image = Image.open(photos / name).convert("RGB")
        image.thumbnail((300, 300))
        image.save(folder / name)
    (folder / "again.png").write_bytes((folder / "coffee.png").read_bytes())
    coffee = Image.open(folder / "coffee.png")
    coffee.resize((coffee.width * 2 // 3, coffee.height * 2 // 3)).save(folder / "small.jpg", quality=85)
    (folder / "zero.jpg").touch()
    return folder


def test_a_folder_gives_lists_tables_and_a_page(tmp_path: Path, collection: Path, run: Run) -> None:
    output = tmp_path / "out"
    done = run("dedup", collection, "--output", output, "--precision", 0.9)
    assert done.code == 0
    assert done.out == ""
    assert "5 images: 3 to keep, 2 to drop (1 exact copy, 1 near duplicate) in 1 cluster, the largest of 3" in done.err
    assert "1 image skipped (1 unreadable): neither kept nor dropped" in done.err
    assert f"Next: open {output}/gallery.html" in done.err
    assert (output / "keep.txt").read_text().split() == ["again.png", "astronaut.png", "chelsea.png"]
    assert (output / "drop.txt").read_text().split() == ["coffee.png", "small.jpg"]
    columns = pq.read_schema(output / "clusters.parquet").names
    assert columns[:6] == ["cluster_id", "image_id", "representative", "similarity", "score", "keep"]
    page = (output / "gallery.html").read_text()
    assert "again.png" in page
    assert "astronaut.png" not in page


def test_strict_says_that_images_were_skipped_and_json_prints_the_summary(
    tmp_path: Path, collection: Path, run: Run
) -> None:
    done = run("dedup", collection, "--output", tmp_path / "out", "--strict", "--json")
    assert done.code == 3
    assert json.loads(done.out) == json.loads((tmp_path / "out" / "summary.json").read_text())


@pytest.mark.parametrize(("form", "ending"), [("webdataset", "tar"), ("parquet", "parquet")])
def test_kept_images_are_copied_as_they_are(tmp_path: Path, collection: Path, run: Run, form: str, ending: str) -> None:
    arguments = ("dedup", collection, "--output", tmp_path / "out", "--precision", 0.9)
    done = run(*arguments, "--write-kept", tmp_path / "kept", "--kept-format", form)
    assert done.code == 0, done.err
    assert "3 images copied" in done.err
    file = tmp_path / "kept" / f"000000.{ending}"
    copied = [image.read() for image in list_images([str(file)])]
    assert copied == [(collection / name).read_bytes() for name in ("again.png", "astronaut.png", "chelsea.png")]
    if form == "webdataset":
        with tarfile.open(file) as tar:
            assert tar.getnames()[:2] == ["000000000.png", "000000000.json"]
    before = file.stat().st_mtime_ns
    assert run(*arguments, "--write-kept", tmp_path / "kept", "--kept-format", form).code == 0
    assert file.stat().st_mtime_ns == before
    (collection / "chelsea.png").unlink()
    done = run(*arguments, "--write-kept", tmp_path / "kept2", "--kept-format", form)
    assert done.code == 1
    assert "1 of the images to keep could not be copied" in done.err
    assert "chelsea.png" in done.err


def test_a_collection_without_duplicates_and_an_empty_one_say_what_to_do(
    tmp_path: Path, collection: Path, run: Run
) -> None:
    (tmp_path / "empty").mkdir()
    done = run("dedup", tmp_path / "empty", "--output", tmp_path / "none")
    assert done.code == 0
    assert "no image could be read" in done.err
    for name in ("again.png", "small.jpg"):
        (collection / name).unlink()
    done = run("dedup", collection, "--output", tmp_path / "out")
    assert done.code == 0
    assert "no two images are duplicates at this precision" in done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--keep", "beauty DESC"), "cannot order by 'beauty DESC'"),
        (("--keep", "width; DROP TABLE images"), "cannot order by"),
        (("--precision", "0.99999"), "precision 0.99999 is not between"),
        (("--ignore", "nowhere.csv"), "cannot read nowhere.csv"),
        (("--against", "nowhere"), "no such source: nowhere"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_judged(
    tmp_path: Path, collection: Path, run: Run, arguments: tuple[str, str], says: str
) -> None:
    done = run("dedup", collection, "--output", tmp_path / "out", *arguments)
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err
    assert not list((tmp_path / "out").glob("work/pairs-*"))


def test_what_is_in_the_output_folder_already_is_not_overwritten(tmp_path: Path, collection: Path, run: Run) -> None:
    done = run("dedup", collection, "--output", collection)
    assert done.code == 2
    assert "holds other files; name a new folder" in done.err
