"""Two audits against each other: has the generator come to replicate more or less, and is that more than luck?"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from copydet.audit import intervals
from copydet.audit.summary import FORMAT_VERSION, Numbers, are_copies, floats
from copydet.errors import UsageError

SIGNIFICANT = 0.05
_MUST_AGREE = ("descriptor_hash", "precision", "preset")


@dataclass(frozen=True)
class Baseline:
    """An earlier audit: its numbers and its rows that could be read."""

    folder: Path
    numbers: Mapping[str, Any]
    rows: pa.Table


def read_baseline(folder: Path) -> Baseline:
    """Raises UsageError where `folder` holds no audit that this copydet reads."""
    try:
        numbers = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
        rows = pq.read_table(folder / "audit.parquet")
        version = numbers["format_version"]
        rows = rows.filter(pa.array([status == "ok" for status in rows["status"].to_pylist()], pa.bool_()))
        rows.select(["verdict", "nearest_similarity"])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UsageError(f"--baseline {folder} holds no audit: {' '.join(str(error).split())}") from error
    if version != FORMAT_VERSION:
        raise UsageError(f"--baseline {folder} is of format {version}, this copydet reads {FORMAT_VERSION}")
    return Baseline(folder, numbers, rows)


def check_comparable(baseline: Baseline, facts: Mapping[str, Any]) -> None:
    """Raises UsageError where the two audits measure differently, so that no difference would mean anything."""
    for name in _MUST_AGREE:
        then, now = baseline.numbers.get(name), facts[name]
        if then != now:
            raise UsageError(
                f"--baseline {baseline.folder} was made with {name.replace('_', ' ')} {then}, this audit with {now}: "
                "their numbers don't compare; audit one of them again"
            )


def compare(rows: pa.Table, numbers: Numbers, baseline: Baseline, seed: int = 0) -> Numbers:
    """`rows` and `numbers` of this audit against those of the baseline; becomes audit.json's `baseline`."""
    read = rows.filter(pa.array([status == "ok" for status in rows["status"].to_pylist()], pa.bool_()))
    now, then = are_copies(read), are_copies(baseline.rows)
    change = intervals.difference(now, then, seed)
    distribution = intervals.compare_distributions(
        floats(read, "nearest_similarity"), floats(baseline.rows, "nearest_similarity")
    )
    same_index = all(numbers[name] == baseline.numbers.get(name) for name in ("index", "snapshot"))
    return {
        "folder": str(baseline.folder),
        "generations": baseline.numbers["generations"],
        "same_index": same_index,
        "share_copy": baseline.numbers["share_copy"],
        "difference": None if change is None else asdict(change),
        "similarity": None if distribution is None else asdict(distribution),
        "groups": _by_group(numbers, baseline.numbers),
        "statement": _statement(change, numbers["share_copy"], baseline.numbers["share_copy"]),
    }


def _by_group(now: Mapping[str, Any], then: Mapping[str, Any]) -> Numbers:
    """For each column that makes groups in both audits, the groups of both; empty where they have none in common."""
    shared: Numbers = {}
    for column, groups in now["groups"].items():
        before = {group["value"]: group for group in then["groups"].get(column, ())}
        both = [
            {
                "value": group["value"],
                "share_copy": group["share_copy"],
                "share_copy_before": before[group["value"]]["share_copy"],
            }
            for group in groups
            if group["value"] in before
        ]
        if both:
            shared[column] = both
    return shared


def _statement(change: intervals.Difference | None, now: Numbers | None, then: Numbers | None) -> str:
    if change is None or now is None or then is None:
        return "One of the two audits has no share of copies, so nothing can be said of a change."
    shares = f"from {100 * then['value']:.2f} % to {100 * now['value']:.2f} %"
    points = f"{100 * change.low:+.2f} to {100 * change.high:+.2f} points at 95 % confidence, p = {change.p_value:.3g}"
    if change.p_value >= SIGNIFICANT:
        return f"The share of copies went {shares}: no significant change ({points})."
    return f"The share of copies {'rose' if change.value > 0 else 'fell'} significantly, {shares} ({points})."
