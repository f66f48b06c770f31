"""The colour functions of bytes over whole domains, where golden images do not reach; levels."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.operators.modality.image import functional
from datarax.operators.modality.image.functional import _histograms

pytestmark = pytest.mark.usefixtures("quick_compiles")

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)
# By name, the numbers of one call.
NUMBERS = {
    "auto_contrast": {},
    "brightness": {"factor": 1.7},
    "contrast": {"factor": 0.3},
    "equalize": {},
    "gaussian_blur": {"sigma": 0.5, "max_sigma": 0.6},
    "grayscale": {},
    "hue": {"shift": -0.21},
    "invert": {},
    "normalize": {"mean": 0.4, "std": 0.25},
    "posterize": {"bits": 3},
    "saturation": {"factor": 2.2},
    "sharpness": {"factor": -0.4},
    "solarize": {"threshold": 99},
    "solarize_add": {"addend": 30},
}
COLOUR = {"contrast", "grayscale", "hue", "saturation"}


def drawn(shape, dtype=np.uint8):
    """An image of random bytes."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype)


def call(image, *names):
    """What functions make of an image, by name, in one compilation."""

    def functions(image):
        return {name: getattr(functional, name)(image, **NUMBERS[name]) for name in names}

    return jax.tree.map(np.asarray, jax.jit(functions)(image))


def blurred(image, sigma, radius):
    """The Gaussian blur in float64, of an image with reflected border."""
    distances = np.arange(-radius, radius + 1)
    weights = np.exp(-(distances**2) / (2 * np.float64(np.float32(sigma)) ** 2))
    for axis in (0, 1):
        widths = [(radius, radius) if axis == i else (0, 0) for i in range(image.ndim)]
        padded = np.pad(image.astype(float), widths, mode="reflect")
        slices = (
            np.take(padded, np.arange(image.shape[axis]) + radius + k, axis) for k in distances
        )
        image = sum(w * s for w, s in zip(weights, slices, strict=True)) / weights.sum()
    return image


def test_a_threshold_divides_all_values():
    """Solarize inverts exactly the values that are not below each threshold, whole or not."""
    thresholds = np.arange(-2, 260, 0.5, dtype=np.float32)
    made = jax.vmap(functional.solarize, (None, 0))(LEVELS, thresholds)
    below = LEVELS[None] < thresholds[:, None, None]
    np.testing.assert_array_equal(made, np.where(below, LEVELS, 255 - LEVELS))


def test_sums_of_solarize_add_stay_bytes():
    """Every addend from -255 to 255 is added to the values below 128, and the sum clipped."""
    addends = np.arange(-255, 256)
    made = jax.vmap(functional.solarize_add, (None, 0))(LEVELS, addends)
    sums = np.clip(LEVELS.astype(int) + addends[:, None, None], 0, 255)
    np.testing.assert_array_equal(made, np.where(LEVELS < 128, sums, LEVELS))


def test_addends_are_truncated_and_thresholds_are_given():
    """A fraction of an addend does not count, and neither numbers beyond all bytes."""
    made = functional.solarize_add(LEVELS, 10.9, 40.5)
    np.testing.assert_array_equal(made, np.where(LEVELS < 41, LEVELS + 10, LEVELS))
    np.testing.assert_array_equal(functional.solarize_add(LEVELS, 1e9, 1e9), 255)
    floats = np.float32([[127 / 255, 0.52, 0.6]])
    for threshold in (128, 128 / 255, 0.51):
        made = functional.solarize_add(floats, 0.25, threshold)
        np.testing.assert_allclose(made, np.float32([[127 / 255 + 0.25, 0.52, 0.6]]), rtol=1e-6)
    assert inspect.signature(functional.solarize_add).parameters["threshold"].default == 128


@pytest.mark.parametrize("bits", [0, 1, 3.9, 7, 8, 9])
def test_posterize_keeps_the_upper_bits(bits):
    """What is kept is the byte without its lower bits, all of it from 8 bits on."""
    step = 2 ** (8 - min(int(bits), 8))
    kept = LEVELS.astype(int) // step * step
    np.testing.assert_array_equal(functional.posterize(LEVELS, bits), kept)


def test_auto_contrast_is_the_exact_quotient():
    """Of all pairs of a smallest and a largest value, every value is 255 (x - low) // span."""
    low, high = (ends.ravel()[:, None, None] for ends in np.mgrid[0:256, 0:256])
    low, high = low[(low < high).ravel()], high[(low < high).ravel()]
    images = np.clip(LEVELS[None], low, high).astype(np.uint8)
    made = np.asarray(jax.vmap(functional.auto_contrast)(images))
    np.testing.assert_array_equal(made, 255 * (images.astype(int) - low) // (high - low))


def test_pillows_auto_contrast_falls_short_in_known_entries():
    """Doubles, as Pillow has them, are one below the quotient in 12,094 entries of all tables."""
    low, high = (ends.ravel()[:, None] for ends in np.mgrid[0:256, 0:256])
    low, high = low[(low < high).ravel()], high[(low < high).ravel()]
    scale = 255.0 / (high - low)
    value = np.arange(256)
    doubles = np.clip((value * scale + -low * scale).astype(int), 0, 255)
    exact = np.clip(255 * (value - low) // (high - low), 0, 255)
    assert (np.sum(exact - doubles == 1), np.sum(exact != doubles)) == (12_094, 12_094)


@pytest.mark.parametrize("shape", [(41, 37, 4), (15, 17), (1, 300, 1)], ids=str)
def test_equalize_follows_its_definition(shape):
    """Each channel has a table of its own; a few pixels and one value alone stay."""
    image = drawn(shape, np.uint8) // 3 + 20
    image.reshape(*shape[:2], -1)[..., 3:] = 7
    made = np.asarray(functional.equalize(image)).reshape(*shape[:2], -1)
    for i, channel in enumerate(np.moveaxis(image.reshape(made.shape), -1, 0)):
        counts = np.bincount(channel.ravel(), minlength=256)
        step = (channel.size - counts[channel.max()]) // 255
        smaller = np.cumsum(counts) - counts
        table = np.minimum((step // 2 + smaller) // step, 255) if step else np.arange(256)
        np.testing.assert_array_equal(made[..., i], table[channel])


def test_both_ways_of_counting_make_the_same_table():
    """One by one, for a CPU, and as a product of matrices, for accelerators."""
    values = drawn((2999,)) // 2

    @jax.jit
    def tables(values):
        return _histograms._table_in_turn(values), _histograms._table_by_product(values)

    np.testing.assert_array_equal(*tables(values))
    np.testing.assert_array_equal(*tables(np.full_like(values, 9)))


def test_the_mean_of_contrast_is_rounded_half_up():
    """Means of 0.5 and 1.5 become 1 and 2: at factor 0 nothing else is left."""
    for values, mean in (([0, 1], 1), ([1, 2], 2), ([1, 1, 2], 1), ([255] * 7, 255)):
        made = functional.contrast(np.array([values], np.uint8), 0)
        np.testing.assert_array_equal(made, mean)


def test_the_mean_of_contrast_is_exact_beyond_32_bits():
    """The sum over 4200 x 4200 pixels of white needs more than 32 bits."""
    assert int(functional.contrast(np.full((4200, 4200), 255, np.uint8), 0.0)[0, 0]) == 255


def test_blur_of_bytes_is_near_the_gaussian():
    """The integer weights give the rounded Gaussian, but for values that lie almost halfway."""
    image = drawn((30, 23, 3))
    for sigma in (0.3, 1.0, 2.0):
        exact = blurred(image, sigma, 6)
        made = functional.gaussian_blur(image, sigma, max_sigma=2.0)
        assert np.max(np.abs(np.asarray(made) - exact)) < 0.51
    np.testing.assert_array_equal(functional.gaussian_blur(image, 0, max_sigma=2.0), image)


def test_blur_of_one_colour_is_that_colour():
    """The integer weights sum to one exactly, whatever the standard deviation."""
    image = np.full((3, 2), 255, np.uint8)
    sigmas = np.linspace(0, 1, 200, dtype=np.float32)
    made = jax.vmap(lambda sigma: functional.gaussian_blur(image, sigma, max_sigma=1.0))(sigmas)
    np.testing.assert_array_equal(made, 255)


# Levels.


def test_levels_become_the_nearest_floats_and_come_back():
    """A byte becomes the float nearest to its 255th, and that float the byte."""
    floats = functional.to_float(LEVELS, jnp.float32)
    np.testing.assert_array_equal(floats, (LEVELS / 255).astype(np.float32))
    np.testing.assert_array_equal(functional.to_uint8(floats), LEVELS)
    halves = functional.to_float(LEVELS, jnp.bfloat16)
    assert halves.dtype == jnp.bfloat16
    assert functional.to_float(halves, jnp.float32).dtype == jnp.float32
    np.testing.assert_array_equal(functional.to_uint8(LEVELS), LEVELS)


def test_floats_become_the_nearest_level():
    """Halves go to the even level; what is beyond is clipped, and NaN black."""
    levels = np.array([[-3, -0.5, 0.4, 0.5, 1.5, 2.5, 254.6, 300, np.inf, np.nan]], np.float32)
    made = functional.to_uint8(levels / np.float32(255))
    np.testing.assert_array_equal(made, [[0, 0, 0, 0, 2, 2, 255, 255, 255, 0]])


def test_normalize_takes_bytes_and_numbers_per_channel():
    """Bytes go to float32 from 0 to 1, then the numbers of each channel are applied."""
    image, mean, std = drawn((5, 4, 3)), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    made = functional.normalize(image, mean, std)
    assert made.dtype == jnp.float32
    np.testing.assert_allclose(made, (image / 255 - mean) / std, rtol=1e-6, atol=1e-6)


def test_functions_of_levels_are_the_same_for_floats():
    """Of a float that is a level, the result is the float of the result for bytes."""
    image = drawn((40, 30, 3)) // 2
    names = ("posterize", "equalize")
    floats, levels = call(functional.to_float(image, jnp.float32), *names), call(image, *names)
    for name in names:
        np.testing.assert_array_equal(floats[name], functional.to_float(levels[name], jnp.float32))


# Shapes and refusals.


def test_an_image_without_channels_is_one_with_one():
    """Gray images have two axes or three, and the same values."""
    image = drawn((7, 5))
    names = (*COLOUR, "gaussian_blur", "sharpness")
    flat, deep = call(image, *names), call(image[..., None], *names)
    for name in names:
        assert flat[name].shape == image.shape
        np.testing.assert_array_equal(flat[name], deep[name][..., 0], err_msg=name)


def test_channels_beyond_colour_are_treated_alike():
    """Of four channels each is what it would be alone."""
    image, names = drawn((7, 5, 4)), set(NUMBERS) - COLOUR - {"equalize"}
    made, last = call(image, *names), call(image[..., 3], *names)
    for name in names:
        np.testing.assert_array_equal(made[name][..., 3], last[name], err_msg=name)


@pytest.mark.parametrize("name", sorted(COLOUR))
def test_functions_of_colour_refuse_other_channels(name):
    """Two and four channels have no luminance; the error says what to do."""
    with pytest.raises(ValueError, match=rf"{name} needs .* got shape \(7, 5, 4\); pass image"):
        call(drawn((7, 5, 4)), name)


def test_bad_arguments_are_refused():
    """A dtype, a rank, a number per record, a dtype of floats and a radius that are none."""
    image = drawn((4, 4, 3))
    with pytest.raises(TypeError, match=r"must be uint8, bfloat16.*, got int32"):
        functional.invert(image.astype(np.int32))
    with pytest.raises(ValueError, match=r"got shape \(2, 4, 4, 3\); use jax.vmap"):
        functional.invert(np.stack([image, image]))
    with pytest.raises(ValueError, match=r"factor must be one number, got shape \(2,\); use jax"):
        functional.brightness(image, np.ones(2, np.float32))
    with pytest.raises(TypeError, match="dtype must be floating, got int8; use to_uint8"):
        functional.to_float(image, jnp.int8)
    with pytest.raises(ValueError, match="max_sigma must be a positive, finite number"):
        functional.gaussian_blur(image, 1.0, max_sigma=0.0)
    with pytest.raises(ValueError, match=r"mean must be a number or 3, .* got shape \(2,\)"):
        functional.normalize(image, (0.1, 0.2), 1)
