"""Each loss against its formula, written out with loops in float64."""

import math

import pytest
import torch
from torch.nn import functional as F

from copydet.training import losses


def unit(n: int, d: int = 8, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def test_the_contrastive_loss_is_infonce_of_one_positive_against_negatives_only() -> None:
    z, bank = unit(5, seed=1), unit(7, seed=2)
    positive = (z * unit(5, seed=3)).sum(1)
    allowed = torch.rand(5, 7, generator=torch.Generator().manual_seed(4)) < 0.7
    found = losses.contrastive(positive, losses.log_sum(z @ bank.T, ~allowed, 0.05), 0.05)
    for i in range(5):
        p = math.exp(float(positive[i]) / 0.05)
        n = sum(math.exp(float(z[i] @ bank[j]) / 0.05) for j in range(7) if allowed[i, j])
        assert float(found[i]) == pytest.approx(-math.log(p / (p + n)), rel=1e-9)


def test_a_row_without_negatives_costs_nothing() -> None:
    similarity = torch.tensor([[0.9]], requires_grad=True)
    found = losses.contrastive(torch.tensor([0.3]), losses.log_sum(similarity, torch.tensor([[True]]), 0.05), 0.05)
    found.sum().backward()
    assert float(found) == 0.0
    assert float(similarity.grad) == 0.0


def test_entropy_is_minus_the_mean_log_distance_to_the_nearest_non_match() -> None:
    z = unit(6)
    similarity = (z @ z.T).fill_diagonal_(-1)
    nearest = similarity.amax(1)
    expected = -sum(math.log(min(float((z[i] - z[j]).norm()) for j in range(6) if j != i)) for i in range(6)) / 6
    assert float(losses.entropy(nearest)) == pytest.approx(expected, rel=1e-9)


def test_entropy_stays_finite_for_identical_embeddings() -> None:
    assert math.isfinite(float(losses.entropy(torch.ones(3))))


def test_distillation_is_least_when_the_student_repeats_the_teacher() -> None:
    teacher = unit(4) @ unit(9, seed=5).T
    other = unit(4, seed=6) @ unit(9, seed=7).T
    own = losses.relational_distillation(teacher, teacher, 0.1, 0.1)
    p = F.softmax(teacher / 0.1, dim=1)
    assert float(own) == pytest.approx(float(-(p * p.log()).sum(1).mean()), rel=1e-9)
    assert losses.relational_distillation(other, teacher, 0.1, 0.1) > own


def test_norm_ratio_punishes_a_part_that_is_longer_than_its_whole() -> None:
    whole, part = unit(3) * 2.0, unit(3, seed=8) * 4.0
    assert float(losses.norm_ratio(whole, part)) == pytest.approx(math.exp(1 - 2 / 4))
    assert losses.norm_ratio(part, whole) < losses.norm_ratio(whole, part)


def test_patch_contrast_of_an_untouched_view_is_the_cross_entropy_on_the_diagonal() -> None:
    k, generator = 3, torch.Generator().manual_seed(9)
    maps = torch.randn(2, 5, k, k, generator=generator)
    axis = (torch.arange(k) + 0.5) * (2.0 / k) - 1.0
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    traced = torch.stack((x, y), dim=-1).view(1, k * k, 2).expand(2, -1, -1)
    q = F.normalize(maps.flatten(2), dim=1)
    logits = (q.transpose(1, 2) @ q) * 16
    expected = F.cross_entropy(logits.reshape(-1, k * k), torch.arange(k * k).repeat(2))
    assert float(losses.patch_contrast(maps, maps, traced)) == pytest.approx(float(expected), rel=1e-5)


def test_patch_contrast_ignores_cells_that_show_nothing_of_the_source() -> None:
    maps = torch.randn(1, 4, 3, 3)
    assert float(losses.patch_contrast(maps, maps, torch.full((1, 9, 2), 9.0))) == 0.0
