"""One audit from start to end: measure, sum up, write audit.parquet and audit.json. The page is made from both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from copydet.audit.baseline import Baseline, check_comparable, compare
from copydet.audit.cliques import MOST as MOST_IN_CLIQUES
from copydet.audit.published import dcr_numbers
from copydet.audit.replication import Found, measure
from copydet.audit.summary import Numbers, by_group, summarise
from copydet.decisions.calibration import Calibration, threshold_for_precision
from copydet.decisions.decide import DEFAULT_PRECISION
from copydet.descriptors.sscd import DCR
from copydet.errors import UsageError
from copydet.images.decode import DEFAULT_LIMITS, Limits
from copydet.images.queries import Queries, list_queries
from copydet.index import Index
from copydet.matching import MatchOptions, is_guessed
from copydet.progress import Progress, Silent
from copydet.store import atomic

TABLE, NUMBERS = "audit.parquet", "audit.json"
_FEW = 30  # generations, below which intervals say more than shares


@dataclass(frozen=True)
class AuditSettings:
    """`groups`: columns of the generations' metadata to report by, beside those that make few groups anyway."""

    precision: float = DEFAULT_PRECISION
    groups: Sequence[str] = ()
    where: str | None = None
    preset: str | None = None
    seed: int = 0
    workers: int | None = None
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True)
class Audit:
    found: Found
    numbers: Numbers


def audit(
    generated: Queries,
    index: Index,
    folder: Path,
    settings: AuditSettings = AuditSettings(),
    *,
    baseline: Baseline | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Audit `generated` against the images of `index`; writes audit.parquet and audit.json into `folder`.

    What is done is kept in `folder`/parts until `remove_parts`, and the same call goes on from there. Raises UsageError
    for sources that do not exist or hold nothing readable, an unknown group, a preset that the index was not made for,
    and a baseline that measures differently.
    """
    progress = progress or Silent()
    if settings.preset == "dcr" and not index.descriptor.name.endswith(DCR):
        raise UsageError(
            f"--preset dcr needs an index that describes images as Somepalli et al. do, and {index.path} was made with "
            f"{index.descriptor.name}; index the training images again with --descriptor CHECKPOINT@dcr"
        )
    images = list_queries(generated)
    facts = _facts(generated, index, settings)
    if baseline is not None:
        check_comparable(baseline, facts)
    options = MatchOptions(precision=settings.precision, workers=settings.workers, limits=settings.limits)
    calibration = index.opened.calibration
    facts["threshold"] = threshold_for_precision(calibration.verified_thresholds, settings.precision)
    atomic.make_folder(folder)
    found = measure(images, index, options, folder, where=settings.where, seed=settings.seed, progress=progress)
    numbers = facts | summarise(found, calibration.verified_thresholds, settings.seed)
    numbers["groups"] |= _wanted_groups(found, settings)
    if settings.preset == "dcr":
        numbers["dcr"] = dcr_numbers(found)
    if baseline is not None:
        numbers["baseline"] = compare(found.rows, numbers, baseline, settings.seed)
    numbers["warnings"] = _warnings(found, numbers, calibration)
    with atomic.new_file(folder / TABLE) as path:
        pq.write_table(found.rows, path)
    atomic.write_json(folder / NUMBERS, numbers)
    return Audit(found, numbers)


def _facts(generated: Queries, index: Index, settings: AuditSettings) -> Numbers:
    """What the audit was made of. No time of day: the same audit gives the same file."""
    listed: Sequence[Any] = [generated] if isinstance(generated, str | Path) else list(generated)  # type: ignore[arg-type]
    return {
        "generated": [str(each) if isinstance(each, str | Path) else "memory" for each in listed],
        "index": str(index.path),
        "snapshot": index.snapshot.number,
        "descriptor": index.descriptor.name,
        "descriptor_hash": index.descriptor.hash,
        "precision": settings.precision,
        "where": settings.where,
        "preset": settings.preset,
        "seed": settings.seed,
    }


def _wanted_groups(found: Found, settings: AuditSettings) -> Numbers:
    wanted: Numbers = {}
    for name in settings.groups:
        if name not in found.metadata:
            has = ", ".join(found.metadata) or "none: name a list or a table as the source to have some"
            raise UsageError(f"--group {name}: the generations have no such column; their columns are {has}")
        wanted[name] = by_group(found.rows, name, settings.seed, always=True)
    return wanted


def _warnings(found: Found, numbers: Numbers, calibration: Calibration) -> list[str]:
    """What a reader must know before believing the numbers."""
    lines, read = [], numbers["read"]
    identical = sum(bool(value) for value in found.rows["identical_file"].to_pylist())
    if identical:
        lines.append(f"{identical:,} of {read:,} generations are training images byte for byte: were they generated?")
    if read < _FEW:
        lines.append(f"{read:,} generations are few: look at the intervals, not at the shares.")
    if is_guessed(calibration, verified=True):
        lines.append("The descriptor is not calibrated: scores, and so the share of copies, are a guess.")
    if not found.local_features:
        lines.append("The index has no local features: copies of parts are found less often.")
    blind = sum(value is None for value in _read(found.rows)["tile_distance"].to_pylist())
    if blind:
        lines.append(f"Training images of {blind:,} generations are out of reach: they have no near-pixel distance.")
    if not len(found.chance.copies):
        lines.append("No training image could be matched with the others, so copies have no chance level.")
    if read > MOST_IN_CLIQUES:
        lines.append(f"Only the first {MOST_IN_CLIQUES:,} generations were compared with each other.")
    lines += _about_metadata(found)
    if "baseline" in numbers:
        lines += _about_baseline(numbers["baseline"], bool(numbers["groups"]))
    return lines


def _about_metadata(found: Found) -> list[str]:
    """Sources whose columns do not meet make groups that hold a part of the generations only."""
    partly = [name for name in found.metadata if 0 < found.rows[name].null_count < len(found.rows)]
    if not partly:
        return []
    return [f"Known of some generations only, and empty for the others: {', '.join(partly)}."]


def _about_baseline(compared: Numbers, has_groups: bool) -> list[str]:
    lines = []
    if not compared["same_index"]:
        lines.append("The baseline was audited against another index: a difference may come from that.")
    if has_groups and not compared["groups"]:
        lines.append("The baseline has no group in common with this audit: groups are not compared.")
    return lines


def _read(rows: pa.Table) -> pa.Table:
    return rows.filter(pa.array([status == "ok" for status in rows["status"].to_pylist()], pa.bool_()))
