"""What a batch of views costs: SSCD's objective, and which views and images are non-matches of each other."""

import torch
from torch import Tensor
from torch.nn import functional as F

from copydet.training import losses
from copydet.training.augment import Views
from copydet.training.config import TrainConfig


def view_losses(
    config: TrainConfig, z: Tensor, index: Tensor, hard: Views, groups: Tensor, bank: Tensor
) -> dict[str, Tensor]:
    """InfoNCE both ways between each hard view and its light view, mixed positives, and the entropy term.

    z: float [3 b, d], light views first, then two hard views an image. Negatives are the batch and the bank without
    whatever shares content with the row: the image itself, its near-identical group, the other pictures visible in a
    hard view.
    """
    b = len(index)
    image = index.repeat(3)
    held = torch.cat(
        (image[:, None], F.pad(hard.others, (0, 0, b, 0), value=-1)), dim=1
    )  # [3b, 5] what each view shows
    group = torch.where(held >= 0, groups[held.clamp(min=0)], torch.full_like(held, -1))
    in_batch, in_bank = z @ z.T, z @ bank.T
    clash_batch, clash_bank = _clashes(group, groups)
    t = config.temperature
    negatives = torch.logaddexp(losses.log_sum(in_batch, clash_batch, t), losses.log_sum(in_bank, clash_bank, t))
    positive = torch.cat((in_batch[b:, :b].diagonal(), in_batch[2 * b :, :b].diagonal()))
    query_loss = losses.contrastive(positive, negatives[b:], t).mean()
    light_loss = losses.contrastive(positive, negatives[:b].repeat(2), t).mean()
    parts = {"contrastive": 0.5 * (query_loss + light_loss)}
    rows = (hard.shared >= 0).nonzero().squeeze(1)
    if rows.numel():
        to_shared = (z[rows + b] * bank[hard.shared[rows]]).sum(1)
        parts["mixed"] = losses.contrastive(to_shared, negatives[rows + b], t).sum() / (2 * b)
    nearest = torch.maximum(_nearest(in_batch, clash_batch), _nearest(in_bank, clash_bank))
    parts["entropy"] = config.entropy_weight * losses.entropy(nearest)
    parts["positive_similarity"], parts["nearest_similarity"] = positive.mean(), nearest.mean()
    return parts


def _clashes(group: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Which views share content with which views, bool [n, n], and with which images of the bank, bool [n, count].

    group: int64 [n, k], the near-identical groups that a view shows, -1 for none. groups: int64 [count].
    """
    count = len(groups)
    shown = torch.zeros(len(group), count + 1, dtype=torch.bool, device=group.device)  # one more column for -1
    shown.scatter_(1, torch.where(group >= 0, group, torch.full_like(group, count)), True)
    shown[:, count] = False
    views = shown[:, torch.where(group >= 0, group, torch.full_like(group, count)).flatten()]
    return views.view(len(group), *group.shape).any(dim=2), shown[:, groups]


def _nearest(similarity: Tensor, clash: Tensor) -> Tensor:
    return similarity.masked_fill(clash, -1.0).max(dim=1).values
