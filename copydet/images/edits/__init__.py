"""Edited copies of images on the CPU: about a hundred named edits and chains of them in named strengths.

Used to calibrate scores, to tune an index and in tests; deterministic from the random generator that is passed.
"""

from copydet.images.edits.chains import EDITS, STRENGTHS, Edit, EditedCopy, edit_image

__all__ = ["EDITS", "STRENGTHS", "Edit", "EditedCopy", "edit_image"]
