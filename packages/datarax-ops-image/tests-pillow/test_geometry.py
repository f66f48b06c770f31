"""Each geometric function against Pillow, on at least 10**7 values."""

import geometry
import jax
import numpy as np
import pytest

from datarax.operators.modality.image import functional

SIDE = 384


def images(count, height=SIDE, width=SIDE):
    """Images of very different spread, some smooth and some noise, with numbers for each."""
    y, x = np.mgrid[0:height, 0:width] / SIDE
    for seed in range(count):
        random = np.random.default_rng(seed)
        waves = np.sin(random.uniform(3, 40, (3, 1, 1)) * x + random.uniform(3, 40, (3, 1, 1)) * y)
        smooth = waves * random.uniform(3, 130) + random.uniform(40, 215)
        noise = random.normal(0, random.choice([0, 2, 40]), (3, height, width))
        image = np.clip(smooth + noise, 0, 255).astype(np.uint8)
        yield np.ascontiguousarray(np.moveaxis(image, 0, -1)), random


@pytest.mark.parametrize("method", geometry.METHODS)
@pytest.mark.parametrize(
    ("shape", "size"), [((256, 256), (224, 224)), ((375, 500), (224, 224)), ((97, 131), (96, 171))]
)
def test_every_value_of_resized_crops_is_pillows(method, shape, size):
    """Boxes of any place and shape, a tenth of them one or two pixels wide, and flips."""
    one = jax.jit(
        lambda image, box, flip: functional.resized_crop(image, box, size, method=method, flip=flip)
    )
    for image, random in images(10**7 // (size[0] * size[1] * 3) + 1, *shape):
        lengths = random.integers(1, np.array(shape) + 1)
        if random.random() < 0.1:
            lengths[1] = random.integers(1, 4)
        start = random.integers(0, shape - lengths + 1)
        box = np.concatenate([start, start + lengths]).astype(np.int32)
        flip = bool(random.integers(2))
        wanted = geometry.resized_crop(image, box, size, method, flip)
        np.testing.assert_array_equal(one(image, box, flip), wanted, str(box))


@pytest.mark.parametrize("method", geometry.METHODS)
def test_every_value_of_resizing_is_pillows(method):
    """Sizes larger and smaller, up to a reduction by thirty, each axis for itself."""
    values = 0
    for image, random in images(60):
        size = tuple(np.exp(random.uniform(np.log(12), np.log(1100), 2)).astype(int).tolist())
        wanted = geometry.resize(image, size, method)
        np.testing.assert_array_equal(functional.resize(image, size, method=method), wanted)
        values += wanted.size
    assert values > 10**7


@pytest.mark.parametrize("name", ["crop", "flip", "pad"])
def test_moved_pixels_are_pillows(name):
    """Crops, flips and borders."""
    for image, random in images(30):
        origin, flags = random.integers(0, 9, 2), random.integers(0, 2, 2)
        numbers = {
            "crop": {"origin": tuple(origin.tolist()), "size": (SIDE - 8, SIDE - 8)},
            "flip": {"vertical": bool(flags[0]), "horizontal": bool(flags[1])},
            "pad": {
                "padding": tuple(random.integers(0, 99, 4).tolist()),
                "mode": str(random.choice(["constant", "edge", "reflect", "symmetric"])),
            },
        }[name]
        wanted = geometry.REFERENCES[name](image, **numbers)
        np.testing.assert_array_equal(getattr(functional, name)(image, **numbers), wanted)


def random_matrix(random):
    """A turn, a shear, scales and shifts, one of these alone in half the cases."""
    kind = random.integers(8)
    angle, shear = random.uniform(-np.pi, np.pi), random.uniform(-0.4, 0.4)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    lean, scale = np.array([[1, 0], [shear, 1]]), np.diag(random.uniform(0.4, 2.5, 2))
    linear = [lean, lean.T, scale, np.eye(2)][kind] if kind < 4 else turn @ lean @ scale
    centre = np.full(2, SIDE / 2)
    shift = centre - linear @ centre + (random.uniform(-40, 40, 2) if kind % 2 else 0)
    return np.concatenate([linear, shift[:, None]], axis=1).astype(np.float32)


@pytest.mark.parametrize("method", geometry.METHODS)
@pytest.mark.parametrize("name", ["affine", "rotate"])
def test_values_are_pillows_but_for_the_last_bits_of_places(name, method):
    """All of nearest; of the others all but one in 10,000, which differ by 1, and why."""
    function = getattr(functional, name)
    one = jax.jit(lambda image, number: function(image, number, method=method, fill=77))
    values = different = 0
    for image, random in images(23):
        number = (
            random_matrix(random) if name == "affine" else np.float32(random.uniform(-400, 400))
        )
        wanted = geometry.REFERENCES[name](image, number, method, 77).astype(int)
        made = np.asarray(one(image, number)).astype(int)
        where = np.nonzero(made != wanted)
        values, different = values + made.size, different + len(where[0])
        if method == "nearest":
            assert not len(where[0])
            continue
        assert np.abs(made - wanted).max() <= 1
        matrix = number if name == "affine" else rotation(number)
        exact = value_at(image, matrix, method, *where)
        # Both cut an almost whole number to the integer below or not.
        assert np.all(np.abs(exact - np.round(exact)) < 1e-4)
    print(f"{name} {method}: {different} of {values} differ")
    assert values > 10**7
    assert different < 1e-4 * values


def rotation(degrees):
    """The matrix from output to input (y, x), in doubles."""
    cosine, sine = np.cos(np.deg2rad(float(degrees))), np.sin(np.deg2rad(float(degrees)))
    linear = np.array([[cosine, sine], [-sine, cosine]])
    centre = np.full(2, SIDE / 2)
    return np.concatenate([linear, (centre - linear @ centre)[:, None]], axis=1)


def value_at(image, matrix, method, rows, columns, channels):
    """What the formula gives in doubles, before it is cut to an integer."""
    matrix = np.asarray(matrix, np.float64)
    places = matrix[:, :2] @ (np.stack([rows, columns]) + 0.5) + matrix[:, 2:] - 0.5
    first = np.floor(places).astype(int)
    total = 0.0
    kernels = [kernel(method, way) for way in places - first]
    start = 0 if method == "bilinear" else -1
    for i, down in enumerate(kernels[0]):
        for j, across in enumerate(kernels[1]):
            near = np.clip(first + start + np.array([[i], [j]]), 0, SIDE - 1)
            total = total + down * across * image[near[0], near[1], channels]
    return np.clip(total, 0, 255)


def kernel(method, d):
    """The weights of two or four neighbours."""
    if method == "bilinear":
        return [1 - d, d]
    return [-d + 2 * d**2 - d**3, 1 - 2 * d**2 + d**3, d + d**2 - d**3, -(d**2) + d**3]
