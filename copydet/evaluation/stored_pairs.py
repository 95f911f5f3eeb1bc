"""Labelled pairs of stored images, as de-duplication sees them: references and queries together are one collection.

Queries become JPEG files, as most images of collections are. The pairs are looked at twice, the second time with all
files out of reach, for the model that judges without pixels.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.decisions.pair import PairNumbers
from copydet.dedup.background import find_background
from copydet.dedup.collection import Collection, open_collection
from copydet.dedup.exact import find_contents
from copydet.dedup.near import Near, find_near
from copydet.dedup.pairs import look_at_pairs
from copydet.engines import local
from copydet.evaluation.fitting import LabelledPairs, label_pairs
from copydet.evaluation.population import AskedAbout, Population, number_of
from copydet.index import Index
from copydet.matching import OpenDescriptor
from copydet.process import usable_cpus
from copydet.progress import Silent, show

_QUALITY = 95


@dataclass(frozen=True)
class Shown:
    """What a stored image shows: image number `parent` of the population, as it is or as the query `asked`."""

    parent: int
    asked: AskedAbout | None = None

    @property
    def parts(self) -> set[int]:
        """The images of which parts may be in it."""
        return {self.parent} if self.asked is None else {self.parent, *self.asked.others}


def look_at_stored(made: Population, folder: Path, opened: OpenDescriptor) -> LabelledPairs:
    """Search the references and queries of a population for duplicates and label what is looked at, in the new
    `folder`. Shows progress. The references' folder is out of reach for a while, and there again afterwards.
    """
    images, work = folder / "images", folder / "work"
    for each in (images, work):
        each.mkdir(parents=True)
    _write(made.queries, images)
    with show("indexing queries", made.reference_count + len(made.queries)) as progress:
        sources = [str(made.references), str(images)]
        snapshot = local.build(folder / "index", sources, opened.descriptor, None, opened.runtime, progress=progress)
    index = Index(folder / "index", snapshot, opened.descriptor, "cpu")
    collection = replace(open_collection([index]), opened=opened)
    with show("searching", len(collection)) as progress:
        contents = find_contents(collection, work)
        near = find_near(collection, contents, work, progress, votes=collection.has_local)
        background = find_background(collection, contents, near.images, work, Silent())
    seen = _look(made, collection, near, background)
    with ExitStack() as absent:
        for each in (made.references, images):
            absent.enter_context(gone(each))
        return label_pairs(seen, _look(made, collection, near, background))


@contextmanager
def gone(folder: Path) -> Iterator[None]:
    """Without the folder, which is there again afterwards."""
    aside = folder.with_name(f"{folder.name}-aside")
    folder.rename(aside)
    try:
        yield
    finally:
        aside.rename(folder)


def _write(queries: Sequence[AskedAbout], folder: Path) -> None:
    def write(place: int) -> None:
        pixels: Any = cv2.imdecode(np.frombuffer(queries[place].image.read(), np.uint8), cv2.IMREAD_COLOR)
        quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        cv2.imencode(".jpg", pixels, quality)[1].tofile(folder / f"q{place:06}.jpg")

    with ThreadPoolExecutor(usable_cpus()) as pool, show("writing queries", len(queries)) as progress:
        for _ in pool.map(write, range(len(queries))):
            progress.advance(1)


def _look(
    made: Population, collection: Collection, near: Near, background: NDArray[np.float32]
) -> list[tuple[PairNumbers, bool, int]]:
    """(numbers, whether it is a copy, parent of the second) of the pairs with a known answer."""
    shown = [_shown(made, row.image_id) for row in collection.rows(np.arange(len(collection)))]
    labelled = []
    with show("verifying", near.pairs, "pairs") as progress:
        for one, other, numbers in look_at_pairs(collection, near, background, progress):
            is_copy = label(made, shown[one], shown[other])
            if is_copy is not None:
                labelled.append((numbers, is_copy, shown[other].parent))
    return labelled


def _shown(made: Population, image_id: str) -> Shown:
    name = Path(image_id).stem
    if not name.startswith("q"):
        return Shown(number_of(name))
    asked = made.queries[int(name[1:])]
    return Shown(asked.parent, asked)


def label(made: Population, one: Shown, other: Shown) -> bool | None:
    """Whether one is a copy of the other; None where nobody can say: two edits of one image may share nothing, and an
    edit may have pasted a part of another image into it.
    """
    queries = [each.asked for each in (one, other) if each.asked is not None]
    if one.parent == other.parent:
        return queries[0].is_copy if len(queries) == 1 else None
    if one.parts & other.parts or made.nearly_same(one.parent, other.parent):
        return None
    return False
