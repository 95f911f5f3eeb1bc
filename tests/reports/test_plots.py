"""Plots: well-formed, of the size of what they show, and nothing in a name becomes markup."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from copydet.reports.plots import Bar, bars, curve, histogram

HOSTILE = "<script>alert('1')</script> & \"quotes\""


def test_every_plot_is_one_well_formed_picture_with_a_title() -> None:
    for drawn in (
        histogram(HOSTILE, [(HOSTILE, [0.1, 0.2]), ("other", [])], (0, 1), HOSTILE, marks=(0.5,)),
        bars(HOSTILE, [Bar(HOSTILE, 0.1, 0.05, 0.2, HOSTILE)], [(HOSTILE, 0.15)]),
        bars(HOSTILE, []),
        curve(HOSTILE, [(0.1, 0.9, 0.8, 1.0), (0.5, 0.2, 0.1, 0.3)], HOSTILE, HOSTILE),
        curve(HOSTILE, [(0.1, 0.9, 0.8, 1.0)], HOSTILE, HOSTILE),
    ):
        root = ElementTree.fromstring(drawn)
        assert root.tag == "svg"
        assert root.findtext("title") == HOSTILE
        assert "<script" not in drawn
        assert not re.findall(r"nan|inf", drawn)


def test_bars_are_as_long_as_their_values() -> None:
    drawn = bars("shares", [Bar("half", 0.5, 0.5, 0.5), Bar("quarter", 0.25, 0.25, 0.25), Bar("none", 0, 0, 0)])
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', drawn)]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2)
    assert widths[2] <= 0.5


def test_a_histogram_shows_shares_of_each_series_alone() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.random(50), np.tile(rng.random(50), 40)
    heights = []
    for values in (few, many):
        drawn = histogram("one", [("values", values)], (0, 1), "value", bins=5)
        heights.append(re.findall(r"V([\d.]+)H", drawn))
    assert len(heights[0]) == len(heights[1]) == 5
