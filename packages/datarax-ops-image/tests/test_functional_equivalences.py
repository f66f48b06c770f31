"""The same bytes however a function is called, and one pass over memory for a chain of functions.

With all that XLA optimises, unlike the other tests of functions.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from datarax.core.randomness import THREEFRY, random_words
from datarax.operators.modality.image import FlipOperator, FlipOperatorConfig, functional
from datarax.operators.modality.image._fills import random_values

SIZE = (11, 13, 3)
# By name, a function of an image and of a number from 0 to 1.
CALLS = {
    "auto_contrast": lambda image, number: functional.auto_contrast(image),
    "brightness": lambda image, number: functional.brightness(image, number * 2),
    "contrast": lambda image, number: functional.contrast(image, number * 2),
    "gaussian_blur": lambda image, number: functional.gaussian_blur(image, number, max_sigma=1.0),
    "hue": lambda image, number: functional.hue(image, number - 0.5),
    "normalize": lambda image, number: functional.normalize(image, 0.48, 0.23),
    "saturation": lambda image, number: functional.saturation(image, number * 2),
    "sharpness": lambda image, number: functional.sharpness(image, number * 2),
}


def batch(dtype, size=8):
    """Images and numbers of a batch."""
    random = np.random.default_rng(1)
    images = random.uniform(-0.1, 1.1, (size, *SIZE))
    images = images * 255 if dtype == np.uint8 else images
    return jnp.asarray(images.clip(0), dtype), jnp.asarray(random.uniform(size=size), jnp.float32)


def bits(tree):
    """All results as bytes."""
    return jax.tree.map(lambda leaf: np.asarray(leaf).view(np.uint8), tree)


@pytest.mark.parametrize(
    ("dtype", "names"),
    [
        (jnp.float32, ["saturation", "hue", "contrast", "gaussian_blur", "sharpness", "normalize"]),
        (jnp.uint8, ["saturation", "contrast", "auto_contrast", "sharpness", "normalize"]),
        (jnp.bfloat16, ["brightness", "saturation", "sharpness"]),
    ],
    ids=["f32", "u8", "bf16"],
)
def test_the_same_bytes_alone_and_together(dtype, names):
    """One function of one image after the other, and all in one compilation on eight devices."""

    def chain(image, number):
        steps = []
        for name in names:
            steps.append(CALLS[name](steps[-1] if steps else image, number))
        return steps

    images, numbers = batch(dtype)
    mesh = Mesh(np.array(jax.devices()), "batch")
    placed = jax.device_put((images, numbers), NamedSharding(mesh, PartitionSpec("batch")))
    made = bits(jax.jit(jax.vmap(chain))(*placed))
    for i in (0, 7):
        alone = bits(chain(images[i], numbers[i]))
        jax.tree.map(np.testing.assert_array_equal, [leaf[i] for leaf in made], alone)


def test_constants_give_the_same_bytes_as_arguments():
    """A number that the compiler knows gives what a traced one gives.

    So do pixels that it knows to be finite, because it sees them made of integers.
    """
    (pixels, *_), _ = batch(jnp.uint8)
    image, number = functional.to_float(pixels), np.float32(0.37)
    for name in ("saturation", "contrast", "sharpness", "hue", "normalize", "gaussian_blur"):
        function = CALLS[name]
        known = jax.jit(lambda pixels, f=function: f(functional.to_float(pixels), number))(pixels)
        np.testing.assert_array_equal(bits(known), bits(function(image, number)), err_msg=name)


def test_fractions_of_an_image_are_divided_as_by_numpy():
    """One quotient alone, for many records and of constants: the right edge of an image stays 1.

    By rounded reciprocals, 49 / 49 is below 1.
    """
    sides = np.float32([49, 41])
    points = np.random.default_rng(0).uniform(0, 1, (4, 6, 2)).astype(np.float32)
    points[:, 0] = 1
    windows = np.int32([[0, 0, 49, 41], [3, 4, 44, 40], [0, 7, 48, 9], [5, 0, 49, 41]])

    def moved(points, window, whole=None):
        geometry = functional.Window(box=tuple(window), size=(49, 41))
        return functional.transform_points(points, geometry, fractions_of=whole).points

    fractions = jax.jit(jax.vmap(lambda points, window: moved(points, window, (49, 41))))
    made = np.asarray(fractions(points, windows))
    assert made[0, 0].tolist() == [1, 1]
    for row, (one, window) in enumerate(zip(points, windows, strict=True)):
        expected = np.asarray(moved(one * sides, window)) / sides
        known = jax.jit(lambda one=one, window=window: moved(one, window, (49, 41)))
        for result in (made[row], moved(one, window, (49, 41)), known()):
            np.testing.assert_array_equal(result, expected)


def test_boxes_in_fractions_of_a_batch_stay_whole():
    """A flip leaves the box of the whole image to the last bit."""
    config = FlipOperatorConfig(
        prob=1, auxiliary_fields=["boxes"], box_fields=("boxes",), box_format="rel_xyxy"
    )
    whole = np.tile(np.float32([0, 0, 1, 1]), (3, 2, 1))
    images = np.zeros((3, 49, 41), np.uint8)
    out = FlipOperator(config, rngs=nnx.Rngs(0))({"image": images, "boxes": whole})
    np.testing.assert_array_equal(out["boxes"], whole)


def test_noise_of_floats_is_rounded_as_written():
    """A product, then a sum: no compiler makes one rounding of the two."""
    low, high, seed = np.float32(-1), np.float32(2.3), np.uint32([3, 4])
    bounds, dtype = (float(low), float(high)), np.dtype(np.float32)
    drawn = np.asarray(random_values(seed, shape=(1000,), dtype=dtype, bounds=bounds))
    words = np.asarray(random_words(jax.random.wrap_key_data(seed, impl=THREEFRY), (1000,)))
    unit = (words >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)
    np.testing.assert_array_equal(drawn, unit * (high - low) + low)


def test_another_number_compiles_nothing():
    """Numbers of all kinds are arguments; only the kind of number counts."""
    image = np.zeros(SIZE, np.uint8)
    for name in ("brightness", "hue", "solarize"):
        function = getattr(functional, name)
        function(image, 0.5)
        before = function._cache_size()
        function(image, 0.25)
        function(image, 0.125)
        assert function._cache_size() == before, name


def test_a_chain_of_pointwise_functions_is_one_pass():
    """In the compiled text no batch of images stands between the argument and the result."""

    def chain(image, factor, threshold):
        image = functional.invert(functional.brightness(image, factor))
        image = functional.posterize(functional.solarize(image, threshold), 5)
        return functional.normalize(functional.saturation(image, factor), 0.5, 0.2)

    images = jnp.zeros((16, 32, 32, 3), jnp.uint8)
    numbers = jnp.ones(16, jnp.float32)
    text = jax.jit(jax.vmap(chain)).lower(images, numbers, numbers).compile().as_text()
    body = text[text.index("\nENTRY") :]
    made = re.findall(r"^ *(ROOT )?%\S+ = (\S+)\[16,32,32,3\]\S* (\w+)", body, re.MULTILINE)
    assert made == [("", "u8", "parameter"), ("ROOT ", "f32", "fusion")]
