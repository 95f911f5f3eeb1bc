"""What commands say about an index: its numbers, and the images that could not be described."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from copydet.cli.console import by_status, count, print_json, quote, say, say_next, size

if TYPE_CHECKING:
    from copydet.index import Index
    from copydet.store.snapshots import ShardEntry, Snapshot


@dataclass(frozen=True)
class FailedImage:
    """An image that has a row but no descriptor, and why."""

    image_id: str
    uri: str
    status: str
    message: str


def failed_images(index: Path, snapshot: "Snapshot", shards: Sequence["ShardEntry"]) -> Iterator[FailedImage]:
    """The images of `shards` without a descriptor, removed ones left out. A shard holds them behind the others."""
    import numpy as np
    import pyarrow.parquet as pq

    from copydet.shards.deletions import image_files, read_deletions

    files, removed = image_files(index, snapshot), read_deletions(index, snapshot)
    for shard in shards:
        if shard.images == shard.described:
            continue
        gone = removed.get(shard.name, np.empty(0, np.int64))
        with pq.ParquetFile(files[shard.name]) as file:
            first = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if first + rows > shard.described:
                    table = file.read_row_group(group, columns=["image_id", "uri", "status", "message"])
                    for row, values in enumerate(table.to_pylist(), first):
                        if row >= shard.described and row not in gone:
                            yield FailedImage(**values)
                first += rows


def report_written(index: "Index", shards: Sequence["ShardEntry"], as_json: bool) -> int:
    """Say what a build or an addition wrote as `shards`: images, skipped ones by status, what to do next.

    Returns how many were skipped.
    """
    info = index.info()
    skipped = Counter(image.status for image in failed_images(index.path, index.snapshot, shards))
    images, described = sum(shard.images for shard in shards), sum(shard.described for shard in shards)
    if as_json:
        written = {"index": info.path, "images": images, "described": described, "skipped": dict(skipped)}
        print_json(written | {"images_in_index": info.images, "snapshot": info.snapshot, "recipe": info.recipe})
        return skipped.total()
    total = f", {info.images:,} in the index" if images != info.images else ""
    holds = f"descriptor {info.descriptor}, recipe {info.recipe}, {size(info.bytes)}"
    say(f"{count(described, 'image')} described{total}: {info.path} ({holds})")
    if skipped:
        say(
            f"{count(skipped.total(), 'image')} skipped ({by_status(skipped)}); list them with: "
            f"copydet inspect --index {quote(index.path)} --failed"
        )
    if info.statuses.get("ok", 0):
        queries = queries_for(info.descriptor)
        say_next(f"copydet match {queries} --index {quote(index.path)} --output matches.csv --report matches.html")
    else:
        say_next(f"the index holds nothing to search yet: copydet add SOURCE --index {quote(index.path)}")
    return skipped.total()


def queries_for(descriptor: str) -> str:
    """The queries of `copydet match` for an index of this descriptor, as the user is to type them."""
    from copydet.descriptors.registry import is_external

    return "QUERIES.npy --embeddings" if is_external(descriptor) else "QUERIES"
