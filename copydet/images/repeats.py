"""Which images of a listing repeat an earlier one, so that nothing is decoded or described twice."""

import threading
from collections.abc import Iterable


class Repeats:
    """Remembers the lowest position in the listing of every content: a hash of bytes or of pixels. About 150 bytes a
    content; may be used by several threads.
    """

    def __init__(self, known: Iterable[tuple[bytes, int]] = ()) -> None:
        """`known`: contents of images that were listed before, with their positions, in order."""
        self._lock = threading.Lock()
        self._first: dict[bytes, int] = {}
        for content, position in known:
            self._first.setdefault(content[:16], position)

    def first(self, content: bytes, position: int) -> int:
        """The lowest position that has been asked about with this content, this one included."""
        with self._lock:
            first = min(self._first.get(content[:16], position), position)
            self._first[content[:16]] = first
            return first
