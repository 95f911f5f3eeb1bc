"""The projection that is solved from views tells copies apart better than a random one."""

from pathlib import Path

import pytest
import torch
from skimage import data as photos
from torch import nn

import copydet
from copydet.descriptors.network import CopyNetwork
from copydet.training.augment import Augmenter
from copydet.training.glyphs import draw_glyphs
from copydet.training.pixels import normalise
from copydet.training.projection import solve_projection
from copydet.training.trainer import load_finished
from copydet.training.warp import make_sources


@pytest.fixture(scope="module")
def augmenter() -> Augmenter:
    """Of 80 different tiles of real photos."""
    tiles = [
        torch.from_numpy(photo[y : y + 64, x : x + 64].copy()).permute(2, 0, 1)
        for photo in (photos.astronaut(), photos.coffee(), photos.chelsea(), photos.rocket())
        for y in range(0, photo.shape[0] - 64, 64)
        for x in range(0, photo.shape[1] - 64, 64)
    ]
    pixels = torch.stack(tiles[:80])
    return Augmenter(make_sources(pixels, torch.ones(len(pixels))), draw_glyphs(8, 9), 48)


@pytest.fixture
def network() -> CopyNetwork:
    """The shipped trunk with a random projection to 16 numbers."""
    torch.manual_seed(5)
    network = load_finished(Path(copydet.__file__).parent / "descriptors" / "weights" / "small")
    network.projection = nn.Linear(network.projection.in_features, 16)
    return network


@torch.no_grad()
def _found(network: CopyNetwork, augmenter: Augmenter) -> float:
    """Share of 240 edited views whose own picture comes first."""
    torch.manual_seed(77)
    count = augmenter.sources.count
    index = torch.arange(count).repeat(3)
    light = network(normalise(augmenter.light(torch.arange(count)).float()))
    hard = network(normalise(augmenter.hard(index, 0.7).pixels.float()))
    return float(((hard @ light.T).argmax(1) == index).float().mean())


def test_the_projection_finds_more_copies_than_a_random_one(network: CopyNetwork, augmenter: Augmenter) -> None:
    before = _found(network, augmenter)
    torch.manual_seed(1)
    solve_projection(network, augmenter)
    assert _found(network, augmenter) > before + 0.05


def test_the_projection_is_centred_and_its_directions_are_uncorrelated(
    network: CopyNetwork, augmenter: Augmenter
) -> None:
    torch.manual_seed(1)
    solve_projection(network, augmenter)
    torch.manual_seed(2)  # light views are worn at random: other ones than it was made from
    with torch.no_grad():
        pooled, _ = network.pooled(normalise(augmenter.light(torch.arange(augmenter.sources.count)).float()))
        vectors = network.projection(pooled).double()
    deviation = vectors.std(0)
    assert float((vectors.mean(0).abs() / deviation).max()) < 0.2
    assert float((torch.corrcoef(vectors.T) - torch.eye(16, dtype=torch.double)).abs().max()) < 0.3
