"""Local features in few bytes: a linear projection that keeps what edits leave alone, then product quantisation.

The projection is a linear discriminant one (Mikolajczyk and Matas, ICCV 2007): it divides by the scatter between a
feature and what edits make of it, so that 48 numbers do what RootSIFT's 128 do, and turns the result at random, so that
all parts of the product quantiser get their share. What the centre of the inverted list leaves over is quantised: half
the bytes, and nearly all that they said (docs/query-stage.md). It ships with the package (training/local_codec.py).
A record: 4 bytes of frame (x and y in 10 bits, scale and direction in 6), 2 bytes with the number of the inverted list,
then a byte for each part of the quantiser.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from copydet.errors import CopydetError
from copydet.local_features.extract import LocalFeatures
from copydet.local_features.pyramid import Floats

_PLACES, _STEPS = 1023, 63
_SMALLEST_SCALE, _OCTAVES = 2.0**-9, 8  # scales of 1/512 to 1/2 of the longer side can be told
_FRAME_BYTES, _LIST_BYTES = 4, 2


@dataclass(frozen=True)
class Codec:
    """`mean` float32 [128], `projection` float32 [128, d], `lists` float32 [lists, d]: centres of the inverted lists,
    `parts` float32 [parts, 256, d / parts]: what a byte of each part adds to the centre.
    """

    mean: Floats
    projection: Floats
    parts: Floats
    lists: Floats

    @property
    def record_bytes(self) -> int:
        return _FRAME_BYTES + _LIST_BYTES + len(self.parts)

    def project(self, descriptors: Floats) -> Floats:
        """RootSIFT [n, 128] -> float32 [n, d], rows of length 1."""
        values: Floats = np.matmul(descriptors - self.mean, self.projection)
        length: Floats = np.sqrt(np.einsum("nd,nd->n", values, values))[:, None]
        values /= length + np.float32(1e-9)
        return values

    def encode(self, features: LocalFeatures) -> NDArray[np.uint8]:
        """Records uint8 [n, record_bytes] in the order of the features."""
        vectors = self.project(features.descriptors)
        lists = _nearest(vectors, self._list_table)
        numbers = lists.astype("<u2").view(np.uint8).reshape(-1, _LIST_BYTES)
        return np.concatenate([_pack(features.frames), numbers, self._quantise(vectors - self.lists[lists])], axis=1)

    def decode(self, records: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Records -> frames float32 [n, 4] as in LocalFeatures, and vectors float32 [n, d], nearly of length 1."""
        return unpack_frames(records), self.decode_vectors(records)

    def decode_vectors(self, records: NDArray[np.uint8]) -> Floats:
        """The vectors of `decode` alone."""
        count, size, each = self.parts.shape
        places = records[:, _FRAME_BYTES + _LIST_BYTES :] + np.arange(0, count * size, size)
        residuals: Floats = self.parts.reshape(count * size, each).take(places, axis=0)
        vectors: Floats = residuals.reshape(len(records), count * each)
        vectors += self.lists[self.list_numbers(records)]
        return vectors

    def list_numbers(self, records: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """The inverted list of each record, uint16 [n]. Raises CopydetError for records that no codec wrote."""
        numbers = list_numbers(records)
        if len(numbers) and numbers.max() >= len(self.lists):
            raise CopydetError(
                f"stored local features are damaged (list {numbers.max():,} of {len(self.lists):,}); see which with: "
                "copydet inspect --check rows --index INDEX"
            )
        return numbers

    def _quantise(self, vectors: Floats) -> NDArray[np.uint8]:
        split = vectors.reshape(len(vectors), len(self.parts), self.parts.shape[2]).transpose(1, 0, 2)
        return _nearest(split, self._part_table).T.astype(np.uint8)

    @cached_property
    def _list_table(self) -> Floats:
        return _table(self.lists)

    @cached_property
    def _part_table(self) -> Floats:
        return _table(self.parts)


def _table(centres: Floats) -> Floats:
    """What `_nearest` multiplies vectors with: float32 [..., d + 1, k] of centres [..., k, d]."""
    short = (centres**2).sum(axis=-1, keepdims=True) / 2
    return np.ascontiguousarray(np.concatenate([centres, -short], axis=-1).swapaxes(-1, -2))


def _nearest(vectors: Floats, table: Floats) -> NDArray[np.intp]:
    """Number of the nearest of the centres in a table of each vector [..., n, d], Euclidean."""
    longer = np.concatenate([vectors, np.ones((*vectors.shape[:-1], 1), np.float32)], axis=-1)
    numbers: NDArray[np.intp] = np.matmul(longer, table).argmax(axis=-1)
    return numbers


def list_numbers(records: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The inverted list that each record belongs to, uint16 [n]."""
    both = np.ascontiguousarray(records[:, _FRAME_BYTES : _FRAME_BYTES + _LIST_BYTES])
    return both.view("<u2").ravel()


def code_bytes(records: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The quantised vectors of records, uint8 [n, parts], contiguous."""
    return np.ascontiguousarray(records[:, _FRAME_BYTES + _LIST_BYTES :])


def _pack(frames: Floats) -> NDArray[np.uint8]:
    """Frames as in LocalFeatures -> uint8 [n, 4]: x, y, scale and direction from the lowest bit on."""
    place = np.rint(np.clip(frames[:, :2], 0, 1) * _PLACES).astype(np.uint32)
    octave = np.log2(np.maximum(frames[:, 2], _SMALLEST_SCALE) / _SMALLEST_SCALE)
    scale = np.rint(np.clip(octave / _OCTAVES, 0, 1) * _STEPS).astype(np.uint32)
    turn = np.rint(frames[:, 3] / (2 * np.pi) * (_STEPS + 1)).astype(np.int64) % (_STEPS + 1)
    packed = place[:, 0] | place[:, 1] << 10 | scale << 20 | turn.astype(np.uint32) << 26
    records: NDArray[np.uint8] = packed.astype("<u4").view(np.uint8)
    return records.reshape(-1, _FRAME_BYTES)


def unpack_frames(records: NDArray[np.uint8]) -> Floats:
    """Frames float32 [n, 4] of records: x, y and scale in units of the longer side, direction in radians."""
    packed = np.ascontiguousarray(records[:, :_FRAME_BYTES]).view("<u4").ravel()
    frames = np.empty((len(records), 4), np.float32)
    frames[:, 0] = (packed & 1023) / _PLACES
    frames[:, 1] = (packed >> 10 & 1023) / _PLACES
    frames[:, 2] = _SMALLEST_SCALE * 2 ** ((packed >> 20 & _STEPS) * (_OCTAVES / _STEPS))
    frames[:, 3] = (packed >> 26) * (2 * np.pi / (_STEPS + 1))
    return frames


@cache
def shipped_codec() -> Codec:
    """The codec that ships with the package."""
    return read_codec(Path(__file__).parent / "weights" / "codec.safetensors")


def read_codec(file: Path) -> Codec:
    from safetensors.numpy import load_file

    tensors = load_file(file)
    return Codec(*(tensors[name].astype(np.float32) for name in ("mean", "projection", "parts", "lists")))


def save_codec(file: Path, codec: Codec) -> None:
    """Write a codec; the centres of the lists in half precision, for which they need not be exact."""
    from safetensors.numpy import save_file

    tensors = {"mean": codec.mean, "projection": codec.projection, "parts": codec.parts}
    save_file({**tensors, "lists": codec.lists.astype(np.float16)}, file)


def train_codec(
    mean: Floats, projection: Floats, descriptors: NDArray[np.floating], *, parts: int, lists: int, seed: int
) -> Codec:
    """The codec of a projection, its quantiser and its lists trained on RootSIFT [n, 128] of references.

    The same for the same input and number of BLAS threads. Needs at least 256 and `lists` descriptors.
    """
    import faiss

    dimension = projection.shape[1]
    untrained = np.empty((0, dimension), np.float32)
    vectors = Codec(mean, projection, untrained, untrained).project(descriptors.astype(np.float32))
    quantiser = faiss.ProductQuantizer(dimension, parts, 8)
    quantiser.cp.seed, quantiser.cp.min_points_per_centroid = seed, 1
    centres = faiss.Kmeans(dimension, lists, niter=12, seed=seed, max_points_per_centroid=80, min_points_per_centroid=1)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # sums come out differently with another number of threads
    try:
        centres.train(vectors)
        stored = np.asarray(centres.centroids, np.float16).astype(np.float32)  # as save_codec keeps them
        quantiser.train(vectors - stored[_nearest(vectors, _table(stored))])
    finally:
        faiss.omp_set_num_threads(threads)
    values = faiss.vector_to_array(quantiser.centroids).reshape(parts, -1, dimension // parts)
    return Codec(mean, projection, values, stored)
