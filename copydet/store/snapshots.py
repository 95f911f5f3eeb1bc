"""Snapshots: immutable lists of what an index holds, and CURRENT, the one name that readers follow.

Order of writes: files of shards, then snapshots/NNNNNN.json, then CURRENT. What a snapshot names is on disk before the
snapshot is.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from copydet.errors import CopydetError, IndexLocked, NotAnIndex, UsageError
from copydet.store import atomic
from copydet.store.hashing import hash_bytes, hash_file
from copydet.store.locks import ReadHold

FORMAT_VERSION = 1
OWN_NAMES = frozenset({"CURRENT", "lock", "building", "compacting", "snapshots", "shards", "deletions", "quantisers"})
_MAX_SNAPSHOT_BYTES = 256 << 20
_OPEN_TRIES = 5
_HASH_DIGITS = 32
_CURRENT = re.compile(r"([0-9]{6,12})(?: ([0-9a-f]{32}))?")  # before there were hashes, the number was alone
_SHARD_NAME = re.compile(r"[0-9]{6,12}-[0-9]{4,9}")
_FILE_NAME = re.compile(r"[a-z0-9_]{1,40}(\.[a-z0-9_]{1,20}){1,2}")
_VIEWS = re.compile(r"[a-z]{1,40}")
_CODEC = re.compile(r"[a-z0-9_.-]{1,40}")
_LOOSE_FILE = re.compile(r"deletions/[0-9]{6,12}\.parquet|quantisers/[0-9a-f]{32}\.faiss")


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and xxh3-128 (32 hexadecimal digits) of one immutable file."""

    bytes: int
    xxh3: str


@dataclass(frozen=True)
class LocalEntry:
    """The local features of a shard: what their bytes mean (local_features.describe.CODEC), and how many they are."""

    codec: str
    features: int


@dataclass(frozen=True)
class ShardEntry:
    """One shard. `images` counts all rows of images.parquet, `described` the first ones, which have a descriptor.

    `codes` is the FAISS factory string that codes.faiss was really made with: "Flat" where images were too few to train
    the recipe's. `local` is None where no local features are stored. `reference_views` says which parts of the images
    have descriptors and codes, too: as many of each image.
    """

    name: str
    images: int
    described: int
    codes: str
    files: Mapping[str, FileEntry]
    local: LocalEntry | None = None
    reference_views: str = "whole"


@dataclass(frozen=True)
class DescriptorEntry:
    """Which descriptor made the vectors: name, content hash and dimension."""

    name: str
    hash: str
    dimension: int


@dataclass(frozen=True)
class Snapshot:
    """What a reader sees. `deletions` and `quantiser` are paths inside the index; `files` holds size and hash of both.

    `operating_points`: recall target -> search settings, written by tuning. `history`: one line on what made this
    snapshot.
    """

    number: int
    descriptor: DescriptorEntry
    recipe: Mapping[str, Any]
    shards: tuple[ShardEntry, ...] = ()
    quantiser: str | None = None
    deletions: str | None = None
    removed: int = 0
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    operating_points: Mapping[str, Any] = field(default_factory=dict)
    history: str = ""
    created_at: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def images(self) -> int:
        """Rows of all shards that were not removed, also those that could not be decoded."""
        return sum(shard.images for shard in self.shards) - self.removed

    @property
    def described(self) -> int:
        """Rows of all shards that have a descriptor, removed ones included."""
        return sum(shard.described for shard in self.shards)


def file_entry(path: Path) -> FileEntry:
    """Measure a finished file."""
    return FileEntry(path.stat().st_size, hash_file(path))


def has_index(index: Path) -> bool:
    """Whether the folder holds a committed index."""
    return (index / "CURRENT").is_file()


def read_current(index: Path) -> Snapshot:
    """The snapshot that CURRENT names. Raises NotAnIndex, UsageError (newer format) or CopydetError (damaged)."""
    if not has_index(index):
        raise NotAnIndex(_why_not_an_index(index))
    found = _CURRENT.fullmatch(_read_limited(index / "CURRENT", 100).decode("ascii", "replace").strip())
    if found is None:
        raise CopydetError(f"{index / 'CURRENT'} is damaged: it does not name a snapshot")
    return read_snapshot(index, int(found[1]), found[2])


def noted_hash(index: Path) -> str:
    """What CURRENT still holds of the snapshot's hash when the rest of it is damaged: 32 characters, or none."""
    try:
        data = _read_limited(index / "CURRENT", 100).decode("ascii", "replace").strip()
    except CopydetError:
        return ""
    return data[-_HASH_DIGITS:] if len(data) > _HASH_DIGITS else ""


def read_snapshot(index: Path, number: int, xxh3: str | None = None) -> Snapshot:
    """One snapshot by its number, of this hash if one is given; raises like `read_current`."""
    path = snapshot_path(index, number)
    data = _read_limited(path, _MAX_SNAPSHOT_BYTES)
    try:
        value = json.loads(data)
        version = value["format_version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise UsageError(
                f"{index} was written by a newer copydet (format {version}, this one reads up to {FORMAT_VERSION}); "
                "upgrade copydet"
            )
        snapshot = _parse(value)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CopydetError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    if snapshot.number != number:
        raise CopydetError(f"{path} is damaged: it says that it is snapshot {snapshot.number}")
    if xxh3 is not None and hash_bytes(data) != xxh3:
        raise CopydetError(f"{path} is damaged, or CURRENT is: the checksum is another")
    return snapshot


def hold_current(index: Path) -> tuple[Snapshot, ReadHold]:
    """The snapshot that CURRENT names, and what keeps its files from being deleted while it lives."""
    for _ in range(_OPEN_TRIES):
        snapshot = read_current(index)
        try:
            return snapshot, hold(index, snapshot)
        except IndexLocked:
            continue
    return snapshot, hold(index, snapshot)


def hold(index: Path, snapshot: Snapshot) -> ReadHold:
    """What keeps a snapshot's files from being deleted while it lives. Raises IndexLocked when they may be gone."""
    try:
        return ReadHold(snapshot_path(index, snapshot.number))
    except FileNotFoundError:
        raise IndexLocked(f"{index} was changed by another process in the meantime; try again") from None
    except OSError as error:
        raise CopydetError(f"cannot read {snapshot_path(index, snapshot.number)}: {error.strerror}") from error


def commit(index: Path, snapshot: Snapshot) -> Snapshot:
    """Make `snapshot` the one that readers see, under the write lock. Its number must follow the current one's (1 for
    the first).

    The snapshot file is created exclusively. A file of that number that CURRENT never named is left by a crash and is
    replaced. Returns the snapshot as written, with `created_at` set.
    """
    current = read_current(index).number if has_index(index) else 0
    if snapshot.number != current + 1:
        raise IndexLocked(f"{index} was changed by another process in the meantime (snapshot {current}); try again")
    snapshot = replace(snapshot, created_at=datetime.now(UTC).isoformat(timespec="seconds"))
    path = snapshot_path(index, snapshot.number)
    atomic.make_folder(path.parent)
    atomic.remove(path)
    data = atomic.to_json(asdict(snapshot))
    atomic.create_bytes(path, data)
    name_current(index, snapshot.number, hash_bytes(data))
    return snapshot


def name_current(index: Path, number: int, xxh3: str) -> None:
    """Make readers see snapshot `number`, whose file has this hash: the commit."""
    atomic.write_bytes(index / "CURRENT", f"{number:06d} {xxh3}\n".encode())


def snapshot_path(index: Path, number: int) -> Path:
    return index / "snapshots" / f"{number:06d}.json"


def shard_folder(index: Path, name: str) -> Path:
    return index / "shards" / name


def check_file(index: Path, relative: str, entry: FileEntry) -> Path:
    """The path of a file that a snapshot names, after comparing its size. Raises CopydetError when it is missing, cut
    or longer.
    """
    path = index / relative
    try:
        size = path.stat().st_size
    except OSError:
        raise CopydetError(f"{path} is missing; the index is damaged: restore it from a copy or index again") from None
    if size != entry.bytes or not path.is_file():
        raise CopydetError(
            f"{path} holds {size:,} bytes instead of {entry.bytes:,}; "
            "the index is damaged: restore it from a copy or index again"
        )
    return path


def _why_not_an_index(index: Path) -> str:
    if not index.exists():
        return f"{index} does not exist; make an index with: copydet index SOURCE --index {index}"
    if not index.is_dir():
        return f"{index} is a file, not the folder of an index"
    if (index / "building").is_dir():
        return f"{index} is not finished; run the same `copydet index` command again, it continues where it stopped"
    return f"{index} holds no index; make one with: copydet index SOURCE --index DIR"


def _read_limited(path: Path, limit: int) -> bytes:
    try:
        if path.stat().st_size > limit:
            raise CopydetError(f"{path} is damaged: it is larger than {limit:,} bytes")
        return path.read_bytes()
    except OSError as error:
        raise CopydetError(f"cannot read {path}: {error.strerror}") from error


def _parse(value: Any) -> Snapshot:
    """Strict reading: an index folder may come from a stranger, so every name is confined to the folder."""
    files = {_loose_name(name): _parse_file(entry) for name, entry in value["files"].items()}
    for name in (value["quantiser"], value["deletions"]):
        if name is not None and name not in files:
            raise ValueError(f"{name!r} has no size and hash")
    shards = tuple(parse_shard(shard) for shard in value["shards"])
    if len({shard.name for shard in shards}) != len(shards):
        raise ValueError("a shard is listed twice")
    descriptor = DescriptorEntry(
        _text(value["descriptor"]["name"]),
        _text(value["descriptor"]["hash"]),
        _count(value["descriptor"]["dimension"], least=1, most=1 << 16),
    )
    return Snapshot(
        number=_count(value["number"], least=1),
        descriptor=descriptor,
        recipe=dict(value["recipe"]),
        shards=shards,
        quantiser=value["quantiser"],
        deletions=value["deletions"],
        removed=_count(value["removed"]),
        files=files,
        operating_points=dict(value["operating_points"]),
        history=_text(value["history"]),
        created_at=_text(value["created_at"]),
        format_version=_count(value["format_version"], least=1),
    )


def parse_shard(value: Any) -> ShardEntry:
    """A shard's entry from JSON, every name checked. Raises ValueError, TypeError or KeyError."""
    images = _count(value["images"])
    files = {_matching(_FILE_NAME, name): _parse_file(entry) for name, entry in value["files"].items()}
    return ShardEntry(
        name=_matching(_SHARD_NAME, value["name"]),
        images=images,
        described=_count(value["described"], most=images),
        codes=_text(value["codes"]),
        files=files,
        local=_parse_local(value.get("local")),
        reference_views=_matching(_VIEWS, value.get("reference_views", "whole")),
    )


def _parse_local(value: Any) -> LocalEntry | None:
    return None if value is None else LocalEntry(_matching(_CODEC, value["codec"]), _count(value["features"]))


def _parse_file(value: Any) -> FileEntry:
    return FileEntry(_count(value["bytes"]), _matching(re.compile(r"[0-9a-f]{32}"), value["xxh3"]))


def _loose_name(value: Any) -> str:
    return _matching(_LOOSE_FILE, value)


def _matching(pattern: re.Pattern[str], value: Any) -> str:
    if not pattern.fullmatch(_text(value)):
        raise ValueError(f"{value!r} is not a name of this format")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _count(value: Any, least: int = 0, most: int = 1 << 50) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{value!r} is not a count from {least} to {most}")
    return value
