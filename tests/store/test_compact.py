from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from copydet.store import atomic, snapshots
from copydet.store.compact import plan_joins, remove_unused
from copydet.store.hashing import hash_bytes
from copydet.store.snapshots import DescriptorEntry, FileEntry, ShardEntry, Snapshot

EMPTY = Snapshot(1, DescriptorEntry("small", "abc", 4), {})


def shard(number: int, images: int, codes: str = "Flat") -> ShardEntry:
    return ShardEntry(f"{number:06d}-0000", images, images, codes, {"codes.faiss": FileEntry(1, hash_bytes(b"x"))})


@given(
    st.lists(st.tuples(st.integers(1, 100), st.sampled_from(["Flat", "IVF"]), st.floats(0, 1)), max_size=30),
    st.integers(20, 100),
)
def test_a_plan_keeps_the_order_drops_what_was_removed_and_leaves_nothing_to_do(
    drawn: list[tuple[int, str, float]], most: int
) -> None:
    shards = [shard(number, images, codes) for number, (images, codes, _) in enumerate(drawn)]
    removed = {each.name: int(share * each.images) for each, (_, _, share) in zip(shards, drawn, strict=True)}
    removed = {name: count for name, count in removed.items() if count}
    joins = plan_joins(shards, removed, most)
    joined = [each for join in joins for each in join.shards]
    assert joined == [each for each in shards if each in joined]
    assert set(removed) <= {each.name for each in joined}
    after: list[ShardEntry] = []
    for place, each in enumerate(shards):
        join = next((join for join in joins if each in join.shards), None)
        if join is None:
            after.append(each)
        elif each == join.shards[0] and join.living:
            assert len({one.codes for one in join.shards}) == 1
            assert join.living <= most or len(join.shards) == 1
            after.append(shard(1000 + place, join.living, each.codes))
    assert sum(each.images for each in after) == sum(each.images for each in shards) - sum(removed.values())
    # Where every image of a shard between two others goes, those two become neighbours: the next run joins them.
    if all(join.living for join in joins):
        assert plan_joins(after, {}, most) == []


def write_shard(index: Path, entry: ShardEntry) -> None:
    atomic.make_folder(index / "shards" / entry.name)
    (index / "shards" / entry.name / "codes.faiss").write_bytes(b"x")


def test_only_files_that_no_snapshot_names_are_deleted_and_a_held_snapshot_keeps_its_own(tmp_path: Path) -> None:
    first, second, third = shard(1, 5), shard(2, 5), shard(3, 10)
    for entry in (first, second, third, shard(9, 1)):
        write_shard(tmp_path, entry)
    snapshots.commit(tmp_path, replace(EMPTY, shards=(first,)))
    snapshots.commit(tmp_path, replace(EMPTY, number=2, shards=(first, second)))
    held = snapshots.hold(tmp_path, snapshots.read_snapshot(tmp_path, 1))
    snapshots.commit(tmp_path, replace(EMPTY, number=3, shards=(third,)))
    unused = remove_unused(tmp_path)
    assert (unused.bytes, unused.held) == (2, 1)
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == [first.name, third.name]
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["000001.json", "000003.json"]
    del held
    assert remove_unused(tmp_path).held == 0
    assert [path.name for path in (tmp_path / "shards").iterdir()] == [third.name]


def test_a_reader_that_comes_while_files_are_deleted_gets_the_new_snapshot(tmp_path: Path) -> None:
    snapshots.commit(tmp_path, EMPTY)
    old = snapshots.read_current(tmp_path)
    snapshots.commit(tmp_path, replace(EMPTY, number=2))
    remove_unused(tmp_path)
    snapshot, _ = snapshots.hold_current(tmp_path)
    assert snapshot.number == 2
    assert not snapshots.snapshot_path(tmp_path, old.number).exists()
