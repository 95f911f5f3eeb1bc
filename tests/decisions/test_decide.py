from copydet.decisions.calibration import neutral
from copydet.decisions.decide import decide, highest_precision


def test_a_score_at_the_threshold_is_a_copy() -> None:
    assert decide(0.9, 0.9) == "copy"
    assert decide(0.89, 0.9) == "no_match"


def test_the_highest_precision_is_the_strictest_whose_threshold_is_reached() -> None:
    assert highest_precision(neutral(True), 0.96) == 0.95
    assert highest_precision(neutral(True), 0.9999) == 0.999
    assert highest_precision(neutral(True), 0.1) is None
