"""References are searched whole and, where their shards have them, in parts: rows to search, and what was found in them
as images.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from copydet.search.retrieve import Candidates, SearchableShard
from copydet.shards.shard import Shard


def searched_rows(
    shards: Sequence[Shard], selected: Sequence[NDArray[np.bool_] | None]
) -> tuple[list[SearchableShard], list[NDArray[np.bool_] | None]]:
    """What retrieve searches to see parts of images too, and which rows of it: the shards' wholes, then their parts.

    `selected` says which images, bool [described] of each shard or None for all of it.
    """
    rows: list[SearchableShard] = list(shards)
    masks = list(selected)
    for shard, mask in zip(shards, selected, strict=True):
        if shard.views is not None:
            rows.append(shard.views)
            masks.append(None if mask is None else np.repeat(mask, len(shard.views.parts)))
    return rows, masks


def rows_of_image(shards: Sequence[Shard]) -> int:
    """How many rows an image has at most: so many more have to be asked for to see as many images."""
    return max((1 + len(shard.views.parts) for shard in shards if shard.views is not None), default=1)


def as_images(found: Candidates, shards: Sequence[Shard]) -> tuple[Candidates, NDArray[np.bool_]]:
    """What retrieve found in `searched_rows`: shards and rows of images, which can come several times in a line, and
    whether it was a part of them, bool [queries, k].
    """
    shard, row = found.shard.copy(), found.row.copy()
    with_views = [(number, each.views) for number, each in enumerate(shards) if each.views is not None]
    for place, (number, views) in enumerate(with_views, start=len(shards)):
        here = found.shard == place
        shard[here], row[here] = number, found.row[here] // len(views.parts)
    return Candidates(shard, row, found.similarity), found.shard >= len(shards)
