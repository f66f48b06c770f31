"""The mixing ratio λ."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt32

from datarax.core.randomness import open_uniform

# exp(80) is a float32; beyond it the ratio is 0 or 1 to within 1e-34.
MAX_EXPONENT = 80.0


def symmetric_beta(
    radius: UInt32[Array, "*shape"], angle: UInt32[Array, "*shape"], alpha: Float[Array, ""] | float
) -> Float[Array, "*shape"]:
    """Beta(α, α) by Devroye's closed form, from two words of random bits.

    With U and V uniform, w = U^(1/α) and c = cos 2πV, λ = 1/2 + c / 2 / sqrt(c² + w / (1 − w)).
    Here the smaller of λ and 1 − λ is computed, without cancellation, so that ratios near 0 are as
    fine as floats are. Finite and differentiable in α for every positive α.

    Args:
      radius: random bits for U.
      angle: random bits for V.
      alpha: α, positive; its dtype is that of λ.

    References:
      Devroye, Non-Uniform Random Variate Generation (1986), chapter IX, section 3.5 and 3.6.
    """
    alpha = jnp.asarray(alpha)
    u, v = (open_uniform(word).astype(alpha.dtype) for word in (radius, angle))
    exponent = jnp.minimum(-jnp.log(u) / alpha, MAX_EXPONENT)
    c = jnp.cos(2 * jnp.pi * v)
    # (1 − w) / w = exp(exponent) − 1; with a² = c² (1 − w) / w the tail is ½ − ½ a / sqrt(a² + 1).
    a = jnp.abs(c) * jnp.sqrt(jnp.expm1(exponent))
    tail = 0.5 / (a * a + 1 + a * jnp.sqrt(a * a + 1))
    return jnp.where(c < 0, tail, 1 - tail)


@jax.custom_jvp
def to_binary_places(lam: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The nearest multiple of 2**-24, of which 1 − λ is another: both are exact in float32."""
    return jnp.round(lam * 2**24) * 2**-24


# The steps are finer than what λ is used for, so that it is learned through them.
to_binary_places.defjvps(lambda tangent, out, lam: tangent)
