"""MixUp of two arrays: λ x + (1 − λ) y, exact where it can be."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

INTEGER_SIZES = (1, 2, 4)


def blend(
    own: Shaped[Array, "*shape"],
    other: Shaped[Array, "*shape"],
    lam: Float[Array, "..."],
    rest: Float[Array, "..."],
) -> Shaped[Array, "*shape"]:
    """λ own + (1 − λ) other, in the arrays' dtype.

    Args:
      own: floats, or integers of at most 32 bits.
      other: like `own`.
      lam: λ, broadcastable to `own`; for integers a multiple of 2**-24.
      rest: 1 − λ.

    Returns:
      For integers, the nearest one to the exact value (halves go up). Elsewhere float arithmetic of
      at least float32; exactly `own` where λ = 1 or both are equal, exactly `other` where λ = 0.
    """
    if jnp.issubdtype(own.dtype, jnp.integer):
        return blend_integers(own, other, lam)
    wide = at_least_float32(own.dtype)
    return blend_floats(own, other, lam.astype(wide), rest.astype(wide))


def at_least_float32(dtype: Any) -> Any:
    """The dtype that ratios and weighted means of this one have."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


@jax.custom_jvp
def blend_floats(
    own: Float[Array, "*shape"],
    other: Float[Array, "*shape"],
    lam: Float[Array, "..."],
    rest: Float[Array, "..."],
) -> Float[Array, "*shape"]:
    x, y = own.astype(lam.dtype), other.astype(lam.dtype)
    mixed = jnp.where((x == y) | (lam == 1), x, lam * x + rest * y)
    return jnp.where(lam == 0, y, mixed).astype(own.dtype)


def _blend_floats_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    own, other, lam, rest = primals
    # The formula's derivative, also where a selected value stands in for it.
    terms = [
        (tangent.astype(lam.dtype) * factor)
        for tangent, factor in zip(tangents, (lam, rest, own, other), strict=True)
        if not isinstance(tangent, jax.custom_derivatives.SymbolicZero)
    ]
    out = blend_floats(own, other, lam, rest)
    total = sum(terms[1:], terms[0]) if terms else jnp.zeros_like(out, lam.dtype)
    return out, jnp.broadcast_to(total, out.shape).astype(out.dtype)


blend_floats.defjvp(_blend_floats_jvp, symbolic_zeros=True)


def blend_integers(
    own: Int[Array, "*shape"], other: Int[Array, "*shape"], lam: Float[Array, "..."]
) -> Int[Array, "*shape"]:
    """The integer nearest to λ own + (1 − λ) other, without a floating-point operation on either.

    The weight k = 2**24 λ and each byte make a product of 32 bits; the bytes' products are added
    from the lowest up, each shifted down to the scale of the next.
    """
    k = jnp.round(lam * 2**24).astype(jnp.uint32)
    rest = jnp.uint32(2**24) - k
    size = own.dtype.itemsize
    unsigned = jnp.dtype(f"uint{8 * size}")
    # Moving the range up by half of it makes signed integers unsigned and commutes with mixing.
    offset = 0 if own.dtype == unsigned else 1 << (8 * size - 1)

    def words(array: Array) -> Array:
        return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32) ^ jnp.uint32(offset)

    x, y = words(own), words(other)
    total = jnp.uint32(2**23)
    for byte in range(size):
        shift = jnp.uint32(8 * byte)
        product = ((x >> shift) & 0xFF) * k + ((y >> shift) & 0xFF) * rest
        total = product + (total >> 8 if byte else total)
    nearest = (total >> jnp.uint32(24 - 8 * (size - 1))) ^ jnp.uint32(offset)
    return jax.lax.bitcast_convert_type(nearest.astype(unsigned), own.dtype)
