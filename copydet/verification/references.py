"""References as verification needs them: stored features, and pixels from the source while it can be reached."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from threading import Lock

import numpy as np

from copydet.errors import ImageProblem
from copydet.images.decode import DEFAULT_LIMITS, Limits, decode
from copydet.images.originals import Originals
from copydet.images.resize import Resize
from copydet.local_features.describe import LOCAL_EDGE, RECORD_BYTES, describe_local
from copydet.records import ImageRow, Pixels
from copydet.shards.shard import Shard
from copydet.verification.agreement import Picture
from copydet.verification.verify import ReferenceSide, to_grey

_KEPT = 512  # references: queries of one batch often share them
FEATURES = 110  # of a reference whose shard has none


class ReferenceReader:
    """Reads references of open shards and keeps the last few hundred; may be used by several threads."""

    def __init__(self, shards: Sequence[Shard], limits: Limits = DEFAULT_LIMITS) -> None:
        """Raises UsageError when stored features are of another kind than this copydet reads."""
        self._local, self._limits = [shard.local for shard in shards], limits
        self._originals = Originals()
        self._kept: OrderedDict[tuple[int, int], ReferenceSide] = OrderedDict()
        self._lock = Lock()

    def read(self, shard: int, row: int, image: ImageRow) -> ReferenceSide:
        """Row `row` of shard number `shard`, of which images.parquet says `image`."""
        key = shard, row
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        local = self._local[shard]
        see = partial(self._see, image.uri)
        if local is not None:
            records = np.asarray(local.of(row))
        else:
            pixels = read_pixels(self._originals, image.uri, self._limits)
            records = np.empty((0, RECORD_BYTES), np.uint8) if pixels is None else describe_local(pixels, FEATURES)
            see = partial(_grey, pixels)
        side = ReferenceSide(records, (image.width or 1, image.height or 1), see)
        with self._lock:
            self._kept[key] = side
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return side

    def _see(self, uri: str) -> Picture | None:
        return _grey(read_pixels(self._originals, uri, self._limits))


def _grey(pixels: Pixels | None) -> Picture | None:
    return None if pixels is None else to_grey(pixels)


def read_pixels(originals: Originals, uri: str, limits: Limits) -> Pixels | None:
    """The original at the size in which references are compared, or None where it cannot be had."""
    data = originals.read(uri) if uri else None
    try:
        return None if data is None else decode(data, Resize("long_edge", LOCAL_EDGE), limits).pixels
    except ImageProblem:
        return None
