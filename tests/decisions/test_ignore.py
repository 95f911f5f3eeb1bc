"""The file of pairs and references that never come back."""

from pathlib import Path

import pytest

from copydet.decisions.ignore import Ignored, read_ignored
from copydet.errors import UsageError


def test_lines_of_two_ids_are_pairs_and_lines_of_one_are_references(tmp_path: Path) -> None:
    file = tmp_path / "ignore.csv"
    file.write_text('query_id,reference_id,score\nq.jpg,"a, b.jpg",0.99\n\nlogo.png\n', encoding="utf-8")
    ignored = read_ignored(file)
    assert ignored == Ignored(frozenset({"logo.png"}), frozenset({("q.jpg", "a, b.jpg")}))
    assert ("q.jpg", "a, b.jpg") in ignored
    assert ("anything", "logo.png") in ignored
    assert ("other.jpg", "a, b.jpg") not in ignored


def test_a_line_that_lacks_an_id_and_a_file_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "ignore.csv"
    file.write_text("a.jpg,\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 1"):
        read_ignored(file)
    with pytest.raises(UsageError, match=r"missing\.csv"):
        read_ignored(tmp_path / "missing.csv")
