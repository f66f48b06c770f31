"""Sums of neighbouring pixels along one axis: how an image is resized once its taps are known."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt8

from datarax.operators.modality.image.functional._exact import product
from datarax.operators.modality.image.functional._weights import BITS, Taps

# A pass of so many taps is written out, and becomes one loop over the pixels; one with more goes
# round by groups.
STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
GROUP = 8


def _in_rows(one_pass: Callable[..., Array]) -> Callable[..., Array]:
    """A pass that sees (rows, all the rest) where it goes down: one long loop over each row."""

    @wraps(one_pass)
    def wrapped(image: Array, taps: Taps, axis: int) -> Array:
        if axis:
            return one_pass(image, taps, axis)
        flat = one_pass(image.reshape(image.shape[0], -1), taps, 0)
        return flat.reshape(-1, *image.shape[1:])

    return wrapped


@_in_rows
def integer_pass(image: UInt8[Array, "..."], taps: Taps, axis: int) -> UInt8[Array, "..."]:
    """One axis resized, with no more taps than this record's crop needs.

    Args:
      image: uint8 of any rank.
      taps: of this axis, with positions counted from the image's first pixel.
      axis: which one.
    """
    most = taps.weights.shape[0]
    steps = [count for count in STEPS if count < most]
    passes = [partial(_written_out, axis=axis, count=count) for count in steps]
    if most > STEPS[-1]:
        passes.append(partial(going_round, axis=axis))
    else:
        passes.append(partial(_written_out, axis=axis, count=most))
    chosen = jnp.sum(jnp.asarray(steps, jnp.int32) < taps.needed)
    return lax.switch(chosen, passes, image, taps)


@_in_rows
def static_pass(image: UInt8[Array, "..."], taps: Taps, axis: int) -> UInt8[Array, "..."]:
    """The same with all taps that there are."""
    most = taps.weights.shape[0]
    if most > STEPS[-1]:
        return going_round(image, taps, axis)
    return _written_out(image, taps, axis, most)


def _written_out(image: Array, taps: Taps, axis: int, count: int) -> Array:
    total = _tap(image, taps, axis, 0)
    for tap in range(1, count):
        total += _tap(image, taps, axis, tap)
    return _rounded(total)


def going_round(image: UInt8[Array, "..."], taps: Taps, axis: int) -> UInt8[Array, "..."]:
    """The same in a loop over groups of taps, as many as the count demands."""
    missing = -taps.weights.shape[0] % GROUP
    padded = taps._replace(weights=jnp.pad(taps.weights, ((0, missing), (0, 0))))

    def add_group(group: Array, total: Array) -> Array:
        for tap in range(GROUP):
            total += _tap(image, padded, axis, group * GROUP + tap)
        return total

    groups = (taps.needed + (GROUP - 1)) // GROUP
    shape = (*image.shape[:axis], taps.first.shape[0], *image.shape[axis + 1 :])
    return _rounded(lax.fori_loop(0, groups, add_group, jnp.zeros(shape, jnp.int32)))


def _tap(image: Array, taps: Taps, axis: int, tap: int | Array) -> Array:
    """The products of one tap; what it reads beyond the crop has the weight zero."""
    pixels = take(image, taps.first + tap, axis)
    return pixels.astype(jnp.int32) * _along(taps.weights[tap], axis, image)


def _along(weight: Array, axis: int, image: Array) -> Array:
    return weight.reshape([-1 if here == axis else 1 for here in range(image.ndim)])


def _rounded(total: Array) -> UInt8[Array, "..."]:
    """Sums in units of 2 ** -22 as values from 0 to 255, halves upwards."""
    return jnp.clip((total + (1 << (BITS - 1))) >> BITS, 0, 255).astype(jnp.uint8)


def dense_pass(image: UInt8[Array, "..."], taps: Taps, axis: int) -> UInt8[Array, "..."]:
    """The same as a product with a matrix, for backends that multiply matrices fast.

    Halves of the weights, of eleven bits each, times values of eight sum exactly in float32.
    """
    position = jnp.arange(image.shape[axis], dtype=jnp.int32) - taps.first[:, None]
    matrix = jnp.zeros_like(position)
    for tap, weight in enumerate(taps.weights):
        matrix += jnp.where(position == tap, weight[:, None], 0)
    values = jnp.moveaxis(image, axis, 0).astype(jnp.float32)
    high, low = (
        jnp.tensordot(half.astype(jnp.float32), values, 1, precision="highest").astype(jnp.int32)
        for half in (matrix >> 11, matrix & 2047)
    )
    return jnp.moveaxis(_rounded((high << 11) + low), 0, axis)


def floating_pass(image: Array, taps: Taps, axis: int) -> Array:
    """One axis resized in the image's floating dtype, the taps added in their order."""

    def add_tap(tap: int | Array, total: Array) -> Array:
        weight = taps.weights[tap]
        # A pixel without weight is not read: NaN times zero is NaN.
        pixels = take(image, taps.first + jnp.where(weight == 0, 0, tap), axis)
        weight = _along(weight, axis, image)
        return total + jnp.where(weight == 0, jnp.zeros((), image.dtype), product(pixels, weight))

    most = taps.weights.shape[0]
    shape = (*image.shape[:axis], taps.first.shape[0], *image.shape[axis + 1 :])
    total = jnp.zeros(shape, image.dtype)
    if most > STEPS[-1]:
        return lax.fori_loop(0, most, add_tap, total)
    for tap in range(most):
        total = add_tap(tap, total)
    return total


def take(image: Array, position: Array | np.ndarray, axis: int) -> Array:
    """The pixels at positions of an axis, the last one for those beyond it."""
    return jnp.take(image, position, axis=axis, mode="clip")
