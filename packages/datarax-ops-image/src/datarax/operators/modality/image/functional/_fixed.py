"""Numbers with 32 bits after the point, in integers: coordinates as exact as those of doubles.

A coordinate in float32 is wrong by up to 3e-5 pixels at 500, which is one grey level in a thousand
pixels; these are wrong by 2e-10, the same on every backend, and need no 64-bit arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Int32, UInt32

# Beyond these a number is taken to be the bound: products with pixel numbers still fit.
LARGEST = 2**13
LOW = np.uint32(0xFFFF)
HALF = np.uint32(2**31)


class Fixed(NamedTuple):
    """`whole + fraction / 2 ** 32`."""

    whole: Int32[Array, "..."]
    fraction: UInt32[Array, "..."]


def of_float(value: Array, largest: int = LARGEST) -> Fixed:
    """A floating-point number, its bits beyond 2 ** -32 left out; NaN is the largest."""
    value = jnp.where(jnp.isnan(value), largest, jnp.clip(value, -largest, largest))
    size = jnp.abs(value)
    whole = jnp.floor(size)
    # Multiples of powers of two, and so exact.
    high = (size - whole) * 2**16
    low = (high - jnp.floor(high)) * 2**16
    fraction = (high.astype(jnp.uint32) << 16) | low.astype(jnp.uint32)
    positive = Fixed(whole.astype(jnp.int32), fraction)
    return where(value < 0, negative(positive), positive)


def to_float(number: Fixed, dtype: DTypeLike) -> Array:
    """The number in floating point."""
    return number.whole.astype(dtype) + number.fraction.astype(dtype) * 2.0**-32


def where(flag: Array, yes: Fixed, no: Fixed) -> Fixed:
    """A selection."""
    return Fixed(*(jnp.where(flag, a, b) for a, b in zip(yes, no, strict=True)))


def negative(number: Fixed) -> Fixed:
    """`-number`."""
    borrow = (number.fraction != 0).astype(jnp.int32)
    return Fixed(-number.whole - borrow, np.uint32(0) - number.fraction)


def add(a: Fixed, b: Fixed) -> Fixed:
    """`a + b`."""
    fraction = a.fraction + b.fraction
    return Fixed(a.whole + b.whole + (fraction < a.fraction).astype(jnp.int32), fraction)


def times(number: Fixed, factor: Int32[Array, "..."]) -> Fixed:
    """The number times integers from 0 to 65535."""
    small = factor.astype(jnp.uint32)
    low = (number.fraction & LOW) * small
    high = (number.fraction >> 16) * small + (low >> 16)
    whole = number.whole * factor + (high >> 16).astype(jnp.int32)
    return Fixed(whole, (high << 16) | (low & LOW))


def halved(number: Fixed) -> Fixed:
    """The number by two, downwards."""
    odd = (number.whole & 1).astype(jnp.uint32)
    return Fixed(number.whole >> 1, (number.fraction >> 1) | (odd << 31))


def less_a_half(number: Fixed) -> Fixed:
    """`number - 1/2`."""
    borrow = (number.fraction < HALF).astype(jnp.int32)
    return Fixed(number.whole - borrow, number.fraction ^ HALF)


def sixteen_bits(number: Fixed) -> Int32[Array, "..."]:
    """The number in units of 2 ** -16, rounded, halves upwards."""
    rounded = add(number, Fixed(jnp.int32(0), jnp.uint32(2**15)))
    return (rounded.whole << 16) | (rounded.fraction >> 16).astype(jnp.int32)


def high_product(a: UInt32[Array, "..."], b: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """The upper 32 of the 64 bits of a product."""
    a_low, a_high, b_low, b_high = a & LOW, a >> 16, b & LOW, b >> 16
    middle = a_high * b_low + (a_low * b_low >> 16)
    other = a_low * b_high + (middle & LOW)
    return a_high * b_high + (middle >> 16) + (other >> 16)


def stacked(numbers: list[Fixed]) -> Fixed:
    """Numbers along a new first axis."""
    return Fixed(*(jnp.stack(parts) for parts in zip(*numbers, strict=True)))


def at(numbers: Fixed, *index: int | slice | None) -> Fixed:
    """A part of an array of numbers."""
    return Fixed(*(part[index] for part in numbers))
