"""`copydet remove`: remove images from an index."""

from pathlib import Path

import click

from copydet.cli.console import count, if_interrupted, print_json, quote, say, say_next
from copydet.cli.options import index_option, json_option


@click.command("remove")
@click.argument("ids", metavar="ID...", nargs=-1)
@index_option(must_exist=True)
@click.option("--where", metavar="SQL", help="Remove the images that satisfy this DuckDB condition instead.")
@json_option
def command(ids: tuple[str, ...], index_path: Path, where: str | None, as_json: bool) -> int:
    """Remove images from an index, by id or by a condition.

    Ids are those that `copydet match` prints; when one is not there, nothing is removed. Nothing is rewritten, and
    whoever reads the index meanwhile keeps what he has opened.

    \b
    Example:
      copydet remove coffee.png --index photos.index
      copydet remove --where "width < 200" --index photos.index
    """
    if bool(ids) == (where is not None):
        raise click.UsageError("give either IDs or --where SQL")
    from copydet.shards.deletions import remove_images
    from copydet.store.snapshots import read_current

    before = read_current(index_path)
    with if_interrupted("the index is as it was; the same command starts again"):
        after = remove_images(index_path, ids, where=where)
    removed = after.removed - before.removed
    if as_json:
        print_json({"removed": removed, "images_in_index": after.images, "snapshot": after.number})
        return 0
    say(f"{count(removed, 'image')} removed, {after.images:,} left in {index_path}")
    say_next(f"copydet inspect --index {quote(index_path)}")
    return 0
