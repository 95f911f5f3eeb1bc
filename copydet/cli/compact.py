"""`copydet compact`: drop removed images for good and join small shards."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from copydet.cli.console import count, if_interrupted, print_json, print_table, quote, say, say_next, size
from copydet.cli.options import BYTE_SIZE, index_option, json_option

if TYPE_CHECKING:
    from copydet.engines.compaction import CompactionPlan


@click.command("compact")
@index_option(must_exist=True)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--max-memory", metavar="SIZE", type=BYTE_SIZE, help="Use at most this much. [default: half of all]")
@json_option
def command(index_path: Path, dry_run: bool, max_memory: int | None, as_json: bool) -> int:
    """Drop removed images for good, join small shards, delete files that nobody needs.

    Each `copydet add` brings a shard and each `copydet remove` only marks what is not to be found any more. This writes
    such shards anew; every image that is left is found as before. Whoever reads the index meanwhile keeps what he has
    opened, and those files stay until the next time. An interrupted run goes on where it stopped.

    \b
    Example:
      copydet compact --index photos.index --dry-run
      copydet compact --index photos.index
    """
    from copydet.engines.compaction import compact, plan_compaction
    from copydet.progress import show
    from copydet.store.compact import remove_unused

    plan = plan_compaction(index_path, max_memory=max_memory)
    if dry_run:
        _show_plan(plan, as_json)
        if not as_json and plan.joins:
            say_next(f"copydet compact --index {quote(index_path)}")
        return 0
    total = sum(join.living for join in plan.joins)
    kept = "the index is as it was; the same command goes on from the finished shards"
    with if_interrupted(kept), show("compacting", total) as progress:
        snapshot = compact(index_path, max_memory=max_memory, progress=progress)
    unused = remove_unused(index_path)
    if as_json:
        counts = {"shards": len(snapshot.shards), "images_in_index": snapshot.images, "snapshot": snapshot.number}
        print_json({**counts, "bytes_freed": unused.bytes, "snapshots_held": unused.held})
        return 0
    holds = f"{count(snapshot.images, 'image')} in {count(len(snapshot.shards), 'shard')}"
    say(f"{index_path}: {holds}; {size(unused.bytes)} freed")
    if unused.held:
        say(f"{count(unused.held, 'older snapshot')} still being read; the next compact deletes what only they need")
    say_next(f"copydet inspect --index {quote(index_path)}")
    return 0


def _show_plan(plan: "CompactionPlan", as_json: bool) -> None:
    """Every shard that would come to be, and what from."""
    joins = [
        {
            "shards": [shard.name for shard in join.shards],
            "images": join.living,
            "removed": join.removed,
            "bytes": join.bytes,
        }
        for join in plan.joins
    ]
    if as_json:
        print_json({"joins": joins, "shards_afterwards": plan.shards, "images_in_index": plan.images})
        return
    if plan.joins:
        rows = [
            (
                f"{join.shards[0].name} to {join.shards[-1].name}" if len(join.shards) > 1 else join.shards[0].name,
                f"{len(join.shards):,}",
                f"{join.living:,}",
                f"{join.removed:,}",
                size(join.bytes),
            )
            for join in plan.joins
        ]
        print_table(("shards", "number", "images left", "dropped", "on disk now"), rows)
        say(f"They would become {count(sum(join.living > 0 for join in plan.joins), 'shard')}, {plan.shards:,} in all.")
    else:
        say("There is nothing to join or to drop.")
