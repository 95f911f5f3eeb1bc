"""One quantiser in memory for all shards that it made.

The file of a shard's codes holds the quantiser whole, so that a shard can be read by itself. Opened, equal ones become
one: it lies in memory once, stays in the processor's cache from shard to shard, and shards that have the same one
have the same inverted lists.
"""

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray


def share_quantisers(codes: Sequence[Any]) -> None:
    """Let inverted lists whose quantiser (and the rotation before it) equals that of earlier ones use that one.

    Codes that share already come first and are left alone: somebody may be searching them.
    """
    leaders: dict[int, Any] = {}
    for each in codes:
        lists = inverted_lists(each)
        if lists is None or quantiser_identity(each) in leaders:
            continue
        equal = next((leader for leader in leaders.values() if _are_equal(each, leader)), None)
        if equal is None:
            leaders[quantiser_identity(each)] = each
        else:
            _follow(each, equal)


def inverted_lists(codes: Any) -> Any | None:
    """The part of FAISS codes that has inverted lists; None where they have none."""
    index = faiss.downcast_index(codes)
    if isinstance(index, faiss.IndexPreTransform):
        return inverted_lists(index.index)
    return index if isinstance(index, faiss.IndexIVF) else None


def quantiser_identity(codes: Any) -> int:
    """The same number for codes whose queries go to the same lists, in this process; 0 where there are no lists."""
    lists = inverted_lists(codes)
    return 0 if lists is None else int(lists.quantizer.this)


def rotated(codes: Any, queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Queries as the inverted lists of `codes` take them."""
    for transform in _transforms(codes):
        queries = transform.apply(queries)
    return queries


def _follow(codes: Any, leader: Any) -> None:
    lists, leading = inverted_lists(codes), inverted_lists(leader)
    assert lists is not None
    assert leading is not None
    owned, lists.quantizer = lists.quantizer, leading.quantizer
    lists.own_fields = False
    codes.referenced_objects = [*getattr(codes, "referenced_objects", []), leader]  # FAISS's own way to keep it
    # An index that owns it frees it: to delete it by its Python name damages SWIG's table of types (FAISS 1.15).
    faiss.IndexPreTransform(owned).own_fields = True


def _are_equal(one: Any, other: Any) -> bool:
    mine, theirs = _numbers(one), _numbers(other)
    return mine is not None and theirs is not None and _same(mine, theirs)


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def _numbers(codes: Any) -> list[Any] | None:
    """All that decides which list a vector goes to; None for quantisers and transforms that are not known here."""
    lists: Any = inverted_lists(codes)
    quantiser = faiss.downcast_index(lists.quantizer)
    found: list[Any] = [type(quantiser).__name__, quantiser.ntotal, quantiser.d, quantiser.metric_type]
    if isinstance(quantiser, faiss.IndexHNSWFlat):
        found += [quantiser.hnsw.entry_point, quantiser.hnsw.max_level, quantiser.hnsw.efSearch]
        quantiser = faiss.downcast_index(quantiser.storage)
    if not isinstance(quantiser, faiss.IndexFlat):
        return None
    found.append(centres_of(quantiser))
    for transform in _transforms(codes):
        if not isinstance(transform, faiss.LinearTransform):
            return None
        found += [transform.d_in, transform.d_out, *map(faiss.vector_to_array, (transform.A, transform.b))]
    return found


def centres_of(flat: Any) -> NDArray[np.float32]:
    """The vectors [n, d] of a flat index, not a copy."""
    return np.asarray(faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d)).reshape(-1, flat.d)


def _transforms(codes: Any) -> list[Any]:
    index = faiss.downcast_index(codes)
    if not isinstance(index, faiss.IndexPreTransform):
        return []
    chain: Any = index.chain  # a C++ vector; FAISS's stubs call it a list
    return [faiss.downcast_VectorTransform(chain.at(place)) for place in range(chain.size())]
