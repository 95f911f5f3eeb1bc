"""One query and one reference: what a query is prepared for, and all that is known of a pair once it was verified."""

from collections.abc import Callable
from dataclasses import dataclass

from copydet.decisions.pair import PairNumbers, pair_numbers
from copydet.images.resize import Resize, resize_pixels
from copydet.local_features.describe import query_features
from copydet.records import ImageRow, Pixels
from copydet.search.candidates import Candidate
from copydet.search.views import View, ViewLevel, query_views
from copydet.verification.outline import Size, at_sizes
from copydet.verification.verify import Evidence, QuerySide, ReferenceSide, to_grey, verify


@dataclass(frozen=True)
class PreparedQuery:
    """A query as it leaves its decoding thread: views (without the whole's pixels, which the loader has resized), and
    what verification wants to see; `side` None: no one will.
    """

    views: tuple[View, ...]
    sizes: tuple[Size, ...]
    pixels: tuple[Pixels, ...]
    side: QuerySide | None

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


def prepare(pixels: Pixels, resize: Resize, level: ViewLevel, local: bool) -> PreparedQuery:
    """Make the views that `level` asks for, resized for a descriptor, and with `local` the local features."""
    views = query_views(pixels, level)
    resized = tuple(resize_pixels(view.pixels, resize) for view in views[1:])
    places = tuple(View(view.name, view.pixels[:0], view.to_whole, view.cost) for view in views)
    side = QuerySide(query_features(pixels), to_grey(pixels)) if local else None
    return PreparedQuery(places, tuple(view.pixels.shape[1::-1] for view in views), resized, side)


def verify_pair(
    query: PreparedQuery,
    row: ImageRow,
    candidate: Candidate,
    reference: ImageRow,
    read: Callable[[], ReferenceSide] | None,
    look: bool = True,
) -> Pair:
    """All that is known of a query and a candidate; it is verified if there is a way to `read` the reference.

    `look`: also where the view that found the candidate has it, not only where local features do.
    """
    view, evidence, transform = query.views[candidate.view], None, None
    if read is not None and query.side is not None:
        place = view.to_whole if look else None
        evidence = verify(query.side, read(), place, query.sizes[candidate.view], candidate.voters)
        if evidence is not None:
            transform = _full_size(evidence, query.side.picture.size, row, reference)
    plain, normalised = candidate.similarity, candidate.normalised
    numbers = pair_numbers(plain, normalised - view.cost, evidence)
    return Pair(reference, plain, normalised, view.name, read is not None, evidence, numbers, transform)


def _full_size(evidence: Evidence, seen: Size, query: ImageRow, reference: ImageRow) -> tuple[float, ...]:
    """The transform between the originals, of which the query was `seen` at another size."""
    sizes = [(row.width or 1, row.height or 1) for row in (query, reference)]
    matrix = at_sizes(evidence.matrix, (seen, sizes[0]), (evidence.reference_size, sizes[1]))
    return tuple(float(number) for number in (matrix / matrix[2, 2]).ravel())
