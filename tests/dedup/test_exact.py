"""Equal files and equal pixels are found, and nothing else is called equal."""

from pathlib import Path

import numpy as np
from planted import groups, index_vectors, plant

from copydet.dedup.collection import Collection, open_collection
from copydet.dedup.exact import BYTES, NAMES, PIXELS, UNIQUE, Contents, find_contents
from copydet.index import Index


def by_id(collection: Collection, contents: Contents) -> dict[str, tuple[str, str]]:
    """Id -> (id of the first of its content, how it is the same)."""
    ids = [row.image_id for row in collection.rows(np.arange(len(collection)))]
    both = zip(ids, contents.first.tolist(), contents.kind.tolist(), strict=True)
    return {each: (ids[first], NAMES[kind]) for each, first, kind in both}


def test_files_of_equal_bytes_and_of_equal_pixels_are_the_same_and_a_jpeg_of_them_is_not(
    tmp_path: Path, indexed: Index
) -> None:
    collection = open_collection([indexed])
    found = by_id(collection, find_contents(collection, tmp_path))
    assert found["chelsea.png"] == ("chelsea-again.png", "bytes")
    assert found["chelsea-pixels.bmp"] == ("chelsea-again.png", "pixels")
    for alone in ("chelsea-again.png", "chelsea-jpeg.jpg", "chelsea-mirrored.jpg", "coffee.png"):
        assert found[alone] == (alone, "")


def test_where_the_originals_are_gone_equal_pixels_are_not_claimed(tmp_path: Path) -> None:
    photos = plant(tmp_path / "photos")
    index = Index.build(photos, tmp_path / "index")
    photos.rename(tmp_path / "elsewhere")
    collection = open_collection([index])
    found = by_id(collection, find_contents(collection, tmp_path))
    assert found["chelsea.png"] == ("chelsea-again.png", "bytes")
    assert found["chelsea-pixels.bmp"] == ("chelsea-pixels.bmp", "")


def test_what_was_found_is_kept_for_the_same_call(tmp_path: Path, indexed: Index) -> None:
    collection = open_collection([indexed])
    find_contents(collection, tmp_path)
    before = (tmp_path / "contents.npy").stat().st_mtime_ns
    again = find_contents(collection, tmp_path)
    assert (tmp_path / "contents.npy").stat().st_mtime_ns == before
    assert sorted(set(again.kind.tolist())) == [UNIQUE, BYTES, PIXELS]


def test_removed_images_stand_for_nothing(tmp_path: Path, photos: Path) -> None:
    index = Index.build(photos, tmp_path / "index")
    index.remove("chelsea-again.png")
    collection = open_collection([index])
    contents = find_contents(collection, tmp_path)
    found = by_id(collection, contents)
    assert found["chelsea.png"] == ("chelsea-pixels.bmp", "pixels")
    assert (contents.first < 0).sum() == 1


def test_equal_vectors_alone_are_no_equal_images(tmp_path: Path) -> None:
    index = index_vectors(tmp_path / "vectors", groups([1, 1, 1])[[0, 1, 0, 2]], ["d", "c", "b", "a"])
    collection = open_collection([index])
    assert set(find_contents(collection, tmp_path).kind.tolist()) == {UNIQUE}
