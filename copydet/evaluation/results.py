"""Writing an evaluation: rows.json, rows.csv, curves.csv and precision_recall.svg; and a table to read at once."""

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from copydet.evaluation.benchmarks import Row
from copydet.store import atomic

_COLOURS = (
    "#1f77b4",
    "#d62728",
    "#2ca02c",
    "#9467bd",
    "#ff7f0e",
    "#17becf",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
)
_WIDTH, _HEIGHT, _LEFT, _TOP = 460, 400, 60, 30  # the plot's own area and where it starts, in SVG units
_CURVE_POINTS = 400


def write_results(folder: Path, rows: Sequence[Row]) -> None:
    """Write all four files into `folder`, which is made where it is missing."""
    atomic.make_folder(folder)
    atomic.write_json(folder / "rows.json", [row.fields() for row in rows])
    atomic.write_bytes(folder / "rows.csv", rows_csv(rows).encode())
    atomic.write_bytes(folder / "curves.csv", curves_csv(rows).encode())
    atomic.write_bytes(folder / "precision_recall.svg", plot_svg(rows).encode())


def setting_name(row: Row) -> str:
    """`exact, normalised, whitened, 22,000 distractors`."""
    setting = row.setting
    parts = [setting.recipe, "normalised" if setting.score_normalised else "as it is"]
    parts += ["whitened"] * setting.whitened
    parts += [f"{setting.distractors:,} distractors"] * (setting.distractors > 0)
    return ", ".join(parts)


def table(rows: Sequence[Row]) -> str:
    """The main measures, a line a setting."""
    levels = list(dict.fromkeys(level for row in rows for level in row.scores.recall_at_1_by_level))
    lines = [["setting", "micro-AP", "no hard neg.", "recall@P90", "recall@1", "recall@10", *levels]]
    for row in rows:
        scores = row.scores
        plain = scores.micro_ap_without_hard_negatives
        values = [scores.micro_ap, plain, scores.recall_at_p90, scores.recall_at_1, scores.recall_at_10]
        values += [scores.recall_at_1_by_level.get(level) for level in levels]
        lines.append([setting_name(row)] + ["-" if value is None else f"{value:.3f}" for value in values])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        line[0].ljust(widths[0])
        + "".join(f"  {cell.rjust(width)}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )


def rows_csv(rows: Sequence[Row]) -> str:
    """A line a setting; what is by level, edit or kind gets a column each, as `recall_at_1_by_level.easy`."""
    flat = []
    for row in rows:
        line: dict[str, object] = {}
        for name, value in row.fields().items():
            line |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
        flat.append(line)
    columns = list(dict.fromkeys(column for line in flat for column in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def curves_csv(rows: Sequence[Row]) -> str:
    """Every copy found, by falling score: setting, recall, precision, threshold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["setting", "recall", "precision", "threshold"])
    for row in rows:
        at_copies = np.flatnonzero(np.diff(row.curve.recall, prepend=0.0) > 0)
        for i in at_copies:
            values = (row.curve.recall[i], row.curve.precision[i], row.curve.threshold[i])
            writer.writerow([setting_name(row), *(float(value) for value in values)])
    return text.getvalue()


def plot_svg(rows: Sequence[Row]) -> str:
    """Precision over recall as a picture that any browser shows; at most ten curves are told apart by colour."""
    parts = [_axes()]
    for number, row in enumerate(rows):
        colour = _COLOURS[number % len(_COLOURS)]
        keep = np.unique(np.linspace(0, max(len(row.curve.recall) - 1, 0), _CURVE_POINTS).astype(int))
        points = zip(row.curve.recall[keep], row.curve.precision[keep], strict=True) if len(row.curve.recall) else ()
        path = " ".join(f"{_x(recall):.1f},{_y(precision):.1f}" for recall, precision in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        y = _TOP + 14 + 18 * number
        label = f"{setting_name(row)}: {row.scores.micro_ap:.3f}"
        parts.append(f'<rect x="{_LEFT + _WIDTH + 20}" y="{y - 9}" width="12" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + _WIDTH + 38}" y="{y}">{escape(label)}</text>')
    height = max(_TOP + _HEIGHT + 50, _TOP + 40 + 18 * len(rows))
    width = _LEFT + _WIDTH + 380
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif"'
    return f'{head} font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'


def _axes() -> str:
    parts = [f'<text x="{_x(0.5)}" y="{_y(0) + 38}" text-anchor="middle">recall</text>']
    parts.append(f'<text x="{_LEFT}" y="{_TOP - 12}">precision (legend: micro-AP)</text>')
    for share in (0, 0.2, 0.4, 0.6, 0.8, 1):
        parts.append(f'<path d="M{_x(share)},{_y(0)}V{_y(1)}M{_x(0)},{_y(share)}H{_x(1)}" stroke="#ddd"/>')
        parts.append(f'<text x="{_x(share)}" y="{_y(0) + 18}" text-anchor="middle">{share:g}</text>')
        parts.append(f'<text x="{_LEFT - 8}" y="{_y(share) + 4}" text-anchor="end">{share:g}</text>')
    return "".join(parts)


def _x(recall: float) -> float:
    return _LEFT + _WIDTH * float(recall)


def _y(precision: float) -> float:
    return _TOP + _HEIGHT * (1 - float(precision))
