"""Blends with a degenerate image: brightness, contrast, saturation and sharpness.

`degenerate + factor * (image - degenerate)`: factor 0 gives the degenerate image, 1 the image
itself, and more exaggerates. For uint8 the product and the sum are rounded to float32 each, then
clipped to 0..255 and truncated, as Pillow's `Image.blend` does.

References:
  Haeberli & Voorhies, "Image Processing by Interpolation and Extrapolation", 1994.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Shaped

from datarax.operators.modality.image._means import mean_half_up, ordered_mean
from datarax.operators.modality.image.functional._compiled import compiled
from datarax.operators.modality.image.functional._dtypes import checked, computing
from datarax.operators.modality.image.functional._exact import product, stored
from datarax.operators.modality.image.functional._luminance import in_colour, luminance
from datarax.operators.modality.image.functional._numbers import scalar


def _blend(degenerate: Array | None, image: Array, factor: ArrayLike) -> Array:
    """The blend of two images that broadcast, of which no degenerate one is black."""
    wide = computing(image.dtype)
    number = scalar("factor", factor, wide)
    value = number * image.astype(wide)
    if degenerate is not None:
        start = degenerate.astype(wide)
        value = start + product(number, image.astype(wide) - start)
    if image.dtype == jnp.uint8:
        return jnp.clip(value, np.float32(0), np.float32(255)).astype(jnp.uint8)
    return stored(value, image.dtype)


@compiled()
def brightness(
    image: Shaped[Array, "height width *channel"], factor: ArrayLike
) -> Shaped[Array, "height width *channel"]:
    """Blends with black: every channel is multiplied by the factor.

    Args:
      image: `(height, width, channel)` or `(height, width)`, uint8 or floating.
      factor: a number, 1 for the image as it is.

    Returns:
      The shape and dtype of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another rank, or the factor is not one number.
    """
    return _blend(None, checked(image), factor)


@compiled()
def contrast(
    image: Shaped[Array, "height width *channel"], factor: ArrayLike
) -> Shaped[Array, "height width *channel"]:
    """Blends with the image's mean luminance.

    For uint8 the mean is the nearest integer to the exact one, the larger of two. For floats it is
    a sum in a fixed order; one NaN makes it, and the result, NaN.

    Args:
      image: `(height, width, channel)` with 1 or 3 channels, or `(height, width)`; uint8 or
        floating.
      factor: a number, 1 for the image as it is.

    Returns:
      The shape and dtype of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another shape, or the factor is not one number.
    """
    colour = in_colour(image, "contrast")
    if colour.dtype == jnp.uint8:
        mean = mean_half_up(luminance(colour)[..., 0])
    else:
        wide = colour.astype(computing(colour.dtype))
        mean = ordered_mean(luminance(wide).reshape(-1, 1))[0]
    return _blend(mean, colour, factor).reshape(image.shape)


@compiled()
def saturation(
    image: Shaped[Array, "height width *channel"], factor: ArrayLike
) -> Shaped[Array, "height width *channel"]:
    """Blends with the grey image, its luminance.

    Args:
      image: `(height, width, channel)` with 1 or 3 channels, or `(height, width)`; uint8 or
        floating. A grey image stays as it is.
      factor: a number, 1 for the image as it is.

    Returns:
      The shape and dtype of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another shape, or the factor is not one number.
    """
    colour = in_colour(image, "saturation")
    wide = colour if colour.dtype == jnp.uint8 else colour.astype(computing(colour.dtype))
    return _blend(luminance(wide), colour, factor).reshape(image.shape)


@compiled()
def sharpness(
    image: Shaped[Array, "height width *channel"], factor: ArrayLike
) -> Shaped[Array, "height width *channel"]:
    """Blends with the smoothed image: the mean of 3 x 3 pixels, the middle one five times.

    The outermost pixels stay as they are, and so does an image less than 3 pixels high or wide.

    Args:
      image: `(height, width, channel)` or `(height, width)`, uint8 or floating.
      factor: a number, 1 for the image as it is.

    Returns:
      The shape and dtype of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another rank, or the factor is not one number.
    """
    image = checked(image)
    height, width = image.shape[:2]
    number = scalar("factor", factor, computing(image.dtype))
    if height < 3 or width < 3:
        return image
    # Rows of values are long enough for the vector units, pixels of three channels are not.
    rows = image.reshape(height, -1)
    pixel = rows.shape[1] // width
    smooth = _smoothed(rows, pixel)
    inner = _blend(smooth, rows[1:-1, pixel:-pixel], number)
    # Joining takes a third of the time of writing into the image.
    between = jnp.concatenate([rows[1:-1, :pixel], inner, rows[1:-1, -pixel:]], axis=1)
    return jnp.concatenate([rows[:1], between, rows[-1:]]).reshape(image.shape)


def _smoothed(rows: Array, pixel: int) -> Array:
    """The mean of 3 x 3 pixels with weight 5 in the middle, but for the outermost pixels.

    Args:
      rows: `(height, width * channel)`.
      pixel: the number of channels.
    """
    integers = rows.dtype == jnp.uint8
    values = rows.astype(jnp.uint16 if integers else computing(rows.dtype))
    columns = values[:-2] + values[1:-1] + values[2:]
    ring = columns[:, : -2 * pixel] + columns[:, pixel:-pixel] + columns[:, 2 * pixel :]
    middle = values[1:-1, pixel:-pixel]
    if integers:
        # 13 is odd, so that no sum lies halfway between two results.
        total = ring + middle * np.uint16(4)
        return (total * np.uint16(2) + np.uint16(13)) // np.uint16(26)
    total = ring + product(middle, np.asarray(4, middle.dtype))
    return product(total, np.asarray(1 / 13, total.dtype))
