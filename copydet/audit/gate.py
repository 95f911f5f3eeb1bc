"""Conditions on an audit's numbers, for scripts that must stop when a generator replicates too much.

    share_copy < 0.01
    share_copy.high < 0.02 and share_near_pixel == 0
    share_copy.value <= chance.share_copy.high

A name is a path into audit.json; where it leads to a number with an interval, its value is meant. The other side is a
number or a name. There is nothing else, so nothing in a condition can run.
"""

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from copydet.errors import UsageError

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_CONDITION = re.compile(r"\s*(?P<left>[^\s<>=!]+)\s*(?P<sign><=|>=|==|!=|<|>)\s*(?P<right>[^\s<>=!]+)\s*")


@dataclass(frozen=True)
class Condition:
    text: str
    left: str
    sign: str
    right: str


def parse_gate(text: str) -> tuple[Condition, ...]:
    """The conditions of one expression. Raises UsageError for what is none."""
    conditions = []
    for part in re.split(r"\s+and\s+", text.strip()):
        found = _CONDITION.fullmatch(part)
        if found is None or _as_number(found["left"]) is not None:
            raise UsageError(
                f"--gate {text!r}: {part!r} is no condition; write NAME < NUMBER, such as share_copy < 0.01"
            )
        conditions.append(Condition(part.strip(), found["left"], found["sign"], found["right"]))
    return tuple(conditions)


def check_names(conditions: Sequence[Condition], names: Collection[str]) -> None:
    """Raises UsageError for a name that does not start with one of `names`: said before hours of work, not after."""
    for side in (side for condition in conditions for side in (condition.left, condition.right)):
        if _as_number(side) is None and side.partition(".")[0] not in names:
            raise UsageError(f"--gate: no {side!r} in audit.json; there are {', '.join(sorted(names))}")


def failed_conditions(conditions: Sequence[Condition], numbers: Mapping[str, Any]) -> list[str]:
    """A line for each condition that does not hold: what was wanted and what is. A number that the audit does not have
    (null) holds no condition. Raises UsageError for a name that leads to no number.
    """
    lines = []
    for condition in conditions:
        left, right = (resolve(numbers, side) for side in (condition.left, condition.right))
        if left is None or right is None or not _OPERATORS[condition.sign](left, right):
            shown = "unknown" if left is None else f"{left:.6g}"
            other = "" if _as_number(condition.right) is not None else f", {condition.right} is {_said(right)}"
            lines.append(f"{condition.text} does not hold: {condition.left} is {shown}{other}")
    return lines


def resolve(numbers: Mapping[str, Any], name: str) -> float | None:
    """The number that a name or a literal stands for; None where the audit has none."""
    literal = _as_number(name)
    if literal is not None:
        return literal
    found = _follow(numbers, name)
    if isinstance(found, Mapping) and "value" in found:
        found = found["value"]
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise UsageError(f"--gate: {name} is no number")
    return float(found)


def _follow(numbers: Any, name: str) -> Any:
    """Keys may hold dots themselves (`share_above.0.5`): the longest that fits is taken."""
    if isinstance(numbers, Mapping):
        for key in sorted(map(str, numbers), key=len, reverse=True):
            if name == key:
                return numbers[key]
            if name.startswith(key + "."):
                if numbers[key] is None:
                    return None
                return _follow(numbers[key], name[len(key) + 1 :])
        raise UsageError(f"--gate: no {name!r} in audit.json here; there are {', '.join(map(str, numbers))}")
    raise UsageError(f"--gate: nothing is below {name!r} in audit.json")


def _as_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _said(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"
