"""`copydet compare`: every number between two images, and a picture of the evidence."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from copydet.cli.console import print_json, say, say_next
from copydet.cli.options import device_option, json_option

if TYPE_CHECKING:
    from copydet.comparison import Comparison


@click.command("compare")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--output", metavar="FILE.png", type=click.Path(path_type=Path), help="Draw the evidence to a picture.")
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
def command(
    first: str,
    second: str,
    output: Path | None,
    descriptor: str,
    precision: float | None,
    device: str,
    as_json: bool,
) -> int:
    """Show every number between two images.

    The last line says what would make them match. Each image is the query once; what is shown is the direction with the
    higher score, so the order of the two doesn't matter.

    \b
    Example:
      copydet compare suspect.jpg photos/coffee.png --output evidence.png
    """
    import copydet

    if output is not None:
        from copydet.reports.evidence_picture import check_picture

        check_picture(output)
    chosen = {} if precision is None else {"precision": precision}
    comparison: Comparison = copydet.compare(first, second, descriptor=descriptor, device=device, **chosen)
    if output is not None:
        _draw(comparison, (second, first) if comparison.swapped else (first, second), output)
    if as_json:
        print_json(asdict(comparison))
        return 0
    for name, value in _rows(comparison).items():
        click.echo(f"{name:<36}{value}")
    click.echo(_what_it_takes(comparison))
    if not comparison.calibrated:
        say(f"Descriptor {descriptor} is uncalibrated: the score is a guess.")
    if output is not None:
        say(f"The evidence is drawn in {output}")
    say_next("copydet index PHOTOS --index photos.index finds such pairs in a whole collection")
    return 0


def _rows(comparison: "Comparison") -> dict[str, str]:
    match = comparison.match
    rows = {
        "score": f"{match.score:.4f}",
        "score, the other way round": f"{comparison.score_back:.4f}",
        "verdict": match.verdict,
        "similarity": f"{comparison.similarity:.4f}",
        "normalised similarity, A as query": f"{comparison.normalised_similarity:.4f}",
        "normalised similarity, B as query": f"{comparison.normalised_similarity_back:.4f}",
        "query": "B" if comparison.swapped else "A",
        "view of the query": f"{match.query_view}, similarity {match.similarity:.4f}",
        "inliers": str(match.inliers),
    }
    if match.transform is not None:
        rows["share of the query"] = f"{match.query_overlap:.1%}"
        rows["share of the reference"] = f"{match.reference_overlap:.1%}"
        rows["what was done to it"] = comparison.in_words
    return {**rows, f"threshold at precision {comparison.precision:g}": f"{comparison.threshold:.4f}"}


def _draw(comparison: "Comparison", names: tuple[str, str], output: Path) -> None:
    """`names`: the query and the reference."""
    from copydet.images.decode import to_pixels
    from copydet.reports.evidence_picture import draw_evidence, save_picture

    match = comparison.match
    query, reference = (to_pixels(name) for name in names)
    picture = draw_evidence(
        query,
        reference,
        score=match.score,
        verdict=match.verdict,
        transform=match.transform,
        overlaps=(match.query_overlap, match.reference_overlap),
        part=match.part,
        names=names,
        notes=(f"similarity {match.similarity:.3f} ({match.query_view})", f"{match.inliers} inliers"),
    )
    save_picture(output, picture)


def _what_it_takes(comparison: "Comparison") -> str:
    """What would turn the verdict, in words."""
    highest = comparison.highest_precision
    if comparison.match.verdict != "no_match":
        return f"They match, and do up to --precision {highest:g}." if highest else "They match."
    short = comparison.threshold - comparison.match.score
    if highest is None:
        return f"No match at any calibrated precision: the score is {short:.4f} below the threshold."
    return f"No match: the score is {short:.4f} below the threshold. With --precision {highest:g} they would match."
