"""A linear map that brings embeddings of translated images to those of their origins.

Wang et al. 2025 (arXiv 2501.02376, section 4): one matrix W, trained so that W x of an origin and of its translations
are classified as one, by the margin-cosine loss (CosFace, Wang et al. 2018): scale s = 64, margin m = .35.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from copydet.errors import UsageError
from copydet.records import Vectors


@dataclass(frozen=True)
class LinearMapConfig:
    """The paper's, but for `steps` (50,000 there) and `batch` (512): those of a set that fits a laptop."""

    out: int = 512
    steps: int = 2000
    batch: int = 256
    rate: float = 3.5e-4
    margin: float = 0.35
    scale: float = 64.0
    average: float = 0.999
    seed: int = 0


def train_linear_map(
    vectors: Vectors, origins: NDArray[np.int64], config: LinearMapConfig = LinearMapConfig()
) -> NDArray[np.float32]:
    """W, float32 [out, numbers], from embeddings float32 [n, numbers] and the number of each one's origin, int64 [n].

    The same for the same seed. Raises UsageError where fewer than two origins have two embeddings each.
    """
    names, classes, counts = np.unique(origins, return_inverse=True, return_counts=True)
    if np.sum(counts > 1) < 2:
        raise UsageError(
            "a linear map needs at least two origins with an origin and a translation, or two of these, each"
        )
    generator = torch.Generator().manual_seed(config.seed)
    inputs, labels = torch.from_numpy(np.asarray(vectors, np.float32)), torch.from_numpy(classes.astype(np.int64))
    scale = inputs.norm(dim=1).mean().clamp(min=1e-12)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        linear = nn.Linear(inputs.shape[1], config.out, bias=False)
        centres = nn.Parameter(torch.randn(len(names), config.out))
    average = copy.deepcopy(linear)
    optimiser = torch.optim.Adam([*linear.parameters(), centres], lr=config.rate)
    for step in range(config.steps):
        drawn = torch.randint(len(inputs), (config.batch,), generator=generator)
        value = _loss(linear(inputs[drawn] / scale), centres, labels[drawn], config)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        with torch.no_grad():
            average.weight.lerp_(linear.weight, 1 - min(config.average, step / (step + 10)))
    found: NDArray[np.float32] = average.weight.detach().numpy()
    return found


def _loss(mapped: Tensor, centres: Tensor, labels: Tensor, config: LinearMapConfig) -> Tensor:
    cosine = F.normalize(mapped, dim=1) @ F.normalize(centres, dim=1).T
    margin = F.one_hot(labels, len(centres)).to(cosine.dtype) * config.margin
    return F.cross_entropy(config.scale * (cosine - margin), labels)


def save_linear_map(path: Path, linear_map: NDArray[np.float32]) -> None:
    save_file({"linear_map": np.ascontiguousarray(linear_map, np.float32)}, path)


def load_linear_map(path: Path) -> NDArray[np.float32]:
    """float32 [out, numbers]. Raises UsageError for another file."""
    try:
        found: NDArray[np.float32] = load_file(path)["linear_map"]
    except Exception as error:  # whatever safetensors says of a damaged file
        raise UsageError(f"{path} holds no linear map: {error}") from error
    return found
