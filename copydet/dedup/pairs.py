"""From candidates to judged pairs: a look at the stored features, then verification and a score.

Both images are in an index, so nothing is extracted again: the features of the query's side are the stored ones
(local_features.stored). A pair is looked at once, with the image of lower rank as the query, and what belongs to one
image (its background) enters as the mean of both: the score is one of the pair.
"""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from copydet.decisions.calibration import Calibration
from copydet.decisions.pair import PairNumbers, pair_numbers
from copydet.dedup.collection import Collection
from copydet.dedup.near import Near
from copydet.images.decode import DEFAULT_LIMITS, Limits
from copydet.local_features.codes import shipped_codec, unpack_frames
from copydet.local_features.describe import RECORD_BYTES
from copydet.local_features.gist import SCALE
from copydet.local_features.stored import stored_features
from copydet.process import usable_cpus
from copydet.progress import Progress
from copydet.records import ImageRow
from copydet.store import atomic
from copydet.verification.canvas import Picture
from copydet.verification.correspond import correspond
from copydet.verification.geometry import fit_geometry
from copydet.verification.outline import at_sizes
from copydet.verification.references import ReferenceReader
from copydet.verification.verify import Evidence, Place, QuerySide, ReferenceSide, verify
from copydet.workers import Workers

BLOCK = 16_384  # candidates judged in one checkpoint
PART = 1024  # pairs whose pictures are in memory together

# Chosen on training images with planted copies (scripts/benchmark_dedup.py). Candidates below all are not verified.
_SURE_SIMILARITY = 0.45
_LIKELY_FEATURES = 3  # that are each other's nearest, with at least this cosine
_LIKELY_COSINE = 0.7
_STRONGEST = 64  # features of an image that are compared for this
_LIKELY_INLIERS = 5  # of all features, for a transform that they agree on
_LIKELY_GIST = 0.5  # cosine of both gists

SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in ("one", "other")),
        *((name, pa.float64()) for name in ("score", "similarity", "normalised_similarity")),
        ("inliers", pa.int32()),
        *((name, pa.float64()) for name in ("query_overlap", "reference_overlap")),
        ("transform", pa.list_(pa.float64(), 9)),
    ]
)


@dataclass(frozen=True)
class _Candidate:
    """A row of near.parquet with its normalised similarity."""

    one: int
    other: int
    similarity: float
    normalised: float


def judge_pairs(
    collection: Collection,
    near: Near,
    background: NDArray[np.float32],
    work: Path,
    progress: Progress,
    *,
    verified: bool,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Path]:
    """Score all candidates that have a chance. Returns Parquet files of SCHEMA in the order of `near`, one for each
    block of candidates; finished ones stay in `work` and are not judged again. `background`: see find_background.
    """
    files = []
    with Workers(usable_cpus()) as processes, pq.ParquetFile(near.path) as file:
        unverified = _Unverified(collection.opened.calibration)
        judge = _Verifier(collection, limits, processes).judge if verified else unverified.judge
        for number, batch in enumerate(file.iter_batches(BLOCK)):
            path = work / f"pairs-{number:06d}.parquet"
            if not path.exists():
                rows = judge(_candidates(batch, background))
                with atomic.new_file(path) as new:
                    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), new)
            files.append(path)
            progress.advance(len(batch))
    return files


def look_at_pairs(
    collection: Collection, near: Near, background: NDArray[np.float32], progress: Progress
) -> Iterator[tuple[int, int, PairNumbers]]:
    """(one, other, what verification measured) of all candidates that have a chance, in the order of `near`."""
    with Workers(usable_cpus()) as processes, pq.ParquetFile(near.path) as file:
        verifier = _Verifier(collection, DEFAULT_LIMITS, processes)
        for batch in file.iter_batches(BLOCK):
            for each in verifier.look(_candidates(batch, background)):
                yield each.candidate.one, each.candidate.other, each.numbers
            progress.advance(len(batch))


def _candidates(batch: pa.RecordBatch, background: NDArray[np.float32]) -> list[_Candidate]:
    one, other, similarity = (batch.column(name).to_numpy() for name in ("one", "other", "similarity"))
    normalised = similarity - (background[one] + background[other]) / 2
    columns = (one.tolist(), other.tolist(), similarity.tolist(), normalised.tolist())
    return [_Candidate(*row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class _Unverified:
    calibration: Calibration

    def judge(self, candidates: Sequence[_Candidate]) -> list[dict[str, object]]:
        plain, normalised = [each.similarity for each in candidates], [each.normalised for each in candidates]
        scores = self.calibration.score(plain, normalised).tolist() if candidates else []
        return [_row(each, score) for each, score in zip(candidates, scores, strict=True)]


@dataclass(frozen=True)
class _Looked:
    """A candidate that was verified; `transform` as in SCHEMA, between the originals."""

    candidate: _Candidate
    evidence: Evidence | None
    transform: list[float] | None

    @property
    def numbers(self) -> PairNumbers:
        return pair_numbers(self.candidate.similarity, self.candidate.normalised, self.evidence)


class _Verifier:
    """Looks at candidates in three steps: which have a chance, the originals of those, what both show.

    Originals are read in the order in which they are stored, each once for PART pairs: reading a member of a tar or a
    cell of a Parquet file costs little only next to the last one, and what waits for its turn is in memory.
    """

    def __init__(self, collection: Collection, limits: Limits, processes: Workers) -> None:
        self._collection, self._processes = collection, processes
        self._reader = ReferenceReader(collection.shards, limits)

    def judge(self, candidates: Sequence[_Candidate]) -> list[dict[str, object]]:
        looked = self.look(candidates)
        scores = self._collection.opened.calibration.score_stored([each.numbers for each in looked]).tolist()
        return [_row(each.candidate, score, each) for each, score in zip(looked, scores, strict=True)]

    def look(self, candidates: Sequence[_Candidate]) -> list[_Looked]:
        """What can be seen of those that have a chance."""
        with ThreadPoolExecutor(usable_cpus()) as pool:
            chosen = [each for each in pool.map(self._with_a_chance, _by_one(candidates)) if each]
            return [looked for part in _parts(chosen) for looked in self._verify_part(part, pool)]

    def _verify_part(self, groups: Sequence[Sequence[_Candidate]], pool: ThreadPoolExecutor) -> list[_Looked]:
        images = sorted({number for group in groups for each in group for number in (each.one, each.other)})
        known = dict(zip(images, self._collection.rows(np.array(images, np.int64)), strict=True))
        sides = dict(zip(images, pool.map(lambda number: self._side(number, known[number]), images), strict=True))

        def verify_group(group: Sequence[_Candidate]) -> list[_Looked]:
            others = [sides[each.other] for each in group]
            return self._processes.run(_verify, sides[group[0].one], group, others)

        return [each for some in pool.map(verify_group, groups) for each in some]

    def _with_a_chance(self, group: Sequence[_Candidate]) -> list[_Candidate]:
        """Those of one query's candidates that are similar enough, have a gist like its, or share features with it that
        agree on a place.
        """
        numbers = [group[0].one, *(each.other for each in group)]
        gists = self._collection.gists(numbers).astype(np.int32)
        alike = gists[1:] @ gists[0] >= _LIKELY_GIST * SCALE**2
        alike |= np.array([each.similarity for each in group]) >= _SURE_SIMILARITY
        asked, *others = self._collection.records(numbers)
        alike[~alike] = self._processes.run(_agree, asked, [others[place] for place in np.flatnonzero(~alike).tolist()])
        return [group[place] for place in np.flatnonzero(alike).tolist()]

    def _side(self, number: int, row: ImageRow) -> ReferenceSide:
        """An image with its picture, as verification sees it."""
        shard, place = self._collection.places(np.array([number]))
        side = self._reader.read(int(shard[0]), int(place[0]), row)
        return replace(side, see=partial(_seen, self._processes.run(side.see)))


def _parts(groups: Sequence[list[_Candidate]]) -> Iterator[list[list[_Candidate]]]:
    """Groups together that have PART pairs, or a few more."""
    part: list[list[_Candidate]] = []
    pairs = 0
    for group in groups:
        part.append(group)
        pairs += len(group)
        if pairs >= PART:
            yield part
            part, pairs = [], 0
    if part:
        yield part


def _verify(asked: ReferenceSide, group: Sequence[_Candidate], others: Sequence[ReferenceSide]) -> list[_Looked]:
    """Verify the candidates of one query."""
    # Without its pixels the query still has a size, and the reference's pixels have nothing to be compared with.
    picture = asked.picture or Picture(np.broadcast_to(np.uint8(0), asked.size[::-1]))
    query, seen = QuerySide(stored_features(asked.records), picture), picture.size
    looked = []
    for each, side in zip(group, others, strict=True):
        reference = side if asked.picture is not None else replace(side, see=partial(_seen, None))
        evidence = verify(query, reference, [Place(np.eye(3), seen)])
        matrix = None
        if evidence is not None:
            matrix = at_sizes(evidence.matrix, (seen, asked.original), (evidence.reference_size, side.original))
        looked.append(_Looked(each, evidence, None if matrix is None else (matrix / matrix[2, 2]).ravel().tolist()))
    return looked


def _seen(picture: Picture | None) -> Picture | None:
    return picture


def _agree(records: NDArray[np.uint8], others: Sequence[NDArray[np.uint8]]) -> NDArray[np.bool_]:
    """Whether a query shares features with each other image, and they agree on a transform: bool [others]."""
    likely = _mutual(records, others) >= _LIKELY_FEATURES
    query = stored_features(records)
    for place in np.flatnonzero(likely).tolist():
        held = others[place]
        geometry = fit_geometry(correspond(query, held), unpack_frames(held))
        likely[place] = geometry is not None and geometry.inliers >= _LIKELY_INLIERS
    return likely


def _mutual(records: NDArray[np.uint8], others: Sequence[NDArray[np.uint8]]) -> NDArray[np.int64]:
    """How many features of a query and of each other image are each other's nearest, with at least _LIKELY_COSINE, in
    the variant (as it is, mirrored) that has the most: int64 [others]. Only the strongest features are looked at.
    """
    asked = stored_features(records).vectors[:2, :_STRONGEST]
    held = np.zeros((len(others), _STRONGEST, asked.shape[2]), np.float32)
    counts = [min(len(records), _STRONGEST) for records in others]
    strongest = [records[:count] for records, count in zip(others, counts, strict=True)]
    decoded = shipped_codec().decode_vectors(np.concatenate([np.empty((0, RECORD_BYTES), np.uint8), *strongest]))
    held[np.arange(_STRONGEST) < np.array(counts)[:, None]] = decoded
    if not asked.shape[1] or not len(others):
        return np.zeros(len(others), np.int64)
    cosine = (asked.reshape(-1, asked.shape[2]) @ held.reshape(-1, asked.shape[2]).T).reshape(
        len(asked), asked.shape[1], len(others), _STRONGEST
    )
    answer = cosine.argmax(axis=3)  # [variants, features, others]
    asker = cosine.argmax(axis=1)  # [variants, others, _STRONGEST]
    back = np.take_along_axis(asker, answer.transpose(0, 2, 1), axis=2)
    near = np.take_along_axis(cosine, answer[..., None], axis=3)[..., 0].transpose(0, 2, 1) > _LIKELY_COSINE
    mutual = near & (back == np.arange(asked.shape[1]))
    most: NDArray[np.int64] = mutual.sum(axis=2).max(axis=0)
    return most


def _by_one(candidates: Sequence[_Candidate]) -> Iterator[list[_Candidate]]:
    """Candidates of one query after the other, as they come."""
    for _, group in itertools.groupby(candidates, lambda each: each.one):
        yield list(group)


def _row(candidate: _Candidate, score: float, looked: _Looked | None = None) -> dict[str, object]:
    evidence = None if looked is None else looked.evidence
    geometry = None if evidence is None else evidence.geometry
    return {
        "one": candidate.one,
        "other": candidate.other,
        "score": score,
        "similarity": candidate.similarity,
        "normalised_similarity": candidate.normalised,
        "inliers": None if looked is None else 0 if geometry is None else geometry.inliers,
        "query_overlap": None if evidence is None else evidence.query_overlap,
        "reference_overlap": None if evidence is None else evidence.reference_overlap,
        "transform": None if looked is None else looked.transform,
    }
