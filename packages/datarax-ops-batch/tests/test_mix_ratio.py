import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from datarax.operators._mix.ratio import symmetric_beta, to_binary_places


def ratios(alpha, count, seed=0):
    words = jax.random.bits(jax.random.key(seed), (2, count))
    return np.asarray(jax.jit(symmetric_beta)(words[0], words[1], alpha))


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 1.0, 2.0, 8.0])
def test_ratio_is_beta_distributed(alpha):
    """λ follows Beta(α, α), by Kolmogorov–Smirnov where float32 can tell values apart."""
    lam = ratios(alpha, 200_000).astype(np.float64)
    inside = lam[(lam > 1e-6) & (lam < 1 - 1e-6)]
    beta = stats.beta(alpha, alpha)
    low, high = beta.cdf([1e-6, 1 - 1e-6])
    result = stats.kstest(inside, lambda x: (beta.cdf(x) - low) / (high - low))
    assert result.pvalue > 1e-3
    assert abs((lam <= 1e-6).mean() - low) < 5 * np.sqrt(low / lam.size + 1e-12)


def test_small_ratios_are_resolved_far_below_the_spacing_of_floats_near_one():
    """For α = 0.1, λ follows its distribution down to 1e-30, not just to 2**-24."""
    lam = ratios(0.1, 100_000).astype(np.float64)
    for bound in (1e-10, 1e-20, 1e-30):
        expected = stats.beta(0.1, 0.1).cdf(bound)
        assert abs((lam < bound).mean() - expected) < 5 * np.sqrt(expected / lam.size)


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 1.0, 1e3, 1e6, 1e30])
def test_ratio_is_a_number_for_every_alpha(alpha):
    """Even the most extreme words give a λ from 0 to 1, and a finite derivative in α."""
    edge = jnp.uint32([0, 1, 2**30, 2**30 - 1, 2**31, 3 * 2**30, 2**32 - 2, 2**32 - 1])
    radius, angle = (grid.ravel() for grid in jnp.meshgrid(edge, edge))
    lam = symmetric_beta(radius, angle, alpha)
    assert bool(((lam >= 0) & (lam <= 1)).all())
    slope = jax.jacfwd(lambda a: symmetric_beta(radius, angle, a))(jnp.float32(alpha))
    assert bool(jnp.isfinite(slope).all())


def test_ratio_is_symmetric_about_one_half():
    """λ and 1 − λ have the same distribution."""
    lam = ratios(0.4, 100_000).astype(np.float64)
    assert stats.ks_2samp(lam[:50_000], 1 - lam[50_000:]).pvalue > 1e-3


def test_derivative_in_alpha_moves_the_variance_as_the_distribution_says():
    """The mean of dλ²/dα over draws is d E[λ²]/dα, so that α can be learned."""
    words = jax.random.bits(jax.random.key(3), (2, 400_000))

    def second_moment(alpha):
        return (symmetric_beta(words[0], words[1], alpha) ** 2).mean()

    slope = float(jax.grad(second_moment)(jnp.float32(0.7)))
    # E[λ²] = 1/4 + 1 / (4 (2α + 1))
    assert slope == pytest.approx(-0.5 / (2 * 0.7 + 1) ** 2, rel=0.03)


def test_rounding_leaves_both_weights_exact():
    """Rounded to 24 binary places, λ and 1 − λ are both float32 numbers that sum to exactly 1."""
    lam = to_binary_places(jnp.asarray(ratios(0.3, 10_000)))
    exact = 1 - np.asarray(lam, np.float64)
    np.testing.assert_array_equal(np.asarray(1 - lam, np.float64), exact)
