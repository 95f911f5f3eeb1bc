"""Networks take over the weights of the files that pretrained trunks and finished networks come in."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from copydet.descriptors.network import CopyNetwork, NetworkSpec, build_network, load_trunk
from copydet.descriptors.torchvision_guard import import_torchvision
from copydet.errors import UsageError


def _whole(seed: int) -> CopyNetwork:
    torch.manual_seed(seed)
    network = build_network(NetworkSpec("mobilenet_v2", 16))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean, std=0.2)
    return network


@torch.no_grad()
def _expansion(network: CopyNetwork, x: torch.Tensor) -> torch.Tensor:
    """What a whole MobileNetV2 has where the shorter one ends: the expansion of its 14th block."""
    return network.rest.get_submodule("14.conv.0")(network.stride_16(x))


def test_the_shorter_mobilenet_takes_its_part_of_a_finished_whole_one(tmp_path: Path) -> None:
    whole = _whole(1)
    save_file({k: v.half() if v.ndim > 1 else v for k, v in whole.state_dict().items()}, tmp_path / "whole.safetensors")
    short = build_network(NetworkSpec("mobilenet_v2_s16", 24))
    projection = short.projection.weight.clone()
    load_trunk(short, "mobilenet_v2_s16", tmp_path / "whole.safetensors")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = short.rest(short.stride_16(x))
    torch.testing.assert_close(found, _expansion(whole, x), rtol=0.02, atol=0.02)
    assert found.shape == (2, 576, 4, 4)
    assert torch.equal(short.projection.weight, projection)


@pytest.mark.parametrize("trunk", ["mobilenet_v2", "mobilenet_v2_s16"])
def test_a_network_takes_the_trunk_of_a_finished_one_of_its_form_that_has_more_dimensions(
    tmp_path: Path, trunk: str
) -> None:
    torch.manual_seed(3)
    finished, network = build_network(NetworkSpec(trunk, 32)), build_network(NetworkSpec(trunk, 16))
    save_file(finished.state_dict(), tmp_path / "finished.safetensors")
    load_trunk(network, trunk, tmp_path / "finished.safetensors")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network.pooled(x)[0], finished.pooled(x)[0])


@pytest.mark.parametrize("trunk", ["mobilenet_v2", "mobilenet_v2_s16"])
def test_both_take_torchvisions_files(tmp_path: Path, trunk: str) -> None:
    torch.manual_seed(2)
    theirs = import_torchvision().models.mobilenet_v2(weights=None).eval()
    save_file({f"features.{k}": v for k, v in theirs.features.state_dict().items()}, tmp_path / "imagenet.safetensors")
    network = build_network(NetworkSpec(trunk, 16))
    load_trunk(network, trunk, tmp_path / "imagenet.safetensors")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        middle = theirs.features[:14](x)
        last = theirs.features[14:](middle) if trunk == "mobilenet_v2" else theirs.features[14].conv[0](middle)
        torch.testing.assert_close(network.stride_16(x), middle)
        torch.testing.assert_close(network.rest(network.stride_16(x)), last)


def test_the_file_of_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    other = build_network(NetworkSpec("resnet50v2_s3", 16))
    save_file(dict(other.state_dict()), tmp_path / "resnet.safetensors")
    save_file({"weight": torch.ones(2), "features.x": torch.ones(2)}, tmp_path / "strange.safetensors")
    for trunk in ("mobilenet_v2", "mobilenet_v2_s16"):
        with pytest.raises(UsageError, match=f"not a {trunk} trunk"):
            load_trunk(build_network(NetworkSpec(trunk, 16)), trunk, tmp_path / "strange.safetensors")
        with pytest.raises(UsageError, match=f"not a {trunk} trunk"):
            load_trunk(build_network(NetworkSpec(trunk, 16)), trunk, tmp_path / "resnet.safetensors")
