"""What Pillow makes of the colour functions' arguments, and on which of them it is asked."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance, ImageOps


def brightness(image, factor):
    """Pillow's `ImageEnhance.Brightness`."""
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor))


def contrast(image, factor):
    """Pillow's `ImageEnhance.Contrast`."""
    return np.asarray(ImageEnhance.Contrast(Image.fromarray(image)).enhance(factor))


def saturation(image, factor):
    """Pillow's `ImageEnhance.Color`."""
    return np.asarray(ImageEnhance.Color(Image.fromarray(image)).enhance(factor))


def sharpness(image, factor):
    """Pillow's `ImageEnhance.Sharpness`."""
    return np.asarray(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(factor))


def hue(image, shift):
    """What torchvision does to Pillow's images: an addition to the H of Pillow's HSV."""
    hues, saturations, values = Image.fromarray(image).convert("HSV").split()
    turned = np.asarray(hues) + np.int32(np.float32(shift) * np.float32(255)).astype(np.uint8)
    turned = Image.merge("HSV", (Image.fromarray(turned), saturations, values))
    return np.asarray(turned.convert("RGB"))


def grayscale(image):
    """Pillow's mode L, in all channels."""
    picture = Image.fromarray(image)
    return np.asarray(picture.convert("L").convert(picture.mode))


def invert(image):
    """Pillow's `ImageOps.invert`."""
    return np.asarray(ImageOps.invert(Image.fromarray(image)))


def solarize(image, threshold):
    """Pillow's `ImageOps.solarize`."""
    return np.asarray(ImageOps.solarize(Image.fromarray(image), threshold))


def solarize_add(image, addend, threshold=128):
    """A table given to Pillow's `point`, as timm does, and clipped below as well."""
    table = [min(255, max(0, i + int(addend))) if i < threshold else i for i in range(256)]
    picture = Image.fromarray(image)
    return np.asarray(picture.point(table * len(picture.getbands())))


def posterize(image, bits):
    """Pillow's `ImageOps.posterize`."""
    return np.asarray(ImageOps.posterize(Image.fromarray(image), bits))


def equalize(image):
    """Pillow's `ImageOps.equalize`."""
    return np.asarray(ImageOps.equalize(Image.fromarray(image)))


def auto_contrast(image):
    """The exact quotient, of which Pillow's doubles fall short by one here and there."""
    low, high = (end(image, axis=(0, 1)).astype(int) for end in (np.min, np.max))
    stretched = (image.astype(int) - low) * 255 // np.maximum(high - low, 1)
    return np.where(high > low, stretched, image).astype(np.uint8)


REFERENCES = {
    function.__name__: function
    for function in (
        auto_contrast,
        brightness,
        contrast,
        equalize,
        grayscale,
        hue,
        invert,
        posterize,
        saturation,
        sharpness,
        solarize,
        solarize_add,
    )
}

_COLOURS = ("photograph", "noise")
_FACTORS = (0.0, 0.37, 1.0, 1.9, -0.25)


def _cases(name: str, values: tuple) -> list[tuple[str, dict]]:
    return [(image, {name: value}) for value in values for image in _COLOURS]


# By function, the arguments with which the unit tests ask again: image and numbers.
CASES = {
    "auto_contrast": [(image, {}) for image in _COLOURS],
    "brightness": _cases("factor", _FACTORS),
    "contrast": [*_cases("factor", _FACTORS), ("gray", {"factor": 1.4})],
    "equalize": [(image, {}) for image in (*_COLOURS, "gray")],
    "grayscale": [(image, {}) for image in _COLOURS],
    "hue": _cases("shift", (-0.5, -0.1, 0.0, 0.03, 0.4)),
    "invert": [(image, {}) for image in _COLOURS],
    "posterize": _cases("bits", (1, 2, 4, 6, 8)),
    "saturation": _cases("factor", _FACTORS),
    "sharpness": [*_cases("factor", _FACTORS), ("gray", {"factor": 1.4})],
    "solarize": _cases("threshold", (0, 1, 127.5, 200, 256)),
    "solarize_add": _cases("addend", (0, 33, 110, 255, -20)),
}
