"""Generations that are the same picture as other generations: what was memorised shows without the training set.

After Carlini et al. 2023 (arXiv 2301.13188, section 4.2.1): generations of one prompt that a model did not memorise
differ, so a group in which every two are nearly the same pixels (tile distance below NEAR) is suspect. There the groups
are cliques of at least 10 among 500 generations of a prompt; here they are found among all generations, from LEAST on,
and the descriptor proposes the pairs. A largest clique cannot be found quickly, so cliques are grown greedily, from the
picture with most twins: their sizes are lower bounds.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from copydet.audit.near_pixel import NEAR, tile_distance
from copydet.records import Pixels, Vectors

LEAST = 3
PROPOSED = 0.8  # similarity from which on two generations are compared by pixels
MOST = 50_000  # generations: comparing all with all grows with the square
_TWINS = 200  # that are looked at for each generation
_BLOCK = 1024


def find_cliques(vectors: Vectors, pictures: Sequence[Pixels]) -> list[list[int]]:
    """Groups of at least LEAST generations that are all nearly the same, largest first; each in at most one.

    `vectors` float32 [n, dimension], `pictures` uint8 [n] of one square size (SMALL). Only the first MOST are compared.
    """
    vectors, twins = vectors[:MOST], {}
    for start in range(0, len(vectors), _BLOCK):
        similarity = vectors[start : start + _BLOCK] @ vectors.T
        for line, row in enumerate(similarity, start):
            near = _most_similar(row, line)
            twins[line] = {other for other in near if tile_distance(pictures[line], pictures[other]) <= NEAR}
    return _greedy({number: {other for other in found if number in twins[other]} for number, found in twins.items()})


def _most_similar(similarity: NDArray[np.float32], own: int) -> list[int]:
    near = np.flatnonzero(similarity >= PROPOSED)
    near = near[near != own]
    return sorted(near.tolist(), key=lambda other: (-similarity[other], other))[:_TWINS]


def _greedy(twins: dict[int, set[int]]) -> list[list[int]]:
    cliques, free = [], {number for number, others in twins.items() if len(others) >= LEAST - 1}
    while free:
        seed = max(free, key=lambda number: (len(twins[number] & free), -number))
        clique, open_to = [seed], twins[seed] & free
        while open_to:
            best = max(open_to, key=lambda number: (len(twins[number] & open_to), -number))
            clique.append(best)
            open_to = open_to & twins[best]
        free -= set(clique)
        if len(clique) >= LEAST:
            cliques.append(sorted(clique))
    return sorted(cliques, key=lambda clique: (-len(clique), clique))
