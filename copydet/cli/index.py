"""`copydet index`: describe a collection and write its index."""

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
    open_engine,
    strict_option,
    workers_option,
)


@click.command("index")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@index_option(must_exist=False)
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    default="auto",
    show_default=True,
    help="Which search index: auto (by the number of images and the memory), flat, sq8, ivf-pq, ivf-hnsw-pq, "
    "ivf-hnsw-rabitq, or a TOML file.",
)
@click.option(
    "--descriptor",
    metavar="NAME|FILE",
    help="What describes the images: a shipped name, a descriptor folder, or an SSCD checkpoint. [default: small] "
    "With --embeddings: what made them. [default: not at hand]",
)
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
    recipe: str,
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
    """Describe a collection and write its index.

    A SOURCE is a folder, an image, a tar or a range of them (shard-{000..099}.tar), a Parquet file, a text list of
    paths, or a URL of any of these. Every image that a source lists gets a row; one that can't be read gets a status
    and a message instead of a descriptor. An interrupted run goes on where it stopped when the same command is given.

    With --embeddings a SOURCE is a matrix of vectors (.npy; ids or columns in a .txt or .parquet beside it) or a
    Parquet file with a column of them. Name the --descriptor that made them to be able to match images, too.

    \b
    Example:
      copydet index photos/ --index photos.index
      copydet index vectors.npy --embeddings --index vectors.index
    """
    from copydet.index import Index
    from copydet.progress import show

    kept = f"finished chunks stay in {quote(index_path / 'building')}; the same command goes on from there"
    with (
        if_interrupted(kept),
        open_engine(engine, ray_address, workers, device) as opened,
        show("indexing", count_listed(sources, embeddings)) as progress,
    ):
        index = Index.build(
            list(sources),
            index_path,
            embeddings=embeddings,
            descriptor=descriptor,
            recipe=recipe,
            device=device,
            max_memory=max_memory,
            workers=workers,
            limits=limits(max_bytes, max_pixels),
            progress=progress,
            engine=opened,
        )
    skipped = report_written(index, index.snapshot.shards, as_json)
    return SKIPPED if strict and skipped else 0
