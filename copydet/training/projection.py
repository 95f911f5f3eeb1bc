"""The projection before training and after it, solved in closed form from views of training images."""

import torch
from torch import Tensor

from copydet.descriptors.network import CopyNetwork
from copydet.training.augment import Augmenter
from copydet.training.pixels import normalise

_SHRINKAGE = 0.1  # of the scatter within copies towards a multiple of the identity
_STRENGTH = 0.8  # of the hard views: the hardest say nothing of what copies share


@torch.no_grad()
def solve_projection(network: CopyNetwork, augmenter: Augmenter, images: int = 8192, block: int = 64) -> None:
    """Set the projection to a linear discriminant analysis of pooled features.

    The directions taken are those in which images differ most compared with how much an image's hard views differ from
    its light view; each is divided by the fourth root of that ratio (half of a whitening). Training starts from it, and
    as the one that training leaves is made for the trunk of many steps, ends with it (docs/model-card.md has figures).
    """
    count = min(images, augmenter.sources.count)
    device = augmenter.sources.aspects.device
    light, apart = [], []
    for index in torch.randperm(augmenter.sources.count)[:count].to(device).split(block):
        whole = _pooled(network, augmenter.light(index))
        light.append(whole)
        apart.append(_pooled(network, augmenter.hard(index, _STRENGTH).pixels) - whole)
    features, differences = torch.cat(light).double(), torch.cat(apart).double()
    mean = features.mean(0)
    within = differences.T @ differences / count
    within += torch.eye(len(within), device=device) * (_SHRINKAGE * within.diagonal().mean() + 1e-12)
    values, axes = torch.linalg.eigh(within)
    sphered = axes / values.sqrt()
    between, turned = torch.linalg.eigh(sphered.T @ torch.cov((features - mean).T) @ sphered)
    dimension = network.projection.out_features
    between, turned = between.flip(0)[:dimension], turned.flip(1)[:, :dimension]
    weight = (sphered @ turned / between.clamp(min=1e-4 * float(between[0])) ** 0.25).T
    network.projection.weight.copy_(weight)
    network.projection.bias.copy_(-(weight @ mean))


def _pooled(network: CopyNetwork, views: Tensor) -> Tensor:
    return network.pooled(normalise(views.float()))[0]
