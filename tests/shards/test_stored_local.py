from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from staged import features, same_features

from copydet.errors import CopydetError
from copydet.local_features.describe import RECORD_BYTES
from copydet.local_features.gist import GIST_BYTES, NO_GIST
from copydet.records import ImageFeatures
from copydet.shards.local import StoredLocal, join_local, local_files, map_local, write_local


def same(stored: StoredLocal, images: list[ImageFeatures]) -> bool:
    counts = np.diff(stored.offsets).tolist()
    if counts != [len(each.records) for each in images]:
        return False
    return all(same_features(stored.image(number), each) for number, each in enumerate(images))


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 6), max_size=4), data=st.data())
def test_what_is_written_in_parts_is_mapped_as_one_without_what_was_left_out(
    sizes: list[int], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("local")
    images = [features(size, seed) for seed, size in enumerate(sizes)]
    gone = [data.draw(st.sets(st.integers(0, size - 1)) if size else st.just(set())) for size in sizes]
    parts = (
        join_local(part).without(np.array(sorted(rows), np.int64)) for part, rows in zip(images, gone, strict=True)
    )
    count = write_local(local_files(folder), parts)
    kept = [
        image for part, rows in zip(images, gone, strict=True) for place, image in enumerate(part) if place not in rows
    ]
    stored = map_local(local_files(folder), len(kept))
    assert same(stored, kept)
    assert stored.features.shape == (count, RECORD_BYTES)
    assert stored.offsets.dtype == np.int64
    assert (stored.gists.shape, stored.gists.dtype) == ((len(kept), GIST_BYTES), np.int8)


def test_mapped_local_features_are_closed_data(tmp_path: Path) -> None:
    write_local(local_files(tmp_path), [join_local(features(9))])
    stored = map_local(local_files(tmp_path), 9)
    for array in (stored.features, stored.offsets, stored.gists):
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_records_of_another_kind_are_not_stored() -> None:
    with pytest.raises(TypeError):
        join_local([ImageFeatures(np.zeros((2, RECORD_BYTES), np.float32), NO_GIST)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dimension"):
        join_local([ImageFeatures(np.zeros((2, RECORD_BYTES + 1), np.uint8), NO_GIST)])
    with pytest.raises(ValueError, match="dimension"):
        join_local([ImageFeatures(np.zeros((2, RECORD_BYTES), np.uint8), NO_GIST[1:])])


@pytest.mark.parametrize("change", ["first", "last", "falling"])
def test_offsets_that_do_not_divide_the_features_are_one_line(tmp_path: Path, change: str) -> None:
    files = local_files(tmp_path)
    write_local(files, [join_local([each for each in features(20) if len(each.records)])])
    offsets = np.fromfile(files.offsets, "<i8")
    assert all(start < end for start, end in pairwise(offsets))
    if change == "falling":
        offsets[1:3] = offsets[2:0:-1].copy()
    else:
        offsets[0 if change == "first" else -1] += 1
    offsets.tofile(files.offsets)
    with pytest.raises(CopydetError, match=r"local.offsets is damaged"):
        map_local(files, len(offsets) - 1)


def test_files_of_other_images_are_one_line(tmp_path: Path) -> None:
    write_local(local_files(tmp_path), [join_local(features(9))])
    with pytest.raises(CopydetError, match="do not hold local features of 8 images"):
        map_local(local_files(tmp_path), 8)
