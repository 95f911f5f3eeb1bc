from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from staged import records

from copydet.errors import CopydetError
from copydet.local_features.describe import RECORD_BYTES
from copydet.shards.local import StoredLocal, join_local, map_local, write_local


def same(stored: StoredLocal, images: list[NDArray[np.uint8]]) -> bool:
    counts = np.diff(stored.offsets).tolist()
    return counts == list(map(len, images)) and all(np.array_equal(stored.of(n), i) for n, i in enumerate(images))


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 6), max_size=4), data=st.data())
def test_what_is_written_in_parts_is_mapped_as_one_without_what_was_left_out(
    sizes: list[int], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("local")
    images = [records(size, seed) for seed, size in enumerate(sizes)]
    gone = [data.draw(st.sets(st.integers(0, size - 1)) if size else st.just(set())) for size in sizes]
    parts = (
        join_local(part).without(np.array(sorted(rows), np.int64)) for part, rows in zip(images, gone, strict=True)
    )
    count = write_local(folder / "f", folder / "o", parts)
    kept = [
        image for part, rows in zip(images, gone, strict=True) for place, image in enumerate(part) if place not in rows
    ]
    stored = map_local(folder / "f", folder / "o", len(kept))
    assert same(stored, kept)
    assert stored.features.shape == (count, RECORD_BYTES)
    assert stored.offsets.dtype == np.int64


def test_mapped_local_features_are_closed_data(tmp_path: Path) -> None:
    write_local(tmp_path / "f", tmp_path / "o", [join_local(records(9))])
    stored = map_local(tmp_path / "f", tmp_path / "o", 9)
    for array in (stored.features, stored.offsets):
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_records_of_another_kind_are_not_stored() -> None:
    with pytest.raises(TypeError):
        join_local([np.zeros((2, RECORD_BYTES), np.float32)])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="dimension"):
        join_local([np.zeros((2, RECORD_BYTES + 1), np.uint8)])


@pytest.mark.parametrize("change", ["first", "last", "falling"])
def test_offsets_that_do_not_divide_the_features_are_one_line(tmp_path: Path, change: str) -> None:
    write_local(tmp_path / "f", tmp_path / "o", [join_local([each for each in records(20) if len(each)])])
    offsets = np.fromfile(tmp_path / "o", "<i8")
    assert all(start < end for start, end in pairwise(offsets))
    if change == "falling":
        offsets[1:3] = offsets[2:0:-1].copy()
    else:
        offsets[0 if change == "first" else -1] += 1
    offsets.tofile(tmp_path / "o")
    with pytest.raises(CopydetError, match="o is damaged"):
        map_local(tmp_path / "f", tmp_path / "o", len(offsets) - 1)


def test_files_of_other_images_are_one_line(tmp_path: Path) -> None:
    write_local(tmp_path / "f", tmp_path / "o", [join_local(records(9))])
    with pytest.raises(CopydetError, match="do not hold local features of 8 images"):
        map_local(tmp_path / "f", tmp_path / "o", 8)
