"""Damage that was really done to files of an index: each depth of checking sees it, repair makes the same again."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from drawn import ThumbnailRuntime, draw_photos
from test_local import TINY_PQ, add, build, contents, ids_of, shards_of

from copydet.engines.repair import repair
from copydet.errors import CopydetError
from copydet.shards.check import Depth, check_index
from copydet.shards.deletions import remove_images
from copydet.shards.recipe import load_recipe
from copydet.store import snapshots
from copydet.store.snapshots import file_entry

FLAT = load_recipe("flat")
RECIPES = {"flat": FLAT, "pq": TINY_PQ}


@dataclass(frozen=True)
class Built:
    index: Path
    photos: Path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    built = {}
    for name, recipe in RECIPES.items():
        folder = tmp_path_factory.mktemp(name)
        photos = draw_photos(folder / "photos", 60, detailed=True)
        (photos / "bad.jpg").write_bytes(b"")
        build(folder / "index", photos, recipe=recipe)
        add(folder / "index", draw_photos(folder / "more", 12, first=80, detailed=True))
        remove_images(folder / "index", ["00007.jpg", "00081.jpg"])
        built[name] = Built(folder / "index", photos)
    return built


@pytest.fixture(params=RECIPES)
def built(request: pytest.FixtureRequest, whole: dict[str, Built], tmp_path: Path) -> Built:
    """An index of 72 photos in two shards, with two removed; the test may damage it."""
    one = whole[request.param]
    return Built(Path(shutil.copytree(one.index, tmp_path / "index")), one.photos)


@pytest.fixture
def flat(whole: dict[str, Built], tmp_path: Path) -> Built:
    return Built(Path(shutil.copytree(whole["flat"].index, tmp_path / "index")), whole["flat"].photos)


def flip(path: Path, place: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 0x5A
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def problems(index: Path, depth: Depth) -> list[str]:
    return [str(problem) for problem in check_index(index, depth)]


def searchable(index: Path) -> dict[str, bytes]:
    """The contents of the shards by their place, whatever the shards are called."""
    found = {}
    compared = contents(index)
    for place, shard in enumerate(snapshots.read_current(index).shards):
        for name in shard.files:
            found[f"{place}/{name}"] = compared[f"shards/{shard.name}/{name}"]
    return found


def runtime() -> ThumbnailRuntime:
    return ThumbnailRuntime()


@pytest.mark.slow
def test_a_whole_index_has_no_problem_at_any_depth_and_repair_leaves_it_alone(built: Built) -> None:
    before = snapshots.read_current(built.index)
    done = repair(built.index, runtime)
    assert (done.mended, done.left) == ((), ())
    assert snapshots.read_current(built.index) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("codes.faiss", flip),
        ("descriptors.f16", Path.unlink),
        ("local.features", cut),
        pytest.param("codes.faiss", Path.unlink, marks=pytest.mark.slow),
        pytest.param("descriptors.f16", flip, marks=pytest.mark.slow),
        pytest.param("local.features", flip, marks=pytest.mark.slow),
        pytest.param("local.offsets", flip, marks=pytest.mark.slow),
        pytest.param("local.offsets", Path.unlink, marks=pytest.mark.slow),
        pytest.param("local.gists", flip, marks=pytest.mark.slow),
    ],
)
def test_a_damaged_file_of_a_shard_is_one_line_and_is_made_again_to_the_byte(
    built: Built, name: str, damage: Callable[[Path], None]
) -> None:
    before, ids = searchable(built.index), ids_of(built.index)
    shard = shards_of(built.index)[0]
    damage(shard.folder / name)
    for depth in ("names", "sums"):
        seen = problems(built.index, depth)
        assert len(seen) == (0 if depth == "names" and damage is flip else 1)
        assert all(line.startswith(f"shards/{shard.name}/{name}: ") for line in seen)
    done = repair(built.index, runtime)
    assert done.left == ()
    assert len(done.mended) == 1
    assert searchable(built.index) == before
    assert ids_of(built.index) == ids


def test_a_lost_quantiser_is_made_again_from_codes(whole: dict[str, Built], tmp_path: Path) -> None:
    index = Path(shutil.copytree(whole["pq"].index, tmp_path / "index"))
    (file,) = (index / "quantisers").iterdir()
    data = file.read_bytes()
    file.unlink()
    assert problems(index, "names") == [f"quantisers/{file.name}: is missing"]
    assert repair(index, runtime).left == ()
    assert file.read_bytes() == data


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink], ids=["flipped", "cut", "deleted"])
def test_a_damaged_current_names_the_newest_whole_snapshot_again(flat: Built, damage: Callable[[Path], None]) -> None:
    before = snapshots.read_current(flat.index)
    damage(flat.index / "CURRENT")
    assert repair(flat.index, runtime).left == ()
    assert snapshots.read_current(flat.index) == before


def test_a_damaged_snapshot_is_not_replaced_by_an_older_one_that_holds_what_was_removed(flat: Built) -> None:
    number = snapshots.read_current(flat.index).number
    path = snapshots.snapshot_path(flat.index, number)
    for damage in (lambda: path.write_text(path.read_text().replace('"nprobe": 0', '"nprobe": 1')), path.unlink):
        damage()
        assert [problem.path for problem in repair(flat.index, runtime).left] == ["CURRENT"]
        with pytest.raises(CopydetError):
            snapshots.read_current(flat.index)


def test_what_cannot_be_made_again_stays_as_it_is_and_is_a_line(flat: Built) -> None:
    first, second = shards_of(flat.index)
    before = snapshots.read_current(flat.index)
    flip(first.images_path)
    done = repair(flat.index, runtime)
    assert [problem.path for problem in done.left] == [f"shards/{first.name}/images.parquet"]
    flip(second.folder / "codes.faiss")  # the other shard is mended all the same
    done = repair(flat.index, runtime)
    assert [problem.path for problem in done.left] == [f"shards/{first.name}/images.parquet"]
    assert snapshots.read_current(flat.index).number == before.number + 1


@pytest.mark.slow
def test_originals_that_are_gone_or_have_changed_are_not_described_in_place_of_others(
    flat: Built, tmp_path: Path
) -> None:
    shard = shards_of(flat.index)[0]
    flip(shard.folder / "local.features")
    original = flat.photos / "00011.jpg"
    kept = original.read_bytes()
    try:
        for change in (lambda: original.write_bytes((flat.photos / "00012.jpg").read_bytes()), original.unlink):
            change()
            done = repair(flat.index, runtime)
            assert (done.mended, len(done.left)) == ((), 1)
    finally:
        original.write_bytes(kept)
    assert repair(flat.index, runtime).left == ()


@pytest.mark.slow
def test_features_of_another_codec_stay_until_they_can_be_made_again(flat: Built) -> None:
    snapshot = snapshots.read_current(flat.index)
    older = []
    for shard in snapshot.shards:
        files = {name: file for name, file in shard.files.items() if name != "local.gists"}
        assert shard.local is not None
        older.append(replace(shard, files=files, local=replace(shard.local, codec="older-0")))
    snapshots.commit(flat.index, replace(snapshot, number=snapshot.number + 1, shards=tuple(older)))
    flip(shards_of(flat.index)[0].folder / "codes.faiss")
    gone = flat.photos.rename(flat.photos.with_name("gone"))
    try:
        done = repair(flat.index, runtime)
    finally:
        gone.rename(flat.photos)
    assert [problem.path.rpartition("/")[2] for problem in done.left] == [
        "local.features"
    ]  # the other shard's photos are elsewhere
    assert "codes.faiss" in done.mended[0]
    assert repair(flat.index, runtime).left == ()
    assert all(shard.local is not None for shard in shards_of(flat.index))


def test_a_descriptor_that_is_not_at_hand_is_no_traceback(flat: Built) -> None:
    flip(shards_of(flat.index)[0].folder / "local.features")

    def none() -> ThumbnailRuntime:
        raise CopydetError("the descriptor is not at hand")

    assert len(repair(flat.index, none).left) == 1


def rewrite(index: Path, name: str, change: Callable[[Path], None]) -> None:
    """Change a file of the first shard and name its new checksum: as a broken writer would, which no sum betrays."""
    snapshot = snapshots.read_current(index)
    shard = snapshot.shards[0]
    path = snapshots.shard_folder(index, shard.name) / name
    old = file_entry(path)
    change(path)
    new = file_entry(path)
    json = snapshots.snapshot_path(index, snapshot.number)
    text = json.read_text().replace(old.xxh3, new.xxh3).replace(f'"bytes": {old.bytes},', f'"bytes": {new.bytes},')
    json.write_text(text)
    snapshots.name_current(index, snapshot.number, file_entry(json).xxh3)


def swap_descriptors(path: Path) -> None:
    vectors = np.fromfile(path, np.float16).reshape(-1, 32)
    vectors[[3, 4]] = vectors[[4, 3]]
    vectors.tofile(path)


def scale_descriptor(path: Path) -> None:
    vectors = np.fromfile(path, np.float16).reshape(-1, 32)
    vectors[5] *= 2
    vectors.tofile(path)


def turn_status(path: Path) -> None:
    table = pq.read_table(path)
    status = table["status"].to_pylist()
    status[2] = "unreadable"
    pq.write_table(table.set_column(table.column_names.index("status"), "status", [status]), path)


def repeat_id(path: Path) -> None:
    table = pq.read_table(path)
    ids = table["image_id"].to_pylist()
    ids[2] = ids[1]
    pq.write_table(table.set_column(0, "image_id", [ids]), path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (
            "descriptors.f16",
            swap_descriptors,
            "codes.faiss: 2 of 60 codes are not those of their descriptors: rows 3, 4",
        ),
        ("descriptors.f16", scale_descriptor, "descriptors.f16: 1 of 60 descriptors are not of length 1: row 5"),
        ("images.parquet", turn_status, "have another status than ok: row 2"),
        ("images.parquet", repeat_id, "1 ids are there more than once, '00001.jpg' among them"),
    ],
)
def test_rows_that_do_not_agree_are_found_where_all_checksums_are_right(
    built: Built, name: str, change: Callable[[Path], None], words: str
) -> None:
    rewrite(built.index, name, change)
    assert problems(built.index, "sums") == []
    found = problems(built.index, "rows")
    assert any(words in line for line in found), found


def test_codes_on_which_faiss_crashes_are_one_line(built: Built) -> None:
    """A stranger can write anything into a file and its checksum: the process that reads it may die, ours does not."""

    def overflow(path: Path) -> None:
        data = bytearray(path.read_bytes())
        for place in range(len(data) // 2, len(data)):
            data[place] = 0xFF
        path.write_bytes(data)

    rewrite(built.index, "codes.faiss", overflow)
    assert problems(built.index, "sums") == []
    assert any("codes.faiss" in line for line in problems(built.index, "rows"))
