"""What is called a match.

`copy`: the score reaches the threshold of the wanted precision. `no_match`: it doesn't. `partial_copy` and
`near_duplicate` are claims about geometry; nothing here measures that, so they are not made.
"""

from typing import Literal

from copydet.decisions.calibration import Calibration, threshold_for_precision
from copydet.records import Verdict

# Collections of products, rooms or frames hold more look-alikes than the calibration's pairs, and a descriptor alone
# cannot tell those from copies: the default asks for much and so errs towards saying nothing.
DEFAULT_PRECISION = 0.99


def decide(score: float, threshold: float) -> Verdict:
    verdict: Literal["copy", "no_match"] = "copy" if score >= threshold else "no_match"
    return verdict


def highest_precision(calibration: Calibration, score: float) -> float | None:
    """The highest calibrated precision at which a pair of this score is still called a match; None: at none."""
    reached = [each for each in calibration.thresholds if score >= threshold_for_precision(calibration, each)]
    return max(reached, default=None)
