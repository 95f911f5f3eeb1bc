"""Edits of the fine structure: blur, blocks, noise, weather, compression, drawing styles. Pixels stay where they are.

Functions take (pixels, strength in [0, 1], rng) and return pixels of the same shape.
"""

from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from copydet.images.edits import drawing
from copydet.images.edits.draft import PixelFunction
from copydet.images.edits.photometric import luma, mix, through, to_pixels
from copydet.records import Pixels

Rng = np.random.Generator


def _short(pixels: Pixels) -> int:
    return int(min(pixels.shape[:2]))


def _grey(values: NDArray[Any]) -> Pixels:
    """uint8 [h, w, 3] of a plane."""
    return np.repeat(to_pixels(values.astype(np.float32))[..., None], 3, axis=2)


def blur(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    sigma = max(_short(pixels) * strength * rng.uniform(0.008, 0.03), 0.3)
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8)


def median_blur(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    return np.asarray(cv2.medianBlur(pixels, max(int(_short(pixels) * strength * 0.07), 1) | 1), np.uint8)


def motion_blur(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    length = max(int(_short(pixels) * strength * rng.uniform(0.05, 0.15)), 2)
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    ends = np.rint((length - 1) / 2 + np.stack([reach, -reach])).astype(int)
    cv2.line(kernel, ends[0].tolist(), ends[1].tolist(), 1.0)
    return np.asarray(cv2.filter2D(pixels, -1, kernel / kernel.sum()), np.uint8)


def zoom_blur(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """The mean of ever larger copies around one centre."""
    height, width = pixels.shape[:2]
    centre = (rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height)
    total = np.zeros(pixels.shape, np.float32)
    for scale in np.linspace(1, 1 + 0.05 + 0.25 * strength, 8):
        matrix = cv2.getRotationMatrix2D(centre, 0, float(scale))
        total += cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return to_pixels(total / 8)


def pixelate(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Square blocks; at strength 1 about sixteen across the short side."""
    height, width = pixels.shape[:2]
    across = max(_short(pixels) * (1 - strength) * 0.5, rng.uniform(14, 22))
    factor = min(across / _short(pixels), 1.0)
    small = cv2.resize(
        pixels, (max(round(width * factor), 1), max(round(height * factor), 1)), interpolation=cv2.INTER_AREA
    )
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def mosaic(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Irregular cells (Voronoi), each in its mean colour."""
    height, width = pixels.shape[:2]
    count = round(2500 * (1 - strength) + 300)
    seeds = np.ones((height, width), np.uint8)
    seeds[rng.integers(0, height, count), rng.integers(0, width, count)] = 0
    _, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_CCOMP)
    flat = label.ravel()
    size = np.maximum(np.bincount(flat), 1)
    means = [np.bincount(flat, pixels[..., channel].ravel()) / size for channel in range(3)]
    return to_pixels(np.stack(means, axis=1)[flat].reshape(pixels.shape))


def bricks(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Blocks with a round stud on each, like a toy building."""
    side = max(round(_short(pixels) * (0.02 + 0.03 * strength)), 4)
    height, width = pixels.shape[:2]
    small = cv2.resize(pixels, (-(-width // side), -(-height // side)), interpolation=cv2.INTER_AREA)
    blocks = np.repeat(np.repeat(small, side, 0), side, 1)[:height, :width].astype(np.float32)
    stud = np.full((side, side), 1.0, np.float32)
    stud[0, :], stud[:, 0] = 0.7, 0.7
    cv2.circle(stud, (side // 2, side // 2), max(side // 3, 1), 1.18, -1)
    shade = np.tile(stud, small.shape[:2])[:height, :width, None]
    return to_pixels(blocks * shade)


def halftone(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Printed dots on a turned grid, black or in four inks."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    period = max(_short(pixels) * (0.012 + 0.018 * strength), 3.0)
    planes = pixels if rng.random() < 0.5 else _grey(luma(pixels))
    dots = []
    for channel, angle in enumerate(np.deg2rad([15, 45, 75]) + rng.uniform(0, 0.5)):
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        screen = (np.cos(u * 2 * np.pi / period) + np.cos(v * 2 * np.pi / period) + 2) * 63.75
        dots.append(np.clip((planes[..., channel] - screen) * 3 + 128, 0, 255))
    return mix(pixels, np.dstack(dots), 0.5 + 0.5 * strength)


def dither(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Few colours, ordered dither."""
    bayer = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16 - 0.5
    height, width = pixels.shape[:2]
    pattern = np.tile(bayer, (-(-height // 4), -(-width // 4)))[:height, :width, None]
    steps = round(6 - 5 * strength)
    return to_pixels(np.clip(np.rint(pixels / 255 * steps + pattern), 0, steps) / steps * 255)


def letters(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Drawn with letters, darker ones where it is dark (ASCII art)."""
    size = max(round(_short(pixels) * (0.03 + 0.03 * strength)), 6)
    height, width = pixels.shape[:2]
    glyphs = np.stack([drawing.text_opacity(glyph, size, size, size, 0, -size * 0.1) for glyph in " .:-=+*%#@"])
    glyphs = glyphs[np.argsort(glyphs.mean(axis=(1, 2)))]
    small = cv2.resize(luma(pixels), (-(-width // size), -(-height // size)), interpolation=cv2.INTER_AREA)
    index = (255 - small.astype(int)) * len(glyphs) // 256
    page = glyphs[index].transpose(0, 2, 1, 3).reshape(small.shape[0] * size, small.shape[1] * size)
    return _grey(255 - 255 * np.minimum(page[:height, :width] * 2, 1))


def sharpen(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    soft = cv2.GaussianBlur(pixels, (0, 0), max(_short(pixels) * 0.006, 0.8)).astype(np.float32)
    return to_pixels(pixels + (pixels - soft) * (0.5 + 5 * strength))


def emboss(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    kernel = np.rot90(np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], np.float32), int(rng.integers(4)))
    relief = cv2.filter2D(luma(pixels).astype(np.float32), -1, np.ascontiguousarray(kernel)) + 128
    return mix(pixels, _grey(relief), 0.4 + 0.6 * strength)


def edges(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Outlines only: white on black or black on white, thin (Canny) or soft (Sobel)."""
    light = cv2.GaussianBlur(luma(pixels), (0, 0), 0.8)
    if rng.random() < 0.3:
        lines = cv2.Canny(light, 60, 140).astype(np.float32)
    else:
        lines = np.hypot(cv2.Sobel(light, cv2.CV_32F, 1, 0), cv2.Sobel(light, cv2.CV_32F, 0, 1))
    lines = np.clip(lines, 0, 255)
    return mix(pixels, _grey(lines if rng.random() < 0.5 else 255 - lines), 0.5 + 0.5 * strength)


def sketch(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """A pencil drawing: lightness divided by its blurred self."""
    light = luma(pixels).astype(np.float32)
    soft = cv2.GaussianBlur(light, (0, 0), max(_short(pixels) * 0.02, 1.0))
    return mix(pixels, _grey(np.minimum(light / np.maximum(soft, 1) * 250, 255)), 0.5 + 0.5 * strength)


def cartoon(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Flat colours with dark outlines."""
    flat = pixels
    for _ in range(1 + round(2 * strength)):
        flat = np.asarray(cv2.bilateralFilter(flat, 7, 30 + 50 * strength, 7), np.uint8)
    flat = through(flat, np.rint(np.arange(256) / 32) * 32)
    light = cv2.medianBlur(luma(pixels), 5)
    lines = cv2.adaptiveThreshold(light, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 9, 4)
    return np.where(lines[..., None] == 0, flat // 4, flat).astype(np.uint8)


def oil(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Oil paint: in each neighbourhood the mean colour of its most frequent lightness."""
    side = (max(round(_short(pixels) * (0.01 + 0.025 * strength)), 2) * 2 + 1,) * 2
    level = luma(pixels) // 32
    best = np.full(level.shape, -1.0, np.float32)
    result = pixels.astype(np.float32)
    for value in range(8):
        here = (level == value).astype(np.float32)
        count = cv2.boxFilter(here, -1, side)
        mean = cv2.boxFilter(pixels * here[..., None], -1, side) / np.maximum(count, 1e-6)[..., None]
        wins = count > best
        best[wins], result[wins] = count[wins], mean[wins]
    return to_pixels(result)


def watercolour(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Mean-shift smoothing: blots of colour without texture."""
    return np.asarray(cv2.pyrMeanShiftFiltering(pixels, 4 + 8 * strength, 15 + 35 * strength), np.uint8)


def noise(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Gaussian, the same for all channels or not."""
    shape = pixels.shape if rng.random() < 0.6 else (*pixels.shape[:2], 1)
    return to_pixels(pixels + rng.standard_normal(shape, np.float32) * np.float32(5 + 70 * strength))


def speckle(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Noise in proportion to the lightness."""
    return to_pixels(pixels * (1 + rng.standard_normal(pixels.shape, np.float32) * np.float32(0.6 * strength)))


def salt(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Black and white pixels strewn in."""
    chance = rng.random(pixels.shape[:2])
    share = 0.005 + 0.12 * strength
    result = pixels.copy()
    result[chance < share / 2] = 0
    result[chance > 1 - share / 2] = 255
    return result


def iso_noise(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """A sensor at high gain: coarse noise in colour, fine noise in lightness, more of it in the dark."""
    height, width = pixels.shape[:2]
    coarse = rng.standard_normal((height // 3 + 1, width // 3 + 1, 3), np.float32)
    blotches = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    fine = rng.standard_normal((height, width, 1), np.float32)
    dark = 1.3 - pixels.mean(axis=2, keepdims=True) / 255
    return to_pixels(pixels + (blotches * 40 + fine * 35) * dark * np.float32(strength))


def _streaks(pixels: Pixels, count: int, length: float, angle: float, thickness: int, rng: Rng) -> NDArray[np.float32]:
    """Lines or dots of weather as opacity [h, w, 1]."""
    height, width = pixels.shape[:2]
    alpha = np.zeros((height, width), np.uint8)
    starts = rng.random((count, 2)) * [width, height]
    ends = starts + rng.uniform(0.5, 1.5, (count, 1)) * length * np.array([np.cos(angle), np.sin(angle)])
    for (x0, y0), (x1, y1) in zip(starts.astype(int).tolist(), ends.astype(int).tolist(), strict=True):
        cv2.line(alpha, (x0, y0), (x1, y1), 255, thickness, cv2.LINE_AA)
    return (alpha.astype(np.float32) / np.float32(255))[..., None]


def rain(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    angle = np.pi / 2 + rng.uniform(-0.4, 0.4)
    count = round(40 + 500 * strength)
    alpha = _streaks(pixels, count, _short(pixels) * 0.08, angle, 1, rng) * np.float32(0.3 + 0.4 * strength)
    dull = pixels * np.float32(1 - 0.3 * strength)
    return to_pixels(dull * (1 - alpha) + 215 * alpha)


def snow(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    thickness = max(round(_short(pixels) * 0.012), 1)
    alpha = _streaks(pixels, round(40 + 400 * strength), thickness, 1.2, thickness, rng) * np.float32(0.85)
    return to_pixels(pixels * (1 - alpha) + 250 * alpha)


def spatter(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Drops of mud or water: a thresholded smooth noise."""
    field = cv2.GaussianBlur(rng.random(pixels.shape[:2], np.float32), (0, 0), max(_short(pixels) * 0.012, 1.0))
    alpha = (field > np.quantile(field, 1 - 0.05 - 0.3 * strength)).astype(np.float32)[..., None] * np.float32(0.8)
    return to_pixels(pixels * (1 - alpha) + np.array([[60, 42, 20], [175, 200, 215]])[int(rng.integers(2))] * alpha)


def scan_lines(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Dark rows and shifted colours, as of an old television."""
    shift = round(_short(pixels) * 0.015 * strength)
    result = np.dstack([np.roll(pixels[..., 0], shift, 1), pixels[..., 1], np.roll(pixels[..., 2], -shift, 1)])
    rows = 1 - strength * 0.6 * (np.arange(pixels.shape[0]) // max(round(_short(pixels) * 0.008), 1) % 2)
    return to_pixels(result * rows[:, None, None])


def _encoded(pixels: Pixels, format: str, quality: int) -> Pixels:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format, quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def jpeg(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Quality 85 down to 4."""
    return _encoded(pixels, "JPEG", round(85 - 81 * strength * rng.uniform(0.6, 1.0)))


def webp(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    """Quality 80 down to 0."""
    return _encoded(pixels, "WEBP", round(80 - 80 * strength * rng.uniform(0.6, 1.0)))


TEXTURE: dict[str, PixelFunction] = {
    "blur": blur,
    "median_blur": median_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "pixelate": pixelate,
    "mosaic": mosaic,
    "bricks": bricks,
    "halftone": halftone,
    "dither": dither,
    "letters": letters,
    "sharpen": sharpen,
    "emboss": emboss,
    "edges": edges,
    "sketch": sketch,
    "cartoon": cartoon,
    "oil": oil,
    "watercolour": watercolour,
    "noise": noise,
    "speckle": speckle,
    "salt": salt,
    "iso_noise": iso_noise,
    "rain": rain,
    "snow": snow,
    "spatter": spatter,
    "scan_lines": scan_lines,
    "jpeg": jpeg,
    "webp": webp,
}
