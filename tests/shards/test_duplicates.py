from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from staged import row, stage

from copydet.shards.duplicates import find_duplicates, read_duplicates

MEMORY = 64 * 2**20


def renamed(folder: Path, ids: list[str], indexed: list[str], dead: set[int]) -> dict[int, str]:
    """Place in `ids` -> new id, with `indexed` in one shard whose rows `dead` are removed."""
    half = len(ids) // 2
    chunks = [*stage(folder, [row(i) for i in ids[:half]]), *stage(folder, [row(i) for i in ids[half:]], first=1)]
    shards = {}
    if indexed:
        shard = folder / "shards" / "000001-0000"
        shard.mkdir(parents=True)
        pq.write_table(pa.table({"image_id": indexed, "uri": indexed}), shard / "images.parquet")
        shards["000001-0000"] = shard / "images.parquet"
    deletions = folder / "dead.parquet"
    names = pa.array(["000001-0000"] * len(dead), pa.string())
    pq.write_table(pa.table({"shard": names, "row": pa.array(sorted(dead), pa.int64())}), deletions)
    find_duplicates(folder / "duplicates.parquet", chunks, shards, deletions, MEMORY)
    found = {}
    for number, table in read_duplicates(folder / "duplicates.parquet", 0, 9).items():
        start = 0 if half == 0 else half * number
        found |= {start + line["row"]: line["image_id"] for line in table.to_pylist()}
    return found


def test_the_first_keeps_its_id_and_later_ones_are_numbered(tmp_path: Path) -> None:
    assert renamed(tmp_path, ["a", "b", "a", "a"], [], set()) == {2: "a#2", 3: "a#3"}


def test_an_id_of_the_index_is_taken_until_it_is_removed(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    assert renamed(tmp_path / "x", ["a", "b"], ["a", "z"], set()) == {0: "a#2"}
    assert renamed(tmp_path / "y", ["a", "b"], ["a", "z"], {0}) == {}


def test_an_id_that_only_a_removed_image_had_is_free_beside_one_that_is_taken(tmp_path: Path) -> None:
    assert renamed(tmp_path, ["a", "b"], ["a", "b", "b#7"], {0}) == {1: "b#8"}


IDS = st.sampled_from(["a", "a#2", "a#3", "a#2#2", "b", "b#01", "b#1", "#2", "c\n#9", "", "a#99999999999"])


@settings(max_examples=20, deadline=None)
@given(ids=st.lists(IDS, min_size=2, max_size=9), indexed=st.sets(IDS, max_size=4), dead=st.sets(st.integers(0, 3)))
def test_new_ids_are_free_and_only_taken_ids_change(
    ids: list[str], indexed: set[str], dead: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = sorted(indexed)
    dead = {place for place in dead if place < len(before)}
    new = renamed(tmp_path_factory.mktemp("ids"), ids, before, dead)
    alive = [image_id for place, image_id in enumerate(before) if place not in dead]
    result = [new.get(place, image_id) for place, image_id in enumerate(ids)]
    assert len({*alive, *result}) == len(alive) + len(result)
    expected = {p for p, image_id in enumerate(ids) if image_id in alive or image_id in ids[:p]}
    assert set(new) == expected
