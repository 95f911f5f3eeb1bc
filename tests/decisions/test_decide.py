import pytest

from copydet.decisions.calibration import neutral
from copydet.decisions.decide import WHOLE, decide, highest_precision


def test_a_score_at_the_threshold_is_a_copy() -> None:
    assert decide(0.9, 0.9) == "copy"
    assert decide(0.89, 0.9) == "no_match"


@pytest.mark.parametrize(
    ("query", "reference", "verdict"),
    [
        (1.0, 1.0, "copy"),
        (WHOLE, WHOLE, "copy"),
        (1.0, 0.1, "partial_copy"),  # a crop
        (0.1, 1.0, "partial_copy"),  # a paste
        (WHOLE - 0.01, WHOLE - 0.01, "partial_copy"),
    ],
)
def test_a_match_of_which_less_than_half_is_shared_is_partial(query: float, reference: float, verdict: str) -> None:
    assert decide(0.9, 0.5, query, reference) == verdict
    assert decide(0.4, 0.5, query, reference) == "no_match"


def test_the_verdict_is_the_same_in_either_direction() -> None:
    for shares in ((0.2, 0.9), (0.6, 0.5), (1.0, 0.49)):
        assert decide(0.9, 0.5, *shares) == decide(0.9, 0.5, *reversed(shares))


def test_the_highest_precision_is_the_strictest_whose_threshold_is_reached() -> None:
    thresholds = neutral(True).thresholds
    assert highest_precision(thresholds, 0.96) == 0.95
    assert highest_precision(thresholds, 0.9999) == 0.999
    assert highest_precision(thresholds, 0.1) is None
