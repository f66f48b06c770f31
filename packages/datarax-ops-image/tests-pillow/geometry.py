"""What Pillow makes of the geometric functions' arguments, and on which of them it is asked."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

METHODS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def resize(image, size, method="bilinear"):
    """Pillow's `resize`."""
    picture = Image.fromarray(image).resize(size[::-1], METHODS[method])
    return np.asarray(picture)


def resized_crop(image, box, size, method="bilinear", flip=False):
    """Pillow's `crop`, then `resize`, then `transpose`."""
    y0, x0, y1, x1 = (int(edge) for edge in box)
    picture = Image.fromarray(image).crop((x0, y0, x1, y1)).resize(size[::-1], METHODS[method])
    if flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(picture)


def crop(image, origin, size):
    """Pillow's `crop`."""
    (y, x), (height, width) = origin, size
    return np.asarray(Image.fromarray(image).crop((x, y, x + width, y + height)))


def pad(image, padding, mode="constant", fill=0):
    """Pillow's `expand`, or NumPy's `pad` for the modes that Pillow has not."""
    top, left, bottom, right = padding
    if mode == "constant":
        color = tuple(fill) if isinstance(fill, list) else (fill,) * image.shape[2]
        border = (left, top, right, bottom)
        return np.asarray(ImageOps.expand(Image.fromarray(image), border, color))
    widths = ((top, bottom), (left, right), *[(0, 0)] * (image.ndim - 2))
    return np.pad(image, widths, mode=mode)


def flip(image, vertical, horizontal):
    """Pillow's `transpose`."""
    picture = Image.fromarray(image)
    if vertical:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if horizontal:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(picture)


REFERENCES = {"crop": crop, "flip": flip, "pad": pad}

# By function, the arguments with which the unit tests ask again: image and numbers.
CASES = {
    "crop": [
        (image, {"origin": origin, "size": (55, 50)})
        for image in ("photograph", "noise", "gray")
        for origin in ((0, 0), (3, 3), (5, 1), (4, 2), (1, 2), (2, 0))
    ],
    "flip": [
        (image, {"vertical": vertical, "horizontal": horizontal})
        for image in ("photograph", "noise", "gray")
        for vertical in (False, True)
        for horizontal in (False, True)
    ],
    "pad": [
        ("photograph", {"padding": (1, 2, 3, 4), "fill": [200, 3, 77]}),
        ("noise", {"padding": (9, 0, 4, 4), "mode": "reflect"}),
        ("photograph", {"padding": (4, 4, 4, 4), "mode": "symmetric"}),
        ("gray", {"padding": (8, 2, 40, 3), "mode": "edge"}),
        ("noise", {"padding": (8, 2, 40, 3), "fill": 9}),
    ],
}
