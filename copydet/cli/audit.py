"""`copydet audit`: how much of what a generator makes replicates its training images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from copydet.cli.console import SKIPPED, by_status, if_interrupted, print_json, print_table, quote, say, say_next
from copydet.cli.options import (
    count_listed,
    device_option,
    index_option,
    json_option,
    limit_options,
    limits,
    moved_descriptor_option,
    strict_option,
    workers_option,
)

if TYPE_CHECKING:
    from copydet.audit.gate import Condition


@click.command("audit")
@click.argument("generated", metavar="GENERATED...", nargs=-1, required=True)
@index_option(must_exist=True)
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Write audit.parquet, audit.json and report.html here.",
)
@click.option("--baseline", metavar="DIR", type=click.Path(path_type=Path), help="Compare with an earlier audit.")
@click.option(
    "--gate",
    "gates",
    metavar="CONDITION",
    multiple=True,
    help="Exit with 4 unless this holds of audit.json's numbers, such as 'share_copy < 0.01'. May be repeated.",
)
@click.option("--group", "groups", metavar="COLUMN", multiple=True, help="Report by this column of the generations.")
@click.option("--where", metavar="SQL", help="Audit against training images that satisfy this DuckDB condition only.")
@click.option(
    "--precision",
    metavar="P",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="How many of what is called a copy must be one. [default: 0.99]",
)
@click.option(
    "--preset",
    type=click.Choice(("dcr",)),
    help="Insist on an index with the preprocessing of Somepalli et al., so that similarities compare with theirs.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of samples and intervals.")
@moved_descriptor_option
@device_option
@workers_option
@limit_options
@strict_option
@json_option
def command(
    generated: tuple[str, ...],
    index_path: Path,
    output: Path,
    baseline: Path | None,
    gates: tuple[str, ...],
    groups: tuple[str, ...],
    where: str | None,
    precision: float | None,
    preset: str | None,
    seed: int,
    descriptor: str | None,
    device: str,
    workers: int | None,
    max_bytes: int | None,
    max_pixels: int | None,
    strict: bool,
    as_json: bool,
) -> int:
    """Measure how much of what a generator makes replicates its training images.

    GENERATED is a folder, or any source that `copydet index` takes, of pictures that the generator made; the index
    holds what it was trained on. Each generation is matched as `copydet match` does it; beside that stand similarity
    and its chance level among the training images, near-pixel distances, duplication, and groups of generations that
    are one picture. A run that was cut off goes on when the same command is given again.

    \b
    Example:
      copydet audit generated/ --index train.index --output audit
      copydet audit generated/ --index train.index --output audit --gate "share_copy < 0.01"
    """
    from copydet.audit.baseline import read_baseline
    from copydet.audit.gate import check_names, parse_gate
    from copydet.audit.generations import remove_parts
    from copydet.audit.replication import chance_images
    from copydet.audit.run import AuditSettings, audit
    from copydet.audit.summary import NAMES
    from copydet.errors import UsageError
    from copydet.images.originals import Originals
    from copydet.index import Index
    from copydet.progress import show
    from copydet.reports.audit_page import write_page

    conditions = [condition for text in gates for condition in parse_gate(text)]
    check_names(conditions, NAMES)
    earlier = None if baseline is None else read_baseline(baseline)
    if baseline is not None and output.exists() and baseline.resolve() == output.resolve():
        raise UsageError("--baseline and --output are the same folder; write the new audit elsewhere")
    chosen: dict[str, Any] = {} if precision is None else {"precision": precision}
    settings = AuditSettings(
        groups=groups,
        where=where,
        preset=preset,
        seed=seed,
        workers=workers,
        limits=limits(max_bytes, max_pixels),
        **chosen,
    )
    with if_interrupted("the same command goes on where this one stopped"):
        index = Index.open(index_path, descriptor=descriptor, device=device)
        listed = count_listed(generated, False)
        with show("auditing", None if listed is None else listed + chance_images(listed)) as progress:
            done = audit(list(generated), index, output, settings, baseline=earlier, progress=progress)
        with show("drawing pairs", None) as progress:
            write_page(output / "report.html", done.found, done.numbers, Originals().read, progress)
        remove_parts(output)
    numbers = done.numbers
    _report(numbers, output, as_json)
    _check(conditions, numbers)
    return SKIPPED if strict and numbers["skipped"] else 0


def _report(numbers: dict[str, Any], output: Path, as_json: bool) -> None:
    if as_json:
        print_json(numbers)
        return
    chance = numbers["chance"]
    rows = [_row("copies", numbers["share_copy"], chance["share_copy"])]
    rows += [_row(name, numbers[key], None) for name, key in _SHARES]
    rows += [
        _row(f"similarity above {level}", value, chance["share_above"][level])
        for level, value in numbers["share_above"].items()
    ]
    print_table(("share of generations", "value", "low", "high", "chance"), rows)
    for line in numbers["warnings"]:
        say(line)
    if "baseline" in numbers:
        say(numbers["baseline"]["statement"])
    skipped = numbers["skipped"]
    total = sum(skipped.values())
    say(f"{numbers['generations']:,} generations, {total:,} skipped" + (f" ({by_status(skipped)})" if skipped else ""))
    say_next(f"open {quote(output / 'report.html')} in a browser and look at the pairs")


_SHARES = (
    ("of these partial copies", "share_partial_copy"),
    ("nearly the same pixels", "share_near_pixel"),
    ("identical files", "share_identical_file"),
)


def _row(name: str, value: dict[str, float] | None, chance: dict[str, float] | None) -> tuple[str, ...]:
    cells = [None if value is None else value[key] for key in ("value", "low", "high")]
    cells.append(None if chance is None else chance["value"])
    return (name, *("-" if cell is None else f"{cell:.4f}" for cell in cells))


def _check(conditions: "list[Condition]", numbers: dict[str, Any]) -> None:
    from copydet.audit.gate import failed_conditions
    from copydet.errors import CheckFailed

    if failed := failed_conditions(conditions, numbers):
        raise CheckFailed("the gate is closed: " + "; ".join(failed))
