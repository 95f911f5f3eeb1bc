"""`copydet compare`: every score between two images."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from copydet.cli.console import print_json, say, say_next
from copydet.cli.options import device_option, json_option

if TYPE_CHECKING:
    from copydet.matching import Comparison


@click.command("compare")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--descriptor",
    metavar="NAME|FILE",
    default="small",
    show_default=True,
    help="What describes the images: a shipped name, a descriptor folder, or an SSCD checkpoint.",
)
@click.option(
    "--precision",
    metavar="P",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="How sure the verdict must be. [default: 0.99]",
)
@device_option
@json_option
def command(first: str, second: str, descriptor: str, precision: float | None, device: str, as_json: bool) -> int:
    """Show every score between two images.

    The last line says what would make them match. The score is the higher one of both directions, so the order of the
    two doesn't matter.

    \b
    Example:
      copydet compare suspect.jpg photos/coffee.png
    """
    import copydet

    chosen = {} if precision is None else {"precision": precision}
    comparison: Comparison = copydet.compare(first, second, descriptor=descriptor, device=device, **chosen)
    if as_json:
        print_json(asdict(comparison))
        return 0
    rows = {
        "score": f"{comparison.score:.4f}",
        "verdict": comparison.verdict,
        "similarity": f"{comparison.similarity:.4f}",
        "normalised similarity, A as query": f"{comparison.normalised_similarity:.4f}",
        "normalised similarity, B as query": f"{comparison.normalised_similarity_back:.4f}",
        f"threshold at precision {comparison.precision:g}": f"{comparison.threshold:.4f}",
    }
    for name, value in rows.items():
        click.echo(f"{name:<36}{value}")
    click.echo(_what_it_takes(comparison))
    if not comparison.calibrated:
        say(f"Descriptor {descriptor} is uncalibrated: the score is a guess.")
    say_next("copydet index PHOTOS --index photos.index finds such pairs in a whole collection")
    return 0


def _what_it_takes(comparison: "Comparison") -> str:
    """What would turn the verdict, in words."""
    highest = comparison.highest_precision
    if comparison.verdict != "no_match":
        return f"They match, and do up to --precision {highest:g}." if highest else "They match."
    short = comparison.threshold - comparison.score
    if highest is None:
        return f"No match at any calibrated precision: the score is {short:.4f} below the threshold."
    return f"No match: the score is {short:.4f} below the threshold. With --precision {highest:g} they would match."
