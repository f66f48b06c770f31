"""Masks of other layouts than the image's, boxes and points in fractions of it, ignored pixels."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators import CompositeOperatorConfig, CompositeOperatorModule
from datarax.operators.modality.image import (
    FlipOperator,
    FlipOperatorConfig,
    IoUCropOperator,
    IoUCropOperatorConfig,
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
    ResizedCropOperator,
    ResizedCropOperatorConfig,
    RotationOperator,
    RotationOperatorConfig,
)
from datarax.operators.modality.image.functional import Window, transform_boxes, transform_points

pytestmark = pytest.mark.usefixtures("quick_compiles")

HEIGHT, WIDTH, ROWS = 6, 7, 3
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(1, 256, (ROWS, HEIGHT, WIDTH, 3)).astype(np.uint8)


def flip(**options):
    return FlipOperator(FlipOperatorConfig(prob=1, **options))


def turn_and_crop(**options):
    """A random turn, then a random resized crop, as one operator."""
    rngs = nnx.Rngs(0)
    turn = RotationOperator(RotationOperatorConfig(degrees=(-60, 60), **options), rngs=rngs)
    crop = ResizedCropOperator(ResizedCropOperatorConfig(size=(5, 9), **options), rngs=rngs)
    return CompositeOperatorModule(CompositeOperatorConfig(), operators=[turn, crop])


def test_each_mask_of_a_stack_follows_as_it_would_alone():
    """Instances (masks, height, width) are turned, cropped and flipped, outside the fill."""
    stack = RNG.integers(0, 200, (ROWS, 4, HEIGHT, WIDTH)).astype(np.uint8)
    fields = {"image": IMAGE, "stack": stack, "last": np.moveaxis(stack, 1, 3), "one": stack[:, 2]}
    names = [name for name in fields if name != "image"]
    out = turn_and_crop(auxiliary_fields=names, mask_fill=255)(fields)
    assert out["stack"].shape == (ROWS, 4, 5, 9)
    assert (np.asarray(out["one"]) == 255).any()
    np.testing.assert_array_equal(out["stack"][:, 2], out["one"])
    np.testing.assert_array_equal(np.moveaxis(np.asarray(out["last"]), 3, 1), out["stack"])
    np.testing.assert_array_equal(flip(auxiliary_fields=names)(fields)["stack"], stack[..., ::-1])


def test_axes_that_cannot_be_told_from_shapes_are_given(caplog):
    """Six masks of 6 x 6 pixels are read as height first, or as field_axes says."""
    cube = RNG.random((ROWS, 6, 6, 6)) < 0.5
    fields = {"image": IMAGE[:, :, :6], "cube": cube, "stack": cube}
    op = flip(auxiliary_fields=["cube", "stack"], field_axes={"stack": (-2, -1)})
    assert hash(op.config) == hash(FlipOperatorConfig(**vars(op.config)))
    with caplog.at_level(logging.INFO):
        out = op(fields)
    assert "mask 'cube' of shape (6, 6, 6)" in caplog.text
    assert "'stack'" not in caplog.text
    np.testing.assert_array_equal(out["cube"], cube[:, :, ::-1])
    np.testing.assert_array_equal(out["stack"], cube[..., ::-1])


@pytest.mark.parametrize(
    ("shape", "axes", "mask", "mask_axes"),
    [
        ((HEIGHT, WIDTH, 3), (0, 1), (4, HEIGHT, WIDTH), (1, 2)),
        ((2, HEIGHT, WIDTH, 3), (1, 2), (HEIGHT, WIDTH), (0, 1)),
        pytest.param(
            (3, HEIGHT, WIDTH), (1, 2), (HEIGHT, WIDTH, 1), (0, 1), marks=pytest.mark.thorough
        ),
    ],
    ids=["instances", "one for all frames", "channels last beside first"],
)
def test_patches_hide_masks_of_other_layouts(shape, axes, mask, mask_axes):
    """What is dropped of an image is dropped of each of its masks, whatever their axes."""
    image, masks = np.ones((ROWS, *shape), np.float32), np.ones((ROWS, *mask), np.int16)
    config = PatchDropoutOperatorConfig(
        field_key="image",
        patch_size=(2, 3),
        stochastic=True,
        spatial_axes=axes,
        auxiliary_fields=["mask"],
        mask_fill=-1,
    )
    out = PatchDropoutOperator(config, rngs=nnx.Rngs(0))({"image": image, "mask": masks})
    rest = tuple(1 + axis for axis in range(len(shape)) if axis not in axes)
    hidden = (np.asarray(out["image"]) == 0).all(axis=rest)
    assert hidden.any(axis=(1, 2)).all()
    kept = np.moveaxis(np.asarray(out["mask"]), [1 + axis for axis in mask_axes], (1, 2))
    kept = kept.reshape(*hidden.shape, -1)
    np.testing.assert_array_equal(
        kept, np.broadcast_to(np.where(hidden, -1, 1)[..., None], kept.shape)
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"field_axes": {"seg": (0, 1)}}, ValueError, r"field_axes names \['seg'\].* are \['m'\]"),
        ({"field_axes": {"m": (-1, -2)}}, ValueError, r"\['m'\] must be two axes.*got \(-1, -2\)"),
        ({"field_axes": {"m": 1}}, TypeError, r"\['m'\] must be \(height axis, width axis\)"),
        ({"field_axes": 3}, TypeError, "field_axes must be a dict of axes by field"),
        ({"box_format": "rel_cxcywh"}, ValueError, "box_format must be one of .*'rel_xywh'"),
    ],
)
def test_options_of_companions_are_refused(options, error, message):
    """Axes of no mask, axes that are none and unknown formats are named."""
    with pytest.raises(error, match=message):
        FlipOperatorConfig(auxiliary_fields=["m"], **options)


@pytest.mark.parametrize(
    ("options", "field", "error", "message"),
    [
        (
            {},
            np.ones((ROWS, 4, 5, 6)),
            ValueError,
            r"mask of shape \(4, 5, 6\).* last or first two",
        ),
        (
            {"field_axes": {"m": (1, 2)}},
            np.ones((ROWS, 6, 7, 2)),
            ValueError,
            r"the image's \(6, 7\) on axes \(1, 2\) of field_axes",
        ),
        (
            {"mask_fill": 255},
            np.ones((ROWS, HEIGHT, WIDTH), np.int8),
            ValueError,
            "mask_fill 255 cannot be held exactly by dtype int8",
        ),
        (
            {"box_fields": ("m",), "box_format": "rel_xyxy"},
            np.ones((ROWS, 2, 4), np.int32),
            TypeError,
            "boxes field 'm' in the format 'rel_xyxy' must be floats.*int32; pixels .* 'xyxy'",
        ),
    ],
    ids=["sizes", "axes", "fill", "whole fractions"],
)
def test_fields_that_do_not_fit_are_refused(options, field, error, message):
    """A mask of another size, a fill that wraps and fractions without a fraction are named."""
    with pytest.raises(error, match=message):
        flip(auxiliary_fields=["m"], **options)({"image": IMAGE, "m": field})


def in_format(corners, form, size):
    """(y0, x0, y1, x1) in pixels in another format."""
    out = corners / np.float32([*size, *size]) if form.startswith("rel") else corners
    y0, x0, y1, x1 = np.moveaxis(out, -1, 0)
    order = {"yxyx": (y0, x0, y1, x1), "xyxy": (x0, y0, x1, y1), "xywh": (x0, y0, x1 - x0, y1 - y0)}
    return np.stack(order[form.removeprefix("rel_")], axis=-1).astype(np.float32)


PIXELS = np.float32(
    [[[1, 0, 5, 6], [0.5, 2, 3, 2.5]], [[0, 0, 6, 7], [2, 1, 2, 1]], [[3, 3, 4, 5]] * 2]
)


@pytest.mark.parametrize(
    "form",
    ["rel_xyxy", *(pytest.param(f, marks=pytest.mark.thorough) for f in ("rel_yxyx", "rel_xywh"))],
)
@pytest.mark.parametrize(
    "kind", ["moved", "dropped", pytest.param("chosen", marks=pytest.mark.thorough)]
)
def test_boxes_in_fractions_follow_as_those_in_pixels(form, kind):
    """The same boxes come out, as fractions of the result; padding keeps its bits."""

    def made(box_format):
        options = {
            "auxiliary_fields": ["boxes"],
            "box_fields": ("boxes",),
            "box_format": box_format,
        }
        if kind == "moved":
            return turn_and_crop(**options)
        if kind == "chosen":
            config = IoUCropOperatorConfig(size=(5, 9), **options)
            return IoUCropOperator(config, rngs=nnx.Rngs(1))
        config = PatchDropoutOperatorConfig(
            field_key="image", patch_size=(2, 3), stochastic=True, shrink_boxes=True, **options
        )
        return PatchDropoutOperator(config, rngs=nnx.Rngs(1))

    given = in_format(PIXELS, form, (HEIGHT, WIDTH))
    pixels = made("yxyx")({"image": IMAGE, "boxes": PIXELS})
    out = made(form)({"image": IMAGE, "boxes": given})
    np.testing.assert_array_equal(out["image"], pixels["image"])
    size = out["image"].shape[1:3]
    there = np.array([[True, True], [True, False], [True, True]])
    expected = in_format(np.asarray(pixels["boxes"]), form, size)
    np.testing.assert_allclose(np.asarray(out["boxes"])[there], expected[there], atol=1e-5)
    np.testing.assert_array_equal(out["boxes"][1, 1], given[1, 1])
    for name in ("boxes_visibility", "boxes_outline"):
        if name in pixels:
            np.testing.assert_allclose(out[name], pixels[name], atol=1e-5)


def test_points_in_fractions_of_half_precision_follow_and_keep_their_flags():
    """A mirrored point lies at 1 - x; padding with NaN keeps its bits; bf16 stays bf16."""
    points = jnp.asarray([[[0.25, 0.5, 2], [jnp.nan, 0.5, 2]]] * ROWS, jnp.bfloat16)
    options = {"keypoint_fields": ("points",), "keypoint_format": "rel_xy"}
    out = flip(auxiliary_fields=["points"], **options)({"image": IMAGE, "points": points})["points"]
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(out[:, 0], np.float32), [[0.75, 0.5, 2]] * ROWS)
    np.testing.assert_array_equal(
        np.asarray(out[:, 1]).view(np.uint16), np.asarray(points[:, 1]).view(np.uint16)
    )


def test_functions_take_fractions_of_an_image():
    """A box of fractions comes back as fractions of the canvas, as pixels would divided by it."""
    window = Window(box=(1, 1, 5, 6), size=(8, 5))
    sides = np.float32([HEIGHT, WIDTH])
    boxes, points = PIXELS[0], PIXELS[0, :, :2]
    there = transform_boxes(boxes, window)
    out = transform_boxes(boxes / np.tile(sides, 2), window, fractions_of=(HEIGHT, WIDTH))
    np.testing.assert_allclose(out.boxes, there.boxes / np.float32([8, 5, 8, 5]), atol=1e-6)
    np.testing.assert_allclose(out.outline, there.outline, atol=1e-5)
    moved = transform_points(points / sides, window, fractions_of=(HEIGHT, WIDTH))
    expected = transform_points(points, window).points / np.float32([8, 5])
    np.testing.assert_allclose(moved.points, expected, atol=1e-6)
    with pytest.raises(TypeError, match="boxes that are fractions must be floats, got int32"):
        transform_boxes(np.int32([[0, 0, 1, 1]]), window, fractions_of=(HEIGHT, WIDTH))


def test_fractions_that_are_called_pixels_are_told_of(caplog):
    """A batch whose boxes all lie between 0 and 1 is likely not in pixels; the log says so once."""
    options = {"auxiliary_fields": ["boxes"], "box_fields": ("boxes",)}
    op = PatchDropoutOperator(PatchDropoutOperatorConfig(field_key="image", **options), name="mine")
    fractions = in_format(PIXELS, "rel_xyxy", (HEIGHT, WIDTH))
    image = np.zeros((ROWS, 9, 9), np.float32)
    mask = np.array([True, True, False])
    far = fractions.copy()
    far[2] += 9
    op({"image": image, "boxes": PIXELS})
    op({"image": image, "boxes": np.zeros_like(PIXELS)})
    op({"image": image, "boxes": far})
    assert not caplog.text
    for _ in range(2):
        op(Batch.from_arrays({"image": image, "boxes": far}, valid_mask=mask))
    assert caplog.text.count("takes the boxes 'boxes' for pixels, by the format 'xyxy'") == 1
    assert "the format is 'rel_xyxy'" in caplog.text
    jax.jit(op)({"image": image, "boxes": fractions})


def test_images_whose_channels_come_first_are_told_of(caplog):
    """A height of 3 beside 9 channels is likely a mistake for every operator, not only patches."""
    for _ in range(2):
        flip()({"image": np.zeros((ROWS, 3, 8, 9), np.uint8)})
    assert caplog.text.count("looks as if its channels came first") == 1
