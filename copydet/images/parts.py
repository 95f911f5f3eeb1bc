"""Parts of an image that are described by themselves, by name and as shares of its sides.

Queries are cut into parts when they are asked about (search/views.py), references when they are indexed, if the recipe
says so: then a part of the reference that fills the query is found by its descriptor, too.
"""

from typing import NamedTuple

from copydet.records import Pixels

SMALLEST_PART = 24  # pixels a side: smaller parts say nothing


class Part(NamedTuple):
    """Left, top, right and bottom are shares of the sides."""

    name: str
    left: float
    top: float
    right: float
    bottom: float

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The first column and row, and those after the last, in an image of this size."""
        return (
            round(self.left * width),
            round(self.top * height),
            round(self.right * width),
            round(self.bottom * height),
        )


WHOLE = Part("whole", 0, 0, 1, 1)
HALVES = (
    Part("left half", 0, 0, 1 / 2, 1),
    Part("right half", 1 / 2, 0, 1, 1),
    Part("top half", 0, 0, 1, 1 / 2),
    Part("bottom half", 0, 1 / 2, 1, 1),
    Part("centre half", 1 / 4, 1 / 4, 3 / 4, 3 / 4),
)
QUARTERS = (
    Part("top left quarter", 0, 0, 1 / 2, 1 / 2),
    Part("top right quarter", 1 / 2, 0, 1, 1 / 2),
    Part("bottom left quarter", 0, 1 / 2, 1 / 2, 1),
    Part("bottom right quarter", 1 / 2, 1 / 2, 1, 1),
)
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "middle", "right")
NINTHS = tuple(
    Part(
        "middle ninth" if row == column == 1 else f"{_ROWS[row]} {_COLUMNS[column]} ninth",
        0.3 * column,
        0.3 * row,
        0.3 * column + 0.4,
        0.3 * row + 0.4,
    )
    for row in range(3)
    for column in range(3)
)

# What a recipe's `reference_views` describes beside the whole image. Parts of .6 or 2/3 of the sides find no more.
REFERENCE_VIEWS: dict[str, tuple[Part, ...]] = {"whole": (), "quarters": (*QUARTERS, HALVES[4])}


def cut(pixels: Pixels, part: Part) -> Pixels:
    """A part of an image [h, w, 3], sharing its memory; the image itself where the part would be too small."""
    left, top, right, bottom = part.pixels(pixels.shape[1], pixels.shape[0])
    return pixels if min(right - left, bottom - top) < SMALLEST_PART else pixels[top:bottom, left:right]
