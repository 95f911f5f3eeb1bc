"""References are searched whole by every view of a query and, where shards have them, in parts by the whole query.

A part of one image compared with a part of the other meets too much that is alike by chance: measured, more is lost
among look-alikes than is found.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from copydet.engines.engine import Each
from copydet.records import Vectors
from copydet.search.code_search import CodeSearch
from copydet.search.retrieve import Candidates, Scan, retrieve
from copydet.search.views import CHANCE
from copydet.shards.shard import Shard


def retrieve_references(
    shards: Sequence[Shard],
    vectors: Vectors,
    wholes: NDArray[np.int64],
    k: int,
    *,
    nprobe: int | None = None,
    candidates: int = 100,
    selected: Sequence[NDArray[np.bool_] | None],
    scan: Scan | None = None,
    search: CodeSearch | None = None,
    each: Each | None = None,
) -> tuple[Candidates, NDArray[np.float32]]:
    """As `retrieve`, of images by their wholes and by their parts, and what each find costs (see merge_views), float32
    of the same shape. Lines are longer than `k` where there are parts, and an image comes several times in them.

    `wholes` are the lines of `vectors` that are whole queries.
    """
    found = retrieve(
        shards, vectors, k, nprobe=nprobe, candidates=candidates, selected=selected, scan=scan, search=search, each=each
    )
    viewed = [number for number, shard in enumerate(shards) if shard.views is not None]
    views = [views for shard in shards if (views := shard.views) is not None]
    if not views:
        return found, np.zeros(found.row.shape, np.float32)
    parts = max(len(each.parts) for each in views)
    masks = [selected[number] for number in viewed]
    of_rows = [
        None if mask is None else np.repeat(mask, len(each.parts)) for mask, each in zip(masks, views, strict=True)
    ]
    in_parts = retrieve(
        views, vectors[wholes], k * parts, nprobe=nprobe, candidates=candidates * parts, selected=of_rows, scan=scan
    )
    shape = (len(vectors), k + k * parts)
    both = Candidates(np.full(shape, -1, np.int32), np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32))
    both.shard[:, :k], both.row[:, :k], both.similarity[:, :k] = found.shard, found.row, found.similarity
    of_shard = np.array([*viewed, -1], np.int32)  # unused places have shard -1
    each_has = np.array([*(len(each.parts) for each in views), 1])
    both.shard[wholes, k:] = of_shard[in_parts.shard]
    both.row[wholes, k:] = in_parts.row // each_has[in_parts.shard]
    both.similarity[wholes, k:] = in_parts.similarity
    cost = np.zeros(shape, np.float32)
    cost[:, k:] = CHANCE
    return both, cost
