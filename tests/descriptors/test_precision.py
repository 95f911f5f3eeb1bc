"""Why OpenVINO computes in float32 and CUDA in float16: bfloat16 weights break the 1e-3 between runtimes."""

import copy
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.nn.utils.fusion import fuse_conv_bn_eval

from copydet.descriptors.export import IMAGENET_MEAN, IMAGENET_STD
from copydet.descriptors.network import CopyNetwork, NetworkSpec, build_network, load_trunk
from copydet.images.decode import decode
from copydet.images.resize import Resize

SHARED = Path(__file__).parents[3] / "shared/data"


def fold_batch_norm(module: nn.Module) -> None:
    """What a runtime does before it rounds weights: each batch norm becomes part of the convolution before it."""
    for child in module.children():
        fold_batch_norm(child)
    names = list(module._modules)
    for conv, norm in pairwise(names):
        first, second = module._modules[conv], module._modules[norm]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            module._modules[conv], module._modules[norm] = fuse_conv_bn_eval(first, second), nn.Identity()


def cosines(network: CopyNetwork, images: Tensor, precision: torch.dtype) -> Tensor:
    """Of pooled features with rounded weights to those without."""
    rounded = copy.deepcopy(network)
    fold_batch_norm(rounded)
    for weights in rounded.parameters():
        weights.data = weights.data.to(precision).float()
    with torch.inference_mode():
        return cosine_similarity(network.pooled(images)[0], rounded.pooled(images)[0])


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_float16_weights_hold_the_contract_between_runtimes_and_bfloat16_weights_do_not() -> None:
    files = sorted((SHARED / "dev/references").iterdir())[::40][:32]
    pixels = [torch.from_numpy(decode(f.read_bytes(), Resize("square", 160)).pixels).float() / 255 for f in files]
    images = ((torch.stack(pixels) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)).permute(0, 3, 1, 2)
    network = build_network(NetworkSpec("mobilenet_v2", 256))
    load_trunk(network, "mobilenet_v2", SHARED / "init/mobilenet_v2_imagenet.safetensors")
    assert cosines(network, images, torch.float16).min() > 1 - 1e-4
    assert cosines(network, images, torch.bfloat16).min() < 1 - 1e-2
