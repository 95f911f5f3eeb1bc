"""Edits of colour and light: every pixel stays where it is.

Functions take (pixels, strength in [0, 1], rng) and return pixels of the same shape.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.images.edits.draft import PixelFunction
from copydet.records import Pixels

Rng = np.random.Generator

_SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], np.float32)


def to_pixels(values: NDArray[Any]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def luma(pixels: Pixels) -> Pixels:
    """uint8 [h, w]."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def mix(pixels: Pixels, changed: NDArray[Any], share: float) -> Pixels:
    return to_pixels(pixels * np.float32(1 - share) + changed.astype(np.float32) * np.float32(share))


def through(pixels: Pixels, curve: NDArray[Any]) -> Pixels:
    """Apply a curve of 256 values, or [256, 3], to all pixels."""
    table = to_pixels(curve)
    if table.ndim == 1:
        return table[pixels]
    return np.dstack([table[pixels[..., channel], channel] for channel in range(3)])


_RAMP = np.arange(256, dtype=np.float64)


def jitter(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Brightness, contrast and saturation at once."""
    brightness, contrast, saturation = np.exp(rng.uniform(-1, 1, 3) * strength * 0.8)
    values = pixels.astype(np.float32) * brightness
    values = (values - values.mean()) * contrast + values.mean()
    grey = values.mean(axis=2, keepdims=True)
    return to_pixels(grey + (values - grey) * saturation)


def brightness(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    return through(pixels, _RAMP + rng.choice([-1, 1]) * strength * rng.uniform(20, 110))


def exposure(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Over- or under-exposed by up to two stops."""
    return through(pixels, _RAMP * 2.0 ** (rng.choice([-1, 1]) * strength * rng.uniform(0.5, 2)))


def contrast(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    factor = np.exp(rng.choice([-1, 1]) * strength * rng.uniform(0.3, 1.3))
    return through(pixels, (_RAMP - 128) * factor + 128)


def gamma(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    return through(pixels, 255 * (_RAMP / 255) ** np.exp(rng.choice([-1, 1]) * strength * rng.uniform(0.3, 1.1)))


def tone_curve(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """A smooth rising curve through random points, another one for each channel."""
    knots = np.linspace(0, 255, 5)
    curves = [np.sort(knots + rng.uniform(-70, 70, 5) * strength) for _ in range(3)]
    return through(pixels, np.stack([np.interp(_RAMP, knots, curve) for curve in curves], axis=1))


def saturation(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    grey = luma(pixels)[..., None].astype(np.float32)
    factor = 1 + strength * rng.uniform(-0.9, 2.5)
    return to_pixels(grey + (pixels - grey) * factor)


def grey(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    return np.repeat(luma(pixels)[..., None], 3, axis=2)


def sepia(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    return mix(pixels, np.minimum(pixels.astype(np.float32) @ _SEPIA.T, 255), 0.5 + 0.5 * strength)


def hue(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    turn = round(rng.choice([-1, 1]) * strength * rng.uniform(15, 90))
    hsv[..., 0] = (hsv[..., 0].astype(int) + turn) % 180
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def temperature(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Warmer or colder light."""
    warm = rng.choice([-1, 1]) * strength * rng.uniform(0.1, 0.5)
    return to_pixels(pixels * np.array([1 + warm, 1, 1 - warm], np.float32))


def tint(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """A veil of one colour."""
    return mix(pixels, np.broadcast_to(rng.integers(0, 256, 3), pixels.shape), strength * rng.uniform(0.2, 0.6))


def invert(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    return 255 - pixels


def solarise(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Invert what is brighter than a threshold; harder = a lower one."""
    threshold = 255 - strength * rng.uniform(60, 200)
    return through(pixels, np.where(threshold <= _RAMP, 255 - _RAMP, _RAMP))


def posterise(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Two to nine levels a channel."""
    levels = round(9 - 7 * strength)
    return through(pixels, np.rint(_RAMP / 255 * (levels - 1)) / (levels - 1) * 255)


def binarise(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Black and white by a global or a local threshold."""
    light = luma(pixels)
    if rng.random() < 0.5:
        black_white = np.where(light > np.median(light), 255, 0)
    else:
        mean = cv2.blur(light, (max(min(light.shape) // 6, 3) | 1,) * 2)
        black_white = np.where(light > mean - 4, 255, 0)
    return mix(pixels, np.repeat(black_white[..., None], 3, axis=2), 0.5 + 0.5 * strength)


def equalise(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    equal = np.dstack([cv2.equalizeHist(np.ascontiguousarray(pixels[..., channel])) for channel in range(3)])
    return mix(pixels, equal, 0.4 + 0.6 * strength)


def clahe(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Contrast-limited local equalisation."""
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(1 + 9 * strength, (8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)


def channel_shuffle(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    order = [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)][int(rng.integers(5))]
    return np.ascontiguousarray(pixels[..., order])


def channel_drop(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """One channel fades away."""
    factors = np.ones(3, np.float32)
    factors[int(rng.integers(3))] = 1 - strength
    return to_pixels(pixels * factors)


def colour_space(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """The values of another colour space shown as if they were RGB."""
    code = [cv2.COLOR_RGB2HSV_FULL, cv2.COLOR_RGB2LAB, cv2.COLOR_RGB2YCrCb, cv2.COLOR_RGB2LUV][int(rng.integers(4))]
    return mix(pixels, cv2.cvtColor(pixels, code), 0.5 + 0.5 * strength)


def false_colour(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """A heat map or another colour table over the lightness."""
    tables = [cv2.COLORMAP_JET, cv2.COLORMAP_HOT, cv2.COLORMAP_BONE, cv2.COLORMAP_OCEAN, cv2.COLORMAP_VIRIDIS]
    table = tables[int(rng.integers(len(tables)))]
    mapped = cv2.cvtColor(cv2.applyColorMap(luma(pixels), table), cv2.COLOR_BGR2RGB)
    return mix(pixels, mapped, 0.4 + 0.6 * strength)


def duotone(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Two colours, one for the shadows and one for the lights."""
    dark, light = rng.integers(0, 120, 3), rng.integers(136, 256, 3)
    share = luma(pixels)[..., None].astype(np.float32) / 255
    return mix(pixels, dark + (light - dark) * share, 0.4 + 0.6 * strength)


def principal_colour(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Shift along the principal axes of the picture's own colours (AlexNet's PCA augmentation)."""
    values = pixels.reshape(-1, 3).astype(np.float32)
    spread, axes = np.linalg.eigh(np.cov(values, rowvar=False, bias=True))
    shift = axes @ (rng.normal(0, 1, 3) * np.sqrt(np.maximum(spread, 0)) * strength)
    return to_pixels(pixels + shift.astype(np.float32))


def haze(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """A grey veil, thicker towards the top."""
    depth = np.linspace(1, rng.uniform(0, 0.8), pixels.shape[0], dtype=np.float32)[:, None, None]
    veil = depth * np.float32(strength * rng.uniform(0.3, 0.8))
    return to_pixels(pixels * (1 - veil) + rng.uniform(170, 245) * veil)


def dehaze(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Take a veil away by the dark channel (He et al. 2009, without the refinement)."""
    side = max(min(pixels.shape[:2]) // 20, 3) | 1
    dark = cv2.erode(pixels.min(axis=2), np.ones((side, side), np.uint8)).astype(np.float32)
    light = max(float(np.percentile(dark, 99)), 60.0)
    left = np.clip(1 - strength * 0.9 * cv2.blur(dark, (side, side)) / light, 0.25, 1)[..., None]
    return to_pixels((pixels - light) / left + light)


def vignette(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    y, x = np.mgrid[-1 : 1 : pixels.shape[0] * 1j, -1 : 1 : pixels.shape[1] * 1j]
    fall = np.clip(1 - strength * rng.uniform(0.4, 0.75) * (x * x + y * y), 0, 1)
    return to_pixels(pixels * fall[..., None])


def shadow(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """A dark band or wedge with a soft edge."""
    height, width = pixels.shape[:2]
    mask = np.zeros((height, width), np.float32)
    points = rng.uniform(-0.2, 1.2, (4, 2)) * [width, height]
    cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.int32)), 1.0)
    soft = cv2.GaussianBlur(mask, (0, 0), max(min(height, width) * 0.03, 1))[..., None]
    return to_pixels(pixels * (1 - strength * rng.uniform(0.3, 0.85) * soft))


def flare(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """A bright spot with a row of discs through the middle, as the sun makes in a lens."""
    height, width = pixels.shape[:2]
    light = np.zeros((height, width), np.float32)
    sun, middle = rng.random(2) * [width, height], np.array([width, height]) / 2
    for step in np.linspace(0, 2, 6):
        centre = sun + (middle - sun) * step
        radius = max(int(min(height, width) * rng.uniform(0.02, 0.12) * (2.5 if step == 0 else 1)), 1)
        cv2.circle(light, (int(centre[0]), int(centre[1])), radius, float(rng.uniform(0.3, 1)), -1)
    soft = cv2.GaussianBlur(light, (0, 0), min(height, width) * 0.03)[..., None]
    return to_pixels(pixels + soft * 300 * strength)


PHOTOMETRIC: dict[str, PixelFunction] = {
    "jitter": jitter,
    "brightness": brightness,
    "exposure": exposure,
    "contrast": contrast,
    "gamma": gamma,
    "tone_curve": tone_curve,
    "saturation": saturation,
    "grey": grey,
    "sepia": sepia,
    "hue": hue,
    "temperature": temperature,
    "tint": tint,
    "invert": invert,
    "solarise": solarise,
    "posterise": posterise,
    "binarise": binarise,
    "equalise": equalise,
    "clahe": clahe,
    "channel_shuffle": channel_shuffle,
    "channel_drop": channel_drop,
    "colour_space": colour_space,
    "false_colour": false_colour,
    "duotone": duotone,
    "principal_colour": principal_colour,
    "haze": haze,
    "dehaze": dehaze,
    "vignette": vignette,
    "shadow": shadow,
    "flare": flare,
}
