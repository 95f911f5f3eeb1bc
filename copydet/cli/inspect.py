"""`copydet inspect`: what is in an index."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from copydet.cli.console import by_status, print_json, print_table, printable, quote, say, say_next, size
from copydet.cli.contents import failed_images, queries_for
from copydet.cli.options import index_option, json_option

if TYPE_CHECKING:
    from copydet.index import IndexInfo
    from copydet.store.snapshots import Snapshot


@click.command("inspect")
@index_option(must_exist=True)
@click.option("--failed", is_flag=True, help="List the images that could not be described, and why.")
@json_option
def command(index_path: Path, failed: bool, as_json: bool) -> int:
    """Print what is in an index.

    That is: images by status, descriptor, recipe, bytes, shards, and a line for each change that was made.

    \b
    Example:
      copydet inspect --index photos.index
      copydet inspect --index photos.index --failed
    """
    from copydet.index import read_info
    from copydet.store.snapshots import read_current

    snapshot = read_current(index_path)
    if failed:
        _list_failed(index_path, snapshot, as_json)
        return 0
    info = read_info(index_path, snapshot)
    unfinished = (index_path / "building" / "plan.json").is_file()
    if as_json:
        history = _history(index_path, snapshot)
        print_json(asdict(info) | {"unfinished": unfinished, "shards": _shards(snapshot), "history": history})
        return 0
    _print_info(info, unfinished)
    _print_shards(snapshot)
    for line in _history(index_path, snapshot):
        click.echo(line)
    say_next(_advice(info))
    return 0


def _print_info(info: "IndexInfo", unfinished: bool) -> None:
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
    if unfinished:
        lines["unfinished"] = "an addition was cut off; run the same command again, it goes on where it stopped"
    for name, value in lines.items():
        click.echo(f"{name:<12}{value}")
    click.echo()


def _print_shards(snapshot: "Snapshot") -> None:
    rows = [
        (shard["name"], f"{shard['images']:,}", f"{shard['described']:,}", shard["codes"], size(shard["bytes"]))
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
