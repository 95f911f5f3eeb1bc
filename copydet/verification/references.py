"""References as verification needs them: stored features, and pixels from the source while it can be reached."""

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache, partial
from threading import Lock

import numpy as np

from copydet.errors import ImageProblem
from copydet.images.decode import DEFAULT_LIMITS, Limits, decode
from copydet.images.originals import Originals
from copydet.images.resize import Resize
from copydet.local_features.describe import LOCAL_EDGE, RECORD_BYTES, describe_local
from copydet.records import ImageRow, Pixels
from copydet.shards.shard import Shard
from copydet.verification.canvas import Picture
from copydet.verification.verify import ReferenceSide, to_grey

_KEPT = 256  # pictures: queries of one batch often share them
FEATURES = 172  # of a reference whose shard has none
_NUMBERS = itertools.count()


class Pictures:
    """Reads originals as verification looks at them and keeps the last few hundred; may be used by several threads.

    Pickled, it is the same `number` to a process that gets it: that one's, with what it has read itself.
    """

    def __init__(self, limits: Limits, number: int | None = None) -> None:
        self._limits, self._number = limits, next(_NUMBERS) if number is None else number
        self._originals = Originals()
        self._kept: OrderedDict[str, Picture | None] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[object, tuple[Limits, int]]:
        return _pictures_here, (self._limits, self._number)

    def pixels(self, uri: str) -> Pixels | None:
        """The original at the size in which references are compared, or None where it cannot be had."""
        data = self._originals.read(uri) if uri else None
        try:
            return None if data is None else decode(data, Resize("long_edge", LOCAL_EDGE), self._limits).pixels
        except ImageProblem:
            return None

    def see(self, uri: str) -> Picture | None:
        with self._lock:
            if uri in self._kept:
                self._kept.move_to_end(uri)
                return self._kept[uri]
        pixels = self.pixels(uri)
        picture = None if pixels is None else to_grey(pixels)
        with self._lock:
            self._kept[uri] = picture
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return picture


@lru_cache(maxsize=2)
def _pictures_here(limits: Limits, number: int) -> Pictures:
    return Pictures(limits, number)


class ReferenceReader:
    """References of open shards, to be verified in any process; may be used by several threads."""

    def __init__(self, shards: Sequence[Shard], limits: Limits = DEFAULT_LIMITS) -> None:
        """Raises UsageError when stored features are of another kind than this copydet reads."""
        self._local = [shard.local for shard in shards]
        self._pictures = Pictures(limits)

    def read(self, shard: int, row: int, image: ImageRow) -> ReferenceSide:
        """Row `row` of shard number `shard`, of which images.parquet says `image`."""
        local = self._local[shard]
        if local is None:
            pixels = self._pictures.pixels(image.uri)
            records = np.empty((0, RECORD_BYTES), np.uint8) if pixels is None else describe_local(pixels, FEATURES)
        else:
            records = np.asarray(local.of(row))
        return ReferenceSide(records, (image.width or 1, image.height or 1), partial(self._pictures.see, image.uri))
