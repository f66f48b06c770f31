import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from datarax.operators._mix.pairing import partners

pytestmark = pytest.mark.usefixtures("quick_compiles")


def draw(count, valid, seed=0):
    words = jax.random.bits(jax.random.key(seed), (count, len(valid)))
    pair = jax.jit(jax.vmap(partners, in_axes=(0, None)))
    return np.asarray(pair(words, jnp.asarray(valid)))


@pytest.mark.parametrize("rows", [1, 2, 3, 64, 5000])
def test_partners_are_a_derangement_of_the_valid_rows(rows):
    """Every valid row is the partner of one other valid row; padding is paired with itself."""
    valid = np.random.default_rng(rows).random(rows) < 0.7
    own = np.arange(rows)
    partner = draw(1, valid)[0]
    np.testing.assert_array_equal(np.sort(partner[valid]), own[valid])
    np.testing.assert_array_equal(partner[~valid], own[~valid])
    if valid.sum() > 1:
        assert (partner[valid] != own[valid]).all()


@pytest.mark.parametrize("valid", [[0, 0, 0], [0, 1, 0]], ids=["none", "one"])
def test_too_few_rows_are_their_own_partners(valid):
    """With fewer than two valid rows nobody is paired."""
    np.testing.assert_array_equal(draw(3, np.array(valid, bool)), [[0, 1, 2]] * 3)


def test_all_circles_of_four_rows_are_equally_likely():
    """Of the six circles that four rows can form, each has the same chance."""
    drawn = draw(24_000, np.array([1, 1, 0, 1, 1], bool))[:, [0, 1, 3, 4]]
    kinds, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(kinds) == 6
    assert stats.chisquare(counts).pvalue > 1e-3


def test_partner_is_uniform_over_the_other_rows():
    """In a larger batch each other valid row is as likely as the next."""
    drawn = draw(20_000, np.ones(9, bool), seed=1)
    for row in range(9):
        counts = np.bincount(drawn[:, row], minlength=9)
        assert counts[row] == 0
        assert stats.chisquare(np.delete(counts, row)).pvalue > 1e-4


def test_padding_at_the_end_changes_no_partner():
    """Five rows are paired the same alone and followed by three rows of padding."""
    words = jax.random.bits(jax.random.key(5), (8,))
    short = partners(words[:5], jnp.ones(5, bool))
    padded = partners(words, jnp.arange(8) < 5)
    np.testing.assert_array_equal(short, padded[:5])
