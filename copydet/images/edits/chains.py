"""Single edits by name, and chains of them in named strengths."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from copydet.errors import UsageError
from copydet.images.edits.draft import Draft, EditFunction, Matrix, on_pixels, overlaps, start
from copydet.images.edits.geometry import GEOMETRY
from copydet.images.edits.layout import LAYOUT
from copydet.images.edits.overlay import OVERLAY
from copydet.images.edits.photometric import PHOTOMETRIC
from copydet.images.edits.texture import TEXTURE
from copydet.records import Pixels

Family = Literal["geometry", "overlay", "layout", "photometric", "texture"]


@dataclass(frozen=True)
class EditedCopy:
    """A copy and what is true of it.

    `homography` float64 [3, 3] maps reference pixels to the copy's pixels (first pixel's centre = (0, 0)), None where
    the chain is no homography. `query_overlap`: share of the copy's area that shows the reference, so whatever hides it
    by half or more is taken off. `reference_overlap`: share of the reference's area that is seen in the copy.
    """

    pixels: Pixels
    edits: tuple[str, ...]
    homography: Matrix | None
    query_overlap: float
    reference_overlap: float


@dataclass(frozen=True)
class Edit:
    """One edit, called with (pixels, strength in [0, 1], rng, other pictures); one state of the rng gives one copy."""

    name: str
    family: Family
    function: EditFunction

    def __call__(
        self, pixels: Pixels, strength: float, rng: np.random.Generator, others: Sequence[Pixels] = ()
    ) -> EditedCopy:
        if not 0 <= strength <= 1:
            raise UsageError(f"the strength of an edit lies between 0 and 1, not {strength}")
        return _finish(self.function(start(pixels), strength, rng, others), pixels, (self.name,))


def _edits() -> dict[str, Edit]:
    moving: list[tuple[Family, dict[str, EditFunction]]] = [
        ("geometry", GEOMETRY),
        ("overlay", OVERLAY),
        ("layout", LAYOUT),
        ("photometric", {name: on_pixels(function) for name, function in PHOTOMETRIC.items()}),
        ("texture", {name: on_pixels(function) for name, function in TEXTURE.items()}),
    ]
    return {name: Edit(name, family, function) for family, table in moving for name, function in table.items()}


EDITS: dict[str, Edit] = _edits()


@dataclass(frozen=True)
class _Plan:
    """How a chain of one strength is drawn: how many edits, how strong, which ones, and how much must stay visible."""

    edits: tuple[int, int]
    strength: tuple[float, float]
    names: tuple[str, ...]
    least_query_overlap: float
    least_reference_overlap: float


# What a person does in passing to share a picture.
_GENTLE = (
    *("crop", "shrink", "stretch", "hflip", "border", "pad", "text", "logo"),
    *("jitter", "brightness", "contrast", "gamma", "saturation", "grey", "sepia", "temperature", "clahe", "vignette"),
    *("blur", "sharpen", "noise", "jpeg", "webp"),
)
# What breaks the picture up or leaves no tone of it unchanged: only hard and extreme copies.
_SEVERE = (
    *(
        "polar",
        "kaleidoscope",
        "mirror_half",
        "jigsaw",
        "turned_tiles",
        "shift_strips",
        "drop_strips",
        "repeat",
        "swirl",
    ),
    *("interleave", "drop_areas", "cut_out", "binarise", "invert", "solarise", "colour_space", "false_colour"),
    *("edges", "sketch", "letters", "emboss", "halftone", "mosaic", "bricks"),
)
_ORDINARY = tuple(name for name in EDITS if name not in _SEVERE)

_PLANS: dict[str, _Plan] = {
    "easy": _Plan((1, 2), (0.05, 0.3), _GENTLE, 0.4, 0.5),
    "medium": _Plan((1, 3), (0.2, 0.6), _ORDINARY, 0.25, 0.25),
    "hard": _Plan((2, 3), (0.4, 0.85), tuple(EDITS), 0.1, 0.12),
    "extreme": _Plan((2, 4), (0.7, 1.0), tuple(EDITS), 0.03, 0.06),
}
STRENGTHS = tuple(_PLANS)

_TRIES = 12
_FAMILY_WEIGHT = {"geometry": 0.28, "layout": 0.22, "overlay": 0.15, "photometric": 0.18, "texture": 0.17}


def edit_image(pixels: Pixels, strength: str, rng: np.random.Generator, others: Sequence[Pixels] = ()) -> EditedCopy:
    """An edited copy by a random chain of the named strength; the same rng state gives the same copy.

    `others` are pictures to paste onto, under and beside (drawn patterns where there are none). A chain that hides too
    much of the reference, or leaves a nearly flat picture, is drawn again. Raises UsageError for an unknown strength.
    """
    if strength not in _PLANS:
        raise UsageError(f"unknown strength {strength!r}; choose one of {', '.join(STRENGTHS)}")
    plan = _PLANS[strength]
    for _ in range(_TRIES):
        copy = _chain(pixels, plan, rng, others)
        if _recognisable(copy, plan, pixels):
            return copy
    return EDITS["jpeg"](pixels, plan.strength[0], rng)


def _chain(pixels: Pixels, plan: _Plan, rng: np.random.Generator, others: Sequence[Pixels]) -> EditedCopy:
    draft = start(pixels)
    names = _draw_names(plan, rng)
    for name in names:
        draft = EDITS[name].function(draft, float(rng.uniform(*plan.strength)), rng, others)
    return _finish(draft, pixels, names)


def _draw_names(plan: _Plan, rng: np.random.Generator) -> tuple[str, ...]:
    """A family first, then one of its edits, so that a family of many edits does not crowd out the others."""
    count = int(rng.integers(plan.edits[0], plan.edits[1] + 1))
    by_family = {family: [name for name in plan.names if EDITS[name].family == family] for family in _FAMILY_WEIGHT}
    weights = np.array([_FAMILY_WEIGHT[family] if names else 0.0 for family, names in by_family.items()])
    families = rng.choice(list(by_family), count, p=weights / weights.sum())
    return tuple(str(rng.choice(by_family[str(family)])) for family in families)


def _recognisable(copy: EditedCopy, plan: _Plan, pixels: Pixels) -> bool:
    """A picture that was flat to begin with may stay flat."""
    seen = copy.query_overlap >= plan.least_query_overlap and copy.reference_overlap >= plan.least_reference_overlap
    return seen and float(copy.pixels.std()) >= min(12.0, 0.5 * float(pixels.std()))


def _finish(draft: Draft, reference: Pixels, names: tuple[str, ...]) -> EditedCopy:
    query_overlap, reference_overlap = overlaps(draft, reference.shape[1], reference.shape[0])
    homography = None if draft.homography is None else draft.homography / draft.homography[2, 2]
    return EditedCopy(draft.pixels, names, homography, query_overlap, reference_overlap)
