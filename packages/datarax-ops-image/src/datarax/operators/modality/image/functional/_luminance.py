"""The luminance of a colour image, as Pillow's mode L (ITU-R BT.601 in 16 fractional bits)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from datarax.operators.modality.image.functional._compiled import compiled
from datarax.operators.modality.image.functional._dtypes import checked, computing
from datarax.operators.modality.image.functional._exact import product, stored

_WEIGHTS = (19595, 38470, 7471)


def in_colour(image: Array, function: str) -> Array:
    """The image as `(height, width, channel)` with 1 or 3 channels.

    Raises:
      TypeError: if its dtype is not one of images.
      ValueError: if it has another shape.
    """
    image = checked(image)
    if image.ndim == 2:
        return image[..., None]
    if image.shape[2] not in (1, 3):
        raise ValueError(
            f"{function} needs an image of 1 or 3 channels (gray or RGB), got shape {image.shape}; "
            "pass image[..., :3] and put the other channels back"
        )
    return image


def luminance(image: Array) -> Array:
    """The luminance of an image of 1 or 3 channels.

    Args:
      image: `(height, width, channel)`, uint8 or a dtype of computation.

    Returns:
      `(height, width, 1)`, of the image's dtype.
    """
    if image.shape[2] == 1:
        return image
    if image.dtype == jnp.uint8:
        wide = image.astype(jnp.int32)
        total = sum(wide[..., i] * np.int32(weight) for i, weight in enumerate(_WEIGHTS))
        return ((total + np.int32(1 << 15)) >> np.int32(16)).astype(jnp.uint8)[..., None]
    terms = (
        product(image[..., i], np.asarray(weight / 65536, image.dtype))
        for i, weight in enumerate(_WEIGHTS)
    )
    red, green, blue = terms
    return (red + green + blue)[..., None]


@compiled()
def grayscale(
    image: Shaped[Array, "height width *channel"],
) -> Shaped[Array, "height width *channel"]:
    """Every channel becomes the luminance; the number of channels stays.

    Args:
      image: `(height, width, channel)` with 1 or 3 channels, or `(height, width)`; uint8 or
        floating. One channel is its own luminance.

    Returns:
      The shape and dtype of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another shape.
    """
    colour = in_colour(image, "grayscale")
    if colour.shape[2] == 1:
        return image
    wide = colour if colour.dtype == jnp.uint8 else colour.astype(computing(colour.dtype))
    gray = luminance(wide)
    gray = gray if colour.dtype == jnp.uint8 else stored(gray, colour.dtype)
    return jnp.broadcast_to(gray, image.shape)
