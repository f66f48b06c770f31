"""What Pillow makes of a batch by timm's rules, in doubles as timm computes them.

Run with Pillow at the version that the nox session pins to write the file that the unit tests read.
"""

from __future__ import annotations

import json

import color
import geometry
import numpy as np
import PIL
from make_golden import GOLDEN, digest, images

NAMES = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "SolarizeAdd",
    "ColorIncreasing",
    "ContrastIncreasing",
    "BrightnessIncreasing",
    "SharpnessIncreasing",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
FILL = 128
FILE = GOLDEN / "policies" / "rand_augment.json"


def changed(image, name, magnitude):
    """The image after one operation; the magnitude is from -10 to 10."""
    part, size = magnitude / 10, abs(magnitude) / 10

    def moved(*matrix):
        return geometry.affine(image, matrix, fill=FILL)

    enhance = max(0.1, 1 + 0.9 * part)
    makes = {
        "AutoContrast": lambda: color.auto_contrast(image),
        "Equalize": lambda: color.equalize(image),
        "Invert": lambda: color.invert(image),
        "Rotate": lambda: geometry.rotate(image, 30 * part, fill=FILL),
        "PosterizeIncreasing": lambda: color.posterize(image, 4 - int(4 * size)),
        "SolarizeIncreasing": lambda: color.solarize(image, 256 - min(256, int(256 * size))),
        "SolarizeAdd": lambda: color.solarize_add(image, min(128, int(110 * size))),
        "ColorIncreasing": lambda: color.saturation(image, enhance),
        "ContrastIncreasing": lambda: color.contrast(image, enhance),
        "BrightnessIncreasing": lambda: color.brightness(image, enhance),
        "SharpnessIncreasing": lambda: color.sharpness(image, enhance),
        "ShearX": lambda: moved((1, 0, 0), (0.3 * part, 1, 0)),
        "ShearY": lambda: moved((1, 0.3 * part, 0), (0, 1, 0)),
        "TranslateXRel": lambda: moved((1, 0, 0), (0, 1, 0.45 * part * image.shape[1])),
        "TranslateYRel": lambda: moved((1, 0, 0.45 * part * image.shape[0]), (0, 1, 0)),
    }
    return makes[name]()


def augmented(pictures, operation, magnitude):
    """The batch after all layers; operation -1 is none."""
    made = []
    for image, numbers, strengths in zip(pictures, operation, magnitude, strict=True):
        for number, strength in zip(numbers, strengths, strict=True):
            if number >= 0:
                image = changed(image, NAMES[number], float(strength))
        made.append(image)
    return np.stack(made)


def batch(seed, rows):
    """Parts of a photograph, and what happens to each: every operation comes first in two rows."""
    random = np.random.default_rng(seed)
    photograph = images()["photograph"]
    places = random.integers(0, 30, (rows, 2))
    pictures = np.stack([photograph[y : y + 60, x : x + 50] for y, x in places])
    first = np.arange(rows) % len(NAMES)
    operation = np.stack([first, random.integers(-1, len(NAMES), rows)], 1)
    magnitude = random.normal(9, 0.5, (rows, 2)).clip(0, 10) * random.choice((-1, 1), (rows, 2))
    return pictures, operation.astype(np.int32), magnitude.astype(np.float32)


def text():
    """The file: hashes of the batch and of what Pillow makes of it."""
    pictures, operation, magnitude = batch(0, 30)
    numbers = {"operation": operation.tolist(), "magnitude": magnitude.astype(float).tolist()}
    kept = {
        "pillow": PIL.__version__,
        **numbers,
        "pictures": digest(pictures),
        "digest": digest(augmented(pictures, operation, magnitude)),
    }
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in kept.items())
    return "{" + ",\n ".join(lines) + "}\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text(), encoding="utf-8")
