"""Images and queries with known answers, made from unlabelled photographs, that scores are calibrated on.

Half of the images are references, the other half have no copy among them. So that there are look-alikes as collections
have them (the same room, product or team photographed again), a pool three times as large is described first, and its
most similar pairs are taken apart: one image becomes a reference, the other is asked about.

    copies         every reference, edited by a chain of one strength (easy, medium, hard, extreme in turn); every
                   second one again, by one named edit (all that there are, in turn)
    look-alikes    each as it is; every second one edited, too
    other views    every sixth reference, as if photographed again from a step aside (other_view.py)
    no copies      every other image, as it is or edited, in turn

Two photographs that are nearly the same pixel by pixel (a file listed twice, frames of a still camera) are neither a
copy nor a fair error: such pairs are left out. So are a query and an image that an edit may have pasted it onto.
"""

import heapq
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.descriptors.runtimes import Runtime
from copydet.errors import UsageError
from copydet.evaluation.other_view import photograph_again
from copydet.evaluation.vectors import nearest, share_of
from copydet.images.edits import EDITS, STRENGTHS, edit_image
from copydet.images.loader import Also, load
from copydet.images.resize import Resize
from copydet.process import usable_cpus
from copydet.progress import Progress
from copydet.records import Image, Pixels, Vectors

POOL = 3  # times the images that are used
_LOOK_ALIKES = 5  # one image in so many has one
OTHER_VIEW, _OTHER_VIEWS = "other view", 6  # one reference in so many is photographed again
_KEPT = Resize("long_edge", 640)  # size in which images are kept for editing
_OTHERS = 4  # pictures to paste onto and beside
_BATCH = 64
_THUMBNAIL = 24
_SAME_CORRELATION, _SAME_DIFFERENCE = 0.95, 12.0  # of thumbnails; grey levels
_FEWEST = 20


@dataclass(frozen=True)
class AskedAbout:
    """A query: what it was made from, and whether it is a copy of that (else of nothing). An edit may have pasted it
    onto or beside the images `others`: parts of these are in it, too.
    """

    image: Image
    parent: int
    is_copy: bool
    strength: str
    others: tuple[int, ...] = ()


@dataclass(frozen=True)
class Population:
    """`references` is the folder of reference images; that of image number n is called `name_of(n)`.

    `thumbnails` float32 [images, ...] of all images (see same_picture), `vectors` [images, d] their descriptors.
    """

    references: Path
    reference_count: int
    queries: tuple[AskedAbout, ...]
    thumbnails: NDArray[np.float32]
    vectors: Vectors

    def nearly_same(self, parent: int, reference: int) -> bool:
        """Whether the two images are nearly the same pixel by pixel."""
        one, other = self.thumbnails[parent : parent + 1], self.thumbnails[reference : reference + 1]
        return bool(same_picture(one, other)[0, 0])


def name_of(number: int) -> str:
    return f"{number:06}.png"


def number_of(name: str) -> int:
    return int(Path(name).stem)


def make_population(
    runtime: Runtime, listed: Iterable[Image], folder: Path, *, images: int, seed: int, progress: Progress
) -> Population:
    """Choose `images` of the listed images, write them to `folder`, and say what is asked. The same for the same seed.

    Raises UsageError when too few images can be decoded.
    """
    pool = choose_images(listed, images * POOL)
    known, vectors, thumbnails = _describe(runtime, pool, progress)
    if len(known) < _FEWEST:
        raise UsageError(
            f"{len(known)} images can be decoded; calibration needs at least {_FEWEST}, better {images * POOL:,}"
        )
    pairs = look_alikes(vectors, thumbnails, min(images, len(known)) // _LOOK_ALIKES)
    paired = {number for pair in pairs for number in pair}
    rest = [number for number in range(len(known)) if number not in paired]
    np.random.default_rng(seed).shuffle(rest)
    rest = rest[: max(images - len(paired), 0)]
    half = len(rest) // 2
    references = [reference for reference, _ in pairs] + rest[:half]
    alike, others = [query for _, query in pairs], rest[half:]
    paths = _write(known, sorted(references + alike + others), folder / "images")
    (folder / "references").mkdir()
    references = [number for number in references if number in paths]
    for number in references:
        shutil.copy(paths[number], folder / "references")  # they will be out of reach for a while, their copies not
    asked = [each for each in _ask(references, alike, others) if each[0] in paths]
    np.random.default_rng(seed).shuffle(asked)
    everything = sorted(paths)
    queries = []
    for number, (parent, edit, is_copy) in enumerate(asked):
        host = np.random.default_rng([seed, number]).choice(everything, min(_OTHERS, len(everything)), replace=False)
        hosts = tuple(int(each) for each in host if each != parent)
        read = _Edited(paths[parent], edit, (seed, number), tuple(paths[each] for each in hosts))
        name, said = f"{number:06}", edit if is_copy or edit == OTHER_VIEW else ""
        queries.append(AskedAbout(Image(name, name, "calibration", read), parent, is_copy, said, hosts))
    return Population(folder / "references", len(references), tuple(queries), thumbnails, vectors)


def _ask(references: Sequence[int], alike: Sequence[int], others: Sequence[int]) -> Iterator[tuple[int, str, bool]]:
    """(image, edit, whether it is a copy of a reference); the edit is a strength, the name of one, "" for none, or
    OTHER_VIEW.
    """
    names = list(EDITS)
    for place, number in enumerate(references):
        yield number, STRENGTHS[place % len(STRENGTHS)], True
        if place % 2:
            yield number, names[(place // 2) % len(names)], True
        if place % _OTHER_VIEWS == 0:
            yield number, OTHER_VIEW, False
    for place, number in enumerate(alike):
        yield number, "", False
        if place % 2:
            yield number, STRENGTHS[(place // 2) % len(STRENGTHS)], False
    for place, number in enumerate(others):
        yield number, "" if place % 2 else STRENGTHS[(place // 2) % len(STRENGTHS)], False


@dataclass(frozen=True)
class _Edited:
    """Makes a query when it is read; without loss, as what an edit does to a picture is the edit's business."""

    path: Path
    edit: str
    seed: tuple[int, int]
    hosts: tuple[Path, ...]

    def __call__(self) -> bytes:
        pixels, rng = _read(self.path), np.random.default_rng([*self.seed, 1])
        if self.edit:
            others = [_read(path) for path in self.hosts]
            if self.edit == OTHER_VIEW:
                pixels = photograph_again(pixels, rng)
            elif self.edit in STRENGTHS:
                pixels = edit_image(pixels, self.edit, rng, others).pixels
            else:
                pixels = EDITS[self.edit](pixels, float(rng.uniform(0.3, 1.0)), rng, others).pixels
        return bytes(cv2.imencode(".bmp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1])


def _read(path: Path) -> Pixels:
    decoded: Any = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def _write(known: Sequence[Image], numbers: Sequence[int], folder: Path) -> dict[int, Path]:
    """Images by their number in `known`, without what cannot be decoded any more."""
    folder.mkdir(parents=True)
    paths = {}
    place = 0
    for batch in load([known[i] for i in numbers], _KEPT, batch_size=_BATCH, workers=usable_cpus()):
        for row, pixels in zip(batch.ok, batch.pixels, strict=True):
            number = numbers[place + row]
            paths[number] = folder / name_of(number)
            cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tofile(paths[number])
        place += len(batch.rows)
    return paths


def choose_images(images: Iterable[Image], count: int) -> list[Image]:
    """The `count` images with the highest `share_of`, in the order of the source: a bank's come from the other end."""
    numbered = ((share_of(image.image_id), -place, image) for place, image in enumerate(images))
    kept = heapq.nlargest(count, numbered, key=lambda entry: entry[:2])
    return [image for _, _, image in sorted(kept, key=lambda entry: -entry[1])]


def _describe(
    runtime: Runtime, images: Sequence[Image], progress: Progress
) -> tuple[list[Image], Vectors, NDArray[np.float32]]:
    """Those that can be decoded, their descriptors and thumbnails."""
    known: list[Image] = []
    vectors = [np.zeros((0, runtime.descriptor.dimension), np.float32)]
    thumbnails = [np.zeros((0, _THUMBNAIL**2 * 3), np.float32)]
    place = 0
    also = Also(Resize("square", _THUMBNAIL), _flat)
    for batch in load(images, runtime.descriptor.resize, batch_size=_BATCH, workers=usable_cpus(), also=also):
        for row in batch.rows:
            if row.status != "ok":
                progress.note(f"not used: {row.image_id}: {row.message}")
        known += [images[place + row] for row in batch.ok]
        if batch.ok:
            vectors.append(runtime.describe(batch.pixels))
            thumbnails.append(np.stack(batch.also))
        place += len(batch.rows)
        progress.advance(len(batch.rows))
    return known, np.concatenate(vectors), np.concatenate(thumbnails)


def _flat(pixels: Pixels) -> NDArray[np.float32]:
    return pixels.astype(np.float32).ravel()


def look_alikes(vectors: Vectors, thumbnails: NDArray[np.float32], count: int) -> list[tuple[int, int]]:
    """The most similar pairs of different images, at most `count`, no image twice."""
    rows, similarity = nearest(vectors, vectors, 6)
    found = []
    for first, place in np.argwhere(np.ones_like(rows, bool)).tolist():
        second = int(rows[first, place])
        if first < second:
            found.append((-float(similarity[first, place]), first, second))
    chosen: list[tuple[int, int]] = []
    used: set[int] = set()
    for _, first, second in sorted(found):
        if len(chosen) == count:
            break
        if first in used or second in used:
            continue
        if same_picture(thumbnails[first : first + 1], thumbnails[second : second + 1])[0, 0]:
            continue
        used |= {first, second}
        chosen.append((first, second))
    return chosen


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
