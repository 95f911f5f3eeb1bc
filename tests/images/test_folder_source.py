"""Folders: every file is listed, loops end, what cannot be read is a row; order and ids hold on every run."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copydet.errors import ImageProblem
from copydet.images.decode import Resize
from copydet.images.folder_source import count_files, folder_images
from copydet.images.loader import load
from copydet.images.names import original_name
from copydet.images.sources import count_images, list_images
from copydet.records import Image, ImageRow
from tests.images.conftest import JPEG
from tests.images.test_tar_source import make_tar

Photos = Callable[..., Path]


def images(folder: Path) -> list[Image]:
    return list(folder_images(str(folder), "here"))


def ids(folder: Path) -> list[str]:
    return [image.image_id for image in images(folder)]


def problem(image: Image) -> ImageProblem:
    with pytest.raises(ImageProblem) as caught:
        image.read()
    return caught.value


def rows(folder: Path) -> dict[str, ImageRow]:
    batches = load(images(folder), Resize("square", 16), batch_size=4, workers=2)
    return {row.image_id: row for batch in batches for row in batch.rows}


def test_every_regular_file_is_listed_whatever_its_name_and_hidden_ones_too(photos: Photos) -> None:
    folder = photos("b.jpg", "a.JPEG", "no_extension", "sub/c.jpg", ".hidden/d.jpg")
    (folder / "README.md").write_text("hello")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "empty.jpg").write_bytes(b"")
    statuses = {name: row.status for name, row in rows(folder).items()}
    assert statuses == {
        ".DS_Store": "unsupported",
        ".hidden/d.jpg": "ok",
        "README.md": "unsupported",
        "a.JPEG": "ok",
        "b.jpg": "ok",
        "empty.jpg": "unreadable",
        "no_extension": "ok",
        "sub/c.jpg": "ok",
    }


_NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@given(st.sets(st.tuples(_NAMES, _NAMES), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_any_names_are_listed_in_bytewise_order_with_ids_that_lead_back(
    tmp_path_factory: pytest.TempPathFactory, paths: set[tuple[bytes, bytes]]
) -> None:
    folder = os.fsencode(tmp_path_factory.mktemp("names"))
    for parent, name in paths:
        os.makedirs(os.path.join(folder, b"d" + parent), exist_ok=True)
        with open(os.path.join(folder, b"d" + parent, b"f" + name), "wb") as file:
            file.write(JPEG)
    listed = ids(Path(os.fsdecode(folder)))
    assert [os.fsencode(original_name(name)) for name in listed] == sorted(b"d" + p + b"/f" + n for p, n in paths)
    assert all(name.encode() for name in listed)
    assert ids(Path(os.fsdecode(folder))) == listed


def test_an_empty_folder_lists_nothing(tmp_path: Path) -> None:
    assert ids(tmp_path) == []
    assert count_files(str(tmp_path)) == 0


def test_a_symlink_loop_ends_and_gives_a_row(photos: Photos) -> None:
    folder = photos("a/b/x.jpg")
    (folder / "a/b/up").symlink_to(folder / "a")
    (folder / "self").symlink_to(folder)
    listed = {image.image_id: image for image in images(folder)}
    assert list(listed) == ["a/b/up/", "a/b/x.jpg", "self/"]
    assert problem(listed["a/b/up/"]).status == "unsupported"
    assert "link" in problem(listed["self/"]).message


def test_folders_that_link_to_each_other_are_listed_once(photos: Photos, tmp_path: Path) -> None:
    folder = photos("x.jpg")
    for name in ("p", "q"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jpg").write_bytes(JPEG)
        for other in ("p", "q"):
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    (folder / "link").symlink_to(tmp_path / "p")
    (folder / "outward").symlink_to(tmp_path)
    listed = ids(folder)
    assert [name for name in listed if name.endswith(".jpg")] == ["link/p.jpg", "link/to_q/q.jpg", "x.jpg"]
    assert len(listed) < 15


def test_a_link_to_a_file_is_an_image_and_a_dangling_one_a_row(photos: Photos) -> None:
    folder = photos("a.jpg")
    (folder / "b.jpg").symlink_to(folder / "a.jpg")
    (folder / "gone.jpg").symlink_to(folder / "nowhere")
    (folder / "me.jpg").symlink_to(folder / "me.jpg")
    statuses = {name: row.status for name, row in rows(folder).items()}
    assert statuses == {"a.jpg": "ok", "b.jpg": "ok", "gone.jpg": "unreadable", "me.jpg": "unreadable"}


def test_pipes_and_sockets_give_rows_and_never_hang(photos: Photos) -> None:
    folder = photos("a.jpg")
    os.mkfifo(folder / "pipe.jpg")
    statuses = {name: row.status for name, row in rows(folder).items()}
    assert statuses == {"a.jpg": "ok", "pipe.jpg": "unsupported"}


_AS_ANOTHER_USER = """
import os, sys
from copydet.images.folder_source import folder_images
from copydet.images.loader import load_image
from copydet.images.decode import Resize
for image in folder_images(sys.argv[1], "here"):
    load_image(image, Resize("square", 8))  # imports all that is imported late: the other user may not see this Python
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for image in folder_images(sys.argv[1], "here"):
    row = load_image(image, Resize("square", 8)).row
    print(row.image_id, row.status)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_unreadable_folder_and_an_unreadable_file_give_a_row_each(photos: Photos) -> None:
    with tempfile.TemporaryDirectory() as outside:  # pytest's own folders are closed to other users
        folder = Path(outside, "photos")
        shutil.copytree(photos("a.jpg", "locked/b.jpg", "secret.jpg"), folder)
        Path(outside).chmod(0o755)
        (folder / "locked").chmod(0o700)
        (folder / "secret.jpg").chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-c", _AS_ANOTHER_USER, str(folder)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])},
        )
    assert done.stdout.splitlines() == ["a.jpg ok", "locked/ unreadable", "secret.jpg unreadable"], done.stderr


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_gives_a_row(photos: Photos) -> None:
    folder = photos("a.jpg", "locked/b.jpg")
    (folder / "locked").chmod(0)
    try:
        assert {name: row.status for name, row in rows(folder).items()} == {"a.jpg": "ok", "locked/": "unreadable"}
    finally:
        (folder / "locked").chmod(0o700)


def test_a_folder_that_vanishes_while_it_is_listed_gives_a_row(photos: Photos) -> None:
    folder = photos("a.jpg", "b/c.jpg")
    listing = folder_images(str(folder), "here")
    assert next(listing).image_id == "a.jpg"
    (folder / "b/c.jpg").unlink()
    (folder / "b").rmdir()
    (row,) = listing
    assert (row.image_id, problem(row).status) == ("b/", "unreadable")


def test_folders_nest_deeper_than_python_calls_may(tmp_path: Path) -> None:
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        Path("x.jpg").write_bytes(JPEG)
        os.chdir(here)
        assert ids(tmp_path) == ["d/" * 1200 + "x.jpg"]
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # too deep for shutil.rmtree, and so for pytest


def test_shards_in_a_folder_give_their_images_and_side_files_no_rows(photos: Photos) -> None:
    folder = photos("z.jpg")
    make_tar(folder / "00000.tar", ("a.jpg", JPEG), ("b.jpg", JPEG))
    (folder / "00000_stats.json").write_text("{}")
    (folder / "alone_stats.json").write_text("{}")
    assert ids(folder) == ["00000.tar/a", "00000.tar/b", "alone_stats.json", "z.jpg"]
    assert count_images([str(folder)]) is None


def test_counting_equals_listing(photos: Photos) -> None:
    folder = photos("a.jpg", "b/c.jpg", "b/d.txt")
    assert count_images([str(folder)]) == len(ids(folder)) == 3


def test_a_folder_behind_a_url_lists_the_same_names_as_a_local_one(photos: Photos) -> None:
    folder = photos("b.jpg", "a/c.jpg", "a.jpg", "a/.d.jpg")
    memory = fsspec.filesystem("memory")
    for path in folder.rglob("*.jpg"):
        memory.pipe(f"/bucket/{path.relative_to(folder)}", path.read_bytes())
    try:
        remote = list(list_images(["memory://bucket"]))
        assert [image.image_id for image in remote] == ids(folder)
        assert [image.read() for image in remote] == [image.read() for image in images(folder)]
        assert remote[0].uri == "memory://bucket/a.jpg"
    finally:
        memory.rm("/bucket", recursive=True)
