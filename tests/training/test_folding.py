"""Batch norm folded into convolutions changes neither what a network says nor how it learns."""

import pytest
import torch
from torch import nn

from copydet.descriptors.network import TRUNKS, CopyNetwork, NetworkSpec, build_network
from copydet.training.folding import FoldedNetwork


def _network(trunk: str) -> CopyNetwork:
    torch.manual_seed(3)
    network = build_network(NetworkSpec(trunk, 16))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network


@pytest.mark.parametrize("trunk", TRUNKS)
def test_folding_changes_neither_the_features_nor_the_gradients(trunk: str) -> None:
    network = _network(trunk).double()
    folded = FoldedNetwork(network)
    x = torch.randn(2, 3, 32, 32, dtype=torch.double)
    names = [name for name, _ in network.named_parameters() if not name.startswith("projection.")]
    parameters = [dict(network.named_parameters())[name] for name in names]
    features, middle = network.pooled(x)
    expected = torch.autograd.grad(features.square().sum() + middle.sum(), parameters)
    again, middle_again = folded(x)
    found = torch.autograd.grad(again.square().sum() + middle_again.sum(), parameters)
    torch.testing.assert_close(again, features)
    torch.testing.assert_close(middle_again, middle)
    for name, one, other in zip(names, expected, found, strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_every_batch_norm_of_mobilenet_is_folded_and_its_parameters_stay_the_networks() -> None:
    network = _network("mobilenet_v2")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = FoldedNetwork(network)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not [p for p in folded.parameters() if p.requires_grad]
    folded(torch.randn(1, 3, 32, 32))
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_frozen_blocks_get_no_gradient_and_the_rest_does() -> None:
    network = _network("mobilenet_v2")
    network.stride_16[:4].requires_grad_(False)
    FoldedNetwork(network)(torch.randn(1, 3, 32, 32))[0].sum().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None and not name.startswith("projection.")}
    assert without == {
        name for name, _ in network.named_parameters() if name.startswith(tuple(f"stride_16.{k}." for k in range(4)))
    }
