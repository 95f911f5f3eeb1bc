"""The objective of a batch against its formula, written out with loops."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from copydet.training.augment import Views
from copydet.training.config import TrainConfig
from copydet.training.objective import view_losses

BATCH, COUNT, TEMPERATURE = 4, 12, 0.1
CONFIG = TrainConfig(images=(), output="", temperature=TEMPERATURE, entropy_weight=3.0)
INDEX = torch.tensor([2, 5, 7, 9])
GROUPS = torch.tensor([0, 1, 2, 1, 4, 5, 2, 7, 8, 9, 9, 11])  # 3 is as 1, 6 as 2, 10 as 9
OTHERS = torch.tensor([[-1, -1, -1, -1], [0, -1, -1, 3], [-1, -1, -1, 9], [8, 4, 1, -1]]).repeat(2, 1)
SHARED = torch.tensor([-1, 0, -1, -1, -1, 3, 9, -1])


@pytest.fixture
def z() -> Tensor:
    return F.normalize(torch.randn(3 * BATCH, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


@pytest.fixture
def bank() -> Tensor:
    return F.normalize(torch.randn(COUNT, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64))


def hard() -> Views:
    nothing = torch.empty(0)
    return Views(nothing, OTHERS, SHARED, nothing)


def shown(row: int) -> set[int]:
    """The groups that a view shows; light views, the first BATCH, show one image."""
    images = [int(INDEX[row % BATCH])]
    if row >= BATCH:
        images += [image for image in OTHERS[row - BATCH].tolist() if image >= 0]
    return {int(GROUPS[image]) for image in images}


def non_matches(z: Tensor, bank: Tensor, row: int) -> list[float]:
    """Similarities of a view to the views and the images that share nothing with it."""
    views = [float(z[row] @ z[other]) for other in range(3 * BATCH) if not shown(row) & shown(other)]
    return views + [float(z[row] @ bank[image]) for image in range(COUNT) if int(GROUPS[image]) not in shown(row)]


def cost(positive: float, negatives: list[float]) -> float:
    own = math.exp(positive / TEMPERATURE)
    return -math.log(own / (own + sum(math.exp(s / TEMPERATURE) for s in negatives)))


def test_each_hard_view_and_its_light_view_find_each_other_among_what_shares_nothing(z: Tensor, bank: Tensor) -> None:
    found = view_losses(CONFIG, z, INDEX, hard(), GROUPS, bank)
    pairs = [(row, row % BATCH) for row in range(BATCH, 3 * BATCH)]
    both = [cost(float(z[a] @ z[b]), non_matches(z, bank, row)) for a, b in pairs for row in (a, b)]
    assert float(found["contrastive"]) == pytest.approx(sum(both) / len(both), rel=1e-9)
    assert float(found["positive_similarity"]) == pytest.approx(sum(float(z[a] @ z[b]) for a, b in pairs) / len(pairs))


def test_a_picture_that_fills_as_much_of_a_view_is_a_positive_too(z: Tensor, bank: Tensor) -> None:
    found = view_losses(CONFIG, z, INDEX, hard(), GROUPS, bank)
    rows = [(row + BATCH, int(SHARED[row])) for row in range(2 * BATCH) if SHARED[row] >= 0]
    expected = sum(cost(float(z[row] @ bank[image]), non_matches(z, bank, row)) for row, image in rows)
    assert float(found["mixed"]) == pytest.approx(expected / (2 * BATCH), rel=1e-9)


def test_the_entropy_term_is_of_the_nearest_non_match_in_batch_or_bank(z: Tensor, bank: Tensor) -> None:
    found = view_losses(CONFIG, z, INDEX, hard(), GROUPS, bank)
    nearest = [max(non_matches(z, bank, row)) for row in range(3 * BATCH)]
    expected = -sum(math.log(math.sqrt(2 - 2 * s)) for s in nearest) / len(nearest)
    assert float(found["entropy"]) == pytest.approx(3.0 * expected, rel=1e-9)


def test_a_batch_whose_views_all_share_content_has_a_finite_gradient(z: Tensor, bank: Tensor) -> None:
    z = z.requires_grad_()
    one_group = torch.zeros_like(GROUPS)
    parts = view_losses(CONFIG, z, INDEX, hard(), one_group, bank)
    torch.stack([value for name, value in parts.items() if not name.endswith("_similarity")]).sum().backward()
    assert float(parts["contrastive"].detach()) == 0.0
    assert z.grad is not None
    assert bool(torch.isfinite(z.grad).all())
