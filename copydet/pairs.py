"""Pairs of a query and a reference: what a query is prepared for, what is known of a pair once it was verified, and how
the candidates of a batch of queries are verified by worker processes.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from copydet.decisions.pair import PairNumbers, pair_numbers
from copydet.images.resize import Resize, resize_pixels
from copydet.local_features.describe import query_features
from copydet.local_features.gist import GIST_BYTES, WAYS, Gists, gists_of
from copydet.records import Batch, ImageRow, Pixels
from copydet.search.candidates import Candidate
from copydet.search.views import View, ViewLevel, moved_to_view, query_views
from copydet.verification.outline import Size, at_sizes
from copydet.verification.references import ReferenceReader
from copydet.verification.verify import Evidence, Place, QuerySide, ReferenceSide, to_grey, verify
from copydet.workers import Workers

_LOOKED_AT = 6  # candidates of a query whose pixels are compared without local features that say where
_TOGETHER = 10  # candidates of a query that one process verifies
NO_GISTS: Gists = np.empty((0, GIST_BYTES), np.int8)
_ENOUGH = 100  # local features of a query for votes to find a turned copy without a turned view


@dataclass(frozen=True)
class PreparedQuery:
    """A query as it leaves its decoding thread: views (without the whole's pixels, which the loader has resized), and
    what verification wants to see; `side` None: no one will. `gists` int8 [n, GIST_BYTES]: in all WAYS of each of the
    views whose numbers are `pictures`.
    """

    views: tuple[View, ...]
    sizes: tuple[Size, ...]
    pixels: tuple[Pixels, ...]
    side: QuerySide | None
    pictures: tuple[int, ...] = ()
    gists: Gists = field(default_factory=NO_GISTS.copy)

    def described(self) -> "PreparedQuery":
        """It without the pixels of its views, which no one needs again."""
        return replace(self, pixels=())

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.pixels) + (0 if self.side is None else self.side.nbytes)


@dataclass(frozen=True)
class Pair:
    """A query and a candidate with all that is known of the two; `verified` False: nobody looked for `evidence`."""

    reference: ImageRow
    similarity: float
    normalised_similarity: float
    view: str
    verified: bool
    evidence: Evidence | None
    numbers: PairNumbers
    transform: tuple[float, ...] | None  # as in Match
    reference_view: str = "whole"


Undecided = tuple[ImageRow, tuple[Pair, ...]]  # a query and what it was compared with


def prepare(
    pixels: Pixels, resize: Resize, level: ViewLevel, local: bool = True, voted: bool = False, gist: bool = True
) -> PreparedQuery:
    """Make the views that `level` asks for, resized for a descriptor, with `local` the local features, which are
    `voted` with or only verify, and with `gist` the gists.
    """
    features = query_features(pixels) if local else None
    views = query_views(pixels, level, voted=voted and features is not None and len(features.frames) >= _ENOUGH)
    resized = tuple(resize_pixels(view.pixels, resize) for view in views[1:])
    places = tuple(View(view.name, view.pixels[:0], view.to_whole, view.cost) for view in views)
    side = None if features is None else QuerySide(features, to_grey(pixels))
    sizes = tuple(view.pixels.shape[1::-1] for view in views)
    # The whole, and rectangles found in it: what may be a whole picture costs nothing (View.cost).
    pictures = tuple(number for number, view in enumerate(views) if gist and view.cost == 0)
    gists = np.concatenate([NO_GISTS, *(gists_of(views[number].pixels) for number in pictures)])
    return PreparedQuery(places, sizes, resized, side, pictures, gists)


@dataclass(frozen=True)
class Asked:
    """A candidate to verify: what its row and its shard say of the reference (`side` None: it is not verified).

    `look`: also where the view that found the candidate has it, not only where local features do.
    """

    candidate: Candidate
    reference: ImageRow
    side: ReferenceSide | None
    look: bool = True


def verify_pairs(query: PreparedQuery, row: ImageRow, asked: Sequence[Asked]) -> list[Pair]:
    """All that is known of a query and each of some candidates."""
    return [_verify_pair(query, row, each) for each in asked]


def _verify_pair(query: PreparedQuery, row: ImageRow, asked: Asked) -> Pair:
    candidate, reference, side = asked.candidate, asked.reference, asked.side
    view, evidence, transform = query.views[candidate.view], None, None
    if side is not None and query.side is not None:
        evidence = verify(query.side, side, _places(query, asked), candidate.voters)
        if evidence is not None:
            transform = _full_size(evidence, query.side.picture.size, row, reference)
    plain, normalised = candidate.similarity, candidate.normalised
    numbers = pair_numbers(plain, normalised - view.cost - candidate.reference_cost, evidence)
    verified, part = side is not None, candidate.part.name
    return Pair(reference, plain, normalised, view.name, verified, evidence, numbers, transform, part)


def _places(query: PreparedQuery, asked: Asked) -> list[Place]:
    """Where the view, if that is worth a look, and the gist that found a candidate have it."""
    candidate, places = asked.candidate, []
    if asked.look:
        to_whole, size = query.views[candidate.view].to_whole, query.sizes[candidate.view]
        places.append(Place(to_whole, size, candidate.part))
    if candidate.gist is not None:
        number = query.pictures[candidate.gist // len(WAYS)]
        to_view, size = moved_to_view(query.sizes[number], *WAYS[candidate.gist % len(WAYS)])
        places.append(Place(query.views[number].to_whole @ to_view, size))
    return places


def _full_size(evidence: Evidence, seen: Size, query: ImageRow, reference: ImageRow) -> tuple[float, ...]:
    """The transform between the originals, of which the query was `seen` at another size."""
    sizes = [(row.width or 1, row.height or 1) for row in (query, reference)]
    matrix = at_sizes(evidence.matrix, (seen, sizes[0]), (evidence.reference_size, sizes[1]))
    return tuple(float(number) for number in (matrix / matrix[2, 2]).ravel())


@dataclass(frozen=True)
class Verifying:
    """Where candidates are verified, if there is a `reader` of references: threads of `pool` wait for `processes`."""

    reader: ReferenceReader | None
    pool: ThreadPoolExecutor
    processes: Workers

    def pairs(
        self, batch: Batch, candidates: Sequence[Sequence[Candidate]], known: Mapping[tuple[int, int], ImageRow]
    ) -> Iterator[Undecided]:
        """Start on a batch, and return its rows with their pairs for whoever waits for them."""

        def check(asked: tuple[int, range]) -> list[Pair]:
            line, places = asked
            query: PreparedQuery = batch.also[line]
            near = _nearest(candidates[line], query.views)
            wanted = []
            for place in places:
                candidate = candidates[line][place]
                reference = known[candidate.shard, candidate.row]
                side = self.reader.read(candidate.shard, candidate.row, reference) if self.reader else None
                wanted.append(Asked(candidate, reference, side, place in near))
            return self.processes.run(verify_pairs, query.described(), batch.rows[batch.ok[line]], wanted)

        checks = [
            (line, range(start, min(start + _TOGETHER, len(each))))
            for line, each in enumerate(candidates)
            for start in range(0, len(each), _TOGETHER)
        ]
        checked = self.pool.map(check, checks)

        def rows() -> Iterator[Undecided]:
            pairs: dict[int, list[Pair]] = {number: [] for number in range(len(batch.rows))}
            for (line, _), some in zip(checks, checked, strict=True):
                pairs[batch.ok[line]] += some
            yield from ((row, tuple(pairs[number])) for number, row in enumerate(batch.rows))

        return rows()


def _nearest(candidates: Sequence[Candidate], views: Sequence[View]) -> set[int]:
    """Places of the candidates that are most similar to their view: what it lies on is looked at."""
    similar = [views[each.view].cost + each.reference_cost - each.normalised for each in candidates]
    return set(np.argsort(similar, kind="stable")[:_LOOKED_AT].tolist())
