"""Whether the files that a snapshot names are there and whole: their sizes, and their checksums."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from copydet.errors import CopydetError
from copydet.store import snapshots
from copydet.store.hashing import hash_file
from copydet.store.snapshots import FileEntry, ShardEntry, Snapshot

VERIFIED_BYTES = 512 << 20  # compared whenever an index is opened: 0.1 s where they are in the page cache
ADVICE = "see what is left with: copydet inspect --check sums --index"


@dataclass(frozen=True)
class Problem:
    """What is wrong with one file of an index: its path inside the index, and a line for the user."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def named_files(snapshot: Snapshot) -> dict[str, FileEntry]:
    """Path inside the index -> size and hash, of every file that the snapshot names."""
    return {**snapshot.files, **dict(file for shard in snapshot.shards for file in files_of(shard))}


def files_of(shard: ShardEntry) -> list[tuple[str, FileEntry]]:
    """(path inside the index, size and hash) of the files of a shard."""
    return [(f"shards/{shard.name}/{name}", file) for name, file in shard.files.items()]


def check_files(index: Path, files: Iterable[tuple[str, FileEntry]], *, sums: bool) -> Iterator[Problem]:
    """A problem for each file that is missing, has another size, or, with `sums`, other contents."""
    for name, entry in files:
        path = index / name
        try:
            size = path.stat().st_size
            if not path.is_file() or size != entry.bytes:
                yield Problem(name, f"holds {size:,} bytes instead of {entry.bytes:,}")
            elif sums and hash_file(path) != entry.xxh3:
                yield Problem(name, "its contents have changed: the checksum is another")
        except FileNotFoundError:
            yield Problem(name, "is missing")
        except OSError as error:
            yield Problem(name, f"cannot be read: {error.strerror}")


def require_whole(index: Path, files: Iterable[tuple[str, FileEntry]]) -> None:
    """Raise CopydetError for the first of the files that is missing or not what was written, by checksum."""
    for problem in check_files(index, files, sums=True):
        raise CopydetError(f"{index / problem.path}: {problem.text}; {ADVICE} {index}")


def verify_small(index: Path, snapshot: Snapshot, most_bytes: int = VERIFIED_BYTES) -> None:
    """Compare checksums before anything is parsed: of all files of a small index, of a large one those that fit into
    `most_bytes` together, codes and tables first. The sizes of the others are compared when they are opened.

    Raises CopydetError with one line for the first file that is not what was written.
    """
    chosen, left = [], most_bytes
    for name, entry in sorted(named_files(snapshot).items(), key=lambda item: (_is_bulk(item[0]), item[0])):
        if entry.bytes <= left:
            left -= entry.bytes
            chosen.append((name, entry))
        else:
            snapshots.check_file(index, name, entry)
    require_whole(index, chosen)


def _is_bulk(name: str) -> bool:
    """Raw numbers, which nothing parses: damage in them changes similarities, but cannot lead astray."""
    return name.endswith((".f16", ".features"))
