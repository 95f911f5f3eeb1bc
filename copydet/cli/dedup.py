"""`copydet dedup`: find duplicates in a collection, and say what to keep."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from copydet.cli.console import SKIPPED, by_status, count, if_interrupted, print_json, quote, say, say_next
from copydet.cli.options import (
    device_option,
    engine_options,
    json_option,
    limit_options,
    limits,
    open_engine,
    strict_option,
    workers_option,
)

if TYPE_CHECKING:
    from copydet.dedup.job import Deduplicated
    from copydet.dedup.write_kept import Format


@click.command("dedup")
@click.argument("sources", metavar="SOURCE|INDEX...", nargs=-1, required=True)
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder that will hold the results, and the work of an interrupted run.",
)
@click.option(
    "--against",
    metavar="SOURCE|INDEX",
    multiple=True,
    help="Another collection whose images are never dropped: a test set, or what is kept already. May be repeated.",
)
@click.option(
    "--verify/--no-verify",
    default=None,
    help="Check where and whether two images show the same. [default: where local features are stored]",
)
@click.option(
    "--precision",
    metavar="P",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="How many of the near pairs must be right: sets the score from which on a pair is one. [default: 0.95]",
)
@click.option(
    "--keep",
    metavar="RULE",
    default="largest",
    show_default=True,
    help='Which image of a cluster is kept: largest, oldest, first, or "ORDER BY" columns in SQL ("aesthetic DESC").',
)
@click.option(
    "--ignore",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A CSV file of what was looked at: lines of two ids are no pair, images of lines of one id are always kept.",
)
@click.option(
    "--write-kept",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write a copy of the images that are kept, as tar shards (WebDataset).",
)
@click.option(
    "--kept-format",
    type=click.Choice(("webdataset", "parquet")),
    default="webdataset",
    show_default=True,
    help="What --write-kept writes.",
)
@click.option(
    "--descriptor",
    metavar="NAME|FILE",
    help="What describes images that are not indexed; where the descriptor of an index is. [default: small]",
)
@device_option
@engine_options
@workers_option
@limit_options
@strict_option
@json_option
def command(
    sources: tuple[str, ...],
    output: Path,
    against: tuple[str, ...],
    verify: bool | None,
    precision: float | None,
    keep: str,
    ignore: Path | None,
    write_kept: Path | None,
    kept_format: "Format",
    descriptor: str | None,
    device: str,
    engine: str,
    ray_address: str | None,
    workers: int | None,
    max_bytes: int | None,
    max_pixels: int | None,
    strict: bool,
    as_json: bool,
) -> int:
    """Find duplicates in a collection, and say what to keep.

    A SOURCE is anything that `copydet index` takes; it is indexed in OUTPUT/index first. Exact and near duplicates are
    put into clusters, of which one image is kept each. Nothing is deleted: keep.txt and drop.txt list ids,
    pairs.parquet and clusters.parquet say why, gallery.html shows it. An interrupted run goes on when the same command
    is given; with another --precision, --keep or --ignore, only the last steps are done again.

    \b
    Example:
      copydet dedup photos/ --output photos.dedup
      copydet dedup train.index --against test.index --output clean --keep "width * height DESC"
    """
    from copydet.decisions.ignore import NOTHING, read_ignored
    from copydet.dedup.job import deduplicate
    from copydet.images.originals import Originals
    from copydet.progress import show
    from copydet.reports.gallery import write_gallery

    chosen: dict[str, Any] = {} if precision is None else {"precision": precision}
    kept = f"finished steps stay in {quote(output)}; the same command goes on from there"
    with if_interrupted(kept), open_engine(engine, ray_address, workers, device) as opened:
        done = deduplicate(
            list(sources),
            output,
            against=list(against),
            verify=verify,
            keep=keep,
            ignored=NOTHING if ignore is None else read_ignored(ignore),
            descriptor=descriptor,
            device=device,
            workers=workers,
            limits=limits(max_bytes, max_pixels),
            show=show,
            engine=opened,
            **chosen,
        )
        write_gallery(
            output / "gallery.html",
            output / "clusters.parquet",
            "Duplicates",
            _facts(sources, against, done.summary),
            Originals().read,
        )
        if write_kept is not None:
            _copy(done, write_kept, kept_format)
    _report(done.summary, output, as_json)
    return SKIPPED if strict and done.summary["images"]["skipped"] else 0


def _copy(done: "Deduplicated", folder: Path, form: "Format") -> None:
    """Write the images that are kept; one that cannot be copied is an error, but only at the end."""
    from copydet.dedup.write_kept import write_kept
    from copydet.errors import CopydetError
    from copydet.progress import show

    with show("copying", done.summary["images"]["kept"]) as progress:
        written = write_kept(folder, done.collection, done.kept, form, progress)
    if written.missing:
        raise CopydetError(
            f"{len(written.missing):,} of the images to keep could not be copied to {folder}: their originals are gone "
            f"or have changed since they were indexed, such as {written.missing[0]}; the .missing.json files list them"
        )
    say(f"{count(written.images, 'image')} copied to {folder}")


def _facts(sources: tuple[str, ...], against: tuple[str, ...], summary: dict[str, Any]) -> str:
    images = summary["images"]
    other = f" against {', '.join(against)}" if against else ""
    return (
        f"{', '.join(sources)}{other}: {count(images['described'], 'image')}, {images['kept']:,} to keep, "
        f"{images['dropped']:,} to drop"
    )


def _report(summary: dict[str, Any], output: Path, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    images, clusters = summary["images"], summary["clusters"]
    say(
        f"{count(images['described'], 'image')}: {images['kept']:,} to keep, {images['dropped']:,} to drop "
        f"({count(images['dropped_exact'], 'exact copy')}, {count(images['dropped_near'], 'near duplicate')}) "
        f"in {count(clusters['count'], 'cluster')}, the largest of {clusters['largest']:,}"
    )
    if skipped := images["skipped"]:
        say(f"{count(sum(skipped.values()), 'image')} skipped ({by_status(skipped)}): neither kept nor dropped")
    if not summary["calibrated"]:
        say("the descriptor is uncalibrated: scores are a guess")
    if images["dropped"]:
        say_next(f"open {quote(output / 'gallery.html')} in a browser and look at the clusters")
    elif images["described"]:
        say_next("nothing to do: no two images are duplicates at this precision; --precision 0.8 says more")
    else:
        say_next("no image could be read; name a folder or a file that holds some")
