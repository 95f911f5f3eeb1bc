"""Which candidates are looked at, and which are not worth it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter
from planted import plant

from copydet.dedup import pairs
from copydet.dedup.background import find_background
from copydet.dedup.collection import Collection, open_collection
from copydet.dedup.exact import find_contents
from copydet.dedup.near import find_near
from copydet.dedup.pairs import judge_pairs
from copydet.index import Index
from copydet.progress import Silent


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Photos, and what a blur left of one of them."""
    folder = plant(tmp_path_factory.mktemp("photos") / "photos")
    with Image.open(folder / "coffee.png") as photo:
        photo.convert("RGB").filter(ImageFilter.GaussianBlur(5)).save(folder / "coffee-blurred.jpg", quality=80)
    return open_collection([Index.build(folder, tmp_path_factory.mktemp("indexes") / "index")])


def judged(collection: Collection, work: Path) -> set[tuple[str, str]]:
    work.mkdir()
    contents = find_contents(collection, work)
    near = find_near(collection, contents, work, Silent(), votes=False)
    background = find_background(collection, contents, near.images, work, Silent())
    table = pa.concat_tables(
        [pq.read_table(path) for path in judge_pairs(collection, near, background, work, Silent(), verified=True)]
    )
    one, other = ([row.image_id for row in collection.rows(table[name].to_numpy())] for name in ("one", "other"))
    return set(zip(one, other, strict=True))


def test_a_pair_of_like_gists_is_looked_at_whatever_its_features_say(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blurred = ("coffee-blurred.jpg", "coffee.png")
    monkeypatch.setattr(pairs, "_SURE_SIMILARITY", 2.0)
    monkeypatch.setattr(pairs, "_LIKELY_FEATURES", 10_000)
    assert blurred in judged(collection, tmp_path / "with")
    monkeypatch.setattr(pairs, "_LIKELY_GIST", 2.0)
    assert judged(collection, tmp_path / "without") == set()


def test_a_pair_unlike_as_a_whole_is_looked_at_where_features_agree_on_a_place(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "_SURE_SIMILARITY", 2.0)
    monkeypatch.setattr(pairs, "_LIKELY_GIST", 2.0)
    assert ("chelsea-again.png", "chelsea-mirrored.jpg") in judged(collection, tmp_path / "agree")
    monkeypatch.setattr(pairs, "_LIKELY_INLIERS", 10_000)
    assert judged(collection, tmp_path / "never") == set()


def test_gists_come_in_the_order_asked_for(collection: Collection) -> None:
    numbers = [3, 0, 2]
    gists = collection.gists(numbers)
    assert gists.shape == (3, 64)
    for gist, number in zip(gists, numbers, strict=True):
        assert np.array_equal(collection.gists([number])[0], gist)
    assert len({gist.tobytes() for gist in gists}) == 3
