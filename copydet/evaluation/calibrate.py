"""Making the labelled pairs that a descriptor's scores are calibrated on, and writing its calibration.json.

The pairs are what a search really proposes. Half of the images are references; the other half have no copy among them.

    copies       every reference, edited once in each strength (easy, medium, hard, extreme)
    no copies    every other image, once as it is and once edited in each strength but one
    pairs        every query with its `neighbours` nearest references, by exact search

So half of the queries have a copy in the collection, a quarter of these are extreme, and the wrong pairs are the
look-alikes that the descriptor itself finds. A pair of two photographs that are nearly the same pixel by pixel (frames
of a video, a file listed twice) is neither a copy nor a fair error: it is left out. A copy that the search misses is no
pair.

None of the images may be in the background bank, or their normalised similarities would come out too low: images are
taken from the far end of the order that banks are taken from (`vectors.share_of`), and one that the bank holds all the
same is left out.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from copydet.decisions.calibration import Calibration, fit, write_calibration
from copydet.descriptors.background import Bank, load_bank
from copydet.descriptors.openvino_runtime import usable_cpus
from copydet.descriptors.registry import load_descriptor
from copydet.descriptors.runtimes import Runtime, open_runtime
from copydet.errors import UsageError
from copydet.evaluation.vectors import nearest, share_of
from copydet.images.edits import STRENGTHS, edit_image
from copydet.images.loader import load
from copydet.images.resize import Resize, resize_pixels
from copydet.images.sources import list_images
from copydet.progress import Progress, Silent, show
from copydet.records import Image, Pixels, Vectors
from copydet.search.score_norm import background_similarity

_DETAIL, _SHORT_EDGE = 1.5, 96  # pictures are edited at 1.5 times the descriptor's size: a crop keeps some detail
_BLOCK = 64  # images in memory while they are edited
_IN_BANK = 0.97  # the bank is stored in 8 bits and was decoded at another size: the same image comes out below 1
_THUMBNAIL = 24
_SAME_CORRELATION, _SAME_DIFFERENCE = 0.95, 12.0  # of thumbnails; grey levels
_FEWEST = 20


@dataclass(frozen=True)
class CalibrationPairs:
    """Candidate pairs; all arrays [pairs]. `strength` names the copy's, "" for a query without a copy.

    `missed` counts copies whose reference was not among the candidates, `left_out` pairs that were nearly the same
    picture. `references` and `queries` count what was searched.
    """

    similarity: NDArray[np.float32]
    normalised_similarity: NDArray[np.float32]
    is_copy: NDArray[np.bool_]
    strength: tuple[str, ...]
    references: int
    queries: int
    neighbours: int
    missed: int
    left_out: int


@dataclass(frozen=True)
class _Drawn:
    """The images and all queries made from them: query i is image `parent[i]`, edited in `strength[i]` ("": not)."""

    vectors: Vectors
    thumbnails: NDArray[np.float32]
    is_reference: NDArray[np.bool_]
    query_vectors: Vectors
    parent: NDArray[np.int64]
    strength: tuple[str, ...]


def calibrate_descriptor(
    folder: Path,
    sources: Sequence[str],
    *,
    seed: int = 0,
    images: int = 2000,
    device: str = "auto",
) -> Calibration:
    """Calibrate the descriptor in `folder` on `images` images of `sources`, and write its calibration.json.

    Raises UsageError when the sources have too few images that are not in the descriptor's bank.
    """
    descriptor = load_descriptor(str(folder))
    runtime = open_runtime(descriptor, device)
    with show("calibrating", images) as progress:
        pairs = make_pairs(runtime, load_bank(descriptor), sources, seed=seed, images=images, progress=progress)
        progress.note(
            f"{len(pairs.is_copy):,} pairs, {int(pairs.is_copy.sum()):,} of them copies; {pairs.missed:,} copies were "
            f"not found, {pairs.left_out:,} pairs left out as nearly the same picture"
        )
    calibration = fit(
        pairs.similarity,
        pairs.normalised_similarity,
        pairs.is_copy,
        population=population(pairs, sources),
        seed=seed,
    )
    write_calibration(calibration, Path(folder) / "calibration.json")
    return calibration


def population(pairs: CalibrationPairs, sources: Sequence[str]) -> str:
    """The words that say what the calibration's probabilities are shares of."""
    return (
        f"pairs that a search of {pairs.references:,} references proposes ({pairs.neighbours} for each query), for "
        f"{pairs.queries:,} queries of which half are copies of one of them, edited in equal parts easy, medium, hard "
        f"and extreme; images of {', '.join(Path(source).name for source in sources)}"
    )


def make_pairs(
    runtime: Runtime,
    bank: Bank | None,
    sources: Sequence[str],
    *,
    seed: int = 0,
    images: int = 2000,
    neighbours: int = 10,
    progress: Progress | None = None,
) -> CalibrationPairs:
    """Draw labelled pairs from `images` images of the sources: see the module. The same for the same seed.

    Raises UsageError when the sources have too few images that are not in the bank.
    """
    chosen = choose_images(list_images(sources), images)
    drawn = _outside_bank(_draw(runtime, chosen, seed, progress or Silent()), bank)
    if len(drawn.vectors) < _FEWEST:
        raise UsageError(
            f"{', '.join(sources)}: {len(drawn.vectors)} images that can be described and are not in the background "
            f"bank; calibration needs at least {_FEWEST}, better 2,000"
        )
    return _search(drawn, bank, neighbours)


def choose_images(images: Iterable[Image], count: int) -> list[Image]:
    """The `count` images with the highest `share_of`, in the order of the source: far from any bank's."""
    numbered = ((share_of(image.image_id), -place, image) for place, image in enumerate(images))
    kept = heapq.nlargest(count, numbered, key=lambda entry: entry[:2])
    return [image for _, _, image in sorted(kept, key=lambda entry: -entry[1])]


def _draw(runtime: Runtime, images: Sequence[Image], seed: int, progress: Progress) -> _Drawn:
    """Describe the images and their edited copies, block by block. An image that cannot be decoded is left out."""
    vectors = [np.zeros((0, runtime.descriptor.dimension), np.float32)]
    query_vectors = list(vectors)
    thumbnails = [np.zeros((0, _THUMBNAIL**2 * 3), np.float32)]
    parent: list[int] = []
    strength: list[str] = []
    done = 0
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for block in _blocks(images, _short_edge(runtime), progress):
            make = partial(_copies, block, first=done, seed=seed)
            copies = list(pool.map(make, range(len(block))))
            vectors.append(_describe(runtime, block))
            thumbnails.append(np.stack([_thumbnail(pixels) for pixels in block]))
            query_vectors.append(_describe(runtime, [pixels for made in copies for pixels in made]))
            for _ in block:
                strength += _strengths(done)
                parent += [done] * len(_strengths(done))
                done += 1
    return _Drawn(
        np.concatenate(vectors),
        np.concatenate(thumbnails),
        np.arange(done) % 2 == 0,
        np.concatenate(query_vectors),
        np.asarray(parent, np.int64),
        tuple(strength),
    )


def _copies(block: Sequence[Pixels], place: int, *, first: int, seed: int) -> list[Pixels]:
    """The queries made from image `place` of a block whose first image is number `first`."""
    rng = np.random.default_rng([seed, first + place])
    others = [block[i] for i in rng.choice(len(block), min(6, len(block)), replace=False) if i != place]
    pixels = block[place]
    return [edit_image(pixels, name, rng, others).pixels if name else pixels for name in _strengths(first + place)]


def _strengths(number: int) -> tuple[str, ...]:
    """How image `number` is asked about: references (even) in every strength, others once as they are ("")."""
    if number % 2 == 0:
        return STRENGTHS
    left_out = (number // 2) % len(STRENGTHS)
    return ("", *(name for place, name in enumerate(STRENGTHS) if place != left_out))


def _short_edge(runtime: Runtime) -> int:
    return max(round(runtime.descriptor.resize.size * _DETAIL), _SHORT_EDGE)


def _blocks(images: Sequence[Image], short_edge: int, progress: Progress) -> Iterator[tuple[Pixels, ...]]:
    for batch in load(images, Resize("short_edge", short_edge), batch_size=_BLOCK, workers=usable_cpus()):
        for row in batch.rows:
            if row.status != "ok":
                progress.note(f"not used: {row.image_id}: {row.message}")
        if batch.pixels:
            yield batch.pixels
        progress.advance(len(batch.rows))


def _describe(runtime: Runtime, pixels: Sequence[Pixels]) -> Vectors:
    return runtime.describe([resize_pixels(each, runtime.descriptor.resize) for each in pixels])


def _thumbnail(pixels: Pixels) -> NDArray[np.float32]:
    return np.asarray(resize_pixels(pixels, Resize("square", _THUMBNAIL)), np.float32).ravel()


def _outside_bank(drawn: _Drawn, bank: Bank | None) -> _Drawn:
    """Without the images that the bank holds."""
    if bank is None or not len(bank.vectors) or not len(drawn.vectors):
        return drawn
    _, similarity = nearest(drawn.vectors, bank.vectors.astype(np.float32), 1)
    kept = similarity[:, 0] < _IN_BANK
    asked = kept[drawn.parent]
    return _Drawn(
        drawn.vectors[kept],
        drawn.thumbnails[kept],
        drawn.is_reference[kept],
        drawn.query_vectors[asked],
        (np.cumsum(kept) - 1)[drawn.parent[asked]],
        tuple(name for name, ok in zip(drawn.strength, asked.tolist(), strict=True) if ok),
    )


def _search(drawn: _Drawn, bank: Bank | None, neighbours: int) -> CalibrationPairs:
    """Search all queries among the references and label what is found."""
    references = np.flatnonzero(drawn.is_reference)
    rows, similarity = nearest(drawn.query_vectors, drawn.vectors[references], neighbours)
    query, place = np.nonzero(rows >= 0)
    parent, found = drawn.parent[query], references[rows[query, place]]
    is_copy = parent == found
    left_out = ~is_copy & same_picture(drawn.thumbnails, drawn.thumbnails[references])[parent, rows[query, place]]
    kept = np.flatnonzero(~left_out)
    background = background_similarity(drawn.query_vectors, bank)
    plain = similarity[query, place][kept].astype(np.float32)
    copies_asked = int(drawn.is_reference[drawn.parent].sum())
    return CalibrationPairs(
        similarity=plain,
        normalised_similarity=plain - background[query[kept]],
        is_copy=is_copy[kept],
        strength=tuple(drawn.strength[i] if drawn.is_reference[drawn.parent[i]] else "" for i in query[kept].tolist()),
        references=len(references),
        queries=len(drawn.query_vectors),
        neighbours=neighbours,
        missed=copies_asked - int(is_copy.sum()),
        left_out=int(left_out.sum()),
    )


def same_picture(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.bool_]:
    """bool [n, m]: which thumbnails, float32 [n, size * size * 3] and [m, ...], show nearly the same picture.

    They correlate, mirrored or not, and differ by few grey levels.
    """
    same = np.zeros((len(first), len(second)), bool)
    square = second.reshape(len(second), _THUMBNAIL, _THUMBNAIL, 3)
    for shown in (second, np.ascontiguousarray(square[:, :, ::-1]).reshape(second.shape)):
        alike = np.argwhere(_standardised(first) @ _standardised(shown).T >= _SAME_CORRELATION)
        for i, j in alike.tolist():
            same[i, j] |= bool(np.abs(first[i] - shown[j]).mean() <= _SAME_DIFFERENCE)
    return same


def _standardised(thumbnails: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = thumbnails - thumbnails.mean(axis=1, keepdims=True)
    length = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    return np.asarray(centred / length, np.float32)
