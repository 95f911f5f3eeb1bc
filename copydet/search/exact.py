"""Similarities that are the same number everywhere.

Products of two float16 numbers, and sums of them over two vectors of length 1, are multiples of 2^-48 below 2: 49 bits,
where a float64 has 53, so that no addition rounds. A similarity is therefore the same number whatever the batch, the
threads, the split into shards, the order of the two images, or the processor.
"""

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", np.float32, np.float64)
CACHE_ROWS = 512  # widened at a time: they stay in the processor's cache until they are multiplied
# OpenBLAS computes a product with several threads from 2^18 multiplications on, and then waits milliseconds for each
# where decoding keeps the cores busy (measured: 9 ms CPU a call). Below that, scanning has threads of its own.
_BLAS_ALONE = 2**18


def exact_similarity(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Similarity of each row of `first` [n, d] with each row of `second` [m, d] -> float64 [n, m].

    Exact for float16. Float32 is rounded to float16 first, as references are at rest: the same both ways.
    """
    return products(widen(first), widen(second))


def exact_pairs(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Similarity of each row of `first` [n, d] with the same row of `second` [n, d] -> float64 [n], exact as above."""
    similarity = np.empty(len(first))
    for start in range(0, len(first), CACHE_ROWS):
        part = slice(start, start + CACHE_ROWS)
        np.einsum("nd,nd->n", widen(first[part]), widen(second[part]), out=similarity[part])
    return similarity


def products(first: NDArray[Number], second: NDArray[Number]) -> NDArray[Number]:
    """first [n, d] @ second.T [d, m], both of one type, in square tiles that BLAS computes with one thread."""
    dimension = first.shape[1]
    side = 2 ** int(math.log2(_BLAS_ALONE / dimension) / 2)
    whole = len(second) - len(second) % side
    groups = second[:whole].reshape(-1, side, dimension).transpose(0, 2, 1)
    product = np.empty((len(first), len(second)), first.dtype)
    for start in range(0, len(first), side):
        rows = first[start : start + side]
        target = product[start : start + side]
        tiles = np.matmul(rows, groups)  # [groups, rows, side]
        target[:, :whole].reshape(len(rows), -1, side)[...] = tiles.transpose(1, 0, 2)
        target[:, whole:] = rows @ second[whole:].T
    return product


def widen(vectors: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(vectors).astype(np.float16, copy=False).astype(np.float64)
