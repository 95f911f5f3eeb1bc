"""Edits that put the picture into something larger: frames, other pictures, collages, memes, screenshots, screens."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from copydet.images.edits import draft as moves
from copydet.images.edits import drawing
from copydet.images.edits.draft import Draft, EditFunction
from copydet.records import Pixels

Others = Sequence[Pixels]
Rng = np.random.Generator


def pad(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Plain borders of unequal widths."""
    left, right = np.rint(rng.uniform(0, 0.6, 2) * strength * draft.width).astype(int)
    top, bottom = np.rint(rng.uniform(0, 0.6, 2) * strength * draft.height).astype(int)
    size = (draft.height + top + bottom, draft.width + left + right)
    return moves.place(draft, drawing.plain(size, moves.colour(rng)), int(left), int(top))


def border(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """A border of equal width in one colour."""
    edge = max(round(draft.short_side * (0.02 + 0.2 * strength * rng.random())), 1)
    return moves.place(
        draft, drawing.plain((draft.height + 2 * edge, draft.width + 2 * edge), moves.colour(rng)), edge, edge
    )


def frame(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """A picture frame: several rings of colour, the outer one textured."""
    edge = max(round(draft.short_side * (0.05 + 0.15 * strength)), 3)
    host = moves.picture((), rng, draft.width + 2 * edge, draft.height + 2 * edge)
    for inset in (edge // 2, edge * 3 // 4):
        cv2.rectangle(
            host, (inset, inset), (host.shape[1] - 1 - inset, host.shape[0] - 1 - inset), moves.colour(rng), -1
        )
    return moves.place(draft, host, edge, edge)


def blurred_border(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """A wide or tall canvas filled with an enlarged, blurred copy of the picture."""
    factor = 1 + strength * rng.uniform(0.3, 1.3)
    wide = rng.random() < 0.5
    width, height = (round(draft.width * factor), draft.height) if wide else (draft.width, round(draft.height * factor))
    host = moves.picture([draft.pixels], rng, width, height)
    host = np.asarray(cv2.GaussianBlur(host, (0, 0), draft.short_side * 0.06), np.uint8)
    return moves.place(draft, host, (width - draft.width) // 2, (height - draft.height) // 2)


def paste(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Put the picture onto another one; at strength 1 it fills as little as a fifteenth of it."""
    share = 1 - strength * rng.uniform(0.4, 0.94)
    size = np.sqrt(draft.width * draft.height / share)
    aspect = np.exp(rng.uniform(-0.35, 0.35))
    width, height = max(round(size * aspect), draft.width), max(round(size / aspect), draft.height)
    host = moves.picture(others, rng, width, height)
    left, top = int(rng.integers(width - draft.width + 1)), int(rng.integers(height - draft.height + 1))
    return _limited(moves.place(draft, host, left, top), draft)


def _limited(result: Draft, before: Draft) -> Draft:
    """A canvas that outgrew the picture is scaled back to at most 1.6 times its sides, as an editor would save it."""
    factor = 1.6 * max(before.width, before.height) / max(result.width, result.height)
    return result if factor >= 1 else moves.resize(result, round(result.width * factor), round(result.height * factor))


def paste_turned(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Put the picture onto another one like a poster on a wall: turned and in perspective."""
    share = 1 - strength * rng.uniform(0.4, 0.85)
    width, height = round(draft.width / np.sqrt(share) * 1.15), round(draft.height / np.sqrt(share) * 1.15)
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [draft.width / 2, draft.height / 2]
    angle = np.deg2rad(rng.uniform(-40, 40) * strength)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    jitter = rng.uniform(-0.12, 0.12, (4, 2)) * strength * [draft.width, draft.height]
    slack = np.array([width - draft.width, height - draft.height]) / 2
    middle = np.array([width, height]) / 2 + rng.uniform(-0.7, 0.7, 2) * slack
    return _stuck_in_perspective(draft, moves.picture(others, rng, width, height), half @ turn.T + jitter + middle)


def _stuck_in_perspective(draft: Draft, host: Pixels, corners: NDArray[np.float64]) -> Draft:
    """Map the draft's corners (top left, then clockwise) to these points of the host."""
    right, bottom = draft.width - 0.5, draft.height - 0.5
    own = np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]], np.float32)
    matrix = np.asarray(cv2.getPerspectiveTransform(own, corners.astype(np.float32)), np.float64)
    height, width = host.shape[:2]
    moved = moves.warp(draft, matrix, width, height)
    inside = cv2.warpPerspective(np.ones(draft.pixels.shape[:2], np.float32), matrix, (width, height))[..., None]
    pixels = np.rint(moved.pixels * inside + host * (1 - inside)).astype(np.uint8)
    return _limited(Draft(pixels, moved.origin, moved.homography), draft)


def cut_out(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Keep only a shape from the picture's middle and put it onto another background."""
    share = 1 - 0.45 * strength
    width, height = max(round(draft.width * share), 1), max(round(draft.height * share), 1)
    keep = np.zeros(draft.pixels.shape[:2], bool)
    top, left = (draft.height - height) // 2, (draft.width - width) // 2
    keep[top : top + height, left : left + width] = drawing.blob(rng, width, height)
    host = moves.picture(others, rng, draft.width, draft.height)
    return moves.cover(draft, host, (~keep).astype(np.float32))


def collage(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """One of the fields of a grid of pictures: two at strength 0, nine at 1."""
    rows, columns = [(1, 2), (2, 1), (2, 2), (2, 3), (3, 3)][min(int(strength * 4) + int(rng.integers(2)), 4)]
    gap = int(rng.integers(0, max(draft.short_side // 16, 1) + 1))
    width, height = draft.width + gap, draft.height + gap
    host = drawing.plain((rows * height + gap, columns * width + gap), moves.colour(rng))
    mine = int(rng.integers(rows * columns))
    for field in range(rows * columns):
        if field != mine:
            top, left = (field // columns) * height + gap, (field % columns) * width + gap
            other = moves.picture(others, rng, draft.width, draft.height)
            host[top : top + draft.height, left : left + draft.width] = other
    return _limited(moves.place(draft, host, (mine % columns) * width + gap, (mine // columns) * height + gap), draft)


def stack(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Another picture above, below or beside."""
    share = 0.3 + 1.5 * strength * rng.random()
    vertical, first = rng.random() < 0.5, rng.random() < 0.5
    width = draft.width if vertical else max(round(draft.width * share), 8)
    height = max(round(draft.height * share), 8) if vertical else draft.height
    other = moves.picture(others, rng, width, height)
    blank = np.zeros_like(draft.pixels)
    host = np.concatenate([blank, other] if first else [other, blank], 0 if vertical else 1)
    left, top = (0, 0) if first else ((0, height) if vertical else (width, 0))
    return _limited(moves.place(draft, host, left, top), draft)


def caption(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """A bar with text above or below."""
    bar = max(round(draft.height * (0.12 + 0.3 * strength * rng.random())), 12)
    dark = rng.random() < 0.4
    paper, ink = ((0, 0, 0), (255, 255, 255)) if dark else ((255, 255, 255), (0, 0, 0))
    above = rng.random() < 0.6
    host = drawing.plain((draft.height + bar, draft.width), paper)
    y = bar * 0.15 if above else draft.height + bar * 0.15
    opacity = drawing.text_opacity(_lines(draft, bar, rng), bar // 3, draft.width, draft.height + bar, 4, y)[..., None]
    host = np.rint(host * (1 - opacity) + np.array(ink) * opacity).astype(np.uint8)
    return moves.place(draft, host, 0, bar if above else 0)


def _lines(draft: Draft, bar: int, rng: Rng) -> str:
    count = max(draft.width // max(bar, 8), 1)
    return "\n".join(drawing.words(rng, count + 1) for _ in range(2))


def meme(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """Large outlined capitals at the top and the bottom."""
    largest = max(round(draft.short_side * (0.07 + 0.1 * strength)), 8)
    for place in (0.0, 1.0):
        line = drawing.words(rng, int(rng.integers(2, 5))).upper()
        size = max(round(largest * min(1, 0.96 * draft.width / drawing.text_size(line, largest)[0])), 8)
        y = place * (draft.height - 1.4 * size)
        x = max((draft.width - drawing.text_size(line, size)[0]) / 2, 2)
        outline = drawing.text_opacity(line, size, draft.width, draft.height, x, y, stroke=max(size // 10, 1))
        draft = moves.cover(draft, drawing.plain(draft.pixels.shape, (0, 0, 0)), outline)
        letters = drawing.text_opacity(line, size, draft.width, draft.height, x, y)
        draft = moves.cover(draft, drawing.plain(draft.pixels.shape, (255, 255, 255)), letters)
    return draft


def screenshot(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """A post in an app: status line, name with round portrait, the picture, buttons, comments."""
    unit = max(draft.width // 20, 6)
    side = round(unit * strength * rng.uniform(0, 4))
    top, bottom = round(unit * (3 + 5 * strength * rng.random())), round(unit * (2 + 8 * strength * rng.random()))
    dark = rng.random() < 0.4
    paper, ink = ((18, 18, 20), (230, 230, 230)) if dark else ((250, 250, 250), (30, 30, 30))
    host = drawing.plain((draft.height + top + bottom, draft.width + 2 * side), paper)
    height, width = host.shape[:2]
    portrait = max(unit // 2, 2)
    cv2.circle(host, (side + 2 * unit, top - unit - portrait), portrait, moves.colour(rng), -1, cv2.LINE_AA)
    rows = [(side + 3 * unit, top - 2 * unit, 2), (side + unit, 0, 3)]
    rows += [
        (side + unit, y, 6) for y in range(draft.height + top + unit * 3 // 2, height - unit, max(unit * 3 // 2, 1))
    ]
    for x, y, count in rows:
        opacity = drawing.text_opacity(drawing.words(rng, count), unit, width, height, x, y)[..., None]
        host = np.rint(host * (1 - opacity) + np.array(ink) * opacity).astype(np.uint8)
    for button in range(3):
        centre = (side + unit * (1 + 2 * button), draft.height + top + unit * 3 // 4)
        cv2.circle(host, centre, portrait, ink, max(unit // 8, 1), cv2.LINE_AA)
    return _limited(moves.place(draft, host, side, top), draft)


def photo_of_screen(draft: Draft, strength: float, rng: Rng, others: Others) -> Draft:
    """The picture on a monitor, photographed by hand: bezel, perspective, moire, glare, warm or cold light, blur."""
    bezel = max(round(draft.short_side * 0.05), 2)
    screen = moves.place(
        draft, drawing.plain((draft.height + 2 * bezel, draft.width + 2 * bezel), (15, 15, 17)), bezel, bezel
    )
    width, height = round(screen.width * (1.05 + 0.3 * strength)), round(screen.height * (1.05 + 0.3 * strength))
    slack = np.array([width - screen.width, height - screen.height])
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * [screen.width, screen.height] + slack / 2
    corners = corners + rng.uniform(-0.5, 0.5, (4, 2)) * strength * slack
    host = cv2.GaussianBlur(moves.picture(others, rng, width, height), (0, 0), 3)
    shot = _stuck_in_perspective(screen, np.asarray(host, np.uint8), corners)
    lit = _screen_light(shot.pixels, strength, rng)
    return Draft(lit, shot.origin, shot.homography)


def _screen_light(pixels: Pixels, strength: float, rng: Rng) -> Pixels:
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(2.2, 6.0)
    bend = np.sin(x / pixels.shape[1] * rng.uniform(1, 4)) * 6
    moire = np.sin((x * np.cos(angle) + y * np.sin(angle) + bend) * 2 * np.pi / period)
    lit = pixels * (1 + 0.12 * strength * moire)[..., None] * (1 + rng.uniform(-0.2, 0.2, 3) * strength)
    glare = np.exp(-(((x / pixels.shape[1] - rng.random()) ** 2 + (y / pixels.shape[0] - rng.random()) ** 2) / 0.05))
    lit = lit + (glare * 130 * strength * rng.random())[..., None]
    blurred = cv2.GaussianBlur(np.clip(lit, 0, 255).astype(np.uint8), (0, 0), 0.4 + 0.8 * strength)
    return np.asarray(blurred, np.uint8)


LAYOUT: dict[str, EditFunction] = {
    "pad": pad,
    "border": border,
    "frame": frame,
    "blurred_border": blurred_border,
    "paste": paste,
    "paste_turned": paste_turned,
    "cut_out": cut_out,
    "collage": collage,
    "stack": stack,
    "caption": caption,
    "meme": meme,
    "screenshot": screenshot,
    "photo_of_screen": photo_of_screen,
}
