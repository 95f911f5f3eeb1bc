from pathlib import Path

import pytest

from copydet.errors import CopydetError
from copydet.store import atomic
from copydet.store.check import check_files, verify_small
from copydet.store.snapshots import DescriptorEntry, ShardEntry, Snapshot, file_entry

NAMES = ("codes.faiss", "descriptors.f16", "images.parquet", "local.features")


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """A shard of four files of 100 bytes."""
    folder = tmp_path / "shards" / "000001-0000"
    atomic.make_folder(folder)
    for place, name in enumerate(NAMES):
        (folder / name).write_bytes(bytes([place]) * 100)
    files = {name: file_entry(folder / name) for name in NAMES}
    return Snapshot(1, DescriptorEntry("small", "abc", 4), {}, (ShardEntry("000001-0000", 3, 2, "Flat", files),))


def entries(snapshot: Snapshot) -> list[tuple[str, object]]:
    return [(f"shards/000001-0000/{name}", entry) for name, entry in snapshot.shards[0].files.items()]


@pytest.mark.parametrize(
    ("content", "by_size", "by_sum"),
    [
        (b"x" * 100, [], ["its contents have changed: the checksum is another"]),
        (b"x" * 99, ["holds 99 bytes instead of 100"], ["holds 99 bytes instead of 100"]),
        (None, ["is missing"], ["is missing"]),
    ],
)
def test_each_depth_says_what_is_wrong_with_a_file(
    tmp_path: Path, snapshot: Snapshot, content: bytes | None, by_size: list[str], by_sum: list[str]
) -> None:
    path = tmp_path / "shards" / "000001-0000" / "codes.faiss"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    for sums, expected in ((False, by_size), (True, by_sum)):
        found = list(check_files(tmp_path, entries(snapshot), sums=sums))
        assert [problem.text for problem in found] == expected
        assert all(str(problem) == f"shards/000001-0000/codes.faiss: {problem.text}" for problem in found)


def test_what_is_parsed_is_verified_first_and_of_the_rest_the_size(tmp_path: Path, snapshot: Snapshot) -> None:
    folder = tmp_path / "shards" / "000001-0000"
    (folder / "descriptors.f16").write_bytes(b"x" * 100)
    verify_small(tmp_path, snapshot, most_bytes=200)
    with pytest.raises(CopydetError, match=r"descriptors\.f16: its contents have changed"):
        verify_small(tmp_path, snapshot, most_bytes=400)
    (folder / "images.parquet").write_bytes(b"x" * 100)
    with pytest.raises(CopydetError, match=r"images\.parquet: its contents have changed"):
        verify_small(tmp_path, snapshot, most_bytes=200)
    (folder / "descriptors.f16").write_bytes(b"x" * 99)
    with pytest.raises(CopydetError, match=r"descriptors\.f16 holds 99 bytes"):
        verify_small(tmp_path, snapshot, most_bytes=0)
