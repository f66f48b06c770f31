"""Floating-point arithmetic that gives the same bits however it is compiled."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array


@jax.custom_jvp
def settled(value: ArrayLike) -> Array:
    """The floating-point value as it is, which no compiler merges with what follows.

    A selection stands between two operations: it keeps a product from being contracted with a sum,
    and constants from being moved together. Both sides of it are the value, which compilers do not
    see. They see through `lax.reduce_precision` to the same precision, and through a selection by
    `isnan` where a value was made of integers.
    """
    value = jnp.asarray(value)
    one = np.asarray(1, value.dtype)
    return jnp.where(value > one, value, jnp.minimum(value, one))


@settled.defjvp
def _settled_jvp(primals: tuple[ArrayLike], tangents: tuple[Array]) -> tuple[Array, Array]:
    return settled(*primals), tangents[0]


def product(a: ArrayLike, b: ArrayLike) -> Array:
    """`a * b`, rounded before it goes on: never contracted with a sum that follows."""
    return settled(jnp.multiply(a, b))


def stored(value: Array, dtype: DTypeLike) -> Array:
    """The value rounded to the dtype of an image, which a function that follows reads as rounded.

    XLA may leave out a conversion there and back; it cannot leave out this rounding.
    """
    dtype = jnp.dtype(dtype)
    if dtype == value.dtype:
        return settled(value)
    info = jnp.finfo(dtype)
    rounded = lax.reduce_precision(value, exponent_bits=info.nexp, mantissa_bits=info.nmant)
    if dtype == jnp.float16:
        # `reduce_precision` has no subnormal numbers, of which float16 uses many.
        quantum = np.asarray(2.0**24, value.dtype)
        fixed = lax.round(value * quantum, lax.RoundingMethod.TO_NEAREST_EVEN) / quantum
        rounded = jnp.where(jnp.abs(value) < np.asarray(info.tiny, value.dtype), fixed, rounded)
    if dtype == jnp.bfloat16:
        return _upper_half(rounded.astype(jnp.float32))
    return rounded.astype(dtype)


@jax.custom_jvp
def _upper_half(value: Array) -> Array:
    """A float32 that is a bfloat16, as one: its upper bits.

    XLA on a CPU may convert one number at a time, three times as slow as all the rest.
    """
    words = lax.bitcast_convert_type(value, jnp.uint32) >> np.uint32(16)
    return lax.bitcast_convert_type(words.astype(jnp.uint16), jnp.bfloat16)


@_upper_half.defjvp
def _upper_half_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _upper_half(*primals), tangents[0].astype(jnp.bfloat16)


@jax.custom_jvp
def exponential(value: Array) -> Array:
    """Exp of a float32, to 2 units in the last place.

    Compilers have several; this one is the same in every vector width, and as a constant. With n
    the nearest integer to value / log 2, exp(value) is 2**n exp(value - n log 2), the latter by
    its series. Below -87 the result is 0, which is what weights need.
    """
    one = np.float32(1)
    # Infinities have no remainder.
    bounded = jnp.clip(value, np.float32(-88), np.float32(88))
    power = jnp.round(product(bounded, np.float32(1 / np.log(2))))
    # The logarithm of 2 in two parts, of which the first times `power` is exact.
    rest = bounded - product(power, np.float32(0.693359375))
    rest = rest - product(power, np.float32(-2.12194440e-4))
    series = one
    for factor in range(7, 0, -1):
        series = one + product(product(rest, series), np.float32(1 / factor))
    exponent = (power.astype(jnp.int32) + np.int32(127)) << np.int32(23)
    result = series * lax.bitcast_convert_type(exponent, jnp.float32)
    return settled(jnp.where(value < np.float32(-87), np.float32(0), result))


@exponential.defjvp
def _exponential_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    result = exponential(*primals)
    return result, result * tangents[0]
