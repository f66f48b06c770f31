"""affine, rotate, and what follows from a geometry: the same everywhere, right, and refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.operators.modality.image import functional
from datarax.operators.modality.image.functional import Affine, Crop, Window

pytestmark = pytest.mark.usefixtures("quick_compiles")

SHAPE = (13, 17, 3)
TURN = np.array([[0.9, -0.4, 3.3], [0.35, 1.1, -2.6]], np.float32)


def noise(*shape):
    return np.random.default_rng(shape).integers(0, 256, shape, np.uint8)


def linear(d):
    return [1 - d, d]


def cubic(d):
    return [-d + 2 * d**2 - d**3, 1 - 2 * d**2 + d**3, d + d**2 - d**3, -(d**2) + d**3]


def sampled(image, matrix, method, fill):
    """The values at the places that a matrix says, in float64."""
    height, width = image.shape[:2]
    grid = np.mgrid[0:height, 0:width] + 0.5
    y, x = np.einsum("ab,bhw->ahw", matrix[:, :2], grid) + matrix[:, 2, None, None]
    kernel = linear if method == "bilinear" else cubic
    first = 0 if method == "bilinear" else -1
    rows, columns = (np.floor(axis - 0.5).astype(int) for axis in (y, x))
    total = 0
    for i, down in enumerate(kernel(y - 0.5 - rows)):
        for j, across in enumerate(kernel(x - 0.5 - columns)):
            row = np.clip(rows + first + i, 0, height - 1)
            column = np.clip(columns + first + j, 0, width - 1)
            total = total + (down * across)[..., None] * image[row, column]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return np.where(inside[..., None], total, fill)


def turn(degrees, height, width):
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    linear_part = np.array([[cosine, sine], [-sine, cosine]])
    centre = np.array([height, width]) / 2
    return np.concatenate([linear_part, (centre - linear_part @ centre)[:, None]], axis=1)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_floats_are_the_formula(method):
    """float32 images have the float64 values to 1e-6, at places known as exactly."""
    image = np.random.default_rng(0).uniform(size=SHAPE).astype(np.float32)
    made = functional.affine(image, TURN, method=method, fill=0.5)
    wanted = sampled(image, TURN.astype(np.float64), method, 0.5)
    np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-6)
    made = functional.rotate(image, 33.7, method=method, fill=0.5)
    wanted = sampled(image, turn(np.float32(33.7), *SHAPE[:2]), method, 0.5)
    np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        pytest.param("nearest", jnp.uint8, marks=pytest.mark.thorough),
        ("bilinear", jnp.uint8),
        ("bicubic", jnp.bfloat16),
    ],
)
def test_records_are_the_same_alone_and_in_a_batch(method, dtype):
    """Compiled under vmap, with an angle per record, every bit is the same."""
    images = jnp.asarray(noise(3, *SHAPE)).astype(dtype)
    degrees = np.array([-20.3, 90, 171.1], np.float32)

    def one(image, angle):
        return functional.rotate(image, angle, method=method, fill=3)

    alone = np.stack([one(*record) for record in zip(images, degrees, strict=True)])
    np.testing.assert_array_equal(jax.jit(jax.vmap(one))(images, degrees), alone)


def test_quarter_turns_move_pixels():
    """Multiples of 90 degrees give the pixels of the turned array, bit by bit."""
    image = noise(9, 9, 5)
    for quarters in (-1, 1, 2, 7):
        for method in ("nearest", "bilinear"):
            made = functional.rotate(image, 90 * quarters, method=method)
            np.testing.assert_array_equal(made, np.rot90(image, quarters))


def test_a_turned_ramp_shows_turned_coordinates():
    """An image that shows coordinates shows turned ones after a turn."""
    y, x = np.mgrid[0:41, 0:41].astype(np.float32)
    made = functional.rotate(np.stack([y, x], -1), 30)[10:31, 10:31]
    matrix = turn(30, 41, 41)
    wanted = np.stack([y + 0.5, x + 0.5], -1) @ matrix[:, :2].T + matrix[:, 2] - 0.5
    np.testing.assert_allclose(made, wanted[10:31, 10:31], atol=1e-4)


def test_gradients_in_angle_and_matrix_are_the_formula():
    """They agree with differences of the formula in float64."""
    image = np.random.default_rng(3).uniform(size=SHAPE).astype(np.float32)
    weight = np.random.default_rng(4).uniform(size=SHAPE)

    def difference(matrix_of, at, step):
        low, high = (
            np.sum(sampled(image, matrix_of(at + sign * step), "bilinear", 0) * weight)
            for sign in (-1, 1)
        )
        return (high - low) / (2 * step)

    gradient = jax.jit(
        jax.grad(lambda degrees: jnp.sum(functional.rotate(image, degrees) * weight))
    )(np.float32(21.3))
    at = float(np.float32(21.3))
    wanted = difference(lambda degrees: turn(degrees, *SHAPE[:2]), at, 1e-6)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-3)
    gradient = jax.jit(jax.grad(lambda matrix: jnp.sum(functional.affine(image, matrix) * weight)))(
        TURN
    )
    for place in np.ndindex(2, 3):
        one = np.zeros((2, 3))
        one[place] = 1
        wanted = difference(lambda step, one=one: TURN + step * one, 0.0, 1e-6)
        np.testing.assert_allclose(gradient[place], wanted, rtol=1e-3, err_msg=str(place))


def geometries():
    return {
        "crop": Crop(origin=(3, -2), size=SHAPE[:2], margin=(0, 2, 3, 0), flip_horizontal=True),
        "flip": Crop(size=SHAPE[:2], flip_vertical=True),
        "window": Window(box=(2, 3, 11, 16), size=SHAPE[:2], flip_vertical=True),
        "turn": Affine.rotation(25, SHAPE[:2]),
        "affine": Affine(matrix=TURN, size=SHAPE[:2]),
    }


@pytest.mark.parametrize("name", geometries())
def test_boxes_and_points_follow_the_pixels(name):
    """What the canvas shows of a box, found by asking a fine grid, is inside the new box."""
    geometry = geometries()[name]
    boxes = np.array([[2, 4, 7, 9.5], [-3, 8, 5, 24], [0, 0, 13, 17], [40, 40, 50, 50]], np.float32)
    made = functional.transform_boxes(boxes, geometry)
    fine = 12
    grid = (np.mgrid[-240:241, -240:241].reshape(2, -1).T + 0.5) / fine + 6.5
    placed = functional.transform_points(grid.astype(np.float32), geometry)
    points, visible = np.asarray(placed.points), np.asarray(placed.visible)
    for box, after, seen, outline in zip(boxes, *map(np.asarray, made), strict=True):
        inside = np.all((grid >= box[:2]) & (grid < box[2:]), axis=1)
        left = points[inside & visible]
        if not left.size:
            assert seen == 0
            assert np.prod(after[2:] - after[:2]) == 0
            continue
        np.testing.assert_allclose(after[:2], left.min(0), atol=0.2)
        np.testing.assert_allclose(after[2:], left.max(0), atol=0.2)
        np.testing.assert_allclose(seen, left.shape[0] / inside.sum(), atol=0.03)
        np.testing.assert_array_equal(after, [*outline.min(0), *outline.max(0)])


@pytest.mark.parametrize("name", geometries())
def test_the_image_shows_what_points_say(name):
    """A mark in the input is seen where its centre comes to lie."""
    geometry = geometries()[name]
    for y, x in ((5, 6), (8, 10)):
        image = np.zeros(SHAPE, np.uint8)
        image[y - 1 : y + 2, x - 1 : x + 2] = 255
        points = functional.transform_points(np.array([[y + 0.5, x + 0.5]]), geometry)
        row, column = np.floor(points.points[0]).astype(int)
        assert points.visible[0]
        assert geometry.mask(image[..., 0])[row, column] == 255
        canvas = geometry.image(image)[..., 0]
        assert canvas.shape == geometry.size
        assert canvas[row, column] > 200


def test_an_outline_keeps_boxes_tight():
    """Turned there and back, a box is the box again with its outline, and larger without."""
    box = np.array([[10, 12, 22, 20]], np.float32)
    there, back = Affine.rotation(35, (40, 40)), Affine.rotation(-35, (40, 40))
    turned = functional.transform_boxes(box, there)
    again = functional.transform_boxes(turned.boxes, back, turned.outline)
    np.testing.assert_allclose(again.boxes, box, atol=1e-4)
    np.testing.assert_array_equal(again.visibility, [1])
    loose = functional.transform_boxes(turned.boxes, back)
    assert np.all(loose.boxes[0, :2] < box[0, :2] - 1)


def test_many_cuts_fit_an_outline():
    """A square cut by turned canvases again and again keeps at most 12 corners and its box."""
    outline, boxes = None, np.array([[-40, -40, 80, 80]], np.float32)
    for degrees in (20, 25, 22, 31):
        made = functional.transform_boxes(boxes, Affine.rotation(degrees, (40, 40)), outline)
        boxes, outline = made.boxes, made.outline
        assert 0.1 < made.visibility[0] < 1
    np.testing.assert_allclose(boxes, [[0, 0, 40, 40]], atol=0.5)


def test_geometry_needs_no_new_compilation():
    """Other numbers run what was compiled for the first."""

    @jax.jit
    def points(degrees):
        return functional.transform_points(jnp.ones((1, 2)), Affine.rotation(degrees, (8, 8)))

    points(1.0)
    points(2.5)
    assert points._cache_size() == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda image: functional.affine(image, np.eye(3)), ValueError, r"matrix must be \(2, 3\)"),
        (lambda image: functional.rotate(image, np.ones(2)), ValueError, "degrees must be one"),
        (lambda image: functional.rotate(image, 3, fill=(1, 2)), ValueError, "fill must be"),
        (lambda image: functional.crop(image, (0, 0), (14, 2)), ValueError, "pad the image first"),
        (lambda image: functional.crop(image, (9, 0), (5, 5)), ValueError, r"origin \(9, 0\)"),
        (lambda image: functional.pad(image, (1, 2, 3)), ValueError, "padding must be a width"),
        (lambda image: functional.pad(image, 1.5), TypeError, "padding must be integers"),
        (lambda image: functional.pad(image, 1, mode="wrap"), ValueError, "mode must be one of"),
        (lambda image: functional.pad(image, 13, mode="reflect"), ValueError, "at most 12"),
        (
            lambda image: functional.transform_boxes(np.ones((2, 5)), Crop(size=(3, 3))),
            ValueError,
            r"boxes must be \(boxes, 4\) of one record, got shape \(2, 5\)",
        ),
        (
            lambda image: functional.transform_points(np.ones(2), Crop(size=(3, 3))),
            ValueError,
            r"points must be \(points, 2\)",
        ),
    ],
)
def test_what_is_wrong_is_said(call, error, message):
    """The error names the argument, what was expected and what came."""
    with pytest.raises(error, match=message):
        call(noise(*SHAPE))
