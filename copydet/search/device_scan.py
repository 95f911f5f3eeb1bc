"""Exact search with torch: half-precision products propose on the device, exact similarities decide.

Rows are multiplied in tiles (float16, sums in float32) and the best of each tile are merged. What a tile can get wrong
is bounded, so that a query whose last proposal might still hide a better row is asked again for more: the result is
that of `scan_rows`, to the bit and with ties resolved in the same way.

The only file outside of descriptors and training that imports torch; nothing imports it unless torch describes on CUDA.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from copydet.records import StoredVectors, Vectors
from copydet.search.code_search import NOWHERE, Nearest, best_of
from copydet.search.exact import exact_pairs

_SPARE = 54  # rows that are proposed beyond the k that are asked for: most queries need no second look
_MORE = 4
# Of a product of vectors of length 1: float16 rounds it by 2^-11 at most, sums of up to 4,096 products in float32 by
# less than as much again.
_ERROR = 2.0**-10
_TILE_BYTES = 1 << 30
_LEAST_TILE = 16


class DeviceScan:
    """A `Scan` on one torch device: one call at a time computes.

    `tile_bytes` bounds the memory of a tile and its products; `resident_bytes`, that of rows which stay on the device
    (None: all that is free now but two tiles). Rows beyond that are read again and sent for each call.
    """

    def __init__(self, device: str, tile_bytes: int = _TILE_BYTES, resident_bytes: int | None = None) -> None:
        self.device = torch.device(device)
        self._tile_bytes = tile_bytes
        if resident_bytes is None:
            resident_bytes = _free_bytes(self.device) - 2 * tile_bytes
        self._room = resident_bytes
        self._resident: dict[int, tuple[StoredVectors, Tensor]] = {}  # by identity: the array is held, so it is unique
        self._lock = threading.Lock()

    def __call__(self, descriptors: StoredVectors, queries: Vectors, k: int, rows: NDArray[np.int64] | None) -> Nearest:
        stored = queries.astype(np.float16)
        shape = (len(stored), k)
        found = Nearest(np.full(shape, NOWHERE), np.full(shape, -np.inf))
        count = len(descriptors) if rows is None else len(rows)
        asked, wanted = np.arange(len(stored)), min(k + _SPARE, count)
        while len(asked) and wanted:
            rough, place = self._propose(descriptors, stored[asked], wanted, rows)
            number = place if rows is None else rows[place]
            exact = _score(descriptors, stored[asked], number)
            best = best_of(Nearest(number, exact), k)
            width = best.number.shape[1]
            sure = np.full(len(asked), wanted == count)
            if wanted > k:
                sure |= rough[:, -1] + _ERROR < best.similarity[:, k - 1]
            found.number[asked[sure], :width] = best.number[sure]
            found.similarity[asked[sure], :width] = best.similarity[sure]
            asked, wanted = asked[~sure], min(_MORE * wanted, count)
        return found

    def _propose(
        self, descriptors: StoredVectors, stored: StoredVectors, wanted: int, rows: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The `wanted` rows of largest rough product for each query, falling, and their places among `rows`."""
        with self._lock, torch.inference_mode(), _sums_in_float32():
            query = torch.from_numpy(stored).to(self.device)
            values = torch.empty((len(stored), 0), dtype=torch.float16, device=self.device)
            places = torch.empty((len(stored), 0), dtype=torch.int64, device=self.device)
            for start, tile in self._tiles(descriptors, rows, len(stored)):
                best = (query @ tile.T).topk(min(wanted, len(tile)), dim=1)
                values = torch.cat([values, best.values], dim=1)
                places = torch.cat([places, best.indices + start], dim=1)
                merged = values.topk(min(wanted, values.shape[1]), dim=1)
                values, places = merged.values, places.gather(1, merged.indices)
            return values.cpu().numpy().astype(np.float64), places.cpu().numpy()

    def _tiles(
        self, descriptors: StoredVectors, rows: NDArray[np.int64] | None, queries: int
    ) -> Iterator[tuple[int, Tensor]]:
        """Rows on the device, float16 [tile, d], each with the place of its first."""
        count = len(descriptors) if rows is None else len(rows)
        # A row, its products, and what selecting the largest of them takes.
        size = max(_LEAST_TILE, self._tile_bytes // (2 * descriptors.shape[1] + 8 * queries))
        resident = self._keep(descriptors, size)
        for start in range(0, count, size):
            part: Any = slice(start, min(start + size, count)) if rows is None else rows[start : start + size]
            if resident is None:
                yield start, self._send(descriptors[part])
            else:
                yield start, resident[part if rows is None else torch.from_numpy(part).to(self.device)]

    def _keep(self, descriptors: StoredVectors, size: int) -> Tensor | None:
        """The rows on the device, sent there in tiles when first asked for; None where there is no room for them."""
        known = self._resident.get(id(descriptors))
        if known is not None:
            return known[1]
        if descriptors.nbytes > self._room:
            return None
        kept = torch.empty(descriptors.shape, dtype=torch.float16, device=self.device)
        for start in range(0, len(descriptors), size):
            kept[start : start + size] = self._send(descriptors[start : start + size])
        self._room -= descriptors.nbytes
        self._resident[id(descriptors)] = descriptors, kept
        return kept

    def _send(self, rows: StoredVectors) -> Tensor:
        return torch.from_numpy(np.array(rows)).to(self.device)  # a copy: the file is mapped read-only


def _score(descriptors: StoredVectors, stored: StoredVectors, number: NDArray[np.int64]) -> NDArray[np.float64]:
    """Exact similarities of each query with the rows `number` [queries, n]; a few queries at a time."""
    exact = np.empty(number.shape)
    for query, mine in enumerate(number):
        rows = np.take(np.asarray(descriptors), mine, axis=0)
        exact[query] = exact_pairs(np.broadcast_to(stored[query], rows.shape), rows)
    return exact


def _free_bytes(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


@contextmanager
def _sums_in_float32() -> Iterator[None]:
    """cuBLAS may add parts of a long sum in float16 unless told otherwise; `_ERROR` counts on float32."""
    settings = torch.backends.cuda.matmul
    before = settings.allow_fp16_reduced_precision_reduction
    settings.allow_fp16_reduced_precision_reduction = False
    try:
        yield
    finally:
        settings.allow_fp16_reduced_precision_reduction = before
