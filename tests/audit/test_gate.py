"""The gate: what is a condition, what holds, and nothing that could run."""

import pytest

from copydet.audit.gate import check_names, failed_conditions, parse_gate, resolve
from copydet.errors import UsageError

NUMBERS = {
    "share_copy": {"value": 0.02, "low": 0.01, "high": 0.03},
    "share_above": {"0.5": {"value": 0.2, "low": 0.1, "high": 0.3}, "0.75": None},
    "chance": {"share_copy": {"value": 0.01, "low": 0.0, "high": 0.025}},
    "generations": 200,
    "descriptor": "small",
}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("share_copy < 0.01", False),
        ("share_copy < 0.05", True),
        ("share_copy.high<=.03", True),
        ("share_copy.low > 1e-1", False),
        ("share_copy >= 0.02", True),
        ("share_copy != 0.02", False),
        ("share_above.0.5 == 0.2", True),
        ("share_above.0.75 < 1", False),  # unknown holds nothing
        ("share_copy.value <= chance.share_copy.high", True),
        ("share_copy <= chance.share_copy", False),
        ("share_copy < 0.05 and generations >= 100", True),
        ("share_copy < 0.05 and generations >= 1000", False),
    ],
)
def test_a_condition_is_judged_by_the_numbers(condition: str, holds: bool) -> None:
    assert (failed_conditions(parse_gate(condition), NUMBERS) == []) is holds


def test_what_does_not_hold_is_said_with_the_number() -> None:
    (line,) = failed_conditions(parse_gate("share_copy < chance.share_copy"), NUMBERS)
    assert line == "share_copy < chance.share_copy does not hold: share_copy is 0.02, chance.share_copy is 0.01"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "share_copy",
            "share_copy < ",
            "< 0.1",
            "share_copy = 0.1",
            "0.1 < share_copy",
            "share_copy < 1 or 1 < 2",
        ),
        *("share_copy < 0.1; import os", "__import__('os').system('ls') < 1 < 2", "share_copy < 0.1 and"),
    ],
)
def test_anything_else_is_an_error_of_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="no condition"):
        parse_gate(text)


@pytest.mark.parametrize("name", ["share_copies", "share_copy.middle", "descriptor", "generations.value"])
def test_a_name_that_leads_to_no_number_is_an_error(name: str) -> None:
    with pytest.raises(UsageError, match="--gate"):
        resolve(NUMBERS, name)


def test_a_name_that_audits_never_have_is_found_before_the_work() -> None:
    check_names(parse_gate("share_copy.high < 0.1"), NUMBERS)
    with pytest.raises(UsageError, match="share_copied"):
        check_names(parse_gate("share_copied < 0.1"), NUMBERS)
