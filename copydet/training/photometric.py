"""Edits of values, batched: float [n, 3, h, w] in [0, 1] -> the same shape, each sample with its own parameters.

Every edit takes (x, t): t float32 [n] in [0, 1] is how strong the edit is for each sample. Families follow SSCD's
ADVANCED list (papers: SSCD section 4.2, AnyPattern table 1).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from copydet.training.warp import uniform

Edit = Callable[[Tensor, Tensor], Tensor]


def _column(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype).view(-1, 1, 1, 1)


def _signed(t: Tensor) -> Tensor:
    return (torch.rand_like(t) * 2 - 1) * t


def luma(x: Tensor) -> Tensor:
    """float [n, 1, h, w]."""
    return (x * x.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)).sum(1, keepdim=True)


def brightness(x: Tensor, t: Tensor) -> Tensor:
    return (x * _column(torch.exp(_signed(t) * 0.9), x)).clamp(0, 1)


def contrast(x: Tensor, t: Tensor) -> Tensor:
    mean = luma(x).mean(dim=(2, 3), keepdim=True)
    return ((x - mean) * _column(torch.exp(_signed(t) * 1.2), x) + mean).clamp(0, 1)


def saturation(x: Tensor, t: Tensor) -> Tensor:
    grey = luma(x)
    return (grey + (x - grey) * _column(1 + _signed(t) * 1.5, x)).clamp(0, 1)


def hue(x: Tensor, t: Tensor) -> Tensor:
    """Turn the chroma plane (YIQ) by up to 180 degrees."""
    angle = _signed(t) * math.pi
    to_yiq = x.new_tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]]).float()
    turn = torch.zeros(x.shape[0], 3, 3, device=x.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    mix = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    return torch.einsum("nij,njhw->nihw", mix.to(x.dtype), x).clamp(0, 1)


def grey(x: Tensor, t: Tensor) -> Tensor:
    return luma(x).expand_as(x)


def tint(x: Tensor, t: Tensor) -> Tensor:
    """Sepia and other duotones: luma through a line between two random colours."""
    n = x.shape[0]
    dark = torch.rand(n, 3, 1, 1, device=x.device, dtype=x.dtype) * 0.35
    light = 1 - torch.rand(n, 3, 1, 1, device=x.device, dtype=x.dtype) * 0.5
    toned = dark + (light - dark) * luma(x)
    return torch.lerp(x, toned, _column(0.4 + 0.6 * t, x))


def gamma(x: Tensor, t: Tensor) -> Tensor:
    return x.clamp(min=1e-3) ** _column(torch.exp(_signed(t) * 1.1), x)


def invert(x: Tensor, t: Tensor) -> Tensor:
    return 1 - x


def solarise(x: Tensor, t: Tensor) -> Tensor:
    return torch.where(x > _column(1 - 0.9 * t * torch.rand_like(t), x), 1 - x, x)


def posterise(x: Tensor, t: Tensor) -> Tensor:
    steps = _column((7 - 5 * t).round().clamp(min=1), x)
    return (x * steps).round() / steps


def permute_channels(x: Tensor, t: Tensor) -> Tensor:
    order = torch.rand(x.shape[0], 3, device=x.device).argsort(1)[:, :, None, None]
    return x.gather(1, order.expand_as(x))


def drop_channel(x: Tensor, t: Tensor) -> Tensor:
    keep = torch.arange(3, device=x.device)[None] != torch.randint(0, 3, (x.shape[0], 1), device=x.device)
    return x * keep[:, :, None, None].to(x.dtype)


def tone_curve(x: Tensor, t: Tensor) -> Tensor:
    """A random curve through six knots, another for each channel; not always rising where t is large."""
    n, knots = x.shape[0], 6
    line = torch.linspace(0, 1, knots, device=x.device)[None, None]
    curve = (line + torch.randn(n, 3, knots, device=x.device) * 0.25 * t[:, None, None]).clamp(0, 1).to(x.dtype)
    position = x.clamp(0, 1) * (knots - 1)
    low = position.floor().clamp(max=knots - 2)
    flat = low.flatten(2).long()
    a = curve.gather(2, flat).view_as(x)
    b = curve.gather(2, flat + 1).view_as(x)
    return torch.lerp(a, b, position - low)


def equalise(x: Tensor, t: Tensor) -> Tensor:
    """Replace luma by its rank (histogram equalisation), keep the chroma."""
    y = luma(x).float()
    flat = y.flatten(1)
    rank = torch.empty_like(flat).scatter_(
        1, flat.argsort(1), torch.linspace(0, 1, flat.shape[1], device=x.device).expand_as(flat).contiguous()
    )
    return (x + (rank.view_as(y) - y).to(x.dtype)).clamp(0, 1)


def binarise(x: Tensor, t: Tensor) -> Tensor:
    y = luma(x)
    return (y > y.mean(dim=(2, 3), keepdim=True) * _column(1 + 0.3 * _signed(t), x)).to(x.dtype).expand_as(x)


def fade(x: Tensor, t: Tensor) -> Tensor:
    """Blend towards one colour: fog, faded prints, low contrast."""
    colour = torch.rand(x.shape[0], 3, 1, 1, device=x.device, dtype=x.dtype)
    return torch.lerp(x, colour.expand_as(x), _column(0.75 * t, x))


def gradient_light(x: Tensor, t: Tensor) -> Tensor:
    """Shadow, glare or vignette: a linear or radial ramp added or multiplied."""
    n, _, h, w = x.shape
    y, z = torch.meshgrid(
        torch.linspace(-1, 1, h, device=x.device), torch.linspace(-1, 1, w, device=x.device), indexing="ij"
    )
    a = uniform(n, 0, 2 * math.pi, t)[:, None, None]
    linear = a.cos() * z + a.sin() * y
    radial = 1 - 1.4 * (z * z + y * y)[None].expand(n, h, w)
    ramp = torch.where((torch.rand(n, device=x.device) < 0.5)[:, None, None], linear, radial)
    hard = (torch.rand(n, device=x.device) < 0.3)[:, None, None]
    ramp = torch.where(hard, (ramp > 0).float() * 2 - 1, ramp)[:, None].to(x.dtype)
    return (x * (1 + ramp * _column(0.8 * t, x))).clamp(0, 1)


def _blur_with(x: Tensor, kernels: Tensor) -> Tensor:
    """Convolve sample i of [n, 3, h, w] with kernel i of [n, kh, kw]."""
    n, _, h, w = x.shape
    kh, kw = kernels.shape[1:]
    padded = F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2), mode="replicate")
    weight = kernels.to(x.dtype)[:, None]
    out = F.conv2d(padded.transpose(0, 1), weight, groups=n)
    return out.transpose(0, 1).reshape(n, 3, h, w)


def blur(x: Tensor, t: Tensor) -> Tensor:
    """Gaussian, sigma up to a 28th of the side (SSCD's strong blur at 224 px is radius 1 to 5)."""
    side = x.shape[-1]
    reach = max(2, round(side * 0.07))
    sigma = (0.4 + t * side / 28)[:, None]
    taps = torch.arange(-reach, reach + 1, device=x.device, dtype=torch.float32)[None]
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    return _blur_with(_blur_with(x, kernel[:, None, :]), kernel[:, :, None])


def motion_blur(x: Tensor, t: Tensor) -> Tensor:
    n, reach = x.shape[0], max(3, round(x.shape[-1] * 0.05))
    taps = torch.arange(-reach, reach + 1, device=x.device, dtype=torch.float32)
    y, z = torch.meshgrid(taps, taps, indexing="ij")
    a = uniform(n, 0, math.pi, t)[:, None, None]
    along, across = a.cos() * z + a.sin() * y, -a.sin() * z + a.cos() * y
    length = (0.15 + 0.85 * t)[:, None, None] * reach
    kernel = torch.exp(-0.5 * (across / 0.6) ** 2) * (along.abs() <= length)
    return _blur_with(x, kernel / kernel.sum(dim=(1, 2), keepdim=True))


def sharpen(x: Tensor, t: Tensor) -> Tensor:
    soft = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return (x + (x - soft) * _column(0.5 + 4 * t, x)).clamp(0, 1)


def emboss(x: Tensor, t: Tensor) -> Tensor:
    y = luma(x)
    relief = (y - torch.roll(y, (2, 2), (2, 3))) * _column(1 + 2 * t, x) + 0.5
    return torch.lerp(x, relief.clamp(0, 1).expand_as(x), _column(0.6 + 0.4 * t, x))


def edges(x: Tensor, t: Tensor) -> Tensor:
    """Gradient magnitude, light on dark or dark on light, grey or by channel."""
    y = torch.where(torch.rand(x.shape[0], 1, 1, 1, device=x.device) < 0.6, luma(x).expand_as(x), x)
    dx, dy = y - torch.roll(y, 1, 3), y - torch.roll(y, 1, 2)
    lines = ((dx * dx + dy * dy).clamp(min=1e-6).sqrt() * _column(2 + 4 * t, x)).clamp(0, 1)
    return torch.where(torch.rand(x.shape[0], 1, 1, 1, device=x.device) < 0.5, lines, 1 - lines)


def pixelate(x: Tensor, t: Tensor) -> Tensor:
    """Blocks of one colour, 8 to 56 across; the block count is shared by groups of samples."""
    out, side = x.clone(), x.shape[-1]
    groups = 4
    order = t.argsort(descending=True)
    for part in order.chunk(groups):
        if part.numel() == 0:
            continue
        blocks = int(8 + (1 - float(t[part].mean())) * 48)
        small = F.adaptive_avg_pool2d(x[part], blocks)
        out[part] = F.interpolate(small, size=(side, side), mode="nearest")
    return out


def shrink(x: Tensor, t: Tensor) -> Tensor:
    """Down and up again by bilinear interpolation: what a thumbnail loses."""
    small = F.interpolate(x, scale_factor=float(0.7 - 0.5 * t.mean()), mode="bilinear", antialias=not x.is_cuda)
    return F.interpolate(small, size=x.shape[-2:], mode="bilinear")


def erode_or_dilate(x: Tensor, t: Tensor) -> Tensor:
    """Oil-paint-like: local maximum or minimum."""
    size = 3 if float(t.mean()) < 0.5 else 5
    most = F.max_pool2d(x, size, 1, size // 2)
    least = -F.max_pool2d(-x, size, 1, size // 2)
    return torch.where(torch.rand(x.shape[0], 1, 1, 1, device=x.device) < 0.5, most, least)


def gaussian_noise(x: Tensor, t: Tensor) -> Tensor:
    grain = torch.randn_like(x)
    grain = torch.where(torch.rand(x.shape[0], 1, 1, 1, device=x.device) < 0.4, grain[:, :1].expand_as(x), grain)
    return (x + grain * _column(0.02 + 0.28 * t, x)).clamp(0, 1)


def salt_and_pepper(x: Tensor, t: Tensor) -> Tensor:
    dice = torch.rand_like(x[:, :1])
    rate = _column(0.01 + 0.14 * t, x)
    x = torch.where(dice < rate / 2, torch.zeros_like(x), x)
    return torch.where(dice > 1 - rate / 2, torch.ones_like(x), x)


def speckle(x: Tensor, t: Tensor) -> Tensor:
    return (x * (1 + torch.randn_like(x) * _column(0.05 + 0.5 * t, x))).clamp(0, 1)


def screen_pattern(x: Tensor, t: Tensor) -> Tensor:
    """Moire and halftone: a sinusoidal lattice multiplied into the picture."""
    n, _, h, w = x.shape
    y, z = torch.meshgrid(
        torch.arange(h, device=x.device).float(), torch.arange(w, device=x.device).float(), indexing="ij"
    )
    a, period = uniform(n, 0, math.pi, t)[:, None, None], uniform(n, 2.2, 9.0, t)[:, None, None]
    u, v = a.cos() * z + a.sin() * y, -a.sin() * z + a.cos() * y
    lines = (2 * math.pi * u / period).sin()
    lattice = lines * (2 * math.pi * v / period).sin()
    wave = torch.where((torch.rand(n, device=x.device) < 0.5)[:, None, None], lines, lattice)[:, None].to(x.dtype)
    return (x * (1 + wave * _column(0.6 * t, x))).clamp(0, 1)


def stripes(x: Tensor, t: Tensor) -> Tensor:
    """Opaque bars of one colour at a random angle, covering up to half."""
    n, _, h, w = x.shape
    y, z = torch.meshgrid(
        torch.linspace(-1, 1, h, device=x.device), torch.linspace(-1, 1, w, device=x.device), indexing="ij"
    )
    a = (torch.randint(0, 4, (n,), device=x.device).float() * math.pi / 4)[:, None, None]
    wave = (a.cos() * z + a.sin() * y) * uniform(n, 1.5, 9.0, t)[:, None, None]
    bar = (wave - wave.floor() < (0.5 * t)[:, None, None])[:, None]
    colour = torch.rand(n, 3, 1, 1, device=x.device, dtype=x.dtype)
    return torch.where(bar, colour, x)


def _dct_basis(x: Tensor) -> Tensor:
    k, i = torch.meshgrid(torch.arange(8, device=x.device), torch.arange(8, device=x.device), indexing="ij")
    basis = torch.cos((2 * i + 1) * k * math.pi / 16) * 0.5
    basis[0] *= math.sqrt(0.5)
    return basis.float()


_LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip


def jpeg(x: Tensor, t: Tensor) -> Tensor:
    """JPEG's quantised 8 x 8 DCT, quality 90 down to 3 (by hand: encoders work on bytes on the CPU, this stays on the
    device).

    One table serves luma and the halved chroma planes; entropy coding loses nothing and is left out.
    """
    h, w = x.shape[-2:]
    quality = 90 - 87 * t
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    table = (torch.tensor(_LUMA_TABLE, device=x.device) * scale[:, None, None] / 255).clamp(min=1 / 255)
    y = luma(x).float()
    chroma = torch.cat((x[:, 2:].float() - y, x[:, :1].float() - y), dim=1)
    coded_y = _quantise_blocks(y, table)
    coded_c = _quantise_blocks(F.avg_pool2d(chroma, 2), table * 1.2)
    coded_c = F.interpolate(coded_c, size=(h, w), mode="nearest")
    blue, red = coded_y + coded_c[:, :1], coded_y + coded_c[:, 1:]
    green = (coded_y - 0.299 * red - 0.114 * blue) / 0.587
    return torch.cat((red, green, blue), dim=1).clamp(0, 1).to(x.dtype)


def _quantise_blocks(x: Tensor, table: Tensor) -> Tensor:
    n, c, h, w = x.shape
    ph, pw = -h % 8, -w % 8
    padded = F.pad(x, (0, pw, 0, ph), mode="replicate")
    basis = _dct_basis(x)
    blocks = padded.view(n, c, (h + ph) // 8, 8, (w + pw) // 8, 8).permute(0, 1, 2, 4, 3, 5)
    coefficients = basis @ blocks @ basis.T
    step = table[:, None, None, None]
    decoded = basis.T @ ((coefficients / step).round() * step) @ basis
    return decoded.permute(0, 1, 2, 4, 3, 5).reshape(n, c, h + ph, w + pw)[:, :, :h, :w]


# family -> (edit, probability at full strength). Families are the unit that a run can leave out (`held_out` in the
# configuration).
EDITS: dict[str, tuple[Edit, float]] = {
    "brightness": (brightness, 0.35),
    "contrast": (contrast, 0.35),
    "saturation": (saturation, 0.3),
    "hue": (hue, 0.2),
    "grey": (grey, 0.12),
    "tint": (tint, 0.08),
    "gamma": (gamma, 0.1),
    "invert": (invert, 0.04),
    "solarise": (solarise, 0.05),
    "posterise": (posterise, 0.05),
    "permute_channels": (permute_channels, 0.03),
    "drop_channel": (drop_channel, 0.02),
    "tone_curve": (tone_curve, 0.06),
    "equalise": (equalise, 0.04),
    "binarise": (binarise, 0.02),
    "fade": (fade, 0.06),
    "gradient_light": (gradient_light, 0.08),
    "emboss": (emboss, 0.02),
    "edges": (edges, 0.05),
    "erode_or_dilate": (erode_or_dilate, 0.03),
    "blur": (blur, 0.22),
    "motion_blur": (motion_blur, 0.05),
    "shrink": (shrink, 0.1),
    "sharpen": (sharpen, 0.08),
    "pixelate": (pixelate, 0.12),
    "screen_pattern": (screen_pattern, 0.05),
    "stripes": (stripes, 0.03),
    "gaussian_noise": (gaussian_noise, 0.12),
    "salt_and_pepper": (salt_and_pepper, 0.04),
    "speckle": (speckle, 0.04),
    "jpeg": (jpeg, 0.35),
}


def edit_values(x: Tensor, strength: Tensor, held_out: frozenset[str] = frozenset()) -> Tensor:
    """Apply a random chain of value edits: float [n, 3, h, w] in [0, 1]; strength float32 [n] in [0, 1] scales chance
    and force.
    """
    n = x.shape[0]
    for name, (edit, probability) in EDITS.items():
        if name in held_out:
            continue
        chosen = (torch.rand(n, device=x.device) < probability * (0.3 + 0.7 * strength)).nonzero().squeeze(1)
        if chosen.numel():
            force = strength[chosen] * (0.3 + 0.7 * torch.rand(chosen.numel(), device=x.device))
            x[chosen] = edit(x[chosen], force).to(x.dtype)
    return x
