"""The third road to candidates: references whose gist is like that of the query, however it lies.

Gists need no place to agree on and see no signs: they find what has lost all features to an edge filter, blur or few
tones, as long as it shows the whole. All references are looked at; a product of gists is a whole number below 2^24,
exact in float32, so that no answer depends on batches, threads or shards.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from copydet.local_features.gist import Gists
from copydet.search.exact import products

_ROWS = 4096  # references looked at together


@dataclass(frozen=True)
class AlikeInGist:
    """References of one query, the most alike first: `image` int64 [n] counts through all shards, `asker` int64 [n]:
    which of the query's gists.
    """

    image: NDArray[np.int64]
    asker: NDArray[np.int64]


NONE_ALIKE = AlikeInGist(np.empty(0, np.int64), np.empty(0, np.int64))


def alike_in_gist(
    stored: Sequence[Gists], queries: Sequence[Gists], count: int, selected: NDArray[np.bool_] | None = None
) -> list[AlikeInGist]:
    """The `count` references nearest to any gist of each query, int8 [n, GIST_BYTES] each; equals in the order of the
    images. `stored` are the gists of all shards, `selected` bool [images] or all.
    """
    asking = [number for number, gists in enumerate(queries) if len(gists)]
    found = [NONE_ALIKE] * len(queries)
    if not asking:
        return found
    gists = np.concatenate([queries[number] for number in asking]).astype(np.float32)
    starts = np.cumsum([0, *(len(queries[number]) for number in asking)])
    kept = _Kept(*(np.empty((len(asking), 0), kind) for kind in (np.float32, np.int64, np.int64)))
    for first, block in _blocks(stored):
        alike = products(gists, block.astype(np.float32))
        if selected is not None:
            alike[:, ~selected[first : first + len(block)]] = -np.inf
        product = np.maximum.reduceat(alike, starts[:-1])
        of_queries = [alike[start:end].argmax(axis=0) for start, end in pairwise(starts.tolist())]
        image = np.broadcast_to(np.arange(first, first + len(block)), product.shape)
        kept = _best(_joined(kept, _Kept(product, image, np.stack(of_queries))), count)
    for line, number in enumerate(asking):
        is_there = kept.product[line] > 0  # images without a gist are like nothing
        found[number] = AlikeInGist(kept.image[line, is_there], kept.asker[line, is_there])
    return found


def _blocks(stored: Sequence[Gists]) -> Iterator[tuple[int, Gists]]:
    """The gists of some references, and the number of the first, counted through all shards."""
    first = 0
    for each in stored:
        for start in range(0, len(each), _ROWS):
            yield first + start, each[start : start + _ROWS]
        first += len(each)


class _Kept(NamedTuple):
    """Of each query some references; all arrays [queries, n]."""

    product: NDArray[np.float32]
    image: NDArray[np.int64]
    asker: NDArray[np.int64]


def _joined(one: _Kept, other: _Kept) -> _Kept:
    return _Kept(
        np.concatenate([one.product, other.product], axis=1),
        np.concatenate([one.image, other.image], axis=1),
        np.concatenate([one.asker, other.asker], axis=1),
    )


def _best(kept: _Kept, count: int) -> _Kept:
    """The `count` greatest products of each query, the greatest first; of equals the first ones."""
    left, lines = kept.product.copy(), np.arange(len(kept.product))
    places, best = [], []
    for _ in range(min(count, left.shape[1])):  # they are few
        places.append(left.argmax(axis=1))
        best.append(left[lines, places[-1]])  # -inf where no more are left
        left[lines, places[-1]] = -np.inf
    taken = np.stack(places, axis=1)
    image, asker = (np.take_along_axis(each, taken, axis=1) for each in (kept.image, kept.asker))
    return _Kept(np.stack(best, axis=1), image, asker)
