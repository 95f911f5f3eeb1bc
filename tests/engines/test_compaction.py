"""Compaction keeps every image that was not removed, and everything that is found of it."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn import DESCRIPTOR, DIMENSION, ThumbnailRuntime, draw_photos
from test_local import TINY_PQ, add, build, contents, ids_of, shards_of

from copydet.engines import local
from copydet.engines.compaction import compact, plan_compaction
from copydet.errors import CopydetError, IndexLocked
from copydet.search.retrieve import retrieve
from copydet.shards.deletions import read_deletions, remove_images
from copydet.shards.recipe import Recipe, load_recipe
from copydet.store import snapshots
from copydet.store.compact import remove_unused
from copydet.store.locks import write_lock

FLAT = load_recipe("flat")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return draw_photos(tmp_path / "photos", 70, detailed=True)


def grown(index: Path, photos: Path, recipe: Recipe) -> Path:
    """An index of 70 photos and three small additions, with removed images in the first and in the third shard."""
    build(index, photos, recipe=recipe)
    for first in (100, 110, 120):
        folder = draw_photos(photos.parent / f"more{first}", 10, first=first, detailed=True)
        (folder / f"{first}-bad.jpg").write_bytes(b"")
        add(index, folder)
    remove_images(index, ["00003.jpg", "00111.jpg", "00112.jpg", "110-bad.jpg"])
    return index


def found(index: Path, count: int = 5) -> list[list[tuple[str, float]]]:
    """What the descriptors of all photos find: ids and similarities."""
    snapshot = snapshots.read_current(index)
    shards, removed = shards_of(index), read_deletions(index, snapshot)
    masks = []
    for shard in shards:
        mask = np.ones(shard.described, bool)
        gone = removed.get(shard.name, np.empty(0, np.int64))
        mask[gone[gone < shard.described]] = False
        masks.append(mask)
    queries = np.random.default_rng(3).standard_normal((40, DIMENSION)).astype(np.float32)
    result = retrieve(shards, queries, count, nprobe=2, candidates=20, selected=masks)
    return [
        [(shards[s].image_ids([r])[0], float(x)) for s, r, x in zip(*line, strict=True) if r >= 0]
        for line in zip(result.shard, result.row, result.similarity, strict=True)
    ]


@pytest.mark.parametrize("recipe", [FLAT, TINY_PQ])
def test_a_compacted_index_finds_the_same_and_holds_only_what_lives(
    tmp_path: Path, photos: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("copydet.search.retrieve._SCAN_ROWS", 0)
    index = grown(tmp_path / "index", photos, recipe)
    ids, before = ids_of(index), found(index)
    plan = plan_compaction(index)
    snapshot = compact(index)
    assert len(snapshot.shards) == plan.shards < 4
    assert (snapshot.images, snapshot.removed, snapshot.deletions) == (len(ids), 0, None)
    assert sorted(ids_of(index)) == sorted(ids)
    assert found(index) == before
    remove_unused(index)
    assert found(index) == before
    assert not plan_compaction(index).joins
    assert compact(index) == snapshot
    named = {f"shards/{shard.name}" for shard in snapshot.shards}
    assert {f"shards/{path.name}" for path in (index / "shards").iterdir()} == named
    assert not (index / "compacting").exists()


def test_a_compacted_index_is_byte_for_byte_that_of_the_same_images_built_at_once(tmp_path: Path, photos: Path) -> None:
    more = draw_photos(tmp_path / "more", 20, first=80, detailed=True)
    both = tmp_path / "both"
    shutil.copytree(photos, both)
    shutil.copytree(more, both, dirs_exist_ok=True)
    for name in ("00005.jpg", "00081.jpg"):
        (both / name).unlink()
    build(tmp_path / "once", both)
    build(tmp_path / "grown", photos)
    add(tmp_path / "grown", more)
    remove_images(tmp_path / "grown", ["00081.jpg", "00005.jpg"])
    compact(tmp_path / "grown")
    one, other = (shards_of(tmp_path / name)[-1] for name in ("once", "grown"))
    for name in ("codes.faiss", "descriptors.f16", "local.features", "local.offsets", "local.gists"):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()
    rows = (shard.image_columns(range(shard.images), ("image_id", "sha256", "status")) for shard in (one, other))
    assert next(rows).to_pylist() == next(rows).to_pylist()


def test_an_index_whose_images_were_all_removed_is_empty_and_can_be_added_to(tmp_path: Path, photos: Path) -> None:
    build(tmp_path / "index", photos, recipe=TINY_PQ)
    remove_images(tmp_path / "index", where="true")
    snapshot = compact(tmp_path / "index")
    assert (snapshot.shards, snapshot.images, snapshot.quantiser) == ((), 0, None)
    remove_unused(tmp_path / "index")
    assert not list((tmp_path / "index" / "quantisers").iterdir())
    assert add(tmp_path / "index", photos).images == 70


def test_a_removed_image_stays_away_after_compaction_and_can_be_added_again(tmp_path: Path, photos: Path) -> None:
    index = grown(tmp_path / "index", photos, FLAT)
    compact(index)
    assert "00003.jpg" not in ids_of(index)
    again = tmp_path / "again"
    again.mkdir()
    shutil.copyfile(photos / "00003.jpg", again / "00003.jpg")
    add(index, again)
    remove_images(index, ["00004.jpg"])
    compact(index)
    assert "00004.jpg" not in ids_of(index)
    assert ids_of(index).count("00003.jpg") == 1


def test_compaction_goes_on_from_finished_shards_and_ends_like_an_undisturbed_one(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(FLAT, shard_images=40)
    monkeypatch.setattr("copydet.engines.memory.CHUNK_IMAGES", 16)
    monkeypatch.setattr("copydet.shards.staging.CHUNK_IMAGES", 16)
    index = grown(tmp_path / "index", photos, small)
    assert len(plan_compaction(index).joins) > 1
    shutil.copytree(index, tmp_path / "whole")
    compact(tmp_path / "whole")

    def disk_is_full(*_: object) -> None:
        raise CopydetError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "commit", disk_is_full)
        with pytest.raises(CopydetError, match="disk full"):
            compact(index)
    finished = {path: path.stat().st_mtime_ns for path in (index / "shards").rglob("codes.faiss")}
    compact(index)
    assert finished == {path: path.stat().st_mtime_ns for path in (index / "shards").rglob("codes.faiss")}
    for each in (index, tmp_path / "whole"):
        remove_unused(each)
    assert contents(index) == contents(tmp_path / "whole")


def test_a_damaged_shard_is_not_written_anew(tmp_path: Path, photos: Path) -> None:
    index = grown(tmp_path / "index", photos, FLAT)
    before = snapshots.read_current(index)
    path = shards_of(index)[0].folder / "descriptors.f16"
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    with pytest.raises(CopydetError, match=r"descriptors\.f16: its contents have changed"):
        compact(index)
    assert snapshots.read_current(index) == before


@pytest.mark.parametrize("cut_off", ["copydet.store.snapshots.commit", "copydet.shards.staging.finish"])
def test_an_addition_that_was_cut_off_before_or_after_it_counted_is_neither_lost_nor_done_twice(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, cut_off: str
) -> None:
    index = grown(tmp_path / "index", photos, FLAT)
    before = len(ids_of(index))
    more = draw_photos(tmp_path / "more", 12, first=200)

    def killed(*_: object) -> None:
        raise CopydetError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(cut_off, killed)
        with pytest.raises(CopydetError, match="killed"):
            local.add(index, [str(more)], DESCRIPTOR, ThumbnailRuntime(), workers=2)
    counted = cut_off.endswith("finish")
    compact(index)
    remove_unused(index)
    assert len(ids_of(index)) == before + 12 * counted
    if not counted:
        add(index, more)
    assert [name for name in ids_of(index) if name.startswith("002")] == [f"{n:05d}.jpg" for n in range(200, 212)]
    assert len(ids_of(index)) == before + 12


def test_the_second_writer_is_told_about_the_first(tmp_path: Path, photos: Path) -> None:
    build(tmp_path / "index", photos)
    with write_lock(tmp_path / "index"):
        for change in (compact, remove_unused):
            with pytest.raises(IndexLocked, match="being written by another process"):
                change(tmp_path / "index")
