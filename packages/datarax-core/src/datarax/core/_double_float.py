"""Numbers of about 48 bits as pairs of float32, for devices and modes without float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class DoubleFloat:
    """The sum `hi + lo` of two float32 arrays, where `lo` is below the last place of `hi`.

    The arithmetic survives the contraction of products and sums into fused operations, which XLA
    may do. It needs that sums are not reassociated, which XLA does not. Infinities become NaN.

    References:
      Dekker (1971), A floating-point technique for extending the available precision.
      Hida, Li and Bailey (2001), Algorithms for quad-double precision floating point arithmetic.
    """

    hi: Any
    lo: Any

    @classmethod
    def from_array(cls, array: Any) -> DoubleFloat:
        """Exact for floats up to 32 bits and integers up to 48; NumPy in, NumPy out."""
        if not isinstance(array, jax.Array):
            with np.errstate(over="ignore", invalid="ignore"):
                wide = np.asarray(array, np.float64)
                hi = wide.astype(np.float32)
                return cls(hi, (wide - hi).astype(np.float32))
        if array.dtype.itemsize == 8:
            wide = array.astype(jnp.float64)
            # A cast to float32 and back may be simplified away, which this may not.
            hi = jax.lax.reduce_precision(wide, exponent_bits=8, mantissa_bits=23)
            return cls(hi.astype(jnp.float32), (wide - hi).astype(jnp.float32))
        if jnp.issubdtype(array.dtype, jnp.integer) and array.dtype.itemsize == 4:
            half = jnp.asarray(16, array.dtype)
            upper = (array >> half).astype(jnp.float32) * jnp.float32(2**16)
            lower = (array & jnp.asarray(2**16 - 1, array.dtype)).astype(jnp.float32)
            return cls(*_ordered_sum(upper, lower))
        hi = array.astype(jnp.float32)
        return cls(hi, jnp.zeros_like(hi))

    def float64(self) -> np.ndarray:
        """The value on the host."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.hi, np.float64) + np.asarray(self.lo, np.float64)

    def __add__(self, other: DoubleFloat) -> DoubleFloat:
        return DoubleFloat(*_add((self.hi, self.lo), (other.hi, other.lo)))

    def __sub__(self, other: DoubleFloat) -> DoubleFloat:
        return self + DoubleFloat(-other.hi, -other.lo)

    def __mul__(self, other: DoubleFloat) -> DoubleFloat:
        product, error = _exact_product(self.hi, other.hi)
        return DoubleFloat(
            *_ordered_sum(product, error + (self.hi * other.lo + self.lo * other.hi))
        )

    def __truediv__(self, other: DoubleFloat) -> DoubleFloat:
        quotient = self.hi / other.hi
        rest = self - other * DoubleFloat(quotient, jnp.zeros_like(quotient))
        return DoubleFloat(*_ordered_sum(quotient, rest.hi / other.hi))

    def where(self, condition: jax.Array) -> DoubleFloat:
        """The value where the condition holds, and 0 elsewhere."""
        zero = jnp.float32(0)
        return DoubleFloat(jnp.where(condition, self.hi, zero), jnp.where(condition, self.lo, zero))

    def sum(self, axes: Sequence[int]) -> DoubleFloat:
        """The sum over axes, to about 45 bits of the sum of magnitudes."""
        zeros = (np.float32(0), np.float32(0))
        return DoubleFloat(*jax.lax.reduce((self.hi, self.lo), zeros, _add, tuple(axes)))


def _add(x: Any, y: Any) -> Any:
    high, error = _exact_sum(x[0], y[0])
    low, low_error = _exact_sum(x[1], y[1])
    high, error = _ordered_sum(high, error + low)
    return _ordered_sum(high, error + low_error)


def _exact_sum(a: Any, b: Any) -> tuple[Any, Any]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _ordered_sum(large: Any, small: Any) -> tuple[Any, Any]:
    total = large + small
    return total, small - (total - large)


def _exact_product(a: Any, b: Any) -> tuple[Any, Any]:
    (a_hi, a_lo), (b_hi, b_lo) = _halves(a), _halves(b)
    product = a * b
    return product, ((a_hi * b_hi - product) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo


def _halves(a: Any) -> tuple[Any, Any]:
    # By bits, because Dekker's multiplication by 4097 does not survive contraction.
    bits = jax.lax.bitcast_convert_type(jnp.asarray(a), jnp.uint32)
    upper = jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFFF000), jnp.float32)
    return upper, a - upper
