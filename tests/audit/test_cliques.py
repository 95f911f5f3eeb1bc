"""Cliques: every two members are nearly the same, whatever the order of the generations."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from copydet.audit.cliques import LEAST, find_cliques
from copydet.audit.near_pixel import NEAR, tile_distance


def made(groups: list[int], seed: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Pictures of `groups[g]` noisy copies of one random picture, with descriptors as near; in random order."""
    rng = np.random.default_rng(seed)
    vectors, pictures, group = [], [], []
    for number, size in enumerate(groups):
        vector, picture = rng.normal(size=32), rng.integers(0, 256, (4, 4, 3)).repeat(8, 0).repeat(8, 1)
        for _ in range(size):
            noised = vector + rng.normal(0, 0.05, 32)
            vectors.append(noised / np.linalg.norm(noised))
            pictures.append(np.clip(picture + rng.normal(0, 5, picture.shape), 0, 255).astype(np.uint8))
            group.append(number)
    order = rng.permutation(len(group))
    return np.array(vectors, np.float32)[order], [pictures[i] for i in order], np.array(group)[order]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 1000))
def test_groups_of_one_picture_are_found_whatever_the_order(groups: list[int], seed: int) -> None:
    vectors, pictures, group = made(groups, seed)
    found = find_cliques(vectors, pictures)
    wanted = [np.flatnonzero(group == number).tolist() for number, size in enumerate(groups) if size >= LEAST]
    assert sorted(found) == sorted(wanted)
    assert [len(clique) for clique in found] == sorted(map(len, found), reverse=True)


def test_every_two_members_are_nearly_the_same_also_in_a_chain_of_twins() -> None:
    # Each picture is a step brighter than the one before: neighbours are twins, the ends are not.
    pictures = [np.full((32, 32, 3), level, np.uint8) for level in range(0, 250, 12)]
    vectors = np.tile(np.eye(1, 8, dtype=np.float32), (len(pictures), 1))
    found = find_cliques(vectors, pictures)
    assert found
    for clique in found:
        for one, other in itertools.combinations(clique, 2):
            assert tile_distance(pictures[one], pictures[other]) <= NEAR
    members = [member for clique in found for member in clique]
    assert len(members) == len(set(members))


def test_no_generations_have_no_cliques() -> None:
    assert find_cliques(np.empty((0, 8), np.float32), []) == []
