"""What is taken of a reference while it is decoded, and its descriptors: wherever references are described."""

from dataclasses import dataclass
from functools import partial

from copydet.descriptors.runtimes import Runtime
from copydet.images.loader import Also
from copydet.images.parts import REFERENCE_VIEWS, cut
from copydet.images.resize import Resize, resize_pixels
from copydet.local_features.describe import LOCAL_EDGE, QUERY_EDGE, describe_image
from copydet.records import Batch, Described, ImageFeatures, Pixels


@dataclass(frozen=True)
class PreparedReference:
    """A reference as it leaves its decoding worker: local features, None where none are stored, and the pixels of its
    parts, resized for the descriptor.
    """

    local: ImageFeatures | None
    parts: tuple[Pixels, ...]

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.parts) + (0 if self.local is None else self.local.nbytes)


def also_of_reference(resize: Resize, local_features: int, reference_views: str) -> Also | None:
    """What the loader shall do with each image beside resizing it for a descriptor, which wants to see `resize`.

    Parts are cut from an image as large as those of queries are (pairs.prepare), so that they look alike.
    """
    if not local_features and not REFERENCE_VIEWS[reference_views]:
        return None
    edge = QUERY_EDGE if REFERENCE_VIEWS[reference_views] else LOCAL_EDGE
    work = partial(prepare_reference, resize=resize, local_features=local_features, reference_views=reference_views)
    return Also(Resize("long_edge", edge), work)


def prepare_reference(pixels: Pixels, resize: Resize, local_features: int, reference_views: str) -> PreparedReference:
    """See `also_of_reference`, whose work this is."""
    small = resize_pixels(pixels, Resize("long_edge", LOCAL_EDGE))
    local = describe_image(small, local_features) if local_features else None
    parts = tuple(resize_pixels(cut(pixels, part), resize) for part in REFERENCE_VIEWS[reference_views])
    return PreparedReference(local, parts)


def describe_references(batch: Batch, runtime: Runtime) -> Described:
    """A batch that was loaded with `also_of_reference`, with its descriptors."""
    prepared: tuple[PreparedReference, ...] = batch.also
    parts = [pixels for each in prepared for pixels in each.parts]
    vectors = runtime.describe([*batch.pixels, *parts])
    wholes, views = vectors[: len(batch.pixels)], vectors[len(batch.pixels) :]
    local = tuple(each.local for each in prepared if each.local is not None)
    of_image = () if not parts else tuple(views.reshape(len(prepared), -1, views.shape[1]))
    return Described(batch.rows, batch.ok, wholes, local, batch.repeats, of_image)
