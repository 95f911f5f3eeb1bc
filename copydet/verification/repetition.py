"""Repeated patterns: chessboards, rows of dots and tiles lie on each other wherever their periods do.

Where what two pictures share looks the same when it is moved by a period, a transform that fits proves nothing: it fits
as well a period further. A horizon may be moved along itself without changing at all; that is no period: on the way to
the next place of a pattern there is something else.
"""

from typing import Any

import cv2
import numpy as np

from copydet.verification.canvas import Floats, Picture, shared_canvas
from copydet.verification.outline import Matrix

_FARTHEST = 0.3  # that the picture is moved, of its sides
_CANVAS, _LEAST = 96, 24  # pixels, the longer and the shorter side
_ALIKE, _OTHERWISE = 0.9, 0.7  # correlation a period further; that lies between a place and the next one like it
_TEXTURE = 16.0  # variance in squared grey levels: with less nothing is to be seen


def is_repeated(query: Picture, reference: Picture, matrix: Matrix) -> bool:
    """Whether what two pictures share, where `matrix` (query -> reference pixels) lets them overlap, has periods."""
    canvas = shared_canvas(query.size, reference.size, matrix, _CANVAS, _LEAST)
    return canvas is not None and has_periods(canvas.draw(reference)) and has_periods(canvas.draw(query, matrix))


def has_periods(grey: Floats) -> bool:
    """Whether a picture float32 [h, w] looks the same when it is moved by _FARTHEST of its sides or less."""
    height, width = grey.shape
    down, across = int(height * _FARTHEST), int(width * _FARTHEST)
    middle = grey[down : height - down, across : width - across]
    if middle.var() < _TEXTURE:
        return False
    moved: Any = cv2.matchTemplate(grey, middle, cv2.TM_CCOEFF_NORMED)
    _, lobes = cv2.connectedComponents((moved > _OTHERWISE).astype(np.uint8), connectivity=8)
    elsewhere = moved[lobes != lobes[down, across]]
    return bool(elsewhere.size) and float(elsewhere.max()) > _ALIKE
