"""What whitens the gists of pictures: principal components of the energies of photos, each scaled to variance 1."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from copydet.errors import UsageError
from copydet.images.loader import load
from copydet.images.resize import Resize
from copydet.images.sources import list_images
from copydet.local_features.describe import LOCAL_EDGE
from copydet.local_features.gist import GIST_BYTES, energies
from copydet.local_features.pyramid import Floats
from copydet.process import usable_cpus
from copydet.progress import Progress, Silent

_BATCH = 64
_NUMBERS = energies(np.zeros((8, 8, 3), np.uint8)).size


def train_gist(specs: Sequence[str], progress: Progress | None = None) -> tuple[Floats, Floats]:
    """Mean float32 [256] and projection float32 [256, GIST_BYTES], from all images of the sources; see gist.whiten.

    The memory needed does not grow with the images. Raises UsageError where too few of them can be decoded.
    """
    progress = progress or Silent()
    count, sums, products = 0, np.zeros(_NUMBERS), np.zeros((_NUMBERS, _NUMBERS))
    for batch in load(list_images(specs), Resize("long_edge", LOCAL_EDGE), batch_size=_BATCH, workers=usable_cpus()):
        cells = np.array([energies(pixels).ravel() for pixels in batch.pixels], np.float64).reshape(-1, _NUMBERS)
        count, sums, products = count + len(cells), sums + cells.sum(axis=0), products + cells.T @ cells
        progress.advance(len(batch.rows))
    if count < 2 * _NUMBERS:
        raise UsageError(
            f"{', '.join(specs)}: {count:,} images could be decoded; training needs at least {2 * _NUMBERS:,}"
        )
    mean = sums / count
    return mean.astype(np.float32), principal(products / count - np.outer(mean, mean), GIST_BYTES)


def principal(covariance: NDArray[np.float64], dimension: int) -> Floats:
    """The `dimension` directions of most variance, largest first, each divided by its deviation: float32 [n, d]."""
    variance, directions = np.linalg.eigh(covariance)
    kept: Floats = (directions / np.sqrt(np.maximum(variance, 1e-12)))[:, ::-1][:, :dimension].astype(np.float32)
    return np.ascontiguousarray(kept)
