"""codes.faiss on disk: exact codes are streamed to it, and what a stranger wrote is tried before it is read.

FAISS trusts the sizes that a file states, and on a strange file it can crash (1.15: one mutated file of about a
thousand). Exact codes are recognised by their head; any others are read by a copy of this process first.
"""

import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss

from copydet.errors import CopydetError
from copydet.records import Vectors

_SECONDS_TO_READ = 600


def read_codes(path: Path, factory: str, count: int, dimension: int) -> Any:
    """A FAISS index of a shard, made with `factory` of `count` vectors, mapped where FAISS can. Raises CopydetError
    when it is damaged or another's.
    """
    # IO_FLAG_MMAP_IFC maps flat and inverted-list codes, but reads fast-scan codes twice: those are read plainly.
    flags = 0 if "fs" in factory else faiss.IO_FLAG_MMAP_IFC
    try:
        if not (_holds_exact(path, count, dimension) or _can_be_read(path, flags)):
            raise CopydetError(f"{path} is damaged: FAISS cannot read it")
        codes = faiss.read_index(str(path), flags)
    except (RuntimeError, MemoryError, OSError) as error:
        raise CopydetError(f"{path} is damaged: FAISS cannot read it") from error
    if (codes.d, codes.ntotal, codes.metric_type) != (dimension, count, faiss.METRIC_INNER_PRODUCT):
        raise CopydetError(
            f"{path} does not belong to this shard: it holds {codes.ntotal:,} codes of {codes.d} numbers "
            f"instead of {count:,} of {dimension}"
        )
    return codes


def _can_be_read(path: Path, flags: int) -> bool:
    """Whether FAISS can read the file: a copy of this process tries. That takes some milliseconds."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            signal.alarm(_SECONDS_TO_READ)
            faiss.omp_set_num_threads(1)  # a copy has no other threads to wait for
            faiss.read_index(str(path), flags)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def _holds_exact(path: Path, count: int, dimension: int) -> bool:
    """Whether the file begins, and is as long, as exact codes of `count` vectors are: then FAISS can read it."""
    head = _exact_head(count, dimension)
    with open(path, "rb") as file:
        return file.read(len(head)) == head and path.stat().st_size == len(head) + 4 * count * dimension


def write_exact(path: Path, blocks: Iterator[Vectors], count: int, dimension: int) -> None:
    """What FAISS writes for IndexFlatIP, without holding all vectors: a head with two counts, then the vectors."""
    with open(path, "wb") as file:
        file.write(_exact_head(count, dimension))
        for block in blocks:
            file.write(block.tobytes())


def _exact_head(count: int, dimension: int) -> bytes:
    """FAISS's own of an empty index: 4 bytes of type, int32 dimension, int64 vectors, ..., int64 floats."""
    head = bytearray(faiss.serialize_index(faiss.IndexFlatIP(dimension)).tobytes())
    struct.pack_into("<q", head, 8, count)
    struct.pack_into("<q", head, len(head) - 8, count * dimension)
    return bytes(head)
