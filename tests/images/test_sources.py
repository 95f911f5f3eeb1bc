"""What names a source, and what is said when it is not there."""

import pickle
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from copydet.errors import ImageProblem, UsageError
from copydet.images.sources import count_images, list_images, open_source
from tests.images.conftest import JPEG
from tests.images.test_tar_source import make_tar

Photos = Callable[..., Path]


def test_each_kind_is_known_by_what_it_is(photos: Photos, tmp_path: Path) -> None:
    folder = photos("a.jpg")
    make_tar(tmp_path / "t.tar", ("a.jpg", JPEG))
    (tmp_path / "l.txt").write_text("")
    assert open_source(str(folder)).kind == "folder"
    assert open_source(f"{folder}/").kind == "folder"
    assert open_source(f"file://{folder}").kind == "folder"
    assert open_source(str(folder / "a.jpg")).kind == "file"
    assert open_source(str(tmp_path / "t.tar")).kind == "tar"
    assert open_source(str(tmp_path / "l.txt")).kind == "list"


def test_a_source_that_does_not_exist_is_a_usage_error_before_anything_is_listed(photos: Photos) -> None:
    folder = photos("a.jpg")
    for gone in ("nowhere", f"{folder}/*.png", f"{folder}/s-{{0..3}}.tar", "memory://nowhere", "s3x://bucket/a"):
        with pytest.raises(UsageError) as caught:
            list_images([str(folder), gone])
        assert "\n" not in str(caught.value)


def test_a_missing_shard_of_a_range_is_named(tmp_path: Path) -> None:
    for number in (0, 2):
        make_tar(tmp_path / f"{number}.tar", ("a.jpg", JPEG))
    with pytest.raises(UsageError, match=r"1\.tar"):
        open_source(f"{tmp_path}/{{0..2}}.tar")


def test_a_pattern_lists_files_in_order_by_the_path_as_written(photos: Photos) -> None:
    folder = photos("b.jpg", "a.jpg", "c.png")
    listed = list(list_images([f"{folder}/*.jpg"]))
    assert [image.image_id for image in listed] == [f"{folder}/a.jpg", f"{folder}/b.jpg"]
    assert count_images([f"{folder}/*.jpg"]) == 2


def test_a_name_with_brackets_or_braces_that_exists_is_taken_as_it_is(photos: Photos) -> None:
    folder = photos("a[1].jpg", "b{0..1}.jpg")
    for name in ("a[1].jpg", "b{0..1}.jpg"):
        (image,) = list_images([str(folder / name)])
        assert image.read()


def test_a_pattern_that_mixes_kinds_is_refused(photos: Photos) -> None:
    folder = photos("a.jpg")
    (folder / "l.txt").write_text("")
    with pytest.raises(UsageError, match="several kinds"):
        open_source(f"{folder}/*")


def test_several_sources_follow_each_other(photos: Photos) -> None:
    folder = photos("x/a.jpg", "y/a.jpg")
    listed = list(list_images([f"{folder}/y/", f"{folder}/x"]))
    assert [(image.image_id, image.source) for image in listed] == [("a.jpg", f"{folder}/y"), ("a.jpg", f"{folder}/x")]


def test_images_can_be_sent_to_another_process(photos: Photos) -> None:
    (image,) = list_images([str(photos("a.jpg"))])
    assert pickle.loads(pickle.dumps(image)).read() == image.read()


def test_files_and_tars_behind_urls_are_read(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    tar = make_tar(tmp_path / "t.tar", ("1.jpg", JPEG), ("1.txt", b"one")).read_bytes()
    for name in ("a.jpg", "s-0.tar", "s-1.tar"):
        memory.pipe(f"/urls/{name}", JPEG if name == "a.jpg" else tar)
    memory.pipe("/urls/l.txt", b"a.jpg\n")
    try:
        (image,) = list_images(["memory://urls/a.jpg"])
        assert (image.image_id, image.read()) == ("memory://urls/a.jpg", JPEG)
        for spec in ("memory://urls/s-{0..1}.tar", "memory://urls/s-*.tar"):
            shards = list(list_images([spec]))
            assert [(image.image_id, image.metadata, image.read()) for image in shards] == [
                ("1", {"txt": "one"}, JPEG)
            ] * 2
        (listed,) = list_images(["memory://urls/l.txt"])
        assert listed.read() == JPEG
    finally:
        memory.rm("/urls", recursive=True)


def test_a_file_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.jpg"
    with open(huge, "wb") as file:
        file.truncate(2**40)  # sparse: a terabyte that takes no space
    (image,) = list_images([str(huge)])
    with pytest.raises(ImageProblem) as caught:
        image.read()
    assert caught.value.status == "too_large"
