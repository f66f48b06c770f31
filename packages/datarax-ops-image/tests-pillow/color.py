"""What Pillow makes of the colour functions' arguments, and on which of them it is asked."""

from __future__ import annotations

REFERENCES = {}

# By function, the arguments with which the unit tests ask again: image and numbers.
CASES = {}
