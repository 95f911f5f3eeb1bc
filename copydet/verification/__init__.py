"""Whether two images show the same picture, where, and what was changed: geometry, agreement, difference, words."""
