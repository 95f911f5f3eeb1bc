"""Geometry of training views: per-sample maps from view to source, sampling through them, and compositing of layers.

Coordinates are normalised: a view and a source both span [-1, 1] x [-1, 1] whatever their size and aspect, x to the
right, y down. A placement maps view coordinates to source coordinates, so that one gather makes the view (one
composed homography a view).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Sources:
    """Training images on the training device: uint8 [n, 3, s, s] at falling sizes s, and their width / height
    ratios.
    """

    levels: tuple[Tensor, ...]
    aspects: Tensor  # float32 [n]

    @property
    def count(self) -> int:
        return int(self.aspects.shape[0])


def make_sources(pixels: Tensor, aspects: Tensor, levels: int = 4, block: int = 512) -> Sources:
    """Add halved copies of uint8 [n, 3, s, s] so that small placements are sampled without aliasing (mip-mapping)."""
    pyramid = [pixels]
    for _ in range(levels - 1):
        blocks = [F.avg_pool2d(part.float(), 2).round().to(torch.uint8) for part in pyramid[-1].split(block)]
        pyramid.append(torch.cat(blocks))
    return Sources(tuple(pyramid), aspects)


def uniform(n: int, low: float | Tensor, high: float | Tensor, like: Tensor) -> Tensor:
    """float32 [n] drawn from [low, high) on the device of `like`."""
    return torch.rand(n, device=like.device) * (high - low) + low


def log_uniform(low: Tensor, high: float) -> Tensor:
    """float32 [n] between low and high, every halving as likely as another: small shares come up often enough to be
    learnt.
    """
    floor = low.clamp(max=high).log()
    return torch.exp(floor + torch.rand_like(low) * (torch.full_like(low, high).log() - floor))


def chance(n: int, p: float | Tensor, like: Tensor) -> Tensor:
    """bool [n], true with probability p."""
    return torch.rand(n, device=like.device) < p


def matrices(rows: Sequence[Sequence[Tensor | float]], n: int, like: Tensor) -> Tensor:
    """float32 [n, 3, 3] from a 3 x 3 nest of [n] tensors and numbers."""
    cells = [
        c if isinstance(c, Tensor) else torch.full((n,), float(c), device=like.device) for row in rows for c in row
    ]
    return torch.stack(cells, dim=1).view(n, 3, 3)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    n = x.shape[0]
    return matrices(((x, 0, 0), (0, y, 0), (0, 0, 1)), n, x)


def shifting(x: Tensor, y: Tensor) -> Tensor:
    n = x.shape[0]
    return matrices(((1, 0, x), (0, 1, y), (0, 0, 1)), n, x)


def rotation(angle: Tensor, aspect: Tensor) -> Tensor:
    """Rotation by `angle` radians of a picture whose width / height is `aspect`, in normalised coordinates."""
    c, s = angle.cos(), angle.sin()
    return matrices(((c, -s / aspect, 0), (s * aspect, c, 0), (0, 0, 1)), angle.shape[0], angle)


def quarter_turns(turns: Tensor) -> Tensor:
    """Turns by multiples of 90 degrees of the canvas together with the picture (no corners appear)."""
    angle = turns.float() * (torch.pi / 2)
    return rotation(angle, torch.ones_like(angle)).round()


def base_grid(size: int, device: torch.device) -> Tensor:
    """float32 [size * size, 3]: homogeneous normalised coordinates of the pixel centres, row by row."""
    axis = (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (2.0 / size) - 1.0
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack((x, y, torch.ones_like(x)), dim=-1).view(-1, 3)


def project(placement: Tensor, points: Tensor) -> Tensor:
    """Apply float32 [n, 3, 3] to homogeneous points [m, 3] or [n, m, 3]: float32 [n, m, 2]; points behind the plane
    go far outside.
    """
    mapped = points @ placement.transpose(1, 2)
    depth = mapped[..., 2:]
    return torch.where(depth > 1e-3, mapped[..., :2] / depth.clamp(min=1e-3), torch.full_like(mapped[..., :2], 9.0))


def minification(placement: Tensor, source_size: int, view_size: int) -> Tensor:
    """float32 [n]: source pixels per view pixel near the view's centre of a placement (the larger axis counts half
    less).
    """
    determinant = placement[:, 0, 0] * placement[:, 1, 1] - placement[:, 0, 1] * placement[:, 1, 0]
    return determinant.abs().clamp(min=1e-6).sqrt() * (source_size / view_size)


def sample(sources: Sources, index: Tensor, coordinates: Tensor, shrink: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Look sources up through float32 [n, size * size, 2] coordinates.

    Returns float [n, 3, size, size] in [0, 1] and a mask [n, 1, size, size], 1 where the source was hit.
    """
    n = index.shape[0]
    dtype = torch.float16 if coordinates.is_cuda else torch.float32
    level = shrink.clamp(min=1.0).log2().round().long().clamp(max=len(sources.levels) - 1)
    grid = coordinates.view(n, size, size, 2)
    out = torch.empty(n, 3, size, size, device=grid.device, dtype=dtype)
    for number, pixels in enumerate(sources.levels):
        chosen = (level == number).nonzero().squeeze(1)
        if chosen.numel() == 0:
            continue
        looked_up = pixels[index[chosen]].to(dtype) / 255
        # border padding: the mask decides what is outside, so the edge pixels don't darken.
        out[chosen] = F.grid_sample(looked_up, grid[chosen].to(dtype), padding_mode="border", align_corners=False)
    inside = (grid.abs() <= 1.0).all(dim=-1, keepdim=True).permute(0, 3, 1, 2).to(dtype)
    return out, inside


def bend(points: Tensor, strength: Tensor) -> Tensor:
    """Bend view coordinates by one smooth distortion a sample: elastic, waves, swirl, lens or mirrors; [n, m, 3] ->
    [n, m, 3].
    """
    n, m, _ = points.shape
    x, y = points[..., 0], points[..., 1]
    kind = torch.randint(0, 5, (n, 1), device=points.device)
    s = strength[:, None]
    side = int(m**0.5)
    field = F.interpolate(
        torch.randn(n, 2, 5, 5, device=points.device), size=(side, side), mode="bicubic", align_corners=True
    )
    field = field.view(n, 2, m) * 0.12
    frequency, phase = uniform(n, 3.0, 12.0, s)[:, None], uniform(n, 0.0, 6.28, s)[:, None]
    radius = (x * x + y * y).sqrt()
    angle = 2.0 * (1.0 - radius).clamp(min=0)
    cos, sin = (angle * s).cos(), (angle * s).sin()
    lens = 1.0 + (radius * radius - 0.5) * 0.5 * uniform(n, -1.0, 1.0, s)[:, None]
    choices_x = (
        x + s * field[:, 0],
        x + s * 0.08 * (frequency * y + phase).sin(),
        cos * x - sin * y,
        x * lens,
        x.abs(),
    )
    choices_y = (y + s * field[:, 1], y + s * 0.08 * (frequency * x + phase).cos(), sin * x + cos * y, y * lens, y)
    new_x = torch.stack(choices_x).gather(0, kind.expand(n, m)[None]).squeeze(0)
    new_y = torch.stack(choices_y).gather(0, kind.expand(n, m)[None]).squeeze(0)
    # Mirrors (the last kind) hide half the picture, so they stay rare: a tenth of their share.
    keep = (kind == 4) & (torch.rand(n, 1, device=points.device) < 0.9)
    new_x, new_y = torch.where(keep, x, new_x), torch.where(keep, y, new_y)
    return torch.stack((new_x, new_y, points[..., 2]), dim=-1)


def shuffle_tiles(points: Tensor, tiles: int) -> Tensor:
    """Jigsaw: permute the tiles of a tiles x tiles grid, [n, m, 3] -> [n, m, 3]."""
    n = points.shape[0]
    unit = ((points[..., :2] + 1) / 2 * tiles).clamp(0, tiles - 1e-4)
    cell = unit.floor()
    order = torch.rand(n, tiles * tiles, device=points.device).argsort(dim=1)
    target = order.gather(1, (cell[..., 1] * tiles + cell[..., 0]).long())
    moved = torch.stack((target % tiles, target // tiles), dim=-1) + (unit - cell)
    return torch.cat((moved / tiles * 2 - 1, points[..., 2:]), dim=-1)
