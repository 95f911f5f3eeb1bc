"""What people have looked at and do not want to see again: false pairs, and references that match everything."""

import csv
from dataclasses import dataclass
from pathlib import Path

from copydet.errors import UsageError


@dataclass(frozen=True)
class Ignored:
    """`references` never come back, for any query; `pairs` (query id, reference id) not for that query."""

    references: frozenset[str] = frozenset()
    pairs: frozenset[tuple[str, str]] = frozenset()

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return pair in self.pairs or pair[1] in self.references


NOTHING = Ignored()


def read_ignored(path: Path) -> Ignored:
    """Read a CSV file: lines `query_id,reference_id` are pairs, lines of one id are references; a header line, further
    columns (as in a matches file) and empty lines are passed over. Raises UsageError that names what cannot be read.
    """
    references, pairs = set(), set()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, line in enumerate(csv.reader(file)):
                cells = [cell.strip() for cell in line[:2]]
                if not any(cells) or (number == 0 and cells[-1] == "reference_id"):
                    continue
                if not all(cells):
                    raise UsageError(f"{path}, line {number + 1}: an id is missing beside {''.join(cells)}")
                if len(cells) == 1:
                    references.add(cells[0])
                else:
                    pairs.add((cells[0], cells[1]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    return Ignored(frozenset(references), frozenset(pairs))
