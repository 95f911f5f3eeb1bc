"""The trained part of a FAISS index: trained once on a sample of all images and shared by the shards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from copydet.errors import CopydetError, UsageError
from copydet.records import StoredVectors, Vectors
from copydet.shards.chunks import Chunk
from copydet.shards.codes import write_exact
from copydet.shards.recipe import Recipe
from copydet.store import atomic
from copydet.store.hashing import hash_bytes
from copydet.store.snapshots import FileEntry, check_file

SEED = 20_240_607
_BLOCK = 8192


def check_factory(recipe: Recipe, dimension: int) -> None:
    """Raise UsageError when FAISS does not know the factory string, or the recipe lacks the training that it needs."""
    factory = recipe.codes(dimension, recipe.shard_images, recipe.train_images)
    try:
        index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UsageError(f"recipe {recipe.name}: FAISS does not make {factory!r}: {_reason(error)}") from error
    if not index.is_trained and not recipe.train_images:
        raise UsageError(f"recipe {recipe.name}: {factory} needs training; set train_images and train_images_min")


def sample_vectors(chunks: Sequence[Chunk], dimension: int, most: int) -> Vectors:
    """A uniform sample without repeats of the staged descriptors, float32 [min(most, described), dimension].

    The same for the same chunks (fixed seed), in source order; memory is that of the sample.
    """
    rng = np.random.default_rng(SEED)
    counts = np.array([chunk.described for chunk in chunks], dtype=np.int64)
    wanted = rng.multivariate_hypergeometric(counts, min(most, int(counts.sum())), method="marginals")
    sample = np.empty((int(wanted.sum()), dimension), np.float32)
    filled = 0
    for chunk, count in zip(chunks, wanted, strict=True):
        rows = np.sort(rng.choice(chunk.described, int(count), replace=False))
        sample[filled : filled + len(rows)] = chunk.vectors(dimension)[rows]
        filled += len(rows)
    return sample


def train_quantiser(factory: str, sample: Vectors) -> NDArray[np.uint8]:
    """Train the FAISS index `factory` with inner product on `sample`, float32 [n, dimension]; returns it, empty,
    serialised.

    The same bytes for the same sample. Raises CopydetError with FAISS's reason when the sample is too small for it.
    """
    try:
        index = faiss.index_factory(sample.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            _shorten_training(index)
            with _one_thread():
                index.train(sample)
    except RuntimeError as error:
        raise CopydetError(f"cannot train {factory} on {len(sample):,} images: {_reason(error)}") from error
    return np.asarray(faiss.serialize_index(index))


def read_quantiser(index: Path, name: str, entry: FileEntry) -> NDArray[np.uint8]:
    """The serialised quantiser in file `name` of an index. Raises CopydetError when it is missing or damaged."""
    data = check_file(index, name, entry).read_bytes()
    if hash_bytes(data) != entry.xxh3:
        raise CopydetError(f"{index / name} is damaged: its hash differs from the snapshot's")
    return np.frombuffer(data, np.uint8)


def recover_quantiser(codes: Path) -> bytes:
    """The serialised quantiser that a shard's codes were begun from: FAISS keeps it in every index, to the byte."""
    index = faiss.read_index(str(codes))
    index.reset()
    return bytes(faiss.serialize_index(index).tobytes())


def decode_exact(codes: Path) -> StoredVectors:
    """The float16 descriptors [n, dimension] that exact codes (Flat) hold as float32."""
    index = faiss.read_index(str(codes), faiss.IO_FLAG_MMAP_IFC)
    vectors = np.concatenate([np.empty((0, index.d), np.float16), *_halves(index)])
    return np.asarray(vectors, np.float16)


def _halves(index: Any) -> Iterator[StoredVectors]:
    for start in range(0, index.ntotal, _BLOCK):
        yield index.reconstruct_n(start, min(_BLOCK, index.ntotal - start)).astype(np.float16)


def write_codes(path: Path, trained: NDArray[np.uint8] | None, vectors: StoredVectors) -> None:
    """Write the FAISS index of `vectors`, float16 [n, dimension], to `path`: from the quantiser, or exact without one.

    Vectors are read in blocks; memory is that of the codes, and nothing worth naming for exact ones.
    """
    if trained is None:
        write_exact(path, _blocks(vectors), *vectors.shape)
    else:
        faiss.write_index(make_codes(trained, vectors), str(path))


def make_codes(trained: NDArray[np.uint8] | None, vectors: StoredVectors) -> Any:
    """The FAISS index of `vectors`, float16 [n, dimension], in memory: from the quantiser, or exact without one."""
    index = faiss.IndexFlatIP(vectors.shape[1]) if trained is None else faiss.deserialize_index(trained)
    for block in _blocks(vectors):
        index.add(block)
    return index


def _blocks(vectors: StoredVectors) -> Iterator[Vectors]:
    return (vectors[start : start + _BLOCK].astype(np.float32) for start in range(0, len(vectors), _BLOCK))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in k-means come out differently with another number of threads, and so would the index."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _reason(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1]


def _shorten_training(index: Any) -> None:
    """Leave out what FAISS does by default for minutes and exact re-scoring makes needless: many rounds of rotation
    and PQ, and the reordering of PQ codes for polysemous search, which copydet does not use."""
    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexPreTransform):
        chain: Any = inner.chain  # a C++ vector; FAISS's stubs call it a list
        for place in range(chain.size()):
            transform = faiss.downcast_VectorTransform(chain.at(place))
            if isinstance(transform, faiss.OPQMatrix):
                transform.niter, transform.niter_pq_0, transform.max_train_points = 6, 8, 16_384
        inner = faiss.downcast_index(inner.index)
    if isinstance(inner, faiss.IndexIVFPQ | faiss.IndexPQ):
        codes: Any = inner
        codes.do_polysemous_training = False
        codes.pq.cp.niter, codes.pq.cp.max_points_per_centroid = 12, 128


def keep_quantiser(index: Path, trained: NDArray[np.uint8]) -> tuple[str, int, str]:
    """Write a trained quantiser into an index: its file's name, its bytes, and the hash of its content."""
    data = trained.tobytes()
    content = hash_bytes(data)
    name = f"quantisers/{content}.faiss"
    atomic.make_folder(index / "quantisers")
    atomic.write_bytes(index / name, data)
    return name, len(data), content
