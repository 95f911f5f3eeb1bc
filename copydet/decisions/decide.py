"""What is called a match, by what was measured:

- `no_match`: the score is below the threshold of the wanted precision.
- `copy`: it reaches it, and both images show at least WHOLE of each other; or nothing was measured of that.
- `partial_copy`: it reaches it, and less than WHOLE of the query or of the reference is in the other: a crop, a paste,
  an overlay, a collage.
- `near_duplicate`: a claim about two photographs of one scene, which nothing here measures: it is not made.
"""

from collections.abc import Mapping

from copydet.records import Verdict

# Collections of products, rooms or frames hold more look-alikes than the calibration's pairs, and a descriptor alone
# cannot tell those from copies: the default asks for much and so errs towards saying nothing.
DEFAULT_PRECISION = 0.99

WHOLE = 0.5  # of an image's area


def decide(
    score: float, threshold: float, query_overlap: float | None = None, reference_overlap: float | None = None
) -> Verdict:
    """Overlaps are shares of the areas, None where nothing was verified."""
    if score < threshold:
        return "no_match"
    shares = [share for share in (query_overlap, reference_overlap) if share is not None]
    return "partial_copy" if shares and min(shares) < WHOLE else "copy"


def highest_precision(thresholds: Mapping[float, float], score: float) -> float | None:
    """The highest calibrated precision at which a pair of this score is still called a match; None: at none."""
    return max((precision for precision, threshold in thresholds.items() if score >= threshold), default=None)
