"""Text lists and CSVs of paths or URLs."""

from pathlib import Path

import fsspec
import pytest

from copydet.errors import ImageProblem, UsageError
from copydet.images.sources import count_images, list_images
from copydet.records import Image
from tests.images.conftest import JPEG


def images(path: Path) -> list[Image]:
    return list(list_images([str(path)]))


@pytest.mark.parametrize("name", ["l.txt", "l.lst", "l.list"])
def test_a_line_is_a_path_or_a_url_and_blank_lines_are_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "a b.jpg").write_bytes(JPEG)
    fsspec.filesystem("memory").pipe("/list-a.jpg", JPEG)
    lines = ["a b.jpg", "", f"{tmp_path}/a b.jpg", "memory://list-a.jpg", "gone.jpg"]
    (tmp_path / name).write_text("\ufeff" + "\r\n".join(lines) + "\n", encoding="utf-8")
    *listed, gone = images(tmp_path / name)
    assert [image.image_id for image in listed] == [lines[0], lines[2], lines[3]]
    assert [image.read() for image in listed] == [JPEG] * 3
    with pytest.raises(ImageProblem, match="No such file"):
        gone.read()
    assert count_images([str(tmp_path / name)]) == 4


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    raw = b"caf\xe9.jpg"
    Path(tmp_path, raw.decode("utf-8", "surrogateescape")).write_bytes(JPEG)
    (tmp_path / "l.txt").write_bytes(raw + b"\n")
    (image,) = images(tmp_path / "l.txt")
    assert (image.image_id, image.read()) == ("caf\\xe9.jpg", JPEG)


def test_the_other_columns_of_a_csv_are_typed_metadata(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "l.csv").write_text(
        'file,label,score,mixed,note\na.jpg,1,0.5,1,"x, y"\na.jpg,2,3,z,\na.jpg,,,2,w\n', encoding="utf-8"
    )
    assert [image.metadata for image in images(tmp_path / "l.csv")] == [
        {"label": 1, "score": 0.5, "mixed": "1", "note": "x, y"},
        {"label": 2, "score": 3.0, "mixed": "z", "note": ""},
        {"label": None, "score": None, "mixed": "2", "note": "w"},
    ]


def test_an_id_column_names_the_images(tmp_path: Path) -> None:
    (tmp_path / "l.tsv").write_text("image_id\turl\nx1\ta.jpg\nx2\tb.jpg\n")
    assert [image.image_id for image in images(tmp_path / "l.tsv")] == ["x1", "x2"]
    assert count_images([str(tmp_path / "l.tsv")]) == 2


def test_a_csv_without_a_path_column_says_which_names_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match=r"no column of paths.*it has a, b"):
        images(tmp_path / "l.csv")


def test_short_and_long_csv_rows_and_an_empty_csv_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("path,a\nx.jpg\ny.jpg,1,2,3\n")
    assert [image.metadata for image in images(tmp_path / "l.csv")] == [{"a": None}, {"a": 1}]
    (tmp_path / "e.csv").write_text("")
    assert images(tmp_path / "e.csv") == []
    (tmp_path / "e.txt").write_text("")
    assert images(tmp_path / "e.txt") == []
