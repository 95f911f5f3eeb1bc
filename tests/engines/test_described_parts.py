"""Indexes whose recipe describes parts of images, too: the same as of wholes, and each part where it belongs."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from drawn import DESCRIPTOR, DIMENSION, ThumbnailRuntime, draw_photos
from test_local import FLAT, TINY_PQ, FailingRuntime, add, build, contents, cut_off, ids_of, shards_of
from test_repair import cut, flip, problems, searchable

from copydet.engines import local
from copydet.engines.compaction import compact
from copydet.engines.repair import repair
from copydet.errors import CopydetError, UsageError
from copydet.images.decode import decode
from copydet.images.parts import REFERENCE_VIEWS
from copydet.images.parts import cut as cut_part
from copydet.images.resize import Resize, resize_pixels
from copydet.local_features.describe import QUERY_EDGE
from copydet.shards import staging
from copydet.shards.deletions import remove_images
from copydet.shards.recipe import Recipe
from copydet.store import snapshots

QUARTERS = replace(FLAT, reference_views="quarters")
PQ_QUARTERS = replace(TINY_PQ, reference_views="quarters")
PARTS = REFERENCE_VIEWS["quarters"]


def grown(index: Path, folder: Path, recipe: Recipe) -> Path:
    """An index of 62 photos, two of them copies of one, and an unreadable file, grown by 12 and two removed."""
    photos = draw_photos(folder / "photos", 60, detailed=True)
    (photos / "bad.jpg").write_bytes(b"")
    for name in ("00004b.jpg", "00059b.jpg"):
        shutil.copyfile(photos / "00004.jpg", photos / name)
    build(index, photos, recipe=recipe)
    add(index, draw_photos(folder / "more", 12, first=80, detailed=True))
    remove_images(index, ["00007.jpg", "00081.jpg"])
    return photos


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("copydet.shards.staging.CHUNK_IMAGES", "copydet.engines.memory.CHUNK_IMAGES"):
        monkeypatch.setattr(name, 16)
    monkeypatch.setattr(local, "_BATCH", 16)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    built = {}
    for recipe in (QUARTERS, PQ_QUARTERS):
        folder = tmp_path_factory.mktemp("quarters")
        grown(folder / "index", folder, recipe)
        built[recipe.name] = folder / "index"
    return built


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flat", "tiny-pq"])
def test_each_part_of_each_image_lies_at_its_place(whole: dict[str, Path], name: str) -> None:
    runtime = ThumbnailRuntime()
    for shard in shards_of(whole[name]):
        assert shard.views is not None
        assert shard.views.descriptors.shape == (len(PARTS) * shard.described, DIMENSION)
        assert shard.views.codes.ntotal == len(shard.views.descriptors)
        uris = shard.image_columns(range(shard.described), ("uri",))["uri"].to_pylist()
        for row, uri in enumerate(uris):
            pixels = decode(Path(uri).read_bytes(), Resize("long_edge", QUERY_EDGE)).pixels
            parts = [resize_pixels(cut_part(pixels, part), DESCRIPTOR.resize) for part in PARTS]
            stored = shard.views.descriptors[row * len(PARTS) : (row + 1) * len(PARTS)]
            np.testing.assert_array_equal(stored, runtime.describe(parts).astype(np.float16))
    assert problems(whole[name], "rows") == []


def test_the_whole_images_are_described_as_without_parts(whole: dict[str, Path], tmp_path: Path) -> None:
    build(tmp_path / "index", whole["flat"].parent / "photos", recipe=FLAT)
    plain, viewed = shards_of(tmp_path / "index")[0], shards_of(whole["flat"])[0]
    assert plain.views is None
    for name in ("codes.faiss", "descriptors.f16"):
        assert (plain.folder / name).read_bytes() == (viewed.folder / name).read_bytes()


def test_an_image_without_room_for_parts_stands_for_them(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (30, 90, 3), dtype=np.uint8)
    assert all(cut_part(pixels, part) is pixels for part in PARTS)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("recipe", [QUARTERS, PQ_QUARTERS])
def test_a_run_that_was_cut_off_ends_like_an_undisturbed_one(tmp_path: Path, recipe: Recipe) -> None:
    photos = draw_photos(tmp_path / "photos", 60)
    shutil.copyfile(photos / "00003.jpg", photos / "00058b.jpg")  # repeats an image of a finished chunk
    with pytest.raises(KeyboardInterrupt):
        local.build(tmp_path / "index", [str(photos)], DESCRIPTOR, recipe, FailingRuntime(240), workers=2)
    assert len(staging.finished_chunks(tmp_path / "index" / "building", DIMENSION, True, len(PARTS))) == 2
    build(tmp_path / "index", photos, recipe=recipe)
    build(tmp_path / "undisturbed", photos, recipe=recipe, workers=1)
    assert any(name.endswith("views.f16") for name in contents(tmp_path / "index"))
    assert contents(tmp_path / "index") == contents(tmp_path / "undisturbed")


@pytest.mark.usefixtures("small_chunks")
def test_a_run_does_not_go_on_with_other_views(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 40)
    cut_off(tmp_path / "index", photos, 35)
    with pytest.raises(UsageError, match=r"with reference_views null, now .quarters."):
        build(tmp_path / "index", photos, recipe=QUARTERS)


def test_a_torn_chunk_is_described_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_is_full(*_: object) -> None:
        raise CopydetError("disk full")

    photos = draw_photos(tmp_path / "photos", 10)
    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "commit", disk_is_full)
        with pytest.raises(CopydetError, match="disk full"):
            build(tmp_path / "index", photos, recipe=QUARTERS)
    cut(tmp_path / "index" / "building" / "chunk-000000.views")
    build(tmp_path / "index", photos, recipe=QUARTERS)
    build(tmp_path / "undisturbed", photos, recipe=QUARTERS)
    assert contents(tmp_path / "index") == contents(tmp_path / "undisturbed")


def test_a_compacted_index_is_that_of_the_same_images_built_at_once(whole: dict[str, Path], tmp_path: Path) -> None:
    index = Path(shutil.copytree(whole["flat"], tmp_path / "index"))
    both = Path(shutil.copytree(whole["flat"].parent / "photos", tmp_path / "both"))
    shutil.copytree(whole["flat"].parent / "more", both, dirs_exist_ok=True)
    for name in ("00007.jpg", "00081.jpg", "bad.jpg"):
        (both / name).unlink()
    snapshot = compact(index)
    assert [shard.reference_views for shard in snapshot.shards] == ["quarters"]
    build(tmp_path / "once", both, recipe=QUARTERS)
    (one,), (other,) = shards_of(tmp_path / "once"), shards_of(index)
    order = [other.image_ids(range(other.described)).index(each) for each in one.image_ids(range(one.described))]
    assert one.views is not None
    assert other.views is not None
    by_image = other.views.descriptors.reshape(other.described, len(PARTS), DIMENSION)[order]
    np.testing.assert_array_equal(by_image.reshape(-1, DIMENSION), one.views.descriptors)
    assert problems(index, "rows") == []


def test_shards_with_and_without_parts_are_not_joined(tmp_path: Path) -> None:
    index, photos = tmp_path / "index", draw_photos(tmp_path / "photos", 5)
    build(index, photos, recipe=QUARTERS)
    vectors = ThumbnailRuntime().describe([np.full((16, 16, 3), value, np.uint8) for value in (10, 200)])
    np.save(tmp_path / "more.npy", vectors)
    local.add(index, [str(tmp_path / "more.npy")], DESCRIPTOR, None)
    snapshot = compact(index)
    assert [shard.reference_views for shard in snapshot.shards] == ["quarters", "whole"]
    assert problems(index, "rows") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flat", "tiny-pq"])
@pytest.mark.parametrize(
    ("file", "damage"), [("views.f16", flip), ("views.faiss", Path.unlink), ("local.features", flip)]
)
def test_damage_is_seen_and_made_again_to_the_byte(
    whole: dict[str, Path], tmp_path: Path, name: str, file: str, damage: Callable[[Path], None]
) -> None:
    index = Path(shutil.copytree(whole[name], tmp_path / "index"))
    before, ids = searchable(index), ids_of(index)
    shard = shards_of(index)[0]
    damage(shard.folder / file)
    assert [line.split(":")[0] for line in problems(index, "sums")] == [f"shards/{shard.name}/{file}"]
    assert repair(index, ThumbnailRuntime).left == ()
    assert searchable(index) == before
    assert ids_of(index) == ids


def test_a_shard_from_before_there_were_views_has_wholes_only(whole: dict[str, Path]) -> None:
    entry = asdict(snapshots.read_current(whole["flat"]).shards[0])
    del entry["reference_views"]
    assert snapshots.parse_shard(entry).reference_views == "whole"


def test_views_of_a_kind_that_is_not_known_are_one_line(whole: dict[str, Path], tmp_path: Path) -> None:
    index = Path(shutil.copytree(whole["flat"], tmp_path / "index"))
    path = snapshots.snapshot_path(index, snapshots.read_current(index).number)
    path.write_text(path.read_text().replace('"reference_views": "quarters"', '"reference_views": "hexagons"'))
    snapshots.name_current(index, snapshots.read_snapshot(index, int(path.stem)).number, snapshots.hash_file(path))
    with pytest.raises(CopydetError, match="views of a kind"):
        shards_of(index)
