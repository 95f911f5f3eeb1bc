"""Ids and metadata values that every output format can hold."""

import datetime
import os

from hypothesis import given
from hypothesis import strategies as st

from copydet.images.names import extension_of, original_name, plain_value, plain_values, readable_name, split_key


@given(st.binary(max_size=60))
def test_a_readable_name_is_utf8_and_gives_the_original_back(raw: bytes) -> None:
    name = readable_name(raw)
    assert name.encode("utf-8").decode("utf-8") == name
    assert os.fsencode(original_name(name)) == raw
    assert readable_name(os.fsdecode(raw)) == name


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_different_names_stay_different(a: bytes, b: bytes) -> None:
    assert (readable_name(a) == readable_name(b)) == (a == b)


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ("a.jpg", "ünïcode/日本語.png", "с пробелом.jpg", "emoji 🐈.webp", "e\u0301.jpg"):
        assert readable_name(name) == name


def test_a_key_ends_at_the_first_dot_of_the_last_part() -> None:
    assert split_key("dir.v2/a.b.jpg") == ("dir.v2/a", "b.jpg")
    assert split_key("000123.jpg") == ("000123", "jpg")
    assert split_key("README") == ("README", "")
    assert split_key("x/.DS_Store") == ("x/.DS_Store", "")
    assert extension_of("x.y/A.JPG") == "jpg"
    assert extension_of("x.y/A") == ""


def test_metadata_values_become_plain_scalars() -> None:
    day = datetime.datetime(2020, 1, 2)
    assert plain_values({"a": 1, "b": [1, {"c": None}], "d": None, "e": day, "f": True, "g": 0.5}) == {
        "a": 1,
        "b": '[1, {"c": null}]',
        "d": None,
        "e": day,
        "f": True,
        "g": 0.5,
    }
    assert plain_value(2**70) == str(2**70)
    assert plain_value("\ud800") == "\\ud800"
