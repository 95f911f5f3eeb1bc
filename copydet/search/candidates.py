"""Three roads, one list: the references that the views of a query find, those that its local features vote for, and
those that are like it in gist.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from copydet.images.parts import WHOLE, Part
from copydet.local_features.frames import Voters
from copydet.records import ImageRow, StoredVectors, Vectors
from copydet.search.exact import exact_similarity
from copydet.search.gists import AlikeInGist
from copydet.search.merge import Merged
from copydet.search.views import CHANCE
from copydet.search.votes import Voted
from copydet.shards.shard import Shard

_Votes = Mapping[tuple[int, int], tuple[float, Voters | None]]  # (shard, row) -> weight and voters


@dataclass(frozen=True)
class Candidate:
    """A reference proposed for a query: row `row` of shard number `shard`.

    `similarity` and `normalised` are those of the view, number `view` of the query's, that is the most similar after
    its background and its cost, to `part` of the reference, which costs as much as a part of the query; only the
    whole query is compared with parts. `votes` is the weight of the local features' votes, 0 where they did not propose
    it. `voters` are those that agree, as in Voted. `gist`: which of the query's gists proposed it, None where none did.
    """

    shard: int
    row: int
    view: int
    similarity: float
    normalised: float
    votes: float
    voters: Voters | None = None
    part: Part = WHOLE
    gist: int | None = None

    @property
    def reference_cost(self) -> float:
        """What is taken off `normalised` for the reference's part when views compete."""
        return 0.0 if self.part == WHOLE else CHANCE


def propose(
    shards: Sequence[Shard],
    vectors: Vectors,
    background: NDArray[np.float32],
    cost: NDArray[np.float32],
    offsets: NDArray[np.int64],
    merged: Merged,
    voted: Sequence[Voted],
    alike: Sequence[AlikeInGist],
    count: int,
) -> list[list[Candidate]]:
    """The candidates of each query, `count` at most: all that `voted` and `alike` propose, and the best of `merged`
    beside them.

    `vectors` float32 [views, d], `background` similarity and `cost` [views] are of all queries' views, those of query q
    from offsets[q] on.
    """
    starts = np.cumsum([0, *(len(shard.descriptors) for shard in shards)])
    proposed = []
    for query, (votes, in_gist) in enumerate(zip(voted, alike, strict=True)):
        of_votes = zip(votes.weight.tolist(), votes.voters, strict=True)
        weights: _Votes = dict(zip(_places(votes.image, starts), of_votes, strict=True))
        gists = dict(zip(_places(in_gist.image, starts), in_gist.asker.tolist(), strict=True))
        used = merged.row[query] >= 0
        by_view = zip(merged.shard[query, used].tolist(), merged.row[query, used].tolist(), strict=True)
        places = list(dict.fromkeys([*weights, *gists, *by_view]))[:count]
        views = slice(int(offsets[query]), int(offsets[query + 1]))
        looked_at = _look_at(shards, vectors[views], background[views], cost[views], places, weights)
        proposed.append([replace(each, gist=gists.get((each.shard, each.row))) for each in looked_at])
    return proposed


def _places(images: NDArray[np.int64], starts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(shard, row) of images counted through all shards."""
    shard = np.searchsorted(starts, images, side="right") - 1
    return list(zip(shard.tolist(), (images - starts[shard]).tolist(), strict=True))


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
    shards: Sequence[Shard],
    views: Vectors,
    background: NDArray[np.float32],
    cost: NDArray[np.float32],
    places: Sequence[tuple[int, int]],
    weights: _Votes,
) -> list[Candidate]:
    if not places:
        return []
    stored = [_rows(shards[shard], row) for shard, row in places]
    starts = np.cumsum([0, *map(len, stored)])
    similarity = exact_similarity(views, np.concatenate(stored)).astype(np.float32)  # [views, rows of candidates]
    normalised = similarity - background[:, None]
    worth = normalised - cost[:, None]
    parts = np.setdiff1d(np.arange(starts[-1]), starts)
    worth[0, parts] -= CHANCE
    worth[1:, parts] = -np.inf  # see reference_views.py
    proposed = []
    for number, (shard, row) in enumerate(places):
        rows = slice(starts[number], starts[number + 1])
        view, part = np.unravel_index(worth[:, rows].argmax(), worth[:, rows].shape)
        at = int(view), int(starts[number] + part)
        proposed.append(
            Candidate(
                shard,
                row,
                int(view),
                float(similarity[at]),
                float(normalised[at]),
                *weights.get((shard, row), (0.0, None)),
                _part(shards[shard], int(part)),
            )
        )
    return proposed


def _rows(shard: Shard, row: int) -> StoredVectors:
    """Descriptors of an image and of its parts, float16 [1 + parts, dimension]."""
    whole = shard.descriptors[row : row + 1]
    if shard.views is None:
        return whole
    count = len(shard.views.parts)
    return np.concatenate([whole, shard.views.descriptors[row * count : (row + 1) * count]])


def _part(shard: Shard, place: int) -> Part:
    return WHOLE if place == 0 or shard.views is None else shard.views.parts[place - 1]
