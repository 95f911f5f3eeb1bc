"""From what was measured to the numbers of audit.json. Every share and percentile has its interval; see intervals."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from copydet.audit import intervals
from copydet.audit.complexity import SIMPLE_ENTROPY
from copydet.audit.duplication import LEVEL, Repeats, odds_of
from copydet.audit.replication import Found

FORMAT_VERSION = 1
SIMILARITY_LEVELS = (0.5, 0.6, 0.75)
PERCENTILES = (5, 25, 50, 75, 90, 95, 99)
MOST_GROUPS = 40  # values of a column: with more it names images, not groups
_TOP_PAIRS = 20

# What audit.json has at the top, in alphabetical order; `baseline` and `dcr` only where they were asked for.
NAMES = frozenset(
    {
        *("above_chance", "baseline", "chance", "cliques", "complexity", "dcr", "descriptor", "descriptor_hash"),
        *("duplication", "format_version", "generated", "generations", "groups", "index", "local_features"),
        *("precision", "preset", "read", "seed", "share_above", "share_at_precision", "share_copy"),
        *("share_identical_file", "share_near_pixel", "share_partial_copy", "share_whole_copy", "similarity"),
        *("skipped", "snapshot", "threshold", "top_pairs", "training_images", "warnings", "where"),
    }
)

Numbers = dict[str, Any]


def summarise(found: Found, thresholds: Mapping[float, float], seed: int = 0) -> Numbers:
    """audit.json without the facts of the run. `thresholds`: precision -> least score of the calibration."""
    rows = found.rows.filter(pa.array([status == "ok" for status in found.rows["status"].to_pylist()]))
    copies, verdicts = are_copies(rows), np.array(rows["verdict"].to_pylist(), object)
    similarity, scores = floats(rows, "nearest_similarity"), floats(rows, "score")
    near = floats(rows, "tile_distance")
    numbers: Numbers = {
        "format_version": FORMAT_VERSION,
        "generations": len(found.rows),
        "read": len(rows),
        "skipped": _counts(status for status in found.rows["status"].to_pylist() if status != "ok"),
        "training_images": found.training_images,
        "local_features": found.local_features,
        "share_copy": share(copies, seed),
        "share_whole_copy": share(verdicts == "copy", seed),
        "share_partial_copy": share(verdicts == "partial_copy", seed),
        "share_near_pixel": share(_flags(rows, "near_pixel")[~np.isnan(near)], seed),
        "share_identical_file": share(_flags(rows, "identical_file"), seed),
        "share_above": above(similarity, seed),
        "share_at_precision": {
            f"{precision:g}": {"score": score, **(share(scores >= score, seed) or {})}
            for precision, score in sorted(thresholds.items())
        },
        "similarity": distribution(similarity, seed),
        "chance": {
            "images": len(found.chance.similarity),
            "matched_images": len(found.chance.copies),
            "share_copy": share(found.chance.copies, seed),
            "share_above": above(found.chance.similarity, seed),
            "similarity": distribution(found.chance.similarity, seed),
        },
        "above_chance": {
            "share_copy": _as_dict(intervals.difference(copies, found.chance.copies, seed)),
            "similarity": _as_dict(intervals.compare_distributions(similarity, found.chance.similarity)),
        },
        "duplication": duplication(found.matched, found.others, seed),
        "complexity": complexity(rows, copies, seed),
        "cliques": _cliques(found, len(rows), seed),
        "groups": {name: groups for name in found.metadata if (groups := by_group(rows, name, seed))},
        "top_pairs": _top_pairs(rows),
    }
    return numbers


def share(flags: NDArray[np.bool_], seed: int = 0) -> Numbers | None:
    return _as_dict(intervals.share(flags, seed))


def above(similarity: NDArray[np.float64], seed: int = 0) -> Numbers:
    """The share whose nearest training image has more than each of SIMILARITY_LEVELS."""
    return {f"{level:g}": share(similarity > level, seed) for level in SIMILARITY_LEVELS}


def distribution(values: NDArray[np.float64], seed: int = 0) -> Numbers:
    return {
        "mean": _as_dict(intervals.mean(values, seed)),
        "std": float(values.std()) if len(values) else None,
        "percentiles": {f"{each}": _as_dict(intervals.percentile(values, each, seed)) for each in PERCENTILES},
    }


def duplication(matched: Repeats, others: Repeats, seed: int = 0) -> Numbers:
    odds = odds_of(matched, others)
    return {
        "similarity_level": LEVEL,
        "odds_ratio": None if odds is None else asdict(odds),
        **{
            name: {
                "images": len(each.counts),
                "share_repeated": share(each.counts > 1, seed),
                "mean_count": float(each.counts.mean()) if len(each.counts) else None,
            }
            for name, each in (("matched", matched), ("random", others))
        },
    }


def complexity(rows: pa.Table, copies: NDArray[np.bool_], seed: int = 0) -> Numbers:
    """How much there is in copies and in the others, and how many of the copies are simple pictures."""
    entropy = floats(rows, "entropy")
    return {
        "simple_entropy": SIMPLE_ENTROPY,
        "share_simple": share(entropy < SIMPLE_ENTROPY, seed),
        "share_simple_of_copies": share(entropy[copies] < SIMPLE_ENTROPY, seed),
        **{
            name: {
                measure: _as_dict(intervals.mean(floats(rows, measure)[chosen], seed))
                for measure in ("entropy", "compressed", "variation")
            }
            for name, chosen in (("copies", copies), ("others", ~copies))
        },
    }


def by_group(rows: pa.Table, name: str, seed: int = 0, *, always: bool = False) -> list[Numbers]:
    """The share of copies for each value of a column, highest first, at most MOST_GROUPS of them; empty where the
    column makes no groups (one value, or more than that), unless `always`.
    """
    rows = rows.filter(pa.array([status == "ok" for status in rows["status"].to_pylist()], pa.bool_()))
    values = np.array([_plain(value) for value in rows[name].to_pylist()], object)
    counts = _counts(values.tolist())
    if not (always or 1 < len(counts) <= MOST_GROUPS):
        return []
    similarity, groups = floats(rows, "nearest_similarity"), []
    copies = are_copies(rows)
    for value in counts:
        chosen = np.array([each == value for each in values], bool)
        median = intervals.percentile(similarity[chosen], 50, seed)
        groups.append(
            {
                "value": value,
                "generations": int(chosen.sum()),
                "share_copy": share(copies[chosen], seed),
                "similarity_median": _as_dict(median),
            }
        )
    groups.sort(key=lambda group: (-group["share_copy"]["value"], -group["generations"], str(group["value"])))
    return groups[:MOST_GROUPS]


def are_copies(rows: pa.Table) -> NDArray[np.bool_]:
    """bool [rows]: which generations are called copies, whole or partial."""
    return np.array([value in ("copy", "partial_copy") for value in rows["verdict"].to_pylist()], bool)


def _plain(value: Any) -> Any:
    """What JSON can hold; two audits must find their groups again."""
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def floats(rows: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64; NaN where it is null."""
    return np.array([np.nan if value is None else value for value in rows[name].to_pylist()], np.float64)


def _flags(rows: pa.Table, name: str) -> NDArray[np.bool_]:
    return np.array([bool(value) for value in rows[name].to_pylist()], bool)


def _cliques(found: Found, read: int, seed: int) -> Numbers:
    members = sum(len(clique) for clique in found.cliques)
    flags = np.arange(read) < members
    return {
        "cliques": len(found.cliques),
        "generations": members,
        "largest": max(map(len, found.cliques), default=0),
        "share": share(flags, seed),
    }


def _top_pairs(rows: pa.Table) -> list[Numbers]:
    names = ["generation_id", "reference_id", "score", "verdict", "nearest_similarity", "tile_distance"]
    listed = [row for row in rows.select(names).to_pylist() if row["score"] is not None]
    return sorted(listed, key=lambda row: (-row["score"], row["generation_id"]))[:_TOP_PAIRS]


def _counts(values: Any) -> dict[Any, int]:
    counts: dict[Any, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _as_dict(value: Any) -> Numbers | None:
    return None if value is None else asdict(value)
