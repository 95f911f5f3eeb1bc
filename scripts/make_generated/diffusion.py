"""A small diffusion model on patches: a transformer that predicts the clean picture, under a cosine schedule.

A picture x and noise e make z = alpha x + sigma e, with alpha = cos(pi t / 2) and sigma = sin(pi t / 2), t in [0, 1];
it sees z, t and the prompt's number and predicts x, which large patches need (Li and He 2025: noise does not fit
through them). Errors count as errors of v = (alpha z - x) / sigma (Salimans and Ho 2022). Blocks are those of DiT
(Peebles and Xie 2023): normalisation shifted and scaled by the condition, which starts at nothing.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_SIGMA = 0.2  # below which errors weigh no more
PATCH = 8  # pixels: the sequence is short, which is what makes this quick on a processor


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // 64
        self.qkv, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.condition = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.condition.weight)
        nn.init.zeros_(self.condition.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate, shift_2, scale_2, gate_2 = self.condition(condition)[:, None].chunk(6, dim=-1)
        normal = F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        query, key, value = self.qkv(normal).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + gate * self.joined(seen)
        normal = F.layer_norm(x, x.shape[-1:]) * (1 + scale_2) + shift_2
        return x + gate_2 * self.down(F.gelu(self.up(normal)))


class Denoiser(nn.Module):
    """Noised pictures float [n, 3, size, size], t [n], prompts int64 [n] -> clean pictures of that shape."""

    def __init__(self, size: int, prompts: int, width: int, depth: int) -> None:
        super().__init__()
        self.side = size // PATCH
        values, tokens = 3 * PATCH * PATCH, self.side**2
        self.patches, self.place = nn.Linear(values, width), nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.prompt = nn.Embedding(prompts, width)
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        # A prompt tells every place something of its own, as words do through cross-attention in larger models.
        self.layout = nn.Linear(width, tokens * 32)
        self.layout_up = nn.Linear(32, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.last, self.values = nn.Linear(width, 2 * width), nn.Linear(width, values)

    def forward(self, x: Tensor, t: Tensor, prompts: Tensor) -> Tensor:
        frequencies = torch.exp(torch.linspace(0, math.log(1000), 32, device=x.device))
        angles = t[:, None] * frequencies
        named = self.prompt(prompts)
        condition = F.silu(self.time(torch.cat([angles.sin(), angles.cos()], dim=1)) + named)
        tokens = self.patches(F.pixel_unshuffle(x, PATCH).flatten(2).transpose(1, 2)) + self.place
        tokens = tokens + self.layout_up(self.layout(named).unflatten(1, (-1, 32)))
        for block in self.blocks:
            tokens = block(tokens, condition)
        shift, scale = self.last(condition)[:, None].chunk(2, dim=-1)
        values = self.values(F.layer_norm(tokens, tokens.shape[-1:]) * (1 + scale) + shift)
        return F.pixel_shuffle(values.transpose(1, 2).unflatten(2, (self.side, self.side)), PATCH)


def schedule(t: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha, sigma), each [n, 1, 1, 1]."""
    angle = (t * (math.pi / 2))[:, None, None, None]
    return angle.cos(), angle.sin()


def loss(model: Denoiser, pictures: Tensor, prompts: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared error of v at a random time for each picture."""
    t = torch.rand(len(pictures), generator=generator)
    alpha, sigma = schedule(t)
    noised = alpha * pictures + sigma * torch.randn(pictures.shape, generator=generator)
    error = (model(noised, t, prompts) - pictures) / sigma.clamp(min=LEAST_SIGMA)
    return error.square().mean()


@torch.no_grad()
def denoise(model: Denoiser, x: Tensor, prompts: Tensor, start: float, steps: int) -> Tensor:
    """From time `start` to 0 by DDIM (Song et al. 2021), without noise on the way; the picture, in [-1, 1]."""
    times = torch.linspace(start, 0, max(2, round(steps * start)) + 1)
    for now, then in itertools.pairwise(times):
        t = now.expand(len(x))
        alpha, sigma = schedule(t)
        picture = model(x, t, prompts).clamp(-1, 1)
        noise = (x - alpha * picture) / sigma.clamp(min=1e-4)
        alpha, sigma = schedule(then.expand(len(x)))
        x = alpha * picture + sigma * noise
    return x.clamp(-1, 1)


def sample(model: Denoiser, size: int, prompts: Sequence[int], steps: int, seed: int) -> Tensor:
    """New pictures for these prompts, [n, 3, size, size]."""
    noise = torch.randn(len(prompts), 3, size, size, generator=torch.Generator().manual_seed(seed))
    return denoise(model, noise, torch.tensor(prompts), 1.0, steps)


def translate(
    model: Denoiser, pictures: Tensor, prompts: Sequence[int], strength: float, steps: int, seed: int
) -> Tensor:
    """Pictures noised to time `strength` and denoised again (SDEdit, Meng et al. 2022)."""
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(seed))
    alpha, sigma = schedule(torch.full((len(pictures),), strength))
    return denoise(model, alpha * pictures + sigma * noise, torch.tensor(prompts), strength, steps)
