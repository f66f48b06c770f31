"""Arithmetic that no compiler changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.operators.modality.image.functional._exact import product, settled, stored


@pytest.fixture(scope="module")
def numbers():
    """Three arrays of float32, of a length that leaves a rest in every vector width."""
    return np.random.default_rng(0).standard_normal((3, 10_007)).astype(np.float32)


def test_a_product_is_rounded_before_the_sum(numbers):
    """A product and a sum are two roundings, as in NumPy, which has no fused multiply-add."""
    a, b, c = numbers
    result = jax.jit(lambda a, b, c: product(a, b) + c)(a, b, c)
    np.testing.assert_array_equal(result, a * b + c)


def test_constants_are_not_moved_together(numbers):
    """Two sums of constants, and two products, are two roundings each."""
    x = numbers[0]
    sums = jax.jit(lambda x: settled(x + np.float32(0.1)) + np.float32(0.7))(x)
    products = jax.jit(lambda x: product(x, np.float32(0.1)) * np.float32(0.7))(x)
    np.testing.assert_array_equal(sums, x + np.float32(0.1) + np.float32(0.7))
    np.testing.assert_array_equal(products, x * np.float32(0.1) * np.float32(0.7))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_a_stored_value_is_numpys_nearest(numbers, dtype):
    """Conversions round as NumPy's, in subnormal numbers, infinities and NaN too."""
    scales = np.float32(2.0) ** np.arange(-27, 18, dtype=np.float32)
    values = np.append(numbers[0, :500, None] * scales, np.float32([np.nan, np.inf, -np.inf, 0]))
    result = jax.jit(lambda x: stored(x, dtype))(values)
    with np.errstate(over="ignore"):
        expected = values.astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(result, np.float32), expected)


def test_what_is_stored_stays_rounded_inside_one_compilation(numbers):
    """Two steps in bfloat16 give the same bits in one compilation as in two."""

    def step(x):
        return stored(product(x.astype(jnp.float32), np.float32(1.3)), jnp.bfloat16)

    x = jnp.asarray(numbers[0], jnp.bfloat16)
    np.testing.assert_array_equal(jax.jit(lambda x: step(step(x)))(x), jax.jit(step)(step(x)))


def test_the_gradient_passes(numbers):
    """A product has the gradient of a product, and NaN passes none."""
    value, slope = jax.value_and_grad(lambda x: product(x, jnp.float32(3)))(jnp.float32(2))
    assert (float(value), float(slope)) == (6.0, 3.0)
