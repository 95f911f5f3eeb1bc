"""`copydet evaluate`: score predictions, or a descriptor, against known copies."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from copydet.cli.console import count, if_interrupted, print_json, print_table, quote, say, say_next
from copydet.cli.options import device_option, json_option

if TYPE_CHECKING:
    from copydet.evaluation.scoring import Scores


@click.command("evaluate")
@click.argument("predictions", required=False, type=click.Path(path_type=Path))
@click.option("--ground-truth", metavar="FILE", type=click.Path(path_type=Path), help="CSV query_id,reference_id.")
@click.option(
    "--benchmark",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Benchmark folder: queries.csv with queries/ and references/, DISC21's layout, or Copydays'.",
)
@click.option("--descriptor", metavar="NAME|FILE", help="Evaluate this descriptor on the benchmark. [default: small]")
@click.option("--recipe", "recipes", metavar="NAME|FILE", multiple=True, help="Search by this recipe, too.")
@click.option("--distractors", metavar="SOURCE", help="Search among these images as well; a part becomes the bank.")
@click.option("--output", metavar="DIR", type=click.Path(path_type=Path), help="Write a descriptor's results here.")
@click.option(
    "--calibrate",
    metavar="SOURCE",
    multiple=True,
    help="Fit the scores of the --descriptor folder anew on edited copies of these images, and keep them in it.",
)
@device_option
@json_option
def command(
    predictions: Path | None,
    ground_truth: Path | None,
    benchmark: Path | None,
    descriptor: str | None,
    recipes: tuple[str, ...],
    distractors: str | None,
    output: Path | None,
    calibrate: tuple[str, ...],
    device: str,
    as_json: bool,
) -> int:
    """Score predictions or a descriptor against known copies.

    PREDICTIONS is what `copydet match --output matches.csv` wrote, or any CSV query_id,reference_id,score. Micro-AP,
    recall at 90 % precision and recall at a rank are those of the Image Similarity Challenge: equal scores count
    against the predictions, and every ground-truth pair counts, also one that was never predicted.

    \b
    Example:
      copydet evaluate matches.csv --ground-truth truth.csv
      copydet evaluate matches.csv --benchmark dev/
      copydet evaluate --benchmark dev/ --descriptor small
      copydet evaluate --calibrate photos/ --descriptor my-descriptor/
    """
    if calibrate:
        if descriptor is None or predictions or ground_truth or benchmark or recipes or distractors or output:
            raise click.UsageError("--calibrate SOURCE takes --descriptor FOLDER, and nothing else")
        return _calibrate(Path(descriptor), calibrate, device, as_json)
    if predictions is not None:
        if (ground_truth is None) == (benchmark is None):
            raise click.UsageError("PREDICTIONS need the known copies: give --ground-truth FILE or --benchmark DIR")
        only = {"descriptor": descriptor, "recipe": recipes, "distractors": distractors, "output": output}
        if wrong := [name for name, value in only.items() if value]:
            raise click.UsageError(f"--{wrong[0]} is for evaluating a descriptor; leave out PREDICTIONS to do that")
        if ground_truth is not None:
            return _evaluate_csv(predictions, ground_truth, as_json)
        assert benchmark is not None
        return _evaluate_on(predictions, benchmark, as_json)
    if benchmark is None or ground_truth is not None:
        raise click.UsageError("give PREDICTIONS with --ground-truth FILE, or --benchmark DIR to evaluate a descriptor")
    return _evaluate_descriptor(benchmark, descriptor or "small", device, recipes, distractors, output, as_json)


def _calibrate(folder: Path, sources: tuple[str, ...], device: str, as_json: bool) -> int:
    from copydet.errors import UsageError
    from copydet.evaluation.calibrate import calibrate_descriptor

    if not (folder / "descriptor.toml").is_file():
        raise UsageError(f"{folder} holds no descriptor.toml; name the folder of a descriptor of your own")
    with if_interrupted(f"{folder} is as it was; the same command starts again"):
        verified = calibrate_descriptor(folder, sources, device=device).verified
    assert verified is not None
    error = verified.calibration_error
    facts = {"pairs": verified.pairs, "copies": verified.copies, "calibration_error": error}
    if as_json:
        print_json(facts)
        return 0
    shown = "not measured: too few pairs" if error is None else f"{error:.3f}"
    say(f"{count(verified.pairs, 'pair')}, {verified.copies:,} of them copies; calibration error {shown}")
    say_next(f"copydet index SOURCE --index DIR --descriptor {quote(folder)} uses the new scores")
    return 0


def _evaluate_csv(predictions_path: Path, truth_path: Path, as_json: bool) -> int:
    from copydet.evaluation.ground_truth import read_ground_truth, read_predictions
    from copydet.evaluation.metrics import micro_ap, recall_at_k, recall_at_precision

    truth = read_ground_truth(truth_path)
    predictions = read_predictions(predictions_path)
    labels, scores, positives = predictions.labels(truth.pairs), predictions.scores, len(truth.pairs)
    point = recall_at_precision(labels, scores, positives)
    measures = {
        "queries": len(set(truth.query_ids) | set(predictions.query_ids)),
        "copies": positives,
        "predictions": len(scores),
        "micro_ap": micro_ap(labels, scores, positives),
        "recall_at_p90": point.recall,
        "threshold_at_p90": point.threshold,
        "recall_at_1": recall_at_k(predictions, truth.pairs, 1),
        "recall_at_10": recall_at_k(predictions, truth.pairs, 10),
    }
    if as_json:
        print_json(measures)
        return 0
    _print_measures(measures)
    if not labels.any():
        say("No prediction is a known copy: are the ids of both files of one kind? Folders and extensions don't count.")
    say_next(_look_advice())
    return 0


def _evaluate_on(predictions_path: Path, folder: Path, as_json: bool) -> int:
    from copydet.evaluation.benchmark_folders import read_benchmark
    from copydet.evaluation.ground_truth import read_predictions
    from copydet.evaluation.scoring import evaluate_predictions

    scores, _ = evaluate_predictions(read_benchmark(folder), read_predictions(predictions_path))
    if as_json:
        print_json(asdict(scores))
        return 0
    _print_measures(asdict(scores))
    _print_levels(scores)
    say_next(_look_advice())
    return 0


def _look_advice() -> str:
    return "look at the matches themselves: copydet match QUERIES --index DIR --report matches.html"


def _print_measures(measures: Mapping[str, object]) -> None:
    """The measures that are one number, a line each, but Copydays' own, which would be taken for the others."""
    for name, value in measures.items():
        if isinstance(value, dict) or name == "micro_ap_trapezoid":
            continue
        shown = "-" if value is None else f"{value:.5f}" if isinstance(value, float) else f"{value:,}"
        click.echo(f"{name:<34} {shown:>10}")


def _print_levels(scores: "Scores") -> None:
    if scores.recall_at_1_by_level:
        rows = [
            (level, f"{recall:.4f}", f"{scores.recall_at_10_by_level[level]:.4f}")
            for level, recall in scores.recall_at_1_by_level.items()
        ]
        click.echo()
        print_table(("level", "recall_at_1", "recall_at_10"), rows)
    for kind, share in scores.accepted_by_kind.items():
        click.echo(f"{kind + ' taken for a copy at P90':<34} {share:>10.4f}")


def _evaluate_descriptor(
    folder: Path,
    name: str,
    device: str,
    recipes: tuple[str, ...],
    distractors: str | None,
    output: Path | None,
    as_json: bool,
) -> int:
    from copydet.descriptors.registry import load_descriptor
    from copydet.descriptors.runtimes import open_runtime
    from copydet.evaluation.benchmarks import evaluate_benchmark
    from copydet.evaluation.results import table, write_results

    with if_interrupted("an evaluation keeps nothing; the same command starts it again"):
        runtime = open_runtime(load_descriptor(name), device)
        rows = evaluate_benchmark(folder, runtime, recipes=recipes, distractors=distractors)
    if output is not None:
        write_results(output, rows)
    if as_json:
        print_json({"rows": [row.fields() for row in rows]})
        return 0
    subject = rows[0].subject
    say(f"{subject.descriptor} ({subject.descriptor_hash}) on {subject.benchmark}, {subject.runtime}")
    click.echo(table(rows))
    if subject.undescribed:
        say(f"{count(subject.undescribed, 'image')} could not be described; copies among them count as missed.")
    if output is None:
        say_next("--output DIR writes every number, by level and by edit, and the precision-recall curves")
    else:
        say_next(f"look at {quote(output / 'precision_recall.svg')} and {quote(output / 'rows.csv')}")
    return 0
