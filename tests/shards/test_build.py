from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from staged import features, row, same_features, stage, unit_vectors

from copydet.errors import CopydetError, UsageError
from copydet.local_features.describe import CODEC
from copydet.records import Status
from copydet.shards.build import Codes, build_shard, common_schema, divide
from copydet.shards.chunks import Chunk
from copydet.shards.duplicates import find_duplicates
from copydet.shards.quantiser import sample_vectors, train_quantiser
from copydet.shards.shard import Shard, open_shard
from copydet.store.snapshots import FileEntry, LocalEntry, ShardEntry

D = 16


def build(index: Path, chunks: list[Chunk], codes: Codes | None = None) -> ShardEntry:
    find_duplicates(index / "duplicates.parquet", chunks, {}, None, 64 * 2**20)
    folder = index / "shards" / "000001-0000"
    return build_shard(
        folder, chunks, common_schema(chunks), index / "duplicates.parquet", codes or Codes("Flat", None), D
    )


STATUSES = st.lists(st.sampled_from(["ok", "unreadable", "truncated"]), max_size=30)


@settings(max_examples=15, deadline=None)
@given(first=STATUSES, second=STATUSES, repeats=st.integers(1, 8))
def test_rows_with_a_descriptor_come_first_and_rows_agree_everywhere(
    first: list[Status], second: list[Status], repeats: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    index = tmp_path_factory.mktemp("shard")
    parts = [[row(f"{p}-{n // repeats}", s) for n, s in enumerate(part)] for p, part in enumerate((first, second))]
    chunks = [*stage(index, parts[0], seed=1), *stage(index, parts[1], seed=2, first=1 if parts[0] else 0)]
    if not chunks:
        return
    entry = build(index, chunks)
    shard = open_shard(index, entry, D)
    rows = pq.read_table(shard.images_path)
    ok = [n for n, status in enumerate(rows["status"].to_pylist()) if status == "ok"]
    assert ok == list(range(shard.described))
    assert shard.images == len(first) + len(second)
    ids = [each.image_id for part in parts for each in part]
    kept, local = [], []
    for part, seed in zip(parts, (1, 2), strict=True):
        described = [place for place, each in enumerate(part) if each.status == "ok"]
        brought = zip(unit_vectors(len(described), D, seed), features(len(described), seed), described, strict=True)
        for vector, of_image, place in brought:
            if part[place].image_id not in [each.image_id for each in part[:place]]:
                kept.append(vector)
                local.append(of_image)
    assert np.array_equal(shard.descriptors, np.array(kept, np.float16).reshape(-1, D))
    assert shard.local is not None
    assert all(same_features(shard.local.image(place), each) for place, each in enumerate(local))
    counts = len(shard.local.offsets), len(shard.local.features), len(shard.local.gists)
    assert counts == (shard.described + 1, sum(len(each.records) for each in local), shard.described)
    assert entry.local == LocalEntry(CODEC, len(shard.local.features))
    assert shard.codes.ntotal == shard.described
    if kept:
        stored = shard.codes.reconstruct_n(0, shard.described)
        assert np.array_equal(stored.astype(np.float16), shard.descriptors)
    assert len(set(rows["image_id"].to_pylist())) == shard.images >= len(set(ids))


def test_rows_are_looked_up_in_any_order_with_repeats(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, build(tmp_path, stage(tmp_path, [row(f"i{n}") for n in range(5000)])), D)
    wanted = np.array([4999, 0, 2500, 0, 2048, 2047])
    assert shard.image_ids(wanted) == [f"i{n}" for n in wanted]
    assert shard.image_columns([3], ("uri", "width")).to_pylist() == [{"uri": "/photos/i3", "width": 40}]
    assert shard.image_ids([]) == []
    with pytest.raises(IndexError):
        shard.image_ids([5000])


def test_a_folder_built_anew_is_not_mixed_up_with_the_old_one(tmp_path: Path) -> None:
    first = open_shard(tmp_path, build(tmp_path, stage(tmp_path, [row("old")])), D)
    assert first.image_ids([0]) == ["old"]
    second = open_shard(tmp_path, build(tmp_path, stage(tmp_path, [row("new")])), D)
    assert second.image_ids([0]) == ["new"]


def test_a_shard_without_descriptors_opens_and_finds_nothing(tmp_path: Path) -> None:
    shard = open_shard(tmp_path, build(tmp_path, stage(tmp_path, [row("a", "unreadable")])), D)
    assert (shard.images, shard.described, shard.descriptors.shape) == (1, 0, (0, D))
    assert shard.codes.search(unit_vectors(1, D), 3)[1].tolist() == [[-1, -1, -1]]


@pytest.mark.parametrize("factory", ["SQ8", "OPQ8_16,IVF8,PQ8x8", "HNSW8", "IVF8,PQ8x4fs"])
def test_trained_codes_find_what_they_hold(tmp_path: Path, factory: str) -> None:
    chunks = stage(tmp_path, [row(str(n)) for n in range(1500)])
    trained = train_quantiser(factory, sample_vectors(chunks, D, 1400))
    shard = open_shard(tmp_path, build(tmp_path, chunks, Codes(factory, trained)), D)
    queries = np.asarray(shard.descriptors[::50], np.float32)
    found = shard.codes.search(queries, 20)[1]
    assert np.mean([50 * n in found[n] for n in range(len(queries))]) > 0.9


@pytest.mark.parametrize(
    "name", ["codes.faiss", "descriptors.f16", "images.parquet", "local.features", "local.offsets"]
)
def test_a_cut_or_missing_file_is_one_line_before_anything_is_read(tmp_path: Path, name: str) -> None:
    entry = build(tmp_path, stage(tmp_path, [row(str(n)) for n in range(10)]))
    path = tmp_path / "shards" / entry.name / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CopydetError, match=f"{name} holds"):
        open_shard(tmp_path, entry, D)
    path.unlink()
    with pytest.raises(CopydetError, match=f"{name} is missing"):
        open_shard(tmp_path, entry, D)


def test_codes_of_another_shard_are_refused(tmp_path: Path) -> None:
    entry = build(tmp_path, stage(tmp_path, [row(str(n)) for n in range(10)]))
    path = tmp_path / "shards" / entry.name / "codes.faiss"
    index = faiss.IndexFlatIP(D // 2)
    index.add(unit_vectors(20, D // 2))
    faiss.write_index(index, str(path))
    with pytest.raises(CopydetError, match="does not belong to this shard"):
        open_shard(tmp_path, entry, D)


def test_chunks_are_divided_in_order_into_groups_that_fit(tmp_path: Path) -> None:
    chunks = [Chunk(n, tmp_path, 10, 9) for n in range(7)]
    assert [[c.number for c in group] for group in divide(chunks, 25)] == [[0, 1], [2, 3], [4, 5], [6]]
    assert [[c.number for c in group] for group in divide(chunks, 1)] == [[n] for n in range(7)]
    assert divide([], 5) == []


def test_a_shard_is_closed_data(tmp_path: Path) -> None:
    shard: Shard = open_shard(tmp_path, build(tmp_path, stage(tmp_path, [row("a")])), D)
    assert isinstance(shard.descriptors, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        shard.descriptors[0, 0] = 1


def test_a_shard_without_local_features_has_no_file_of_them(tmp_path: Path) -> None:
    entry = build(tmp_path, stage(tmp_path, [row("a")], has_local=False))
    shard = open_shard(tmp_path, entry, D)
    assert (entry.local, shard.local, shard.local_codec) == (None, None, None)
    assert sorted(path.name for path in shard.folder.iterdir()) == ["codes.faiss", "descriptors.f16", "images.parquet"]


def test_local_features_of_another_codec_are_refused_when_they_are_asked_for_and_only_then(tmp_path: Path) -> None:
    entry = build(tmp_path, stage(tmp_path, [row(str(n)) for n in range(10)]))
    assert entry.local is not None
    shard = open_shard(tmp_path, replace(entry, local=LocalEntry("older-0", 3)), D)
    assert (shard.local_codec, shard.codes.ntotal) == ("older-0", 10)
    with pytest.raises(UsageError, match=f"of kind older-0, this copydet reads {CODEC}; make them again"):
        _ = shard.local


def test_local_features_that_do_not_fit_the_snapshot_are_one_line(tmp_path: Path) -> None:
    entry = build(tmp_path, stage(tmp_path, [row(str(n)) for n in range(10)]))
    assert entry.local is not None
    with pytest.raises(CopydetError, match=r"local.features does not hold 999 local features"):
        open_shard(tmp_path, replace(entry, local=LocalEntry(CODEC, 999)), D)
    files = {name: file for name, file in entry.files.items() if name != "local.offsets"}
    with pytest.raises(CopydetError, match=r"lists no local.offsets"):
        open_shard(tmp_path, replace(entry, files=files), D)
    offsets = tmp_path / "shards" / entry.name / "local.offsets"
    offsets.write_bytes(offsets.read_bytes() + bytes(8))
    longer = {**entry.files, "local.offsets": FileEntry(8 * 12, "0" * 32)}
    with pytest.raises(CopydetError, match="does not hold"):
        open_shard(tmp_path, replace(entry, files=longer), D)
