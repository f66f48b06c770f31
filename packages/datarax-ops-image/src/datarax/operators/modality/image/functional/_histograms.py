"""Tables that depend on the image's own values: equalize and auto-contrast."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

from datarax.operators.modality.image.functional._compiled import compiled
from datarax.operators.modality.image.functional._dtypes import checked, computing
from datarax.operators.modality.image.functional._exact import settled, stored
from datarax.operators.modality.image.functional._levels import of_levels, to_levels


@compiled()
def equalize(
    image: Shaped[Array, "height width *channel"],
) -> Shaped[Array, "height width *channel"]:
    """Flattens the histogram of each channel.

    With step = (number of pixels except those of the largest value) // 255, a value becomes
    (step // 2 + number of smaller pixels) // step, at most 255. A channel of one value, or with a
    step of 0, stays.

    Args:
      image: `(height, width, channel)` or `(height, width)`, uint8 or floating. Of floats the
        nearest of 256 levels counts, and the result is a level, divided by 255; NaN stays and
        counts as 0. Their gradient is zero.

    Returns:
      The shape and dtype of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another rank.
    """
    image = checked(image)
    if image.dtype == jnp.uint8:
        return _equalized(image)
    pixels = image.astype(computing(image.dtype))
    levels = _equalized(to_levels(pixels).astype(jnp.uint8))
    equal = of_levels(levels.astype(pixels.dtype))
    return stored(jnp.where(jnp.isnan(pixels), pixels, equal), image.dtype)


def _equalized(image: Array) -> Array:
    def of_channel(values: Array) -> Array:
        table = lax.platform_dependent(values, cpu=_table_in_turn, default=_table_by_product)
        return table[values.astype(jnp.int32)]

    channels = image.reshape(image.shape[0] * image.shape[1], -1)
    return jax.vmap(of_channel, 1, 1)(channels).reshape(image.shape)


# Mapped over records and channels it stays a loop; scatters take six times as long.
@jax.custom_batching.sequential_vmap
def _table_in_turn(values: Array) -> Array:
    """The new value of each value, uint8 `(256,)`, out of `(pixels,)`, counted one by one.

    Adds to four tables in turn, so that an addition need not wait for the one before it.
    """

    def count(counts: Array, few: Array) -> Array:
        for number in range(few.size):
            # Added here, because XLA copies all tables at each step if it is a vector's sum.
            place = (few[number].astype(jnp.int32) + np.int32(number % 4 * 256),)
            one_more = lax.dynamic_slice(counts, place, (1,)) + np.int32(1)
            counts = lax.dynamic_update_slice(counts, one_more, place)
        return counts

    def turn(number: Array, counts: Array) -> Array:
        return count(counts, lax.dynamic_slice(values, (number * np.int32(16),), (16,)))

    turns = values.size // 16
    counts = jnp.zeros(4 * 256, jnp.int32)
    if turns:
        counts = lax.fori_loop(0, turns, turn, counts)
    counts = count(counts, values[16 * turns :]).reshape(4, 256)
    return _equalizing_table(jnp.sum(counts, axis=0, dtype=jnp.int32))


def _table_by_product(values: Array) -> Array:
    """The same, counted by a product of matrices.

    Upper and lower halves of the bytes are one-hot vectors; sums of int8 products are int32, exact
    for every image.
    """
    halves = np.arange(16, dtype=np.uint8)
    upper = (values[:, None] >> np.uint8(4) == halves).astype(jnp.int8)
    lower = (values[:, None] & np.uint8(15) == halves).astype(jnp.int8)
    counts = lax.dot_general(
        upper, lower, (((0,), (0,)), ((), ())), preferred_element_type=jnp.int32
    )
    return _equalizing_table(counts.reshape(256))


def _equalizing_table(counts: Array) -> Array:
    """The new value of each value, uint8 `(256,)`, from how often each of them stands."""
    smaller = jnp.cumsum(counts, dtype=jnp.int32) - counts
    pixels = smaller[-1] + counts[-1]
    values = np.arange(256, dtype=np.int32)
    largest = jnp.max(jnp.where(counts > 0, values, 0))
    step = lax.div(pixels - counts[largest], np.int32(255))

    def flattened() -> Array:
        divisor = jnp.broadcast_to(jnp.maximum(step, 1), (256,))
        table = lax.div(lax.div(step, np.int32(2)) + smaller, divisor)
        return jnp.minimum(table, 255).astype(jnp.uint8)

    # One value alone has no smaller pixels, hence a step of 0. A condition also keeps the divisions
    # out of the look-up, where there would be one for each pixel.
    return lax.cond(step > 0, flattened, lambda: jnp.asarray(values.astype(np.uint8)))


@compiled()
def auto_contrast(
    image: Shaped[Array, "height width *channel"],
) -> Shaped[Array, "height width *channel"]:
    """Stretches each channel so that its smallest value becomes black and its largest white.

    uint8: 255 (x - low) // (high - low). Floats: (x - low) / (high - low), where NaN stays and
    counts for neither. A channel of one value stays.

    Args:
      image: `(height, width, channel)` or `(height, width)`, uint8 or floating.

    Returns:
      The shape and dtype of `image`.

    Raises:
      TypeError: if the dtype is not one of images.
      ValueError: if the image has another rank.
    """
    image = checked(image)
    if image.dtype == jnp.uint8:
        low, high = (_over_pixels(extreme, image) for extreme in (jnp.min, jnp.max))
        pixels = image.astype(jnp.float32)
    else:
        pixels = image.astype(computing(image.dtype))
        missing = jnp.isnan(pixels)
        low = jnp.min(jnp.where(missing, np.asarray(np.inf, pixels.dtype), pixels), (0, 1))
        high = jnp.max(jnp.where(missing, np.asarray(-np.inf, pixels.dtype), pixels), (0, 1))
    span = high - low
    one = np.asarray(1, span.dtype)
    scale = settled(one / jnp.where(span > 0, span, one))
    if image.dtype != jnp.uint8:
        return stored(jnp.where(span > 0, (pixels - low) * scale, pixels), image.dtype)
    # Half a unit keeps every quotient, as rounded as it may be, away from whole numbers.
    stretched = ((pixels - low) * np.float32(255) + np.float32(0.5)) * scale
    return jnp.where(span > 0, stretched, pixels).astype(jnp.uint8)


def _over_pixels(extreme: Callable[..., Array], image: Array) -> Array:
    """The smallest or largest value of each channel as float32, over rows and then over columns.

    The barrier keeps the two apart: on a CPU they take a tenth of the time of both at once.
    """
    of_columns = lax.optimization_barrier(extreme(image, 0))
    return extreme(of_columns, 0).astype(jnp.float32)
