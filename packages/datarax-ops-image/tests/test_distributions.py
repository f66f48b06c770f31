"""The distributions of operators' numbers, against SciPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from datarax.operators.modality.image import Choice, LogUniform, Normal, Uniform
from datarax.operators.modality.image._distributions import normal
from datarax.operators.modality.image._number import NumberRule

DRAWS = 100_000
RATIO = math.log(4 / 3)


def draws(distribution, *, integer=False):
    """10^5 numbers of one seed."""
    draw = distribution.draw_integers if integer else distribution.draw
    return np.asarray(jax.jit(draw, static_argnums=1)(jax.random.key(0), (DRAWS,)))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        pytest.param(lambda: draws(Uniform(-3, 5)), stats.uniform(-3, 8), id="uniform"),
        pytest.param(
            lambda: np.log(draws(LogUniform(3 / 4, 4 / 3))),
            stats.uniform(-RATIO, 2 * RATIO),
            id="log-uniform",
        ),
        pytest.param(lambda: draws(Normal(9, 0.5)), stats.norm(9, 0.5), id="normal"),
    ],
)
def test_draws_follow_the_law(numbers, expected):
    """10^5 draws pass the test of Kolmogorov and Smirnov."""
    found = numbers()
    assert found.dtype == np.float32
    assert stats.kstest(found, expected.cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ("distribution", "integer", "values", "shares"),
    [
        pytest.param(Uniform(-1, 3), True, range(-1, 4), [0.2] * 5, id="uniform"),
        pytest.param(Choice((5, 1, 7)), False, (1, 5, 7), [1 / 3] * 3, id="choice"),
        pytest.param(Choice((5, 1, 7), (1, 0, 3)), True, (5, 7), [0.25, 0.75], id="weights"),
        pytest.param(
            Normal(0, 1, low=-1, high=1),
            True,
            (-1, 0, 1),
            [stats.norm.cdf(-0.5), 1 - 2 * stats.norm.cdf(-0.5), stats.norm.cdf(-0.5)],
            id="normal",
        ),
    ],
)
def test_whole_draws_follow_the_law(distribution, integer, values, shares):
    """10^5 draws have the frequencies of the law, and no others come up."""
    found, counts = np.unique(draws(distribution, integer=integer), return_counts=True)
    assert found.tolist() == list(values)
    assert stats.chisquare(counts, np.array(shares) * DRAWS).pvalue > 0.01


def test_clipped_normal_numbers_pile_up_at_the_ends():
    """What a normal distribution puts outside its bounds is at them."""
    found = draws(Normal(9, 1, low=0, high=10))
    assert found.max() == 10
    assert np.mean(found == 10) == pytest.approx(stats.norm.sf(1), abs=0.005)


def test_normal_numbers_are_the_quantiles_of_their_words():
    """Over the whole range of words the quantile is off by at most half a piece."""
    words = np.arange(0, 2**32, 65_521, dtype=np.uint64).astype(np.uint32)
    tails = ((words & 0x7FFFFFFF).astype(np.float64) + 0.5) / 2**32
    expected = np.where(words >> 31 == 0, 1, -1) * stats.norm.ppf(tails)
    found = np.asarray(normal(jnp.asarray(words)), np.float64)
    likely = tails > 2**-20
    np.testing.assert_allclose(found[likely], expected[likely], atol=1e-3)


@pytest.mark.parametrize(
    "distribution",
    [Uniform(0.1, 0.7), LogUniform(0.1, 7), Normal(1, 2, low=-2), Choice((1, 2, 3))],
    ids=lambda distribution: type(distribution).__name__,
)
def test_a_draw_has_the_same_bits_in_any_context(distribution):
    """Alone, mapped, compiled or not, as part of a larger computation or not."""
    words = np.random.default_rng(0).integers(0, 2**32, 1000, np.uint32)
    eager = np.asarray(distribution.quantile(jnp.asarray(words)))
    mapped = jax.jit(jax.vmap(lambda word: 3 * distribution.quantile(word) / 3 * 0 + 1))(words)
    assert bool((mapped == 1).all())
    within = jax.jit(lambda words: (distribution.quantile(words), distribution.quantile(words) - 1))
    assert np.array_equal(eager, within(words)[0])
    one = jax.jit(distribution.quantile)
    assert np.array_equal(eager[:20], [one(word) for word in words[:20]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(2, 1), r"Uniform\(low=2, high=1\) is empty; give \(low, high\) with low"),
        (lambda: Uniform("a", 1), "low of Uniform must be a number, got str 'a'"),
        (lambda: Uniform(0, math.inf), "high of Uniform must be a finite number, got inf"),
        (lambda: LogUniform(0, 1), r"LogUniform\(low=0, high=1\) must have 0 < low <= high"),
        (lambda: Normal(0, -1), "must have a std of at least 0"),
        (lambda: Normal(0, 1, low=1, high=0), "is empty; give low <= high"),
        (lambda: Choice(()), "must have at least one value"),
        (lambda: Choice(3), "values of Choice must be a tuple of numbers, got 3"),
        (lambda: Choice((1, 2), (1,)), "has 1 weights for 2 values"),
        (lambda: Choice((1, 2), (0, 0)), "must have weights of at least 0, and one above 0"),
    ],
)
def test_a_distribution_that_draws_nothing_is_refused(make, message):
    """The error shows the distribution and what is wrong with it."""
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize(
    ("rule", "value", "message"),
    [
        (NumberRule(low=0), -1, "x must be at least 0, got -1"),
        (
            NumberRule(low=0),
            (-1, 1),
            r"got Uniform\(low=-1, high=1\), which draws from -1 to 1",
        ),
        (NumberRule(low=0, high=8), 9, "x must be from 0 to 8, got 9"),
        (NumberRule(low=0, above=True), 0, "x must be above 0, got 0"),
        (NumberRule(low=0), Normal(1, 1), "which draws from -inf to inf"),
        (NumberRule(integer=True), 1.5, "x must be an integer or draw integers, got 1.5"),
        (NumberRule(integer=True), Choice((1, 2.5, 4)), "must be an integer or draw integers"),
        (NumberRule(), (2, 1), r"x is the empty range \(2, 1\); give \(low, high\)"),
        (NumberRule(), (1, 2, 3), r"for one of several numbers write Choice"),
        (NumberRule(), "much", "x must be a number, .* got str 'much'"),
        (NumberRule(), None, "x must be a number, .* got NoneType None"),
        (NumberRule(), True, "x must be a number, got bool True"),
    ],
)
def test_a_number_out_of_its_domain_is_refused(rule, value, message):
    """The error names the option, what it may be, and what came."""
    with pytest.raises((TypeError, ValueError), match=message):
        rule.checked("x", value)


def test_a_pair_is_uniform_and_a_number_is_fixed():
    """What a config may say for a number."""
    assert NumberRule().checked("x", [1, 2]) == Uniform(1, 2)
    assert NumberRule().checked("x", np.float32(0.5)) == 0.5
    assert NumberRule(optional=True).checked("x", None) is None
