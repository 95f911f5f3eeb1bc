"""Draw how far a descriptor's scores keep their word, from its calibration.json: mean score against share of copies.

.venv/bin/python scripts/draw_reliability.py --output docs/reliability.svg
"""

import argparse
from pathlib import Path

from copydet.decisions.calibration import read_calibration
from copydet.descriptors.registry import load_descriptor

SIDE, MARGIN, TEXT = 300, 44, 'font-family="sans-serif" font-size="12" fill="#444"'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--descriptor", default="small")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    verified = read_calibration(load_descriptor(arguments.descriptor).files["calibration"]).verified
    if verified is None or not verified.reliability:
        raise SystemExit(f"{arguments.descriptor} has no reliability of verified pairs")
    arguments.output.write_text(diagram(verified.reliability), encoding="utf-8")


def diagram(rows: tuple[tuple[float, float, int], ...]) -> str:
    """An SVG of (mean score, share of copies, pairs) rows beside the diagonal of scores that keep their word."""
    points = [(_x(score), _y(share)) for score, share, _ in rows]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    marks = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1f6f8b">'
        f"<title>{score:.3f}: {share:.3f} of {pairs} pairs</title></circle>"
        for (x, y), (score, share, pairs) in zip(points, rows, strict=True)
    ]
    ticks = [
        f'<text x="{_x(value):.0f}" y="{_y(0) + 18:.0f}" text-anchor="middle" {TEXT}>{value:g}</text>'
        f'<text x="{_x(0) - 8:.0f}" y="{_y(value) + 4:.0f}" text-anchor="end" {TEXT}>{value:g}</text>'
        for value in (0, 0.25, 0.5, 0.75, 1)
    ]
    size = SIDE + 2 * MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size}" height="{size}">',
        f'<rect width="{size}" height="{size}" fill="#fff"/>',
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#bbb"/>',
        f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="#bbb" stroke-dasharray="4 4"/>',
        f'<polyline points="{path}" fill="none" stroke="#1f6f8b" stroke-width="2"/>',
        *marks,
        *ticks,
        f'<text x="{_x(0.5):.0f}" y="{_y(0) + 36:.0f}" text-anchor="middle" {TEXT}>score</text>',
        f'<text x="{MARGIN}" y="{MARGIN - 12}" {TEXT}>share of copies</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _x(value: float) -> float:
    return MARGIN + SIDE * value


def _y(value: float) -> float:
    return MARGIN + SIDE * (1 - value)


if __name__ == "__main__":
    main()
