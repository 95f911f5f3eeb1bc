"""Objectives of descriptor training, each a plain function of embeddings; rows of embeddings have length 1."""

import torch
from torch import Tensor
from torch.nn import functional as F


def log_sum(similarities: Tensor, left_out: Tensor, temperature: float) -> Tensor:
    """float [n, m], bool [n, m] -> float [n]: log of the sum of e^(s/t) over a row without what is left out; -inf where
    nothing is left.
    """
    return torch.logsumexp((similarities / temperature).masked_fill(left_out, float("-inf")), dim=1)


def contrastive(positive: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE of one positive against negatives only, as SSCD trains it (section 3.2): float [n].

    positive: float [n], similarity to the positive. negatives: float [n], `log_sum` over what shares no content with
    the row (other positives are not in the denominator). -log(e^(p/t) / (e^(p/t) + sum e^(s/t))).
    """
    own = positive / temperature
    return torch.logaddexp(own, negatives) - own


def entropy(nearest: Tensor) -> Tensor:
    """Differential-entropy regulariser (SSCD, equation 4; Kozachenko-Leonenko): minus the mean log distance to the
    nearest non-match.

    nearest: float [n], similarity to the nearest non-matching embedding. The distance of unit vectors is sqrt(2 - 2 s).
    """
    return -0.5 * torch.log((2 - 2 * nearest).clamp(min=1e-6)).mean()


def relational_distillation(
    student: Tensor, teacher: Tensor, student_temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross-entropy between the teacher's and the student's similarity distributions over the same queue (SEED,
    equation 4; RDCD).

    student, teacher: float [n, m] similarities to m queue entries, each in its own space.
    """
    target = F.softmax(teacher / teacher_temperature, dim=1)
    return -(target * F.log_softmax(student / student_temperature, dim=1)).sum(1).mean()


def norm_ratio(whole: Tensor, part: Tensor) -> Tensor:
    """Asymmetric-similarity term (ASL, section 3.3): exp(1 - |whole| / |part|), so that the view holding more has the
    longer vector.

    whole, part: float [n, d] before normalisation, the part a copy of the whole.
    """
    return torch.exp(1 - whole.norm(dim=1) / part.norm(dim=1).clamp(min=1e-6)).mean()


def patch_contrast(
    query: Tensor, reference: Tensor, traced: Tensor, temperature: float = 1 / 16, sharpness: float = 3.0
) -> Tensor:
    """CopyNCE on a coarse map (CopyNCE, equation 5): each query patch should find the reference patches it was taken
    from.

    query, reference: float [n, c, k, k]; traced: float32 [n, k * k, 2], normalised source coordinates of each query
    cell, outside [-1, 1] where it shows nothing. The target weighs the four nearest reference cells by bilinear
    overlap to the power `sharpness`. Returns the mean over visible query cells, 0 if there are none.
    """
    k = query.shape[-1]
    q = F.normalize(query.flatten(2), dim=1).transpose(1, 2)
    r = F.normalize(reference.flatten(2), dim=1)
    log_p = F.log_softmax((q @ r).float() / temperature, dim=2)
    axis = (torch.arange(k, device=query.device) + 0.5) * (2.0 / k) - 1.0
    near = (1 - (traced[..., None] - axis).abs() * (k / 2)).clamp(min=0) ** sharpness  # [n, k*k, 2, k]
    target = (near[:, :, 1, :, None] * near[:, :, 0, None, :]).flatten(2)
    weight = target.sum(2)
    visible = weight > 0
    loss = -(target * log_p).sum(2) / weight.clamp(min=1e-6)
    return (loss * visible).sum() / visible.sum().clamp(min=1)
