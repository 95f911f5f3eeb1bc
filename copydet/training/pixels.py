"""How pixels reach a network."""

from torch import Tensor, channels_last

from copydet.descriptors.export import IMAGENET_MEAN, IMAGENET_STD


def normalise(x: Tensor) -> Tensor:
    """float [n, 3, h, w] in [0, 1] -> what the trunks expect, which were trained on ImageNet."""
    mean, std = x.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1), x.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)
    return ((x - mean) / std).contiguous(memory_format=channels_last)
