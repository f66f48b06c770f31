"""The colour functions of floats against their formulas in float64, and their gradients."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.operators.modality.image import functional

pytestmark = pytest.mark.usefixtures("quick_compiles")

SIZE = (9, 8, 3)
LUMINANCE = np.array([19595, 38470, 7471]) / 65536
# By name, numbers that go well together with images from 0 to 1.
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
    "solarize": {"threshold": 0.6},
    "solarize_add": {"addend": 0.3},
}
OF_LEVELS = {"posterize", "equalize"}


def drawn(seed=0):
    """Values a little beyond 0 to 1."""
    return np.random.default_rng(seed).uniform(-0.1, 1.1, SIZE).astype(np.float32)


@lru_cache
def results(dtype):
    """What the functions make of an image, and of the same one with a NaN in the pixel (4, 5)."""

    def functions(image):
        return {name: getattr(functional, name)(image, **NUMBERS[name]) for name in NUMBERS}

    images = jnp.asarray(np.stack([drawn(), drawn()]), dtype).at[1, 4, 5].set(np.nan)
    made = jax.jit(jax.vmap(functions))(images)
    assert all(result.dtype == dtype for result in made.values())
    return images, {name: np.asarray(result, np.float64) for name, result in made.items()}


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


def blend(start, image, factor):
    """The blend of a degenerate image and an image."""
    return start + np.float64(np.float32(factor)) * (image - start)


def smoothed(image):
    """The image with its 3 x 3 mean but for the outermost pixels."""
    result = image.copy()
    shifts = [(y, x) for y in (0, 1, 2) for x in (0, 1, 2)]
    height, width = image.shape[:2]
    parts = [image[y : y + height - 2, x : x + width - 2] for y, x in shifts]
    result[1:-1, 1:-1] = (sum(parts) + 4 * image[1:-1, 1:-1]) / 13
    return result


def turned(image, shift):
    """The hue turned as in `colorsys`, colour by colour."""
    value, chroma = image.max(-1), np.ptp(image, axis=-1)
    red, green, blue = np.moveaxis(image, -1, 0)
    sixths = np.select(
        [red == value, green == value],
        [(green - blue) / chroma, 2 + (blue - red) / chroma],
        4 + (red - green) / chroma,
    )
    around = (sixths[..., None] + 6 * np.float64(np.float32(shift)) + [5, 3, 1]) % 6
    away = np.clip(np.minimum(around, 4 - around), 0, 1)
    return value[..., None] - chroma[..., None] * away


def expected(name, image, **numbers):
    """A function of floats by its formula in float64."""
    gray = (image @ LUMINANCE)[..., None]
    low, high = image.min((0, 1)), image.max((0, 1))
    return {
        "auto_contrast": lambda: (image - low) / (high - low),
        "brightness": lambda factor: blend(0, image, factor),
        "contrast": lambda factor: blend(gray.mean(), image, factor),
        "gaussian_blur": lambda sigma, max_sigma: blurred(
            image, sigma, int(np.ceil(3 * max_sigma))
        ),
        "grayscale": lambda: np.broadcast_to(gray, image.shape),
        "hue": lambda shift: turned(image, shift),
        "invert": lambda: 1 - image,
        "normalize": lambda mean, std: (image - np.float32(mean)) / np.float64(np.float32(std)),
        "saturation": lambda factor: blend(gray, image, factor),
        "sharpness": lambda factor: blend(smoothed(image), image, factor),
        "solarize": lambda threshold: np.where(image < threshold, image, 1 - image),
        "solarize_add": lambda addend: np.where(
            image < 128 / 255, image + np.float64(np.float32(addend)), image
        ),
    }[name](**numbers)


@pytest.mark.parametrize("name", sorted(set(NUMBERS) - OF_LEVELS))
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["f32", "bf16"])
def test_floats_follow_the_formula(name, dtype):
    """The result is the formula in float64, not clipped, then rounded to the image's dtype."""
    images, made = results(dtype)
    ideal = expected(name, np.asarray(images[0], np.float64), **NUMBERS[name])
    digits = max(1e-6, float(jnp.finfo(dtype).eps) / 2)
    np.testing.assert_allclose(made[name][0], ideal, rtol=1.01 * digits, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["brightness", "contrast", "saturation", "sharpness", "hue", "gaussian_blur"]
)
def test_gradients_are_those_of_differences(name):
    """Both the image and the number have the slope of the float64 formula."""
    image, direction = drawn(), drawn(seed=1)
    [(key, number), *rest] = NUMBERS[name].items()
    weights = drawn(seed=2)

    def loss(image, number):
        return jnp.vdot(weights, getattr(functional, name)(image, **{key: number}, **dict(rest)))

    def ideal(step):
        moved = image + step * direction.astype(np.float64)
        result = expected(name, moved, **{key: np.float64(number) + step}, **dict(rest))
        return np.vdot(weights.astype(np.float64), result)

    slopes = jax.grad(loss, (0, 1))(image, jnp.float32(number))
    slope = np.vdot(slopes[0], direction) + float(slopes[1])
    step = 2.0**-12
    np.testing.assert_allclose(slope, (ideal(step) - ideal(-step)) / (2 * step), rtol=2e-3)


@pytest.mark.parametrize("name", sorted(OF_LEVELS))
def test_functions_of_levels_have_no_slope(name):
    """Where the result is a step, the gradient is zero, and asking for it is no error."""
    slope = jax.grad(lambda image: jnp.sum(getattr(functional, name)(image, **NUMBERS[name])))
    np.testing.assert_array_equal(slope(drawn()), 0)


@pytest.mark.parametrize("name", sorted(set(NUMBERS) - {"contrast", "gaussian_blur", "sharpness"}))
def test_a_missing_value_stays_alone(name):
    """One NaN makes its own pixel NaN and no other."""
    clean, made = results(jnp.float32)[1][name]
    missing = np.zeros(SIZE[:2], bool)
    missing[4, 5] = True
    np.testing.assert_array_equal(np.isnan(made).all(-1), missing)
    assert not np.isnan(made[~missing]).any()
    if name not in ("auto_contrast", "equalize"):
        np.testing.assert_array_equal(made[~missing], clean[~missing])


@pytest.mark.parametrize(
    "dtype", [jnp.uint8, jnp.float16, jnp.float32, jnp.float64], ids=["u8", "f16", "f32", "f64"]
)
def test_64_bit_numbers_change_no_dtype(dtype):
    """Where JAX has 64 bits, images keep their dtype, whatever the numbers are."""
    with jax.enable_x64(True):
        image = jax.ShapeDtypeStruct(SIZE, dtype)
        for name, numbers in NUMBERS.items():
            static = {key: value for key, value in numbers.items() if key == "max_sigma"}
            traced = {key: np.float64(value) for key, value in numbers.items() if key not in static}
            function = partial(getattr(functional, name), **static)
            made = jax.eval_shape(function, image, **traced)
            float32 = name == "normalize" and dtype == jnp.uint8
            assert made.dtype == (jnp.float32 if float32 else dtype), name


def test_float64_images_are_computed_in_float64():
    """The error is that of float64."""
    with jax.enable_x64(True):
        image = jnp.asarray(drawn(), jnp.float64)
        made = np.asarray(functional.saturation(image, 2.2))
        levels = np.asarray(functional.to_float(np.arange(256, dtype=np.uint8)[None], jnp.float64))
    gray = (np.asarray(image) @ LUMINANCE)[..., None]
    np.testing.assert_allclose(made, gray + 2.2 * (np.asarray(image) - gray), rtol=1e-13)
    np.testing.assert_array_equal(levels[0], np.arange(256) / 255)
