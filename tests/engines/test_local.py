import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from drawn import DESCRIPTOR, DIMENSION, ThumbnailRuntime, draw_photos

from copydet.engines import local
from copydet.errors import CopydetError, IndexLocked, NotAnIndex, UsageError
from copydet.images.decode import DETAIL, decode
from copydet.images.resize import Resize
from copydet.local_features.describe import LOCAL_EDGE, describe_image
from copydet.progress import Progress
from copydet.records import ImageFeatures, Pixels, Vectors
from copydet.shards import staging
from copydet.shards.deletions import read_deletions, remove_images
from copydet.shards.recipe import Recipe, load_recipe
from copydet.shards.shard import Shard, open_shard
from copydet.store import snapshots
from copydet.store.hashing import hash_file
from copydet.store.locks import write_lock
from copydet.store.snapshots import Snapshot

FLAT = load_recipe("flat")
TINY_PQ = Recipe("tiny-pq", "for tests", "IVF{lists},PQ{code_bytes}x4", 8, 200, 60, 50, 4, 20, 0, 50)


class Notes(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.images = 0

    def advance(self, images: int) -> None:
        self.images += images

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 images, so that a few photos cross every boundary."""
    monkeypatch.setattr(staging, "CHUNK_IMAGES", 16)
    monkeypatch.setattr("copydet.engines.memory.CHUNK_IMAGES", 16)


def build(
    index: Path, *sources: Path, recipe: Recipe | None = FLAT, workers: int = 2, notes: Notes | None = None
) -> Snapshot:
    specs = [str(source) for source in sources]
    return local.build(index, specs, DESCRIPTOR, recipe, ThumbnailRuntime(), workers=workers, progress=notes)


def add(index: Path, *sources: Path, notes: Notes | None = None) -> Snapshot:
    return local.add(index, [str(s) for s in sources], DESCRIPTOR, ThumbnailRuntime(), workers=2, progress=notes)


def shards_of(index: Path) -> list[Shard]:
    return [open_shard(index, entry, DIMENSION) for entry in snapshots.read_current(index).shards]


def ids_of(index: Path) -> list[str]:
    """Ids of all living images."""
    snapshot = snapshots.read_current(index)
    dead = read_deletions(index, snapshot)
    return [
        image_id
        for shard in shards_of(index)
        for image_id in shard.image_ids(np.setdiff1d(np.arange(shard.images), dead.get(shard.name, [])))
    ]


def contents(index: Path) -> dict[str, bytes]:
    """Every committed file; of Parquet all but the time of indexing, of the snapshot all but the time and hashes."""
    found = {}
    for path in sorted(
        p for p in index.rglob("*") if p.is_file() and p.name not in ("lock", "CURRENT") and ".tmp-" not in str(p)
    ):
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            if "indexed_at" in table.column_names:
                table = table.drop_columns(["indexed_at"])
            found[str(path.relative_to(index))] = repr(table.to_pydict()).encode()
        elif path.suffix != ".json":
            found[str(path.relative_to(index))] = path.read_bytes()
    found["shards"] = repr([replace(s, files={}) for s in snapshots.read_current(index).shards]).encode()
    return found


def test_every_image_of_every_source_becomes_a_row(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 5)
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "notes.txt").write_text("not an image")
    notes = Notes()
    snapshot = build(tmp_path / "index", photos, photos / "00000.jpg", notes=notes)
    assert (snapshot.number, snapshot.images, snapshot.described, notes.images) == (1, 8, 5 + 1, 8)
    assert ids_of(tmp_path / "index") == [
        *(f"0000{n}.jpg" for n in range(5)),
        str(photos / "00000.jpg"),
        "empty.jpg",
        "notes.txt",
    ]
    assert sorted(p.name for p in (tmp_path / "index").iterdir()) == ["CURRENT", "lock", "shards", "snapshots"]


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("recipe", [None, FLAT, load_recipe("sq8"), load_recipe("ivf-pq")])
def test_indexes_of_no_one_and_two_images_work_with_every_recipe(
    tmp_path: Path, count: int, recipe: Recipe | None
) -> None:
    notes = Notes()
    snapshot = build(tmp_path / "index", draw_photos(tmp_path / "photos", count), recipe=recipe, notes=notes)
    assert (snapshot.images, snapshot.described, len(snapshot.shards)) == (count, count, min(count, 1))
    assert all(shard.codes == "Flat" for shard in snapshot.shards)
    assert len(ids_of(tmp_path / "index")) == count
    if recipe not in (None, FLAT) and recipe is not None:
        assert any(f"too few to train recipe {recipe.name}" in line for line in notes.lines)


def test_the_memory_and_the_recipe_are_said(tmp_path: Path) -> None:
    notes = Notes()
    build(tmp_path / "index", draw_photos(tmp_path / "photos", 3), recipe=None, notes=notes)
    assert notes.lines[0].startswith("memory: ")
    assert notes.lines[1].startswith("recipe flat for 3 images")


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("recipe", [FLAT, TINY_PQ])
def test_the_index_has_the_same_bytes_whatever_the_number_of_workers(tmp_path: Path, recipe: Recipe) -> None:
    photos = draw_photos(tmp_path / "photos", 90)
    for workers in (1, 2, 7):
        build(tmp_path / f"index{workers}", photos, recipe=recipe, workers=workers)
    assert contents(tmp_path / "index1") == contents(tmp_path / "index2") == contents(tmp_path / "index7")


@pytest.mark.usefixtures("small_chunks")
def test_a_quantiser_is_trained_once_and_shared_by_all_shards_also_by_added_ones(tmp_path: Path) -> None:
    index, photos = tmp_path / "index", draw_photos(tmp_path / "photos", 120)
    first = build(index, photos, recipe=TINY_PQ)
    assert len(first.shards) == 3
    assert {shard.codes for shard in first.shards} == {"IVF3,PQ8x4"}
    second = add(index, draw_photos(tmp_path / "more", 3, first=500))
    assert second.quantiser == first.quantiser
    assert second.shards[-1].codes == first.shards[0].codes
    assert len(list((index / "quantisers").iterdir())) == 1


@pytest.mark.usefixtures("small_chunks")
def test_an_index_that_began_too_small_trains_when_enough_is_added(tmp_path: Path) -> None:
    index, notes = tmp_path / "index", Notes()
    assert build(index, draw_photos(tmp_path / "a", 10), recipe=TINY_PQ, notes=notes).quantiser is None
    assert any("too few to train recipe tiny-pq" in line for line in notes.lines)
    snapshot = add(index, draw_photos(tmp_path / "b", 80, first=100))
    assert [shard.codes[:4] for shard in snapshot.shards] == ["Flat", "IVF2", "IVF2"]


def test_added_images_come_as_new_shards_and_taken_ids_as_duplicates(tmp_path: Path) -> None:
    index = tmp_path / "index"
    first = build(index, draw_photos(tmp_path / "photos", 4))
    second = add(index, draw_photos(tmp_path / "more", 4, first=2))
    assert second.shards[: len(first.shards)] == first.shards
    assert (second.number, second.images, second.described) == (2, 8, 6)
    assert ids_of(index)[4:] == ["00004.jpg", "00005.jpg", "00002.jpg#2", "00003.jpg#2"]
    assert snapshots.read_snapshot(index, 1) == first  # a reader may hold it still


def test_adding_nothing_commits_nothing(tmp_path: Path) -> None:
    build(tmp_path / "index", draw_photos(tmp_path / "photos", 2))
    (tmp_path / "empty").mkdir()
    assert add(tmp_path / "index", tmp_path / "empty").number == 1
    assert not (tmp_path / "index" / "building").exists()


def test_a_removed_id_is_dead_and_can_be_added_again(tmp_path: Path) -> None:
    index, photos = tmp_path / "index", draw_photos(tmp_path / "photos", 5)
    build(index, photos)
    snapshot = remove_images(index, ["00001.jpg", "00003.jpg"])
    assert (snapshot.number, snapshot.images, snapshot.removed) == (2, 3, 2)
    assert ids_of(index) == ["00000.jpg", "00002.jpg", "00004.jpg"]
    snapshot = add(index, draw_photos(tmp_path / "again", 1, first=3))
    assert ids_of(index) == ["00000.jpg", "00002.jpg", "00004.jpg", "00003.jpg"]
    assert {name: rows.tolist() for name, rows in read_deletions(index, snapshot).items()} == {"000001-0000": [1, 3]}
    with pytest.raises(UsageError, match=r"holds no image '00001\.jpg' \(1 of 2"):
        remove_images(index, ["00003.jpg", "00001.jpg"])
    assert len(ids_of(index)) == 4
    assert remove_images(index, ["00003.jpg"]).removed == 3
    assert ids_of(index) == ["00000.jpg", "00002.jpg", "00004.jpg"]


def test_images_are_removed_by_a_condition_also_those_that_failed(tmp_path: Path) -> None:
    index, photos = tmp_path / "index", draw_photos(tmp_path / "photos", 5)
    (photos / "bad.jpg").write_bytes(b"")
    build(index, photos)
    assert remove_images(index, where="status <> 'ok' OR image_id = '00000.jpg'").images == 4
    assert remove_images(index, where="status <> 'ok' OR image_id <= '00001.jpg'").images == 3
    assert ids_of(index) == ["00002.jpg", "00003.jpg", "00004.jpg"]
    assert remove_images(index, where="false").number == 3
    with pytest.raises(UsageError, match="the columns are"):
        remove_images(index, where="colour = 1")
    assert remove_images(index, where="true").images == 0


def test_a_deletions_file_that_names_strange_rows_is_one_line(tmp_path: Path) -> None:
    index = tmp_path / "index"
    build(index, draw_photos(tmp_path / "photos", 2))
    snapshot = remove_images(index, ["00000.jpg"])
    assert snapshot.deletions is not None
    table = pq.read_table(index / snapshot.deletions)
    pq.write_table(table.set_column(1, "row", [[99]]), index / "deletions" / "000009.parquet")
    entry = snapshots.file_entry(index / "deletions" / "000009.parquet")
    strange = replace(snapshot, deletions="deletions/000009.parquet", files={"deletions/000009.parquet": entry})
    with pytest.raises(CopydetError, match="rows that are not there"):
        read_deletions(index, strange)


def _other_descriptor() -> ThumbnailRuntime:
    runtime = ThumbnailRuntime()
    runtime.descriptor = replace(DESCRIPTOR, name="other", hash="f" * 32)
    return runtime


def test_descriptors_are_not_mixed(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 2)
    build(tmp_path / "index", photos)
    runtime = _other_descriptor()
    with pytest.raises(UsageError, match=r"made with descriptor thumbnail .*, not with other"):
        local.add(tmp_path / "index", [str(photos)], runtime.descriptor, runtime)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda index, photos: build(index, photos), "holds an index already; add to it with: copydet add"),
        (lambda index, photos: index.write_text("x"), "is a file"),
        (lambda index, photos: draw_photos(index, 1), r"holds other files \(00000\.jpg\)"),
    ],
)
def test_a_folder_in_use_is_refused_and_left_alone(
    tmp_path: Path, prepare: Callable[[Path, Path], object], words: str
) -> None:
    photos, index = draw_photos(tmp_path / "photos", 2), tmp_path / "index"
    prepare(index, photos)
    before = sorted((p, p.read_bytes()) for p in [index, *index.rglob("*")] if p.is_file())
    with pytest.raises(UsageError, match=words):
        build(index, photos)
    assert sorted((p, p.read_bytes()) for p in [index, *index.rglob("*")] if p.is_file()) == before


def test_an_index_inside_its_own_source_and_a_source_that_is_not_there_are_refused(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 2)
    with pytest.raises(UsageError, match="lies inside the source"):
        build(photos / "index", photos)
    with pytest.raises(UsageError, match="no such source"):
        build(tmp_path / "index", photos / "nothing")
    with pytest.raises(NotAnIndex):
        add(tmp_path / "index", photos)
    assert not (photos / "index").exists()
    assert not (tmp_path / "index").exists()


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    index = tmp_path / "index"
    build(index, draw_photos(tmp_path / "photos", 2))
    with write_lock(index):
        with pytest.raises(IndexLocked):
            add(index, tmp_path / "photos")
        with pytest.raises(IndexLocked):
            remove_images(index, ["00000.jpg"])
        assert len(ids_of(index)) == 2


class FailingRuntime(ThumbnailRuntime):
    """Breaks after a number of images, as a run that is cut off."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.left = images

    def describe(self, pixels: Sequence[Pixels]) -> Vectors:
        self.left -= len(pixels)
        if self.left < 0:
            raise KeyboardInterrupt
        return super().describe(pixels)


def cut_off(index: Path, photos: Path, images: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        local.build(index, [str(photos)], DESCRIPTOR, FLAT, FailingRuntime(images), workers=2)


@pytest.fixture
def batches_of_16(monkeypatch: pytest.MonkeyPatch, small_chunks: None) -> None:
    monkeypatch.setattr(local, "_BATCH", 16)


@pytest.mark.usefixtures("batches_of_16")
def test_a_run_that_was_cut_off_goes_on_from_its_chunks(tmp_path: Path) -> None:
    photos, notes = draw_photos(tmp_path / "photos", 60), Notes()
    cut_off(tmp_path / "index", photos, 40)
    with pytest.raises(NotAnIndex, match="run the same"):
        snapshots.read_current(tmp_path / "index")
    runtime = FailingRuntime(60 - 32)  # has not enough left to describe the first two chunks again
    local.build(tmp_path / "index", [str(photos)], DESCRIPTOR, FLAT, runtime, workers=2, progress=notes)
    assert any("32 images are described already" in line for line in notes.lines)
    assert notes.images == 60
    build(tmp_path / "undisturbed", photos)
    assert contents(tmp_path / "index") == contents(tmp_path / "undisturbed")


@pytest.mark.usefixtures("batches_of_16")
@pytest.mark.parametrize("change", ["remove", "insert", "cut"])
def test_chunks_that_the_sources_no_longer_list_are_described_again(tmp_path: Path, change: str) -> None:
    photos, notes = draw_photos(tmp_path / "photos", 60), Notes()
    cut_off(tmp_path / "index", photos, 50)
    if change == "remove":
        (photos / "00020.jpg").unlink()
    elif change == "insert":
        shutil.copy(photos / "00000.jpg", photos / "00020b.jpg")
    else:
        for number in range(20, 60):
            (photos / f"{number:05d}.jpg").unlink()
    build(tmp_path / "index", photos, notes=notes)
    assert any("the sources have changed" in line and "image 17" in line for line in notes.lines)
    build(tmp_path / "undisturbed", photos)
    assert contents(tmp_path / "index") == contents(tmp_path / "undisturbed")


@pytest.mark.usefixtures("batches_of_16")
def test_an_unfinished_run_of_other_sources_or_another_descriptor_is_not_thrown_away(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 60)
    cut_off(tmp_path / "index", photos, 40)
    with pytest.raises(UsageError, match="unfinished run with sources"):
        build(tmp_path / "index", draw_photos(tmp_path / "others", 2))
    runtime = _other_descriptor()
    with pytest.raises(UsageError, match="unfinished run with descriptor"):
        local.build(tmp_path / "index", [str(photos)], runtime.descriptor, FLAT, runtime)
    shutil.rmtree(tmp_path / "index" / "building")
    assert build(tmp_path / "index", tmp_path / "others").images == 2


@pytest.mark.usefixtures("batches_of_16")
def test_a_damaged_chunk_is_described_again(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 60)
    cut_off(tmp_path / "index", photos, 50)
    chunk = tmp_path / "index" / "building" / "chunk-000001.f16"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    build(tmp_path / "index", photos)
    build(tmp_path / "undisturbed", photos)
    assert contents(tmp_path / "index") == contents(tmp_path / "undisturbed")


def test_an_interrupted_add_survives_a_removal_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index"
    build(index, draw_photos(tmp_path / "photos", 5))
    more = draw_photos(tmp_path / "more", 3, first=3)

    def fail(*_: object) -> Snapshot:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "commit", fail)
        with pytest.raises(KeyboardInterrupt):
            add(index, more)
    assert len(ids_of(index)) == 5
    remove_images(index, ["00003.jpg"])
    add(index, more)
    assert ids_of(index) == [
        "00000.jpg",
        "00001.jpg",
        "00002.jpg",
        "00004.jpg",
        "00003.jpg",
        "00005.jpg",
        "00004.jpg#2",
    ]
    assert {p.name for p in (index / "shards").iterdir()} == {"000001-0000", "000003-0000"}


class BrokenRuntime(ThumbnailRuntime):
    def describe(self, pixels: Sequence[Pixels]) -> Vectors:
        return super().describe(pixels) * np.float32("nan")


def test_a_descriptor_that_is_not_a_number_stops_the_run_with_the_images_name(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 2)
    with pytest.raises(CopydetError, match=r"00000\.jpg is not finite"):
        local.build(tmp_path / "index", [str(photos)], DESCRIPTOR, FLAT, BrokenRuntime())


def local_of(index: Path) -> dict[str, ImageFeatures]:
    """Image id -> its local features, of all shards that have some."""
    found = {}
    for shard in shards_of(index):
        if shard.local is not None:
            ids = shard.image_ids(range(shard.described))
            found.update({image_id: shard.local.image(row) for row, image_id in enumerate(ids)})
    return found


def expected_local(photos: Path, count: int) -> dict[str, ImageFeatures]:
    found = {}
    for path in sorted(photos.iterdir()):
        decoded = decode(path.read_bytes(), DESCRIPTOR.resize, also=Resize("long_edge", LOCAL_EDGE))
        assert decoded.also is not None
        found[path.name] = describe_image(decoded.also, count)
    return found


def same_local(found: dict[str, ImageFeatures], expected: dict[str, ImageFeatures]) -> bool:
    def same(one: ImageFeatures, other: ImageFeatures) -> bool:
        return np.array_equal(one.records, other.records) and np.array_equal(one.gist, other.gist)

    return found.keys() == expected.keys() and all(same(found[each], expected[each]) for each in expected)


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("recipe", "count"), [(None, FLAT.local_features), (replace(TINY_PQ, shard_images=20), 50)])
def test_every_image_keeps_its_local_features_in_whatever_shard_it_is(
    tmp_path: Path, recipe: Recipe | None, count: int
) -> None:
    photos = draw_photos(tmp_path / "photos", 40, detailed=True)
    index, expected = tmp_path / "index", expected_local(photos, count)
    sizes = [len(each.records) for each in expected.values()]
    assert max(sizes) in range(1, count + 1)
    (photos / "00007b.jpg").write_bytes(b"")
    snapshot = build(index, photos, recipe=recipe)
    assert same_local(local_of(index), expected)
    assert sum(shard.local.features for shard in snapshot.shards if shard.local) == sum(sizes)
    more = draw_photos(tmp_path / "more", 4, first=38, detailed=True)
    add(index, more)
    assert same_local(local_of(index), expected | expected_local(more, count))


def test_a_recipe_without_local_features_stores_none(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 3, detailed=True)
    snapshot = build(tmp_path / "index", photos, recipe=replace(FLAT, local_features=0))
    assert [shard.local for shard in snapshot.shards] == [None]
    assert not list((tmp_path / "index").rglob("local.*"))


def test_an_index_from_before_there_were_local_features_goes_on_without_them(tmp_path: Path) -> None:
    index, photos = tmp_path / "index", draw_photos(tmp_path / "photos", 3, detailed=True)
    build(index, photos, recipe=replace(FLAT, local_features=0))
    path = snapshots.snapshot_path(index, 1)
    old = json.loads(path.read_bytes())
    del old["recipe"]["local_features"]
    del old["shards"][0]["local"]
    path.write_text(json.dumps(old))
    (index / "CURRENT").write_text("000001\n")  # as it was before it held the snapshot's hash
    snapshot = add(index, draw_photos(tmp_path / "more", 3, first=5, detailed=True))
    assert [shard.local for shard in snapshot.shards] == [None, None]
    assert snapshot.recipe["local_features"] == 0


@pytest.mark.usefixtures("batches_of_16")
@pytest.mark.parametrize("recipe", [None, replace(FLAT, local_features=7)])
def test_a_run_is_not_resumed_with_another_number_of_local_features(tmp_path: Path, recipe: Recipe | None) -> None:
    photos, others = draw_photos(tmp_path / "photos", 60), [replace(FLAT, local_features=count) for count in (0, 8)]
    with pytest.raises(KeyboardInterrupt):
        local.build(tmp_path / "index", [str(photos)], DESCRIPTOR, recipe, FailingRuntime(40), workers=2)
    for other in others:
        with pytest.raises(UsageError, match=r"unfinished run with local_features .* now (null|\"8 )"):
            build(tmp_path / "index", photos, recipe=other)
    build(tmp_path / "index", photos, recipe=recipe)


@pytest.mark.slow
@pytest.mark.usefixtures("batches_of_16")
@pytest.mark.parametrize("name", ["chunk-000001.local", "chunk-000001.offsets"])
def test_a_chunk_with_damaged_local_features_is_described_again(tmp_path: Path, name: str) -> None:
    photos, notes = draw_photos(tmp_path / "photos", 60, detailed=True), Notes()
    cut_off(tmp_path / "index", photos, 50)
    chunk = tmp_path / "index" / "building" / name
    chunk.write_bytes(chunk.read_bytes()[:-1])
    build(tmp_path / "index", photos, notes=notes)
    assert any("16 images are described already" in line for line in notes.lines)
    build(tmp_path / "undisturbed", photos)
    assert contents(tmp_path / "index") == contents(tmp_path / "undisturbed")


def test_a_recipe_in_a_snapshot_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    index, photos = tmp_path / "index", draw_photos(tmp_path / "photos", 1)
    build(index, photos)
    path = snapshots.snapshot_path(index, 1)
    path.write_text(path.read_text().replace('"nprobe"', '"colour"'))
    snapshots.name_current(index, 1, hash_file(path))
    with pytest.raises(CopydetError, match=r"the recipe in .* cannot be used: unknown field 'colour'"):
        add(index, photos)


def test_jpegs_are_decoded_as_finely_as_local_features_need_and_no_finer() -> None:
    assert Resize("long_edge", LOCAL_EDGE) == DETAIL


class Counting(ThumbnailRuntime):
    described = 0

    def describe(self, pixels: Sequence[Pixels]) -> Vectors:
        self.described += len(pixels)
        return super().describe(pixels)


def test_images_of_equal_bytes_are_described_once_and_have_the_rows_and_vectors_that_describing_gives(
    tmp_path: Path, small_chunks: None
) -> None:
    photos = draw_photos(tmp_path / "photos", 24, detailed=True)
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    for number in range(40):  # within a chunk, across chunks, and of a file that is no image
        name = "bad.jpg" if number % 10 == 9 else f"{number % 24:05}.jpg"
        shutil.copyfile(photos / name, photos / f"again-{number:02}.jpg")
    runtime = Counting()
    snapshot = local.build(tmp_path / "index", [str(photos)], DESCRIPTOR, FLAT, runtime, workers=2)
    assert runtime.described == 24
    assert snapshot.images == 65
    (shard,) = shards_of(tmp_path / "index")
    assert shard.described == 60
    rows = shard.image_columns(
        list(range(65)), ("image_id", "sha256", "width", "format", "status", "message")
    ).to_pylist()
    by_hash: dict[str, tuple[object, ...]] = {}
    for number, row in enumerate(rows):
        known = (row["width"], row["format"], row["status"], row["message"])
        if number < shard.described:
            assert shard.local is not None
            known += (shard.descriptors[number].tobytes(), shard.local.of(number).tobytes())
        assert by_hash.setdefault(row["sha256"], known) == known
    assert len(by_hash) == 25
    assert all(known[0] is not None for known in by_hash.values() if known[2] == "ok")


def test_a_resumed_run_knows_what_was_described_before_it_was_cut_off(
    tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_BATCH", 8)
    photos = draw_photos(tmp_path / "photos", 24)
    for number in range(16):
        shutil.copyfile(photos / f"{number:05}.jpg", photos / f"again-{number:02}.jpg")
    # Listed first are the 24 photos, of which chunk 0 holds 16, then copies of those 16.

    class CutOff(Counting):
        def describe(self, pixels: Sequence[Pixels]) -> Vectors:
            if self.described == 16 and pixels:
                raise CopydetError("cut off")
            return super().describe(pixels)

    with pytest.raises(CopydetError, match="cut off"):
        local.build(tmp_path / "index", [str(photos)], DESCRIPTOR, FLAT, CutOff(), workers=2)
    assert len(list((tmp_path / "index" / "building").glob("chunk-*.parquet"))) >= 1
    runtime = Counting()
    local.build(tmp_path / "index", [str(photos)], DESCRIPTOR, FLAT, runtime, workers=2)
    assert runtime.described == 8
    local.build(tmp_path / "whole", [str(photos)], DESCRIPTOR, FLAT, ThumbnailRuntime(), workers=2)
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")
