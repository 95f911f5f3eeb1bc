"""Tars: WebDataset's keys, metadata, hostile names, broken archives; nothing is extracted and nothing goes missing."""

import contextlib
import io
import itertools
import json
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copydet.errors import ImageProblem
from copydet.images.sources import list_images
from copydet.images.tar_members import TarBrokenError, tar_members
from copydet.images.tar_source import tar_images
from copydet.records import Image
from tests.images.conftest import JPEG, draw, encode

PNG = encode(draw(seed=3), "PNG")


def make_tar(path: Path, *members: tuple[str | tarfile.TarInfo, bytes], mode: Any = "w", **options: Any) -> Path:
    with tarfile.open(path, mode, **options) as tar:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def images(path: Path) -> list[Image]:
    return list(tar_images(str(path), "here"))


def problem(image: Image) -> ImageProblem:
    with pytest.raises(ImageProblem) as caught:
        image.read()
    return caught.value


def test_an_image_is_read_by_its_key_from_any_thread_in_any_order(tmp_path: Path) -> None:
    data = {f"{number:03d}": encode(draw(seed=number)) for number in range(20)}
    listed = images(make_tar(tmp_path / "a.tar", *((f"{key}.jpg", body) for key, body in data.items())))
    assert [image.image_id for image in listed] == list(data)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda image: image.read(), reversed(listed)))
    assert read == list(reversed(data.values()))


def test_members_that_share_a_key_give_one_image_with_metadata(tmp_path: Path) -> None:
    fields = {"width": 5, "nsfw": 0.25, "tags": ["a", "b"], "ok": True, "none": None}
    path = make_tar(
        tmp_path / "a.tar",
        ("x/1.json", json.dumps(fields).encode()),
        ("x/1.jpg", JPEG),
        ("x/1.txt", " a cat, café\n".encode()),
        ("x/1.cls", b"7"),
        ("x/1.npy", b"\x93NUMPY"),
        ("x/2.png", PNG),
    )
    first, second = images(path)
    assert (first.image_id, first.read()) == ("x/1", JPEG)
    assert first.metadata == {**fields, "tags": '["a", "b"]', "txt": "a cat, café", "cls": 7}
    assert (second.image_id, second.read(), second.metadata) == ("x/2", PNG, {})


def test_a_json_that_does_not_parse_is_kept_as_text(tmp_path: Path) -> None:
    (image,) = images(make_tar(tmp_path / "a.tar", ("1.jpg", JPEG), ("1.json", b"{broken"), ("1.cls", b"cat")))
    assert image.metadata == {"json": "{broken", "cls": "cat"}


def test_a_key_without_an_image_gives_a_row_that_says_so(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", ("1.json", b"{}"), ("1.npy", b"x"), ("README", b"hello"), ("2.jpg", JPEG))
    lonely, readme, image = images(path)
    assert (lonely.image_id, problem(lonely).status) == ("1", "unsupported")
    assert "1.json, 1.npy" in problem(lonely).message
    assert (readme.image_id, problem(readme).status) == ("README", "unsupported")
    assert image.read() == JPEG


def test_a_key_with_several_images_gives_a_row_for_each(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", ("1.input.png", PNG), ("1.target.jpg", JPEG), ("1.txt", b"pair"))
    assert [(image.image_id, image.metadata) for image in images(path)] == [
        ("1.input.png", {"txt": "pair"}),
        ("1.target.jpg", {"txt": "pair"}),
    ]


def test_an_image_is_known_by_its_content_where_the_name_does_not_say_it(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", ("1.bin", JPEG), ("2", PNG), ("3.jpg", b"text"))
    assert [(image.image_id, image.read()) for image in images(path)] == [("1", JPEG), ("2", PNG), ("3", b"text")]


@pytest.mark.parametrize("name", ["../../etc/passwd.jpg", "/etc/passwd.jpg", "a/../../b.jpg", ".."])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_member_name_that_leads_out_becomes_a_row_and_is_never_read(tmp_path: Path, name: str, mode: str) -> None:
    path = make_tar(tmp_path / ("a.tar" if mode == "w" else "a.tar.gz"), (name, JPEG), ("b.jpg", JPEG), mode=mode)
    hostile, image = images(path)
    assert (hostile.image_id, problem(hostile).status) == (name, "unsupported")
    assert image.read() == JPEG
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_become_rows(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("b.jpg")
    info.type, info.linkname = kind, "/etc/passwd"
    odd, image = images(make_tar(tmp_path / "a.tar", (info, b""), ("c.jpg", JPEG)))
    assert (odd.image_id, problem(odd).status) == ("b.jpg", "unsupported")
    assert image.image_id == "c"


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_odd_names_survive(tmp_path: Path, format_: int) -> None:
    names = [
        "d" * 120 + "/" + "é" * 90 + ".jpg",
        "日本/猫 🐈.jpg",
        "bad-\udcff-byte.jpg",
        "./dotted.jpg",
        "back\\slash.jpg",
    ]
    path = make_tar(tmp_path / "a.tar", *((name, JPEG) for name in names), format=format_)
    ids = [image.image_id for image in images(path)]
    assert ids == [
        "d" * 120 + "/" + "é" * 90,
        "日本/猫 🐈",
        "bad-\\xff-byte",
        "dotted",
        "back\\\\slash",
    ]
    assert all(image.read() == JPEG for image in images(path))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz"])
def test_a_compressed_tar_gives_the_same_images(tmp_path: Path, name: str) -> None:
    members = [("1.jpg", JPEG), ("1.txt", b"one"), ("2.png", PNG), ("README", b"hello")]
    plain = images(make_tar(tmp_path / "plain.tar", *members))
    kind = {"gz": "w:gz", "gz2": "w:bz2", "xz": "w:xz"}.get(name[-2:], "w:bz2" if name.endswith("bz2") else "w:gz")
    packed = images(make_tar(tmp_path / name, *members, mode=kind))
    assert [(i.image_id, i.metadata) for i in packed] == [(i.image_id, i.metadata) for i in plain]
    assert [image.read() for image in packed[:2]] == [JPEG, PNG]


@pytest.mark.parametrize("cut", [100, 512, 700, 1536, 2000, 1024 + 512 * (len(JPEG) // 512 + 1)])
def test_a_truncated_tar_gives_what_was_read_and_one_row_saying_where_it_broke(tmp_path: Path, cut: int) -> None:
    path = make_tar(tmp_path / "a.tar", *((f"{number}.jpg", JPEG) for number in range(3)))
    path.write_bytes(path.read_bytes()[:cut])
    *read, last = images(path)
    assert last.image_id == "a.tar"
    assert problem(last).status == ("truncated" if read else "unreadable")
    assert f"byte {cut:,}" in problem(last).message
    whole = -(-len(JPEG) // 512) * 512 + 512
    assert len(read) == -(-max(cut - 511, 0) // whole)
    for number, image in enumerate(read):
        assert image.image_id == str(number)
        if (number + 1) * whole <= cut:
            assert image.read() == JPEG
        elif number * whole + 512 + len(JPEG) > cut:
            assert problem(image).status == "truncated"


def test_every_cut_of_every_kind_of_tar_ends_in_a_row_and_never_raises(tmp_path: Path) -> None:
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz"), ("a.tar.bz2", "w:bz2")):
        path = make_tar(tmp_path / name, ("1.jpg", JPEG), ("1.json", b'{"a": 1}'), ("2.jpg", JPEG), mode=mode)
        whole = path.read_bytes()
        for cut in range(0, len(whole), max(len(whole) // 40, 1)):
            path.write_bytes(whole[:cut])
            listed = images(path)
            assert listed, (name, cut)
            if [image.image_id for image in listed] != ["1", "2"]:  # else only what follows the last member is gone
                assert problem(listed[-1]).status in ("truncated", "unreadable")


def test_a_damaged_header_inside_a_tar_is_said_and_not_skipped(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", ("1.jpg", JPEG), ("2.jpg", JPEG), ("3.jpg", JPEG))
    data = bytearray(path.read_bytes())
    second = 512 + -(-len(JPEG) // 512) * 512
    data[second + 20] ^= 0xFF
    path.write_bytes(data)
    first, broken = images(path)
    assert first.read() == JPEG
    assert f"the header at byte {second:,} is damaged" in problem(broken).message


def test_something_else_named_tar_is_unreadable(tmp_path: Path) -> None:
    for data in (b"", b"not a tar" * 100, JPEG):
        (tmp_path / "a.tar").write_bytes(data)
        (row,) = images(tmp_path / "a.tar")
        assert problem(row).status == "unreadable"


def test_an_empty_tar_lists_nothing(tmp_path: Path) -> None:
    assert images(make_tar(tmp_path / "a.tar")) == []


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6), st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_damaged_headers_never_raise_and_never_loop(changes: list[tuple[float, int]], kept: float) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a.jpg", "b" * 150 + "é.jpg", "c.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 5
            tar.addfile(info, io.BytesIO(b"12345"))
    data = bytearray(file.getvalue()[: 512 * 10])
    for place, value in changes:
        data[min(int(place * len(data)), len(data) - 1)] = value
    for damaged in (bytes(data), bytes(data[: int(kept * len(data))])):
        for seekable in (True, False):
            with contextlib.suppress(TarBrokenError):
                assert len(list(itertools.islice(tar_members(io.BytesIO(damaged), seekable), 50))) < 50


def test_the_parquet_that_img2dataset_writes_beside_a_tar_is_joined_by_key(tmp_path: Path) -> None:
    make_tar(tmp_path / "00000.tar", ("000000000.jpg", JPEG), ("000000002.jpg", JPEG))
    table = {"key": ["000000000", "000000001", "000000002"], "url": ["u0", "u1", "u2"], "width": [10, None, 12]}
    pq.write_table(pa.table(table), tmp_path / "00000.parquet")
    listed = images(tmp_path / "00000.tar")
    assert [image.metadata for image in listed] == [
        {"key": "000000000", "url": "u0", "width": 10},
        {"key": "000000002", "url": "u2", "width": 12},
    ]


def test_damaged_metadata_beside_a_tar_gives_a_row_and_the_images_stay(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", ("1.jpg", JPEG))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 broken")
    side, image = images(tmp_path / "a.tar")
    assert (side.image_id, problem(side).status) == ("a.parquet", "unreadable")
    assert image.read() == JPEG


@given(st.permutations(["b.jpg", "a.jpg", "c/d.jpg", "a.txt"]))
@settings(max_examples=20, deadline=None)
def test_the_order_is_that_of_the_tar_on_every_run(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = make_tar(tmp_path_factory.mktemp("tar") / "a.tar", *((name, JPEG) for name in names))
    ids = [image.image_id for image in images(path)]
    keys = [key for key, _ in itertools.groupby(name.partition(".")[0] for name in names)]
    assert ids == keys
    assert [image.image_id for image in images(path)] == ids


def test_a_range_of_shards_is_one_source(tmp_path: Path) -> None:
    for number in range(3):
        make_tar(tmp_path / f"s-{number:03d}.tar", (f"{number}.jpg", JPEG))
    listed = list(list_images([f"{tmp_path}/s-{{000..002}}.tar"]))
    assert [image.image_id for image in listed] == ["0", "1", "2"]
    assert {image.source for image in listed} == {f"{tmp_path}/s-{{000..002}}.tar"}


def test_listing_does_not_leave_files_or_threads_open(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", ("1.jpg", JPEG), ("2.jpg", JPEG))
    before = (len(list(Path("/proc/self/fd").iterdir())), threading.active_count())
    kept = images(path)
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before
    assert kept[1].read() == JPEG
