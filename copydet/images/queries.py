"""What people ask about: paths, sources, bytes, images in memory; all become images that are read like files."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image as PilImage

from copydet.errors import ImageProblem, UsageError
from copydet.images.decode import to_pixels
from copydet.images.files import HeldBytes
from copydet.images.sources import Source, open_source
from copydet.records import Image, Pixels

# A path or URL of an image or of a whole source (folder, tar, Parquet, list), encoded bytes, or an image in memory:
# uint8 [h, w], [h, w, 3] (RGB) or [h, w, 4] (RGBA).
Query = str | Path | bytes | PilImage.Image | Pixels
Queries = Query | Iterable[Query]


def list_queries(queries: Queries) -> Iterator[Image]:
    """All images that `queries` stands for, in order, each id once. Raises UsageError at once for a path that does not
    exist, if the queries are a collection and no iterator.
    """
    listed = cast(Iterable[Query], [queries] if _is_one(queries) else queries)
    opened = (_open_query(query, place) for place, query in enumerate(listed))
    if isinstance(queries, Iterator):
        return distinct(_expand(opened))
    sources = list(opened)
    # A folder's ids are unique: no need to remember them, however many there are.
    alone = len(sources) == 1 and isinstance(sources[0], Source) and sources[0].kind in ("folder", "file")
    return _expand(sources) if alone else distinct(_expand(sources))


@dataclass(frozen=True)
class _Encoder:
    """Reads an image in memory as a file would be read, without loss: all queries then take one path."""

    image: PilImage.Image | Pixels

    def __call__(self) -> bytes:
        file = io.BytesIO()
        try:
            PilImage.fromarray(to_pixels(self.image)).save(file, "BMP")
        except UsageError as error:
            raise ImageProblem("unsupported", str(error)) from error
        return file.getvalue()


def _open_query(query: Query, place: int) -> Source | Image:
    if isinstance(query, str | Path):
        return open_source(str(query))
    name = f"queries[{place}]"
    if isinstance(query, bytes):
        return Image(name, name, "memory", HeldBytes(query))
    if isinstance(query, PilImage.Image | np.ndarray):
        return Image(name, name, "memory", _Encoder(query))
    raise UsageError(f"{name} is a {type(query).__name__}; a query is a path, bytes, a Pillow image or a uint8 array")


def _expand(opened: Iterable[Source | Image]) -> Iterator[Image]:
    for each in opened:
        yield from each.images() if isinstance(each, Source) else [each]


def distinct(images: Iterable[Image]) -> Iterator[Image]:
    """The same images with a number after ids that came before, so that results can be told apart."""
    seen: set[int] = set()  # hashes: a tenth of the memory of the ids
    for image in images:
        image_id, number = image.image_id, 1
        while hash(image_id) in seen:
            number += 1
            image_id = f"{image.image_id}#{number}"
        seen.add(hash(image_id))
        yield image if number == 1 else replace(image, image_id=image_id)


def _is_one(queries: Queries) -> bool:
    if isinstance(queries, np.ndarray):
        return queries.ndim == 2 or (queries.ndim == 3 and queries.shape[2] in (3, 4))
    return isinstance(queries, str | Path | bytes | PilImage.Image)
