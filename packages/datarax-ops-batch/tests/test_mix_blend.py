import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from datarax.operators._mix.blend import blend
from datarax.operators._mix.ratio import to_binary_places

each_float = pytest.mark.parametrize(
    "dtype", [np.float32, np.float16, ml_dtypes.bfloat16], ids=["f32", "f16", "bf16"]
)


def blended(own, other, lam):
    lam = jnp.float32(lam)
    return np.asarray(jax.jit(blend)(jnp.asarray(own), jnp.asarray(other), lam, 1 - lam))


LAMBDAS = np.float32([0, 2**-24, 1e-3, 0.25, 1 / 3, 0.5, 0.61803, 0.75, 1 - 2**-24, 1])


@pytest.mark.parametrize("lam", LAMBDAS, ids=str)
def test_bytes_become_the_nearest_integer_for_every_pair(lam):
    """All 65536 pairs of uint8 give an integer within one half of the exact value."""
    lam = np.asarray(to_binary_places(jnp.float32(lam)))
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(256), np.arange(256)))
    out = blended(x.astype(np.uint8), y.astype(np.uint8), lam)
    assert out.dtype == np.uint8
    # Multiples of 2**-24 times bytes are exact in float64.
    exact = np.float64(lam) * x + (1 - np.float64(lam)) * y
    assert np.abs(out - exact).max() <= 0.5
    assert (out >= np.minimum(x, y)).all()
    assert (out <= np.maximum(x, y)).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_integers_of_every_width_become_the_nearest_integer(dtype):
    """Signed and wide integers too, their extreme values included, over the whole range of λ."""
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    x, y = rng.integers(limits.min, limits.max, (2, 4096), dtype=dtype, endpoint=True)
    x[:4] = limits.min, limits.max, limits.min, limits.max
    y[:4] = limits.max, limits.min, limits.min, limits.max
    weights = rng.integers(0, 2**24 + 1, 4096)
    lam = (weights / 2**24).astype(np.float32)
    out = blended(x, y, lam)
    assert out.dtype == dtype
    scaled = [
        (int(a) * k + int(b) * (2**24 - k)) for a, b, k in zip(x, y, weights.tolist(), strict=True)
    ]
    assert all(abs(int(o) * 2**24 - e) <= 2**23 for o, e in zip(out, scaled, strict=True))


@each_float
def test_floats_are_within_four_units_in_the_last_place(dtype):
    """MixUp of non-negative images agrees with float64, and keeps the dtype."""
    rng = np.random.default_rng(1)
    x, y = rng.random((2, 50_000)).astype(dtype)
    lam = rng.random(50_000).astype(np.float32)
    out = blended(x, y, lam)
    assert out.dtype == dtype
    weight = lam.astype(np.float64)
    exact = weight * x.astype(np.float64) + (1 - weight) * y.astype(np.float64)
    spacing = np.spacing(np.abs(exact).astype(dtype)).astype(np.float64)
    limit = 4 if dtype is np.float32 else 0.51
    assert (np.abs(out.astype(np.float64) - exact) <= limit * spacing).all()


def bits(array):
    return np.asarray(array).view(f"uint{8 * array.dtype.itemsize}")


SPECIAL = [0.0, -0.0, 1.5, np.inf, -np.inf, np.nan]


@each_float
def test_a_ratio_of_one_returns_the_row_and_of_zero_the_partner(dtype):
    """Bit for bit, whatever stands in the other array: NaN, infinities, negative zero."""
    x, y = (grid.ravel() for grid in np.meshgrid(np.array(SPECIAL), np.array(SPECIAL)))
    x, y = x.astype(dtype), y.astype(dtype)
    np.testing.assert_array_equal(bits(blended(x, y, 1.0)), bits(x))
    np.testing.assert_array_equal(bits(blended(x, y, 0.0)), bits(y))


@pytest.mark.parametrize("lam", [0.1, 1 / 3, 0.7])
def test_equal_partners_return_the_row(lam):
    """Two equal values mix to exactly that value, infinities included."""
    x = np.random.default_rng(2).standard_normal(10_000).astype(np.float32)
    x[:2] = np.inf, -np.inf
    np.testing.assert_array_equal(bits(blended(x, x.copy(), lam)), bits(x))


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_gradients_are_the_weights_even_at_equal_pixels(lam):
    """d/dx = λ and d/dy = 1 − λ exactly, where values are selected instead of computed too."""
    x = jnp.float32([0.5, 0.5, 2.0, -1.0])
    y = jnp.float32([0.5, 1.5, 2.0, 3.0])
    weight = jnp.float32(lam)

    def total(x, y):
        return blend(x, y, weight, 1 - weight).sum()

    own, other = jax.jit(jax.grad(total, argnums=(0, 1)))(x, y)
    np.testing.assert_array_equal(own, np.full(4, weight))
    np.testing.assert_array_equal(other, np.full(4, 1 - weight))


def test_gradient_of_lambda_is_the_difference_of_the_images():
    """d/dλ of λ x + (1 − λ) y is x − y, at λ = 0 and λ = 1 as well."""
    x, y = jnp.float32([0.5, 2.0]), jnp.float32([1.5, -1.0])
    for lam in (0.0, 0.4, 1.0):
        slope = jax.jacrev(lambda lam: blend(x, y, lam, 1 - lam))(jnp.float32(lam))
        np.testing.assert_allclose(slope, x - y, rtol=1e-6)


def test_gradients_agree_with_forward_mode_and_second_order():
    """Forward and reverse derivatives agree; the mix is linear, so the second one is zero."""
    x, y, lam = jnp.float32([0.2, 0.2]), jnp.float32([0.9, 0.2]), jnp.float32(0.25)

    def mix(x):
        return blend(x, y, lam, 1 - lam)

    np.testing.assert_array_equal(jax.jacfwd(mix)(x), jax.jacrev(mix)(x))
    np.testing.assert_array_equal(jax.hessian(lambda x: mix(x).sum())(x), np.zeros((2, 2)))


def test_half_precision_images_receive_half_precision_gradients():
    """The gradient of a bfloat16 image is bfloat16."""
    x = jnp.ones(3, jnp.bfloat16)
    lam = jnp.float32(0.25)
    grad = jax.grad(lambda x: blend(x, 0 * x, lam, 1 - lam).astype(jnp.float32).sum())(x)
    assert grad.dtype == jnp.bfloat16
    np.testing.assert_array_equal(grad.astype(jnp.float32), np.full(3, 0.25))
