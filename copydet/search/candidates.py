"""Two roads, one list: the references that the views of a query find, and those that its local features vote for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from copydet.local_features.frames import Voters
from copydet.records import ImageRow, Vectors
from copydet.search.merge import Merged
from copydet.search.retrieve import SearchableShard, exact_similarity
from copydet.search.votes import Voted
from copydet.shards.shard import Shard

_Votes = Mapping[tuple[int, int], tuple[float, Voters | None]]  # (shard, row) -> weight and voters


@dataclass(frozen=True)
class Candidate:
    """A reference proposed for a query: row `row` of shard number `shard`.

    `similarity` and `normalised` are those of the view, number `view` of the query's, that is the most similar after
    its background and its cost. `votes` is the weight of the local features' votes, 0 where they did not propose it;
    `voters` are those that agree, as in Voted.
    """

    shard: int
    row: int
    view: int
    similarity: float
    normalised: float
    votes: float
    voters: Voters | None = None


def propose(
    shards: Sequence[SearchableShard],
    vectors: Vectors,
    background: NDArray[np.float32],
    cost: NDArray[np.float32],
    offsets: NDArray[np.int64],
    merged: Merged,
    voted: Sequence[Voted],
) -> list[list[Candidate]]:
    """The candidates of each query: those of `merged` in their order, then what only `voted` proposes.

    `vectors` float32 [views, d], `background` similarity and `cost` [views] are of all queries' views, those of query q
    from offsets[q] on.
    """
    starts = np.cumsum([0, *(len(shard.descriptors) for shard in shards)])
    proposed = []
    for query, votes in enumerate(voted):
        shard = np.searchsorted(starts, votes.image, side="right") - 1
        rows = zip(shard.tolist(), (votes.image - starts[shard]).tolist(), strict=True)
        of_votes = zip(votes.weight.tolist(), votes.voters, strict=True)
        weights: _Votes = dict(zip(rows, of_votes, strict=True))
        used = merged.row[query] >= 0
        by_view = zip(merged.shard[query, used].tolist(), merged.row[query, used].tolist(), strict=True)
        places = list(dict.fromkeys([*by_view, *weights]))
        views = slice(int(offsets[query]), int(offsets[query + 1]))
        proposed.append(_look_at(shards, vectors[views], background[views], cost[views], places, weights))
    return proposed


def look_up(shards: Sequence[Shard], candidates: Sequence[Sequence[Candidate]]) -> dict[tuple[int, int], ImageRow]:
    """(shard, row) -> what images.parquet says of every candidate; each shard is asked once."""
    rows: dict[int, set[int]] = {}
    for candidate in (one for each in candidates for one in each):
        rows.setdefault(candidate.shard, set()).add(candidate.row)
    known = {}
    columns = ("image_id", "uri", "source", "width", "height")
    for shard, wanted in rows.items():
        ordered = sorted(wanted)
        table = shards[shard].image_columns(ordered, columns)
        known.update({(shard, row): ImageRow(**of) for row, of in zip(ordered, table.to_pylist(), strict=True)})
    return known


def _look_at(
    shards: Sequence[SearchableShard],
    views: Vectors,
    background: NDArray[np.float32],
    cost: NDArray[np.float32],
    places: Sequence[tuple[int, int]],
    weights: _Votes,
) -> list[Candidate]:
    if not places:
        return []
    stored = np.stack([shards[shard].descriptors[row] for shard, row in places])
    similarity = exact_similarity(views, stored).astype(np.float32)  # [views, candidates]
    normalised = similarity - background[:, None]
    best = (normalised - cost[:, None]).argmax(axis=0)
    return [
        Candidate(
            shard,
            row,
            int(view),
            float(similarity[view, number]),
            float(normalised[view, number]),
            *weights.get((shard, row), (0.0, None)),
        )
        for number, ((shard, row), view) in enumerate(zip(places, best, strict=True))
    ]
