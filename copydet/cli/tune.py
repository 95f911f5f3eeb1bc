"""`copydet tune`: how far an index must be searched for the recall that is wanted."""

from pathlib import Path

import click

from copydet.cli.console import count, if_interrupted, print_json, print_table, quote, say, say_next
from copydet.cli.options import device_option, index_option, json_option, moved_descriptor_option

DEFAULT_TARGETS = (0.9, 0.95, 0.99)


@click.command("tune")
@index_option(must_exist=True)
@click.option(
    "--recall",
    "targets",
    metavar="R",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    multiple=True,
    help="Share of what exact search finds that must be found; may be given again. [default: 0.9, 0.95 and 0.99]",
)
@click.option(
    "--queries",
    metavar="N",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Images to measure with.",
)
@moved_descriptor_option
@device_option
@json_option
def command(
    index_path: Path, targets: tuple[float, ...], queries: int, descriptor: str | None, device: str, as_json: bool
) -> int:
    """Measure how far an index must be searched, and keep the result in it.

    Images of the index are edited as copies are, described, and searched for exactly and with more and more effort.
    The least effort that reaches a recall becomes the operating point that `copydet match --recall` takes. Originals
    must be where they were indexed.

    \b
    Example:
      copydet tune --index photos.index --recall 0.95
    """
    from copydet.index import Index
    from copydet.progress import show

    kept = "nothing was measured to the end; the same command starts again"
    with if_interrupted(kept), show("describing edited images", queries) as progress:
        index = Index.open(index_path, descriptor=descriptor, device=device)
        points = index.tune(targets or DEFAULT_TARGETS, queries=queries, progress=progress)
    if as_json:
        print_json({"operating_points": {f"{target:g}": vars(point) for target, point in points.items()}})
        return 0
    rows = [
        (f"{target:g}", f"{point.nprobe:,}", f"{point.candidates:,}", f"{point.recall:.3f}", f"{point.queries:,}")
        for target, point in points.items()
    ]
    print_table(("recall", "nprobe", "candidates", "measured", "queries"), rows)
    say(f"{count(len(points), 'operating point')} in {index_path}")
    lowest = next(iter(points))
    say_next(f"copydet match QUERIES --index {quote(index_path)} --recall {lowest:g}")
    return 0
