"""From a row's URI back to its image: every kind of source that indexing takes gives back the same bytes."""

import os
import tarfile
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skimage

from copydet.images.originals import Originals
from copydet.images.sources import list_images

PHOTOS = {name: (Path(skimage.data_dir) / name).read_bytes() for name in ("coffee.png", "rocket.jpg", "camera.png")}


def write_folder(folder: Path) -> Path:
    (folder / "sub").mkdir()
    (folder / "sub" / "a b#member=c.png").write_bytes(PHOTOS["coffee.png"])
    (folder / "ünï-日本.jpg").write_bytes(PHOTOS["rocket.jpg"])
    (folder / os.fsdecode(b"not-utf8-\xff.png")).write_bytes(PHOTOS["camera.png"])
    return folder


def write_tar(folder: Path) -> Path:
    with tarfile.open(folder / "photos.tar", "w") as tar:
        for name, data in PHOTOS.items():
            member = tarfile.TarInfo(f"set/{name}")
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
    return folder / "photos.tar"


def write_parquet(folder: Path) -> Path:
    structs = [{"bytes": data, "path": name} for name, data in PHOTOS.items()]
    pq.write_table(pa.table({"image": structs}), folder / "photos.parquet", row_group_size=2)
    return folder / "photos.parquet"


@pytest.mark.parametrize("write", [write_folder, write_tar, write_parquet])
def test_the_uri_of_an_image_leads_back_to_its_bytes(tmp_path: Path, write: object) -> None:
    source = write(tmp_path)  # type: ignore[operator]
    images = list(list_images([str(source)]))
    originals = Originals()
    assert len(images) == 3
    for image in images:
        assert originals.read(image.uri) == image.read()


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "/nowhere/at/all.jpg",
        "/nowhere.tar#member=a.jpg",
        "/nowhere.parquet#column=image&row=3",
        "queries[0]",
        "/dev/zero",
        "/proc",
        "file:///etc/passwd",
        "simplecache::http://127.0.0.1:9/a.jpg",
        "http://127.0.0.1:9/a.jpg",
        "memory://a.jpg",
        "\x00",
    ],
)
def test_what_cannot_or_must_not_be_read_is_none(uri: str) -> None:
    assert Originals().read(uri) is None


def test_a_row_that_the_parquet_file_has_not_is_none(tmp_path: Path) -> None:
    path = write_parquet(tmp_path)
    assert Originals().read(f"{path}#column=image&row=3") is None
    assert Originals().read(f"{path}#column=picture&row=0") is None


def test_a_server_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    originals = Originals()
    real = originals._reader

    def watch(uri: str) -> object:
        reader = real(uri)
        asked.append(reader)
        return reader

    monkeypatch.setattr(originals, "_reader", watch)
    for number in range(3):
        originals.read(f"http://127.0.0.1:9/{number}.jpg")
    assert [reader is None for reader in asked] == [False, True, True]
