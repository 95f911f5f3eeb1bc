"""`copydet add`: add images to an index."""

from pathlib import Path

import click

from copydet.cli.console import SKIPPED, if_interrupted, quote
from copydet.cli.contents import report_written
from copydet.cli.options import (
    BYTE_SIZE,
    count_listed,
    device_option,
    embeddings_option,
    engine_options,
    index_option,
    json_option,
    limit_options,
    limits,
    moved_descriptor_option,
    open_engine,
    strict_option,
    workers_option,
)


@click.command("add")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@index_option(must_exist=True)
@moved_descriptor_option
@embeddings_option
@device_option
@engine_options
@click.option("--max-memory", metavar="SIZE", type=BYTE_SIZE, help="Use at most this much. [default: half of all]")
@workers_option
@limit_options
@strict_option
@json_option
def command(
    sources: tuple[str, ...],
    index_path: Path,
    descriptor: str | None,
    embeddings: bool,
    device: str,
    engine: str,
    ray_address: str | None,
    max_memory: int | None,
    workers: int | None,
    max_bytes: int | None,
    max_pixels: int | None,
    strict: bool,
    as_json: bool,
) -> int:
    """Add images to an index without building it again.

    They become new shards, described as the rest of the index was. An image whose id is in the index already becomes a
    row with the status duplicate_id. Whoever reads the index meanwhile keeps what he has opened. With --embeddings a
    SOURCE is a file of vectors that the index's descriptor made elsewhere.

    \b
    Example:
      copydet add more/ --index photos.index
    """
    from copydet.index import Index
    from copydet.progress import show

    kept = f"finished chunks stay in {quote(index_path / 'building')}; the same command goes on from there"
    with (
        if_interrupted(kept),
        open_engine(engine, ray_address, workers, device) as opened,
        show("adding", count_listed(sources, embeddings)) as progress,
    ):
        index = Index.open(index_path, descriptor=descriptor, device=device)
        before = {shard.name for shard in index.snapshot.shards}
        index.add(
            list(sources),
            embeddings=embeddings,
            max_memory=max_memory,
            workers=workers,
            limits=limits(max_bytes, max_pixels),
            progress=progress,
            engine=opened,
        )
    added = [shard for shard in index.snapshot.shards if shard.name not in before]
    skipped = report_written(index, added, as_json)
    return SKIPPED if strict and skipped else 0
