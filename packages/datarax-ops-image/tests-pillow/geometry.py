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
        border = (left, top, right, bottom)
        picture = ImageOps.expand(Image.fromarray(image), border, _color(fill, image))
        return np.asarray(picture)
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


def affine(image, matrix, method="bilinear", fill=0):
    """Pillow's `transform`, which takes x before y."""
    (yy, yx, y), (xy, xx, x) = np.asarray(matrix, np.float32).tolist()
    picture = Image.fromarray(image).transform(
        image.shape[1::-1],
        Image.Transform.AFFINE,
        (xx, xy, x, yx, yy, y),
        METHODS[method],
        fillcolor=_color(fill, image),
    )
    return np.asarray(picture)


def rotate(image, degrees, method="bilinear", fill=0):
    """Pillow's `rotate`."""
    angle = float(np.float32(degrees))
    picture = Image.fromarray(image).rotate(angle, METHODS[method], fillcolor=_color(fill, image))
    return np.asarray(picture)


def _color(fill, image):
    if isinstance(fill, list):
        return tuple(fill)
    return fill if image.ndim == 2 else (fill,) * image.shape[2]


REFERENCES = {
    "affine": affine,
    "crop": crop,
    "flip": flip,
    "pad": pad,
    "resize": resize,
    "resized_crop": resized_crop,
    "rotate": rotate,
}

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
    "resize": [
        ("photograph", {"size": (64, 48), "method": "bilinear"}),
        ("noise", {"size": (97, 151), "method": "bilinear"}),
        ("gray", {"size": (3, 2), "method": "bilinear"}),
        ("photograph", {"size": (31, 48), "method": "bicubic"}),
        ("noise", {"size": (97, 151), "method": "bicubic"}),
        ("photograph", {"size": (31, 105), "method": "nearest"}),
    ],
    "resized_crop": [
        (image, {"box": box, "size": (56, 48), "method": method, "flip": flip})
        for image, method in (
            ("photograph", "bilinear"),
            ("noise", "bicubic"),
            ("photograph", "nearest"),
        )
        for box, flip in (
            ((3, 5, 66, 78), False),
            ((40, 11, 71, 50), True),
            ((9, 20, 10, 23), False),
            ((0, 0, 71, 83), True),
        )
    ],
    # Of bilinear and bicubic, cases in which no value is one of the few that differ.
    "affine": [
        (image, {"matrix": matrix, "method": method, "fill": fill})
        for image, method, fill in (
            *(("photograph", method, [9, 88, 250]) for method in METHODS),
            ("gray", "bilinear", 33),
        )
        for matrix in (
            [[1, 0, 0], [0.25, 1, -8.0]],
            [[0.75, 0.125, 6.5], [-0.5, 1.25, 3.25]],
            [[-1, 0, 83], [0, 1.5, -20]],
        )
    ],
    "rotate": [
        (image, {"degrees": degrees, "method": method, "fill": fill})
        for image, method, fill in (
            *(("photograph", method, [9, 88, 250]) for method in METHODS),
            ("gray", "bilinear", 33),
        )
        for degrees in (0, 90, -33, 12.5, 399)
    ],
}
