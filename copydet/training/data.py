"""Training images, decoded once and kept on the training device at one square size."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from copydet.errors import UsageError
from copydet.process import usable_cpus
from copydet.progress import Progress, Silent


def read_images(specs: Sequence[str], size: int, progress: Progress | None = None) -> tuple[Tensor, Tensor]:
    """Return uint8 [n, 3, size, size] (squeezed to squares) and float32 [n] width / height; images that fail are
    counted and left out.
    """
    from copydet.images.decode import Resize
    from copydet.images.loader import load
    from copydet.images.sources import list_images

    progress = progress or Silent()
    blocks: list[np.ndarray] = []
    aspects: list[float] = []
    failed = 0
    batches = load(list_images(specs), Resize("square", size), batch_size=256, workers=usable_cpus())
    for batch in batches:
        if batch.pixels:
            blocks.append(np.stack(batch.pixels).transpose(0, 3, 1, 2))
        for i in batch.ok:
            row = batch.rows[i]
            aspects.append((row.width or 1) / (row.height or 1))
        failed += len(batch.rows) - len(batch.ok)
        progress.advance(len(batch.rows))
    if len(aspects) < 16:
        raise UsageError(
            f"{', '.join(specs)}: {len(aspects)} usable images; training needs at least 16, and thousands to be good"
        )
    if failed:
        progress.note(f"{failed:,} training images could not be decoded and are left out")
    return torch.from_numpy(np.concatenate(blocks)), torch.tensor(aspects, dtype=torch.float32)


def near_identical_groups(pixels: Tensor, threshold: float = 0.97, block: int = 2048) -> Tensor:
    """int64 [n]: the lowest index of an image with nearly the same pixels (correlation of 16 x 16 luma), itself where
    there is none.

    Training sets hold re-saved copies and neighbouring video frames: taken for non-matches they would teach the wrong
    thing.
    """
    thumbnails = torch.cat(
        [F.adaptive_avg_pool2d(part.float().mean(1, keepdim=True), 16) for part in pixels.split(block)]
    )
    flat = thumbnails.flatten(1)
    flat = F.normalize(flat - flat.mean(1, keepdim=True), dim=1)
    group = torch.arange(len(flat), device=pixels.device)
    for start in range(0, len(flat), block):
        alike = flat[start : start + block] @ flat.T > threshold
        first = alike.float().argmax(1)  # argmax returns the first of equals
        rows = torch.arange(start, min(start + block, len(flat)), device=pixels.device)
        group[rows] = torch.minimum(first, rows)
    return group
