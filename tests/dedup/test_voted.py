"""What is unlike as a whole is proposed by the features that two images share, however they lie in shards."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from planted import plant

from copydet.dedup.collection import Collection, open_collection
from copydet.dedup.exact import find_contents
from copydet.dedup.near import find_near
from copydet.dedup.voted import VOTED, Voting
from copydet.index import Index
from copydet.progress import Silent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and a part of one of them, mirrored, in the corner of a flat page."""
    folder = plant(tmp_path_factory.mktemp("photos") / "photos")
    part = Image.open(folder / "coffee.png").crop((80, 20, 320, 220)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    page = Image.new("RGB", (420, 420), (235, 235, 225))
    page.paste(part, (20, 200))
    page.save(folder / "page.jpg", quality=90)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return open_collection([Index.build(folder, tmp_path_factory.mktemp("indexes") / "index")])


def voted(collection: Collection, asked: str) -> list[str]:
    everything = np.argsort(collection.rank)
    ids = [Path(row.image_id).name for row in collection.rows(everything)]
    asker, other = Voting(collection, everything).candidates(everything)
    return [ids[collection.rank[number]] for number in other[asker == ids.index(asked)]]


def test_a_mirrored_part_on_a_page_is_proposed_from_both_sides(whole: Collection) -> None:
    assert "coffee.png" in voted(whole, "page.jpg")
    assert "page.jpg" in voted(whole, "coffee.png")
    assert len(voted(whole, "coffee.png")) <= VOTED


def test_votes_find_a_pair_whose_descriptors_are_too_unlike(
    whole: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("copydet.dedup.near.LEAST_SIMILARITY", 0.9)
    found = {}
    for votes in (False, True):
        work = tmp_path / str(votes)
        work.mkdir()
        near = find_near(whole, find_contents(whole, work), work, Silent(), votes=votes)
        table = pq.read_table(near.path)
        one, other = ([row.image_id for row in whole.rows(table[name].to_numpy())] for name in ("one", "other"))
        found[votes] = set(zip(one, other, strict=True))
        assert len(table) == len(found[votes])
    assert found[False] < found[True]
    assert ("coffee.png", "page.jpg") in found[True] - found[False]


def test_votes_do_not_depend_on_shards(whole: Collection, folder: Path, tmp_path: Path) -> None:
    files = sorted(folder.iterdir())
    index = Index.create(tmp_path / "index")
    for start in range(0, len(files), 4):
        index.add(files[start : start + 4][::-1])
    parts = open_collection([Index.open(tmp_path / "index")])
    assert len(parts.shards) > 1
    for asked in ("page.jpg", "coffee.png", "chelsea-small.jpg"):
        assert sorted(voted(parts, asked)) == sorted(voted(whole, asked))
