"""Edits that move pixels: crops, turns, bends and shuffles.

Every function takes (draft, strength in [0, 1], rng, other pictures); strength 0 is next to nothing, 1 the hardest case
that a person still recognises. Where the strength has no meaning (a flip), it is not used. The choice follows the
pattern list of AnyPattern (Wang et al., arXiv 2404.13788).
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.images.edits import draft as moves
from copydet.images.edits.draft import Draft, EditFunction, Matrix
from copydet.records import Pixels

Others = Sequence[Pixels]
Rng = np.random.Generator
Grid = NDArray[np.float32]


def _sign(rng: Rng) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _grid(draft: Draft) -> tuple[Grid, Grid]:
    x, y = np.meshgrid(np.arange(draft.width, dtype=np.float32), np.arange(draft.height, dtype=np.float32))
    return x, y


def crop(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Keep a rectangle of another shape: at strength 1 between a fourteenth and a half of the area."""
    area = 1 - strength * rng.uniform(0.5, 0.93)
    aspect = np.exp(rng.uniform(-0.5, 0.5) * strength)
    width = int(np.clip(draft.width * np.sqrt(area) * aspect, min(16, draft.width), draft.width))
    height = int(np.clip(draft.height * np.sqrt(area) / aspect, min(16, draft.height), draft.height))
    left, top = int(rng.integers(draft.width - width + 1)), int(rng.integers(draft.height - height + 1))
    return moves.crop(draft, left, top, width, height)


def cut_side(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Cut one side off: up to three quarters."""
    keep = 1 - strength * rng.uniform(0.2, 0.75)
    if rng.random() < 0.5:
        width = max(int(draft.width * keep), 1)
        return moves.crop(draft, int(rng.integers(2)) * (draft.width - width), 0, width, draft.height)
    height = max(int(draft.height * keep), 1)
    return moves.crop(draft, 0, int(rng.integers(2)) * (draft.height - height), draft.width, height)


def shrink(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Make it smaller, down to a sixth, never below 32 pixels on the short side."""
    factor = max(1 - strength * rng.uniform(0.4, 0.84), min(1.0, 32 / draft.short_side))
    return moves.resize(draft, round(draft.width * factor), round(draft.height * factor))


def stretch(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Change the aspect ratio, up to 3 : 1."""
    factor = np.exp(_sign(rng) * strength * rng.uniform(0.3, 1.1) / 2)
    return moves.resize(draft, round(draft.width * factor), round(draft.height / factor))


def hflip(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    matrix = np.array([[-1, 0, draft.width - 1], [0, 1, 0], [0, 0, 1]], np.float64)
    return _moved(draft, lambda a: a[:, ::-1], matrix)


def vflip(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    matrix = np.array([[1, 0, 0], [0, -1, draft.height - 1], [0, 0, 1]], np.float64)
    return _moved(draft, lambda a: a[::-1], matrix)


def transpose(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    matrix = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]], np.float64)
    return _moved(draft, lambda a: a.transpose(1, 0, 2), matrix)


def quarter_turn(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Turn by 90, 180 or 270 degrees."""
    turns = int(rng.integers(1, 4))
    left = np.array([[0, 1, 0], [-1, 0, draft.width - 1], [0, 0, 1]], np.float64)
    right = np.array([[0, -1, draft.height - 1], [1, 0, 0], [0, 0, 1]], np.float64)
    half = np.array([[-1, 0, draft.width - 1], [0, -1, draft.height - 1], [0, 0, 1]], np.float64)
    return _moved(draft, lambda a: np.rot90(a, turns), {1: left, 2: half, 3: right}[turns])


def _moved(draft: Draft, move: moves.Move, matrix: Matrix) -> Draft:
    moved = moves.rearrange(draft, move)
    return Draft(moved.pixels, moved.origin, None if draft.homography is None else matrix @ draft.homography)


def rotate(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Turn by up to 90 degrees: onto a larger canvas, with its corners cut, or cut to the part without a border."""
    angle = np.deg2rad(_sign(rng) * strength * rng.uniform(5, 90))
    width, height = draft.width, draft.height
    sine, cosine = abs(np.sin(angle)), abs(np.cos(angle))
    fit = rng.choice(["larger", "same", "inside"])
    if fit == "larger":
        width, height = round(width * cosine + height * sine), round(width * sine + height * cosine)
    elif fit == "inside":  # the rectangle of the same shape that fits into the turned picture
        ratio = max(width, height) / min(width, height)
        scale = 1 / (cosine + ratio * sine)
        width, height = max(int(width * scale), 8), max(int(height * scale), 8)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]], np.float64)
    centre = moves.translation(-(draft.width - 1) / 2, -(draft.height - 1) / 2)
    matrix = moves.translation((width - 1) / 2, (height - 1) / 2) @ turn @ centre
    return moves.warp(draft, matrix, width, height, moves.colour(rng))


def affine(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Shear and scale each axis by itself, on a canvas that holds everything."""
    shear = rng.uniform(-0.7, 0.7, 2) * strength
    scale = np.exp(rng.uniform(-0.3, 0.3, 2) * strength)
    return _on_fitting_canvas(
        draft, np.array([[scale[0], shear[0], 0], [shear[1] * 0.5, scale[1], 0], [0, 0, 1]], np.float64), rng
    )


def perspective(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Move the four corners inwards by up to a third of the side."""
    corners = _corners(draft)
    inwards = rng.uniform(0, 0.34, (4, 2)) * strength * [draft.width, draft.height]
    target = corners + inwards * np.sign(corners.mean(axis=0) - corners)
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), target.astype(np.float32))
    return _on_fitting_canvas(draft, np.asarray(matrix, np.float64), rng)


def _corners(draft: Draft) -> NDArray[np.float64]:
    right, bottom = draft.width - 0.5, draft.height - 0.5
    return np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]], np.float64)


def _on_fitting_canvas(draft: Draft, matrix: Matrix, rng: Rng) -> Draft:
    moved = cv2.perspectiveTransform(_corners(draft)[None], matrix)[0]
    (left, top), (right, bottom) = moved.min(axis=0), moved.max(axis=0)
    shifted = moves.translation(-left - 0.5, -top - 0.5) @ matrix
    return moves.warp(draft, shifted, max(round(right - left), 8), max(round(bottom - top), 8), moves.colour(rng))


def barrel(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """The distortion of a cheap lens, bulging or pinching."""
    x, y = _grid(draft)
    centre_x, centre_y = (draft.width - 1) / 2, (draft.height - 1) / 2
    u, v = (x - centre_x) / max(centre_x, 1), (y - centre_y) / max(centre_y, 1)
    bend = 1 + _sign(rng) * strength * rng.uniform(0.1, 0.35) * (u * u + v * v)
    return moves.remap(draft, centre_x + (x - centre_x) * bend, centre_y + (y - centre_y) * bend)


def elastic(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """A smooth random field of small moves."""
    x, y = _grid(draft)
    smoothness = draft.short_side * rng.uniform(0.04, 0.12)
    size = (draft.width, draft.height)
    field = [cv2.GaussianBlur(rng.uniform(-1, 1, size[::-1]).astype(np.float32), (0, 0), smoothness) for _ in "xy"]
    reach = draft.short_side * strength * rng.uniform(0.02, 0.08)
    dx, dy = (part / max(float(np.abs(part).max()), 1e-6) * reach for part in field)
    return moves.remap(draft, np.clip(x + dx, 0, draft.width - 1), np.clip(y + dy, 0, draft.height - 1))


def grid_warp(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Move the knots of a coarse grid."""
    x, y = _grid(draft)
    cells = int(rng.integers(3, 7))
    reach = strength * 0.45 * np.array([draft.width, draft.height]) / cells
    knots = rng.uniform(-1, 1, (cells + 1, cells + 1, 2)).astype(np.float32) * reach.astype(np.float32)
    field = cv2.resize(knots, (draft.width, draft.height), interpolation=cv2.INTER_LINEAR)
    return moves.remap(
        draft, np.clip(x + field[..., 0], 0, draft.width - 1), np.clip(y + field[..., 1], 0, draft.height - 1)
    )


def wave(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Ripples along both axes."""
    x, y = _grid(draft)
    reach = draft.short_side * strength * rng.uniform(0.01, 0.06)
    length = draft.short_side * rng.uniform(0.15, 0.6)
    phase = rng.uniform(0, 2 * np.pi, 2)
    dx = reach * np.sin(2 * np.pi * y / length + phase[0])
    dy = reach * np.sin(2 * np.pi * x / length + phase[1])
    return moves.remap(draft, x + dx, y + dy, moves.colour(rng))


def swirl(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Wind the picture around a point near its middle."""
    x, y = _grid(draft)
    centre = np.array([draft.width, draft.height]) * rng.uniform(0.35, 0.65, 2)
    dx, dy = x - centre[0], y - centre[1]
    radius = draft.short_side * rng.uniform(0.25, 0.6)
    angle = _sign(rng) * strength * rng.uniform(0.8, 4.0) * np.exp(-(dx * dx + dy * dy) / radius**2)
    cosine, sine = np.cos(angle), np.sin(angle)
    return moves.remap(draft, centre[0] + dx * cosine - dy * sine, centre[1] + dx * sine + dy * cosine)


def polar(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Bend the picture around its middle, so that its left edge meets its right one."""
    x, y = _grid(draft)
    centre_x, centre_y = draft.width / 2, draft.height / 2
    dx, dy = x - centre_x, y - centre_y
    turned = (np.arctan2(dx, -dy) / (2 * np.pi) + 0.5) * draft.width
    far = np.hypot(dx, dy) / np.hypot(centre_x, centre_y) * draft.height
    return moves.remap(draft, turned, far * (0.6 + 0.4 * strength))


def kaleidoscope(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Repeat one sector of the picture, mirrored, around its middle."""
    x, y = _grid(draft)
    dx, dy = x - draft.width / 2, y - draft.height / 2
    sector = np.pi / (2 + round(2 * strength))
    start = rng.uniform(0, 2 * np.pi)
    angle = np.mod(np.arctan2(dy, dx) - start, 2 * sector)
    angle = np.where(angle > sector, 2 * sector - angle, angle) + start
    radius = np.hypot(dx, dy)
    return moves.remap(
        draft,
        np.clip(draft.width / 2 + radius * np.cos(angle), 0, draft.width - 1),
        np.clip(draft.height / 2 + radius * np.sin(angle), 0, draft.height - 1),
    )


def mirror_half(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Replace one half by the mirror of the other."""
    flip, axis = rng.random() < 0.5, int(rng.integers(2))
    half = (draft.height if axis == 0 else draft.width) // 2

    def mirror(array: NDArray[np.generic]) -> NDArray[np.generic]:
        turned = np.flip(array, axis) if flip else array
        part = turned[:half] if axis == 0 else turned[:, :half]
        return np.concatenate([part, np.flip(part, axis)], axis)

    return moves.rearrange(draft, mirror) if half >= 4 else draft


def jigsaw(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Cut into tiles and swap a share of them; harder = more and smaller tiles."""
    return _tiles(draft, 2 + round(3 * strength), 0.3 + 0.7 * strength, False, rng)


def turned_tiles(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Cut into tiles and turn a share of them by half a turn, in their places."""
    return _tiles(draft, 2 + round(2 * strength), 0.3 + 0.7 * strength, True, rng)


def _tiles(draft: Draft, side: int, share: float, turn: bool, rng: Rng) -> Draft:
    height, width = draft.height // side, draft.width // side
    if min(height, width) < 4:
        return draft
    chosen = np.flatnonzero(rng.random(side * side) < share)
    target = np.arange(side * side)
    target[chosen] = chosen if turn else rng.permutation(chosen)

    def move(array: NDArray[np.generic]) -> NDArray[np.generic]:
        result = array[: side * height, : side * width].copy()
        for to, source in enumerate(target):
            row, column = divmod(int(source), side)
            tile = array[row * height : (row + 1) * height, column * width : (column + 1) * width]
            row, column = divmod(to, side)
            turned = tile[::-1, ::-1] if turn and to in chosen else tile
            result[row * height : (row + 1) * height, column * width : (column + 1) * width] = turned
        return result

    return moves.rearrange(draft, move)


def shift_strips(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Cut into strips and slide each along itself, around the edge."""
    strips = int(rng.integers(3, 4 + round(8 * strength)))
    across = rng.random() < 0.5
    offsets = np.rint(rng.uniform(-0.35, 0.35, strips) * strength * (draft.width if across else draft.height)).astype(
        int
    )

    def move(array: NDArray[np.generic]) -> NDArray[np.generic]:
        parts = np.array_split(array, strips, axis=0 if across else 1)
        slid = [np.roll(part, offset, 1 if across else 0) for part, offset in zip(parts, offsets, strict=True)]
        return np.concatenate(slid, 0 if across else 1)

    return moves.rearrange(draft, move)


def drop_strips(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Cut some strips out and push the rest together."""
    axis = int(rng.integers(2))
    strips = int(rng.integers(4, 12))
    keep = rng.random(strips) > 0.15 + 0.4 * strength
    keep[rng.choice(strips, 2, replace=False)] = True

    def move(array: NDArray[np.generic]) -> NDArray[np.generic]:
        parts = np.array_split(array, strips, axis)
        return np.concatenate([part for part, kept in zip(parts, keep, strict=True) if kept], axis)

    return moves.rearrange(draft, move) if draft.short_side >= 48 else draft


def repeat(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Tile the picture with itself."""
    rows, columns = [(1, 2), (2, 1), (2, 2), (2, 3), (3, 3)][min(int(strength * 3) + int(rng.integers(2)), 4)]
    tiled = moves.rearrange(draft, lambda array: np.tile(array, (rows, columns, 1)))
    return moves.resize(tiled, draft.width, draft.height)


GEOMETRY: dict[str, EditFunction] = {
    "crop": crop,
    "cut_side": cut_side,
    "shrink": shrink,
    "stretch": stretch,
    "hflip": hflip,
    "vflip": vflip,
    "transpose": transpose,
    "quarter_turn": quarter_turn,
    "rotate": rotate,
    "affine": affine,
    "perspective": perspective,
    "barrel": barrel,
    "elastic": elastic,
    "grid_warp": grid_warp,
    "wave": wave,
    "swirl": swirl,
    "polar": polar,
    "kaleidoscope": kaleidoscope,
    "mirror_half": mirror_half,
    "jigsaw": jigsaw,
    "turned_tiles": turned_tiles,
    "shift_strips": shift_strips,
    "drop_strips": drop_strips,
    "repeat": repeat,
}
