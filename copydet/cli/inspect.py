"""`copydet inspect`: what is in an index."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from copydet.cli.console import (
    by_status,
    count,
    if_interrupted,
    print_json,
    print_table,
    printable,
    quote,
    say,
    say_next,
    size,
)
from copydet.cli.contents import failed_images, queries_for
from copydet.cli.options import device_option, index_option, json_option, moved_descriptor_option

if TYPE_CHECKING:
    from copydet.shards.check import Depth
    from copydet.shards.summary import IndexInfo
    from copydet.store.snapshots import Snapshot

PROBLEMS = 4  # the exit code where a check found some


@click.command("inspect")
@index_option(must_exist=True)
@click.option("--failed", is_flag=True, help="List the images that could not be described, and why.")
@click.option(
    "--check",
    "depth",
    metavar="[DEPTH]",
    type=click.Choice(("names", "sums", "rows")),
    is_flag=False,
    flag_value="sums",
    help="Check the index: names and sizes of its files; also their checksums (sums, if no DEPTH is given); also "
    "whether codes, descriptors, table and local features agree row by row. Exits with 4 when there is a problem.",
)
@click.option(
    "--repair", is_flag=True, help="Check row by row, and make again what can be had from the rest or the originals."
)
@moved_descriptor_option
@device_option
@json_option
def command(
    index_path: Path,
    failed: bool,
    depth: "Depth | None",
    repair: bool,
    descriptor: str | None,
    device: str,
    as_json: bool,
) -> int:
    """Print what is in an index, check it, or repair it.

    What is in it: images by status, descriptor, recipe, bytes, shards, and a line for each change that was made.

    A check prints a line for each problem. Codes are repaired from descriptors, descriptors and local features from the
    original images, where these can still be read and have not changed; nothing is guessed, and what cannot be repaired
    stays as it is.

    \b
    Example:
      copydet inspect --index photos.index
      copydet inspect --index photos.index --failed
      copydet inspect --index photos.index --check rows
      copydet inspect --index photos.index --repair
    """
    if failed + repair + (depth is not None) > 1:
        raise click.UsageError("give one of --failed, --check and --repair")
    if repair:
        return _repair(index_path, descriptor, device, as_json)
    if depth is not None:
        return _check(index_path, depth, as_json)
    from copydet.shards.summary import read_info
    from copydet.store.snapshots import read_current

    snapshot = read_current(index_path)
    if failed:
        _list_failed(index_path, snapshot, as_json)
        return 0
    info = read_info(index_path, snapshot)
    unfinished = (index_path / "building" / "plan.json").is_file()
    if as_json:
        history = _history(index_path, snapshot)
        more = {"unfinished": unfinished, "shards": _shards(snapshot), "history": history}
        print_json(asdict(info) | more | {"operating_points": snapshot.operating_points})
        return 0
    _print_info(info, unfinished, ", ".join(snapshot.operating_points))
    _print_shards(snapshot)
    for line in _history(index_path, snapshot):
        click.echo(line)
    say_next(_advice(info))
    return 0


def _check(index: Path, depth: "Depth", as_json: bool) -> int:
    from copydet.shards.check import check_index

    problems = []
    for problem in check_index(index, depth):
        problems.append(problem)
        if not as_json:
            click.echo(printable(str(problem)))
    if as_json:
        print_json({"depth": depth, "problems": [vars(problem) for problem in problems]})
    elif problems:
        say(f"{count(len(problems), 'problem')} in {index}")
        say_next(f"copydet inspect --index {quote(index)} --repair")
    else:
        say(f"{index} is as its snapshot says, by {depth}.")
    return PROBLEMS if problems else 0


def _repair(index: Path, descriptor: str | None, device: str, as_json: bool) -> int:
    from copydet.index import repair_index
    from copydet.progress import show

    kept = "the index is as it was; the same command starts again"
    with if_interrupted(kept), show("repairing", None) as progress:
        repaired = repair_index(index, descriptor=descriptor, device=device, progress=progress)
    if as_json:
        print_json({"mended": repaired.mended, "problems": [vars(problem) for problem in repaired.left]})
        return PROBLEMS if repaired.left else 0
    for line in (*repaired.mended, *map(str, repaired.left)):
        click.echo(printable(line))
    say(f"{count(len(repaired.mended), 'thing')} mended, {count(len(repaired.left), 'problem')} left in {index}")
    if repaired.left:
        say_next("restore the files that are named from a copy, or index the images again")
    elif repaired.mended:
        say_next(f"copydet compact --index {quote(index)} deletes the damaged files")
    return PROBLEMS if repaired.left else 0


def _print_info(info: "IndexInfo", unfinished: bool, tuned: str) -> None:
    failed = {status: number for status, number in info.statuses.items() if status != "ok"}
    lines = {
        "index": f"{info.path}, snapshot {info.snapshot} of {info.created_at}",
        "images": f"{info.images:,}: {info.statuses.get('ok', 0):,} described"
        + (f", {by_status(failed)}" if failed else "")
        + (f"; {info.removed:,} removed" if info.removed else ""),
        "descriptor": f"{info.descriptor}, {info.dimension} dimensions, hash {info.descriptor_hash}",
        "recipe": info.recipe,
        "on disk": size(info.bytes),
    }
    if tuned:
        lines["tuned for"] = f"recall {printable(tuned)}"
    if unfinished:
        lines["unfinished"] = "an addition was cut off; run the same command again, it goes on where it stopped"
    for name, value in lines.items():
        click.echo(f"{name:<12}{value}")
    click.echo()


def _print_shards(snapshot: "Snapshot") -> None:
    rows = [
        (
            shard["name"],
            f"{shard['images']:,}",
            f"{shard['described']:,}",
            shard["codes"] + (f" of {shard['reference_views']}" if shard["reference_views"] != "whole" else ""),
            size(shard["bytes"]),
        )
        for shard in _shards(snapshot)
    ]
    if rows:
        print_table(("shard", "images", "described", "codes", "on disk"), rows)
        click.echo()


def _shards(snapshot: "Snapshot") -> list[dict[str, Any]]:
    return [
        {
            "name": shard.name,
            "images": shard.images,
            "described": shard.described,
            "codes": shard.codes,
            "reference_views": shard.reference_views,
            "bytes": sum(file.bytes for file in shard.files.values()),
        }
        for shard in snapshot.shards
    ]


def _history(index: Path, snapshot: "Snapshot") -> list[str]:
    """A line for each snapshot that is still there, oldest first."""
    from copydet.errors import CopydetError
    from copydet.store.snapshots import read_snapshot, snapshot_path

    lines = []
    for number in range(1, snapshot.number + 1):
        if not snapshot_path(index, number).exists():
            continue
        try:
            each = read_snapshot(index, number)
            lines.append(f"{number:06d}  {each.created_at}  {printable(each.history)}")
        except CopydetError as error:
            lines.append(f"{number:06d}  {error}")
    return lines


def _list_failed(index: Path, snapshot: "Snapshot", as_json: bool) -> None:
    """One image a line, tab-separated, so that `cut` and `grep` can go on; or JSON."""
    failed = failed_images(index, snapshot, snapshot.shards)
    if as_json:
        print_json({"failed": [vars(image) for image in failed]})
        return
    total = 0
    for image in failed:
        total += 1
        click.echo("\t".join(printable(text) for text in (image.status, image.image_id, image.message, image.uri)))
    say(f"{total:,} of {snapshot.images:,} images could not be described.")
    if total:
        forget = f"copydet remove --where \"status <> 'ok'\" --index {quote(index)}"
        say_next(f"mend the files, forget them with: {forget}, then give them to copydet add")


def _advice(info: "IndexInfo") -> str:
    if info.statuses.get("ok", 0) < info.images:
        return f"copydet inspect --index {quote(info.path)} --failed lists the images that could not be described"
    queries = queries_for(info.descriptor)
    return f"copydet match {queries} --index {quote(info.path)} --output matches.csv --report matches.html"
