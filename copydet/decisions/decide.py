"""What is called a match.

`copy`: the score reaches the threshold of the wanted precision. `no_match`: it doesn't. `partial_copy` and
`near_duplicate` are claims about geometry; nothing here measures that, so they are not made.
"""

from typing import Literal

from copydet.decisions.calibration import Calibration, threshold_for_precision
from copydet.records import Verdict

# The field's operating point (recall at 90 % precision), so that the matches a user sees are those the figures in the
# docs count. Calibration pairs are rich in look-alikes: among ordinary photos more than 90 % of matches are right.
DEFAULT_PRECISION = 0.9


def decide(score: float, threshold: float) -> Verdict:
    verdict: Literal["copy", "no_match"] = "copy" if score >= threshold else "no_match"
    return verdict


def highest_precision(calibration: Calibration, score: float) -> float | None:
    """The highest calibrated precision at which a pair of this score is still called a match; None: at none."""
    reached = [each for each in calibration.thresholds if score >= threshold_for_precision(calibration, each)]
    return max(reached, default=None)
