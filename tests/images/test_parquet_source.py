"""Parquet in the layouts that are met, with typed metadata; broken files end in a row."""

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from copydet.errors import ImageProblem, UsageError
from copydet.images.parquet_source import parquet_images
from copydet.images.sources import count_images, list_images
from copydet.records import Image
from tests.images.conftest import JPEG, draw, encode

OTHER = encode(draw(seed=5))
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def images(path: Path) -> list[Image]:
    return list(parquet_images(str(path), "here"))


def problem(image: Image) -> ImageProblem:
    with pytest.raises(ImageProblem) as caught:
        image.read()
    return caught.value


def test_hugging_face_image_structs_are_read_with_their_labels(tmp_path: Path) -> None:
    (tmp_path / "near.jpg").write_bytes(OTHER)
    structs = [
        {"bytes": JPEG, "path": "cat.jpg"},
        {"bytes": None, "path": "near.jpg"},
        None,
        {"bytes": JPEG, "path": None},
    ]
    path = write(tmp_path / "t.parquet", {"image": pa.array(structs, STRUCT), "label": [3, 1, 2, 0]})
    first, second, third, fourth = images(path)
    assert (first.image_id, first.read(), first.metadata) == ("cat.jpg", JPEG, {"label": 3})
    assert (second.image_id, second.read()) == ("near.jpg", OTHER)
    assert (third.image_id, problem(third).status) == ("t/2", "unreadable")
    assert (fourth.image_id, fourth.read()) == ("t/3", JPEG)
    assert first.uri == f"{path}#column=image&row=0"


def test_img2dataset_parquet_holds_encoded_images_by_key(tmp_path: Path) -> None:
    path = write(
        tmp_path / "0.parquet", {"key": ["00", "01"], "url": ["u", "v"], "jpg": [JPEG, None], "width": [96, None]}
    )
    first, second = images(path)
    assert (first.image_id, first.read()) == ("00", JPEG)
    assert first.metadata == {"key": "00", "url": "u", "width": 96}
    assert (second.image_id, problem(second).status) == ("01", "unreadable")


def test_a_path_column_is_relative_to_the_file_or_absolute_or_a_url(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    paths = ["a.jpg", str(tmp_path / "a.jpg"), f"file://{tmp_path}/a.jpg", "gone.jpg", "", None]
    listed = images(write(tmp_path / "t.parquet", {"path": paths, "score": [0.5] * 6}))
    assert [image.read() for image in listed[:3]] == [JPEG] * 3
    assert [problem(image).status for image in listed[3:]] == ["unreadable"] * 3
    assert listed[0].image_id == "a.jpg"
    assert listed[0].uri == str(tmp_path / "a.jpg")
    assert listed[0].metadata == {"score": 0.5}


def test_several_image_columns_give_a_row_for_each(tmp_path: Path) -> None:
    structs = pa.array([{"bytes": JPEG, "path": None}], STRUCT)
    path = write(tmp_path / "t.parquet", {"id": [7], "image": structs, "mask": structs})
    assert [image.image_id for image in images(path)] == ["7/image", "7/mask"]


def test_metadata_keeps_its_types_and_nested_values_become_json(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 5, 6, 7, 8)
    columns = {"jpg": [JPEG], "at": [day], "n": pa.array([2], pa.int8()), "tags": [["a", "b"]], "x": [{"y": 1.5}]}
    (image,) = images(write(tmp_path / "t.parquet", columns))
    assert image.metadata == {"at": day, "n": 2, "tags": '["a", "b"]', "x": '{"y": 1.5}'}


def test_rows_come_in_file_order_over_row_groups_and_files(tmp_path: Path) -> None:
    for number in range(2):
        columns = {"id": list(range(number * 100, number * 100 + 100)), "jpg": [JPEG] * 100}
        write(tmp_path / f"p-{number}.parquet", columns, row_group_size=7)
    for spec in (str(tmp_path), f"{tmp_path}/*.parquet", f"{tmp_path}/p-{{0..1}}.parquet"):
        listed = [image.image_id.rpartition("/")[2] for image in list_images([spec])]
        assert listed == [str(number) for number in range(200)]
    assert count_images([f"{tmp_path}/*.parquet"]) == 200


def test_a_table_without_images_or_paths_gives_one_row_naming_its_columns(tmp_path: Path) -> None:
    (row,) = images(write(tmp_path / "t.parquet", {"a": [1, 2], "b": ["x", "y"]}))
    assert (row.image_id, problem(row).status) == ("t.parquet", "unsupported")
    assert "a, b" in problem(row).message


def test_an_empty_table_lists_nothing(tmp_path: Path) -> None:
    assert images(write(tmp_path / "t.parquet", {"jpg": pa.array([], pa.binary())})) == []


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_or_damaged_file_ends_in_a_row(tmp_path: Path, kept: float) -> None:
    path = write(tmp_path / "t.parquet", {"jpg": [JPEG] * 30})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    assert problem(images(path)[-1]).status == "unreadable"
    with pytest.raises(UsageError, match=r"t\.parquet"):
        count_images([str(path)])


def test_damage_in_a_later_row_group_leaves_the_earlier_rows(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.parquet",
        {"jpg": [JPEG + bytes([n]) for n in range(200)]},
        row_group_size=100,
        compression="zstd",
        use_dictionary=False,
    )
    start = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 400] = b"\xff" * 400
    path.write_bytes(data)
    *read, last = images(path)
    assert 64 <= len(read) <= 128
    assert all(image.read()[:-1] == JPEG for image in read[:64])
    assert problem(last).status == "truncated"
