"""resize and resized_crop: the same everywhere, the formula in floats, gradients and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.operators.modality.image import functional
from datarax.operators.modality.image.functional import _resample, _weights
from datarax.operators.modality.image.functional._weights import Taps

pytestmark = pytest.mark.usefixtures("quick_compiles")

SHAPE = (23, 18, 3)
BOXES = np.array([[0, 0, 23, 18], [2, 5, 19, 9], [7, 1, 8, 18], [4, 3, 23, 4]], np.int32)


def noise(*shape):
    return np.random.default_rng(shape).integers(0, 256, shape, np.uint8)


def weights(length, pixels, method, antialias=True):
    """The weights (pixels, length) of an axis, in float64 from the definition."""
    scale = length / pixels
    wide = max(scale, 1) if antialias else 1
    centre = (np.arange(pixels)[:, None] + 0.5) * scale
    j = np.arange(length)
    x = np.abs(j + 0.5 - centre) / wide
    radius = 1 if method == "bilinear" else 2
    value = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
    value = 1 - x if method == "bilinear" else value
    taken = (j >= np.floor(centre - radius * wide + 0.5)) & (
        j < np.floor(centre + radius * wide + 0.5)
    )
    value = np.where(taken & (x < radius), value, 0)
    return value / value.sum(1, keepdims=True)


def resized(image, size, method, antialias=True):
    rows, columns = (
        weights(length, pixels, method, antialias)
        for length, pixels in zip(image.shape, size, strict=False)
    )
    return np.einsum("yh,xw,hwc->yxc", rows, columns, image.astype(np.float64))


@pytest.mark.parametrize(
    ("method", "antialias"), [("bilinear", True), ("bicubic", True), ("bilinear", False)]
)
def test_floats_are_the_formula(method, antialias):
    """float32 images have the weighted sums in float64 to 1e-6, up and down in size."""
    image = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    size = (9, 29)
    made = functional.resize(image, size, method=method, antialias=antialias)
    assert made.dtype == np.float32
    wanted = resized(image, size, method, antialias)
    np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-6 * np.abs(image).max())
    for y0, x0, y1, x1 in BOXES[1:2]:
        made = functional.resized_crop(
            image, (y0, x0, y1, x1), size, method=method, antialias=antialias, flip=True
        )
        wanted = resized(image[y0:y1, x0:x1], size, method, antialias)[:, ::-1]
        np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-6 * np.abs(image).max())


@pytest.mark.parametrize(
    "method", ["nearest", "bicubic", pytest.param("bilinear", marks=pytest.mark.thorough)]
)
def test_a_crop_is_resized_like_an_image_of_its_own(method):
    """No pixel outside the box counts, and a flip only mirrors."""
    image = noise(*SHAPE)
    for y0, x0, y1, x1 in BOXES:
        alone = functional.resize(image[y0:y1, x0:x1], (11, 8), method=method)
        for flip in (False, True):
            made = functional.resized_crop(
                image, (y0, x0, y1, x1), (11, 8), method=method, flip=flip
            )
            np.testing.assert_array_equal(made, alone[:, :: -1 if flip else 1])


@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        ("nearest", jnp.uint8),
        pytest.param("bilinear", jnp.uint8, marks=pytest.mark.thorough),
        ("bicubic", jnp.uint8),
        ("bilinear", jnp.float32),
        pytest.param("bicubic", jnp.bfloat16, marks=pytest.mark.thorough),
    ],
)
def test_records_are_the_same_alone_and_in_a_batch(method, dtype):
    """Compiled under vmap, with boxes and flips per record, every bit is the same."""
    images = jnp.asarray(noise(4, *SHAPE)).astype(dtype)
    flips = np.array([True, False, True, False])

    def one(image, box, flip):
        return functional.resized_crop(image, box, (11, 8), method=method, flip=flip)

    alone = np.stack([one(*record) for record in zip(images, BOXES, flips, strict=True)])
    np.testing.assert_array_equal(jax.jit(jax.vmap(one))(images, BOXES, flips), alone)


@pytest.mark.parametrize(
    "method", [pytest.param("bilinear", marks=pytest.mark.thorough), "bicubic"]
)
def test_a_product_of_matrices_gives_the_same_bytes(method):
    """The formulation of backends without caches equals the one of CPUs."""
    image = noise(60, 7, 2)
    for pixels in (5, 31):
        taps = Taps(*_weights.of_length(60, pixels, method, True, np.dtype(np.int32)))
        taps = Taps(*map(jnp.asarray, taps))
        passes = _resample.static_pass, _resample.integer_pass, _resample.dense_pass
        wanted, *others = (jax.jit(one, static_argnums=2)(image, taps, 0) for one in passes)
        for made in others:
            np.testing.assert_array_equal(made, wanted)


def test_bfloat16_is_computed_in_float32():
    """The result is the one of float32, rounded once."""
    image = jnp.asarray(noise(*SHAPE)).astype(jnp.bfloat16) / 255
    made = functional.resize(image, (9, 29), method="bicubic")
    wide = functional.resize(image.astype(jnp.float32), (9, 29), method="bicubic")
    np.testing.assert_array_equal(made, wide.astype(jnp.bfloat16))


def test_gradients_are_those_of_a_linear_map():
    """For weights u, the gradient g of u . f(x) has g . y = u . f(y) for every image y."""
    generator = np.random.default_rng(1)
    image, other = (generator.normal(size=SHAPE).astype(np.float32) for _ in range(2))
    weight = generator.normal(size=(11, 8, 3)).astype(np.float32)

    def total(image, box):
        return jnp.sum(functional.resized_crop(image, box, (11, 8)) * weight)

    gradient = jax.jit(jax.grad(total))(image, BOXES[1])
    np.testing.assert_allclose(jnp.sum(gradient * other), total(other, BOXES[1]), rtol=2e-4)


@pytest.mark.parametrize(
    "box", [(3, 4, 249, 6), pytest.param((10, 0, 150, 3), marks=pytest.mark.thorough)]
)
def test_narrow_crops_go_down_first(box):
    """A crop more than 100 times as tall as wide is resized as the image of its own would be."""
    image = noise(250, 9, 3)
    y0, x0, y1, x1 = box
    alone = functional.resize(image[y0:y1, x0:x1], (13, 6))
    np.testing.assert_array_equal(functional.resized_crop(image, box, (13, 6)), alone)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": (0, 3)}, ValueError, r"size must be at least \(1, 1\), got \(0, 3\)"),
        ({"size": 7}, TypeError, r"size must be two integers \(height, width\).*got 7"),
        ({"method": "lanczos"}, ValueError, "method must be one of nearest, bilinear, bicubic"),
        ({"image": np.zeros((4, 4), np.int32)}, TypeError, "image must be uint8.*got int32"),
        ({"image": np.zeros((1, 4, 4, 3), np.uint8)}, ValueError, "use jax.vmap for a batch"),
        ({"box": (0, 0, 24, 18)}, ValueError, r"box \(0, 0, 24, 18\) must have .* y1 <= 23"),
        ({"box": (5, 3, 5, 9)}, ValueError, "0 <= y0 < y1"),
        ({"box": (0.0, 0, 2, 2)}, TypeError, "box must be integers .* round them"),
        ({"box": (0, 0, 2)}, ValueError, r"box must be \(y0, x0, y1, x1\), got shape \(3,\)"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_wrong_is_said(arguments, error, message):
    """The error names the argument, what was expected and what came."""
    arguments = {"image": noise(*SHAPE), "box": BOXES[0], "size": (3, 4)} | arguments
    with pytest.raises(error, match=message):
        functional.resized_crop(**arguments)


def test_a_box_that_is_known_while_tracing_is_checked():
    """Inside `jax.jit` too, an error says what a constant box has wrong."""
    with pytest.raises(ValueError, match=r"box .* must have"):
        jax.eval_shape(
            lambda image: functional.resized_crop(image, (0, 0, 99, 3), (4, 4)), noise(9, 9)
        )
    with pytest.raises(ValueError, match="origin"):
        jax.eval_shape(lambda image: functional.crop(image, (8, 0), (4, 4)), noise(9, 9))
