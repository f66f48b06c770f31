"""Random bits in one kernel, against those of `jax.random`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.core.randomness import fold_in, random_words

KEYS = pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])


def words_of(key):
    return np.asarray(jax.random.key_data(key))


@KEYS
@pytest.mark.parametrize("number", [0, 1, 2**31, 2**32 - 1])
def test_folding_in_is_that_of_jax(implementation, number):
    """A key folded with an integer is the key that JAX makes of them."""
    key = jax.random.key(7, impl=implementation)
    expected = jax.random.fold_in(key, np.uint32(number))
    np.testing.assert_array_equal(words_of(fold_in(key, np.uint32(number))), words_of(expected))


@KEYS
def test_folding_in_many_integers_gives_a_key_each(implementation):
    """Integers of any shape and dtype give keys of their shape."""
    key = jax.random.key(7, impl=implementation)
    keys = fold_in(key, np.arange(6, dtype=np.int32).reshape(2, 3))
    for place in np.ndindex(2, 3):
        expected = jax.random.fold_in(key, 3 * place[0] + place[1])
        np.testing.assert_array_equal(words_of(keys[place]), words_of(expected))


@pytest.mark.parametrize(
    ("implementation", "shape"),
    [*(("threefry2x32", shape) for shape in [(), (7,), (5, 3), (2, 0)]), ("rbg", (5, 3))],
)
def test_words_are_the_bits_of_jax(implementation, shape):
    """A key's words are the bits that JAX draws from it."""
    key = jax.random.key(11, impl=implementation)
    for x64 in (False, True):
        with jax.enable_x64(x64):
            drawn = jax.jit(random_words, static_argnums=1)(key, shape)
        assert drawn.dtype == np.uint32
        np.testing.assert_array_equal(drawn, jax.random.bits(key, shape, np.uint32))


def test_raw_keys_are_those_of_the_default_kind():
    """Keys that are arrays of words draw like the keys that they stand for."""
    drawn = random_words(jax.random.PRNGKey(4), (5,))
    np.testing.assert_array_equal(drawn, random_words(jax.random.key(4), (5,)))


def test_words_of_many_keys_depend_on_their_own_key_only():
    """Among others a threefry key has the words that it has alone."""
    keys = jax.random.split(jax.random.key(3), (2, 4))
    drawn = random_words(keys, (5, 2))
    assert drawn.shape == (2, 4, 5, 2)
    for place in np.ndindex(2, 4):
        np.testing.assert_array_equal(drawn[place], jax.random.bits(keys[place], (5, 2)))


def test_fewer_words_are_the_first_of_more():
    """The number of words changes none of them."""
    key = jax.random.key(5)
    np.testing.assert_array_equal(random_words(key, (3,)), random_words(key, (1000,))[:3])


def test_words_are_drawn_once_for_all_that_read_them():
    """The compiled program has the generator's twenty rotations, not twenty for each reader."""

    def read_twice(key, pixels):
        words = random_words(key, (8,))
        return pixels * (words >> 8).astype(jnp.float32)[:, None], words[:3] + 1

    compiled = jax.jit(read_twice).lower(jax.random.key(0), jnp.ones((8, 512))).compile().as_text()
    assert compiled.count("shift-left(") == 20
