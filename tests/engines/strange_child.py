"""Reads mutated files of an index, each in a process forked for it, and prints how those ended: INDEX FILE COUNT.

A process of its own, because the one that runs all tests is large: forking it thousands of times takes minutes.
"""

import random
import sys
from pathlib import Path

from test_damaged import answer, in_a_child, make_right, mutate, path_of

from copydet.search import retrieve


def main(index: Path, name: str, count: int) -> None:
    retrieve._SCAN_ROWS = 0
    rng, ends = random.Random(name), set()
    changed = {path_of(index, each): path_of(index, each).read_bytes() for each in ("CURRENT", "snapshot", name)}
    path = path_of(index, name)
    for _ in range(count):
        for each, data in changed.items():
            each.write_bytes(data)
        path.write_bytes(mutate(changed[path], rng))
        make_right(index, path)
        ends.add(in_a_child(lambda: answer(index)))
    print(*sorted(ends))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
