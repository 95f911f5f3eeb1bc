"""References that are like a query in gist."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from copydet.local_features.gist import GIST_BYTES, NO_GIST, Gists
from copydet.search.gists import AlikeInGist, alike_in_gist


def drawn(rng: np.random.Generator, *shape: int) -> Gists:
    """Few different numbers, so that there are ties."""
    gists = np.zeros((*shape, GIST_BYTES), np.int8)
    gists[..., :4] = rng.integers(-2, 3, (*shape, 4))
    return gists


def expected(references: Gists, query: Gists, count: int, selected: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(product, image) of the best, found one by one."""
    products = query.astype(int) @ references.astype(int).T
    ordered = sorted((-int(products[:, image].max()), image) for image in np.flatnonzero(selected).tolist())
    return [(-product, image) for product, image in ordered[:count] if product < 0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shards=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    sizes=st.lists(st.integers(0, 5), max_size=4),
    count=st.integers(1, 4),
)
def test_the_best_are_found_in_the_order_of_the_images_whatever_the_shards_and_the_batch(
    seed: int, shards: list[int], sizes: list[int], count: int
) -> None:
    rng = np.random.default_rng(seed)
    parts, queries = [drawn(rng, images) for images in shards], [drawn(rng, size) for size in sizes]
    references, selected = np.concatenate(parts), rng.random(sum(shards)) < 0.8
    found = alike_in_gist(parts, queries, count, selected)
    assert len(found) == len(queries)
    for query, alike in zip(queries, found, strict=True):
        products = [
            (int(query[asker].astype(int) @ references[image].astype(int)), image) for image, asker in pairs(alike)
        ]
        assert products == (expected(references, query, count, selected) if len(query) else [])


def pairs(alike: AlikeInGist) -> list[tuple[int, int]]:
    return list(zip(alike.image.tolist(), alike.asker.tolist(), strict=True))


def test_more_references_than_are_looked_at_together_are_all_looked_at() -> None:
    rng = np.random.default_rng(3)
    references = rng.integers(-60, 61, (9000, GIST_BYTES), np.int8)
    queries = [references[[8999, 0]], references[[4095]], references[[4096]]]
    found = alike_in_gist([references[:5000], references[5000:]], queries, 2)
    assert [set(each.image[: len(query)].tolist()) for each, query in zip(found, queries, strict=True)] == [
        {8999, 0},
        {4095},
        {4096},
    ]
    by_image = dict(pairs(found[0]))
    assert (by_image[8999], by_image[0]) == (0, 1)


def test_images_without_a_gist_are_like_nothing() -> None:
    nothing = np.stack([NO_GIST] * 5)
    (found,) = alike_in_gist([nothing], [drawn(np.random.default_rng(1), 3)], 2)
    assert not len(found.image)
    assert [len(each.image) for each in alike_in_gist([], [drawn(np.random.default_rng(1), 3)], 2)] == [0]
