"""Clusters are stars around what is kept; chains are cut; nothing depends on numbering."""

from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from copydet.dedup.clusters import Clusters, Edges, find_clusters
from copydet.dedup.exact import Contents

WHOLE, BAR = 0.5, 0.9


@dataclass(frozen=True)
class Pair:
    one: int
    other: int
    score: float = 0.95
    one_overlap: float = 1.0
    other_overlap: float = 1.0


def edges(*pairs: Pair) -> Edges:
    columns = [np.array([getattr(pair, name) for pair in pairs]) for name in Pair.__dataclass_fields__]
    one, other, *rest = columns
    return Edges(one.astype(np.int64), other.astype(np.int64), *(each.astype(np.float64) for each in rest))


def cluster(
    images: int,
    *pairs: Pair,
    same: tuple[tuple[int, int], ...] = (),
    preference: list[int] | None = None,
    references: tuple[int, ...] = (),
) -> Clusters:
    """Clusters of images that rank by their number; `same` are (first, other) of exact duplicates."""
    first, kind = np.arange(images), np.zeros(images, np.uint8)
    for leader, other in same:
        first[other], kind[other] = leader, 1
    is_reference = np.isin(np.arange(images), references)
    preferred = np.arange(images) if preference is None else np.array(preference)
    contents = Contents(first, kind, np.ones(images, bool))
    return find_clusters(contents, edges(*pairs), preferred, np.arange(images), is_reference, BAR, WHOLE)


def groups(found: Clusters) -> list[set[int]]:
    return [
        set(found.image[found.cluster == number].tolist()) for number in range(int(found.cluster.max(initial=-1)) + 1)
    ]


def dropped(found: Clusters) -> set[int]:
    return set(found.image[~found.keep].tolist())


def test_a_star_is_one_cluster_and_its_best_image_is_kept() -> None:
    found = cluster(6, Pair(0, 3), Pair(1, 3), Pair(3, 5, 0.7), preference=[5, 4, 3, 0, 2, 1])
    assert groups(found) == [{0, 1, 3, 5}]
    assert set(found.representative.tolist()) == {3}
    assert dropped(found) == {0, 1, 5}
    assert set(found.weakest.tolist()) == {0.7}
    assert set(found.size.tolist()) == {4}
    assert set(found.diameter.tolist()) == {2}


def test_no_pairs_and_no_exact_duplicates_are_no_clusters() -> None:
    assert groups(cluster(5)) == []
    assert groups(cluster(0)) == []


def test_exact_duplicates_are_one_cluster_with_what_is_near_to_any_of_them() -> None:
    found = cluster(5, Pair(0, 4), same=((0, 1), (0, 2)), preference=[3, 1, 2, 9, 4])
    assert groups(found) == [{0, 1, 2, 4}]
    assert dropped(found) == {0, 2, 4}
    assert found.score[found.image == 0] == 1
    assert found.score[found.image == 4] == 0.95
    assert set(found.diameter.tolist()) == {1}


def test_two_strong_steps_chain_and_three_do_not() -> None:
    found = cluster(4, Pair(0, 1), Pair(1, 2), Pair(2, 3))
    assert groups(found) == [{0, 1, 2}]
    assert found.linked.tolist() == [0, 1, 2]


def test_a_step_of_a_chain_needs_a_higher_score_than_a_pair_and_most_of_both_images() -> None:
    for weak in (Pair(1, 2, BAR - 0.01), Pair(1, 2, other_overlap=0.6), Pair(1, 2, one_overlap=0.6)):
        assert groups(cluster(3, Pair(0, 1), weak)) == [{0, 1}]
        assert groups(cluster(3, replace(weak, one=1, other=2), preference=[2, 0, 1])) == [{1, 2}]


def test_what_is_too_far_from_the_representative_has_one_of_its_own() -> None:
    found = cluster(6, *(Pair(number, number + 1) for number in range(5)))
    assert groups(found) == [{0, 1, 2}, {3, 4, 5}]
    assert dropped(found) == {1, 2, 4, 5}


def test_a_collage_that_is_the_largest_image_does_not_represent_what_is_pasted_into_it() -> None:
    pasted = [Pair(0, other, one_overlap=0.4) for other in (1, 2, 3)]
    found = cluster(4, *pasted, Pair(1, 2), preference=[0, 1, 2, 3])
    assert groups(found) == [{0, 1, 2}]
    assert dropped(found) == {2}  # the collage shows more than its representative, and image 3 is its own


def test_an_image_is_dropped_for_a_reference_even_if_it_shows_more() -> None:
    pair = Pair(0, 1, one_overlap=0.2)
    assert dropped(cluster(2, pair, preference=[1, 0])) == set()
    found = cluster(2, pair, preference=[1, 0], references=(1,))
    assert dropped(found) == {0}


def test_references_are_never_dropped() -> None:
    found = cluster(4, Pair(0, 2), Pair(0, 3), preference=[5, 6, 0, 1], references=(2, 3))
    assert groups(found) == [{0, 2, 3}] or groups(found) == [{0, 2}]
    assert dropped(found) == {0}


def test_unverified_pairs_have_no_overlaps_and_chain_by_their_score() -> None:
    nothing = {"one_overlap": np.nan, "other_overlap": np.nan}
    assert groups(cluster(3, Pair(0, 1, **nothing), Pair(1, 2, **nothing))) == [{0, 1, 2}]


PAIRS = st.lists(
    st.builds(
        Pair,
        st.integers(0, 11),
        st.integers(0, 11),
        st.sampled_from([0.7, 0.8, 0.92, 0.97]),
        st.sampled_from([0.2, 0.7, 1.0]),
        st.sampled_from([0.2, 0.7, 1.0]),
    ).filter(lambda pair: pair.one < pair.other),
    max_size=20,
    unique_by=lambda pair: (pair.one, pair.other),
)


@given(pairs=PAIRS, preference=st.permutations(range(12)), order=st.randoms(use_true_random=False))
def test_clusters_are_disjoint_keep_one_image_and_do_not_depend_on_the_order_of_pairs(
    pairs: list[Pair], preference: list[int], order: object
) -> None:
    found = cluster(12, *pairs, preference=preference)
    assert len(set(found.image.tolist())) == len(found.image)
    known = {(pair.one, pair.other) for pair in pairs} | {(pair.other, pair.one) for pair in pairs}
    for number, members in enumerate(groups(found)):
        here = found.cluster == number
        representative = int(found.representative[here][0])
        assert representative in members
        assert not dropped(found) & {representative}
        assert len(members) > 1
        for image, steps in zip(found.image[here].tolist(), found.linked[here].tolist(), strict=True):
            assert steps != 1 or (representative, image) in known
            assert steps != 2 or any({(representative, by), (by, image)} <= known for by in members)
    mixed = list(pairs)
    order.shuffle(mixed)  # type: ignore[attr-defined]
    again = cluster(12, *mixed, preference=preference)
    for name in Clusters.__dataclass_fields__:
        assert np.array_equal(getattr(found, name), getattr(again, name)), name
