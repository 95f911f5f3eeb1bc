"""Plots as inline SVG: no script, no request, colours from the page's style (`--first`, `--second`, `--line`, ...).

Each function returns one `<svg>` whose viewBox is WIDTH wide, with a `<title>` that says in words what it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike

WIDTH, HEIGHT = 620, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 26, 38
_INNER, _TALL = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_BAR = 22  # of a bar chart, with the gap to the next
_NAMES = 210  # room for a bar chart's names
_COLOURS = ("first", "second")
_LIGHT = {"first": "#c2452d", "second": "#2457c5", "line": "#e1e4e9", "text": "#191d23", "soft": "#626b77"}


@dataclass(frozen=True)
class Bar:
    """A share with its interval, each in [0, 1]; `note` stands behind the bar."""

    name: str
    value: float
    low: float
    high: float
    note: str = ""


def histogram(
    title: str,
    series: Sequence[tuple[str, ArrayLike]],
    span: tuple[float, float],
    unit: str,
    bins: int = 50,
    marks: Sequence[float] = (),
) -> str:
    """Distributions over each other, each as the share of its own values in `bins` equal bins of `span`; values outside
    count in the outermost bin. `marks` are upright lines.
    """
    edges = np.linspace(*span, bins + 1)
    shares = []
    for _, values in series:
        kept = np.clip(np.asarray(values, np.float64), *span)
        counts, _ = np.histogram(kept, edges)
        shares.append(counts / max(1, len(kept)))
    top = max((float(share.max()) for share in shares), default=0.0) or 1.0
    parts = [_axis(span, unit), _scale(top)]
    for mark in marks:
        x = _x(mark, span)
        parts.append(f'<path d="M{x:.1f},{_TOP}V{_TOP + _TALL}" stroke="var(--soft)" stroke-dasharray="3 3"/>')
    for number, share in enumerate(shares):
        steps = "".join(
            f"H{_x(edges[bin_], span):.1f}V{_y(value / top):.1f}H{_x(edges[bin_ + 1], span):.1f}"
            for bin_, value in enumerate(share)
        )
        colour = f"var(--{_COLOURS[number % 2]})"
        path = f"M{_x(span[0], span):.1f},{_y(0):.1f}{steps}V{_y(0):.1f}Z"
        parts.append(f'<path d="{path}" fill="{colour}" fill-opacity=".22" stroke="{colour}" stroke-width="1.5"/>')
    parts.append(_legend([name for name, _ in series]))
    return _svg(title, HEIGHT, parts)


def bars(title: str, rows: Sequence[Bar], marks: Sequence[tuple[str, float]] = ()) -> str:
    """A bar a row with its interval as a whisker; the axis ends at the longest interval. `marks` are named lines."""
    longest = max([row.high for row in rows] + [value for _, value in marks], default=0.0)
    span = (0.0, min(1.0, longest * 1.1) or 0.01)
    height = _TOP + _BAR * len(rows) + _BOTTOM
    width = WIDTH - _NAMES - 110
    parts = []
    for share in np.linspace(0, span[1], 5):
        x = _NAMES + width * share / span[1]
        parts.append(f'<path d="M{x:.1f},{_TOP}V{height - _BOTTOM}" stroke="var(--line)"/>')
        parts.append(_text(x, height - _BOTTOM + 16, _percent(share, span[1]), "middle"))
    for number, row in enumerate(rows):
        y, scale = _TOP + _BAR * number + 4, width / span[1]
        parts.append(_text(_NAMES - 8, y + 11, _cut(row.name), "end", strong=True))
        wide = max(row.value * scale, 0.5)
        parts.append(f'<rect x="{_NAMES}" y="{y}" width="{wide:.1f}" height="14" fill="var(--first)" rx="2"/>')
        left, right = _NAMES + row.low * scale, _NAMES + row.high * scale
        whisker = f"M{left:.1f},{y + 7}H{right:.1f}M{left:.1f},{y + 3}V{y + 11}M{right:.1f},{y + 3}V{y + 11}"
        parts.append(f'<path d="{whisker}" stroke="var(--text)" fill="none"/>')
        parts.append(_text(right + 8, y + 11, f"{_percent(row.value, span[1])} {row.note}".strip(), "start"))
    for name, value in marks:
        x = _NAMES + width * value / span[1]
        parts.append(f'<path d="M{x:.1f},{_TOP - 6}V{height - _BOTTOM}" stroke="var(--second)" stroke-width="1.5"/>')
        parts.append(_text(x, _TOP - 10, name, "middle"))
    return _svg(title, height, parts)


def curve(title: str, points: Sequence[tuple[float, float, float, float]], across: str, up: str) -> str:
    """Values with intervals (x, value, low, high), joined by a line; the vertical axis is that of shares, 0 to 1."""
    span = (min(point[0] for point in points), max(point[0] for point in points))
    span = span if span[1] > span[0] else (span[0] - 0.5, span[0] + 0.5)
    parts = [_axis(span, across), _scale(1.0), _text(_LEFT, _TOP - 10, up, "start")]
    for x, _, low, high in points:
        parts.append(f'<path d="M{_x(x, span):.1f},{_y(low):.1f}V{_y(high):.1f}" stroke="var(--first)"/>')
    line = " ".join(f"{_x(x, span):.1f},{_y(value):.1f}" for x, value, _, _ in points)
    parts.append(f'<polyline points="{line}" fill="none" stroke="var(--first)" stroke-width="2"/>')
    parts += [
        f'<circle cx="{_x(x, span):.1f}" cy="{_y(value):.1f}" r="3" fill="var(--first)"/>' for x, value, _, _ in points
    ]
    return _svg(title, HEIGHT, parts)


def standalone(drawn: str) -> str:
    """The same plot as a file of its own: with a white ground and the colours of a light page."""
    colours = ";".join(f"--{name}:{colour}" for name, colour in _LIGHT.items())
    style = (
        f'xmlns="http://www.w3.org/2000/svg" style="{colours};background:#fff" font-family="sans-serif" font-size="11"'
    )
    return drawn.replace('<svg class="plot"', f"<svg {style}", 1) + "\n"


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    head = f'<svg class="plot" viewBox="0 0 {WIDTH} {height:.0f}" role="img"><title>{escape(title)}</title>'
    return head + "".join(parts) + "</svg>"


def _axis(span: tuple[float, float], unit: str) -> str:
    parts = []
    for value in np.linspace(*span, 6):
        x = _x(float(value), span)
        parts.append(f'<path d="M{x:.1f},{_TOP}V{_TOP + _TALL}" stroke="var(--line)"/>')
        parts.append(_text(x, _TOP + _TALL + 15, f"{value:.2g}", "middle"))
    parts.append(_text(_LEFT + _INNER / 2, HEIGHT - 6, unit, "middle"))
    return "".join(parts)


def _scale(top: float) -> str:
    parts = []
    for share in np.linspace(0, top, 5):
        y = _y(share / top)
        parts.append(f'<path d="M{_LEFT},{y:.1f}H{_LEFT + _INNER}" stroke="var(--line)"/>')
        parts.append(_text(_LEFT - 6, y + 4, _percent(float(share), top), "end"))
    return "".join(parts)


def _legend(names: Sequence[str]) -> str:
    parts, x = [], float(_LEFT)
    for number, name in enumerate(names):
        parts.append(f'<rect x="{x:.0f}" y="6" width="12" height="8" rx="2" fill="var(--{_COLOURS[number % 2]})"/>')
        parts.append(_text(x + 18, 14, name, "start", strong=True))
        x += 40 + 6.6 * len(name)
    return "".join(parts)


def _text(x: float, y: float, words: str, anchor: str, strong: bool = False) -> str:
    colour = "text" if strong else "soft"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="var(--{colour})">{escape(words)}</text>'


def _x(value: float, span: tuple[float, float]) -> float:
    return _LEFT + _INNER * (value - span[0]) / (span[1] - span[0])


def _y(share: float) -> float:
    return _TOP + _TALL * (1 - share)


def _percent(share: float, top: float) -> str:
    return f"{100 * share:.{0 if top >= 0.1 else 1 if top >= 0.01 else 2}f} %"


def _cut(name: str, most: int = 32) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
