"""Masks, boxes and keypoints beside the image."""

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")

POSITIONS = np.int32([[0, 0], [3, 5], [4, 5], [10, 8]])
SIZE = (4, 3)


def covered():
    out = np.zeros((16, 12), bool)
    for y, x in POSITIONS:
        out[y : y + SIZE[0], x : x + SIZE[1]] = True
    return out


def dropped(data, **options):
    options = {"field_key": "image", "patch_size": SIZE, "stochastic": True} | options
    op = PatchDropoutOperator(PatchDropoutOperatorConfig(**options), rngs=nnx.Rngs(0))
    data = {"image": np.ones((16, 12, 3), np.float32)} | data
    return op.apply(data, {}, None, {"patch_positions": POSITIONS})[0]


@pytest.mark.parametrize("shape", [(16, 12), (16, 12, 2)], ids=["flat", "channels"])
@pytest.mark.parametrize("dtype", [np.uint8, bool, np.float32])
def test_masks_are_dropped_with_the_image(shape, dtype):
    """mask_fill takes the place of the very pixels that the image loses; the dtype stays."""
    mask = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    out = dropped({"deep": {"mask": mask}}, auxiliary_fields=["deep.mask"], mask_fill=1)["deep"][
        "mask"
    ]
    expected = mask.copy()
    expected[covered()] = 1
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, expected)


def test_masks_are_left_without_mask_fill():
    """By default the segmentation of hidden pixels stays."""
    mask = np.ones((16, 12), np.uint8)
    assert dropped({"mask": mask}, auxiliary_fields=["mask"])["mask"] is mask


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        (
            {},
            (12, 16),
            r"mask of shape \(12, 16\), which must have the image's \(16, 12\) on axes \(0, 1\)",
        ),
        ({}, (3, 4), "name boxes in box_fields and points in keypoint_fields"),
        ({"mask_fill": 300}, (16, 12), "mask_fill 300 cannot be held exactly by dtype uint8"),
        ({"mask_fill": 0.5}, (16, 12), "mask_fill 0.5 cannot be held exactly by dtype uint8"),
    ],
    ids=["turned", "boxes", "range", "fraction"],
)
def test_wrong_masks_are_refused(options, shape, message):
    """A mask must lie over the image and hold its fill."""
    with pytest.raises(ValueError, match=message):
        dropped({"mask": np.zeros(shape, np.uint8)}, auxiliary_fields=["mask"], **options)


def visible_area(y0, x0, y1, x1, steps=8):
    """The oracle: count a fine grid of sample points."""
    y, x = ((np.arange(side * steps) + 0.5) / steps for side in (16, 12))
    inside = ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None]
    hidden = np.kron(covered(), np.ones((steps, steps), bool))
    return (inside & ~hidden).sum() / max(inside.sum(), 1)


@pytest.mark.parametrize("box_format", ["xyxy", "yxyx", "xywh"])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_boxes_get_the_visible_fraction_of_their_area(box_format, dtype):
    """Fractions of pixels count, and so does only what lies inside the image."""
    corners = np.array(
        [[0, 0, 16, 12], [2, 4, 7, 9], [0, 0, 4, 3], [-4, -4, 2, 2], [14, 2, 20, 30]], float
    )
    if dtype == np.float32:
        corners = np.concatenate([corners, [[1.25, 1.5, 6.75, 7.125]]])
    expected = [visible_area(*corner) for corner in corners]
    y0, x0, y1, x1 = corners.T
    columns = {
        "yxyx": (y0, x0, y1, x1),
        "xyxy": (x0, y0, x1, y1),
        "xywh": (x0, y0, x1 - x0, y1 - y0),
    }
    boxes = np.stack(columns[box_format], axis=1).astype(dtype)
    out = dropped(
        {"boxes": boxes}, auxiliary_fields=["boxes"], box_fields=("boxes",), box_format=box_format
    )
    assert out["boxes"] is boxes
    assert out["boxes_visibility"].dtype == np.float32
    np.testing.assert_allclose(out["boxes_visibility"], expected, atol=1e-6)


def test_padding_among_boxes_is_invisible_and_stays():
    """A slot without area, or with NaN, has visibility 0."""
    boxes = np.float32(
        [[0, 0, 0, 0], [5, 5, 2, 2], [-1, -1, -1, -1], [np.nan] * 4, [20, 20, 30, 30]]
    )
    out = dropped({"boxes": boxes}, auxiliary_fields=["boxes"], box_fields=["boxes"])
    assert out["boxes_visibility"].tolist() == [0, 0, 0, 0, 0]
    np.testing.assert_array_equal(out["boxes"], boxes)


@pytest.mark.parametrize("keypoint_format", ["xy", "yx"])
def test_points_are_flagged_where_a_patch_hides_them(keypoint_format):
    """A point belongs to the pixel whose square it lies in; outside the image it is not visible."""
    points = np.float32([[0, 0], [3.99, 2.99], [4, 3], [15.9, 11.9], [9, 9], [16, 0], [-1, -1]])
    expected = [False, False, True, True, True, False, False]
    given = points if keypoint_format == "yx" else points[:, ::-1]
    out = dropped(
        {"set": {"points": given}},
        auxiliary_fields=["set.points"],
        keypoint_fields=("set.points",),
        keypoint_format=keypoint_format,
    )
    assert out["set"]["points_visibility"].tolist() == expected
    np.testing.assert_array_equal(out["set"]["points"], given)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_flags_of_hidden_points_say_occluded(dtype):
    """A third column goes from 2 (visible) to 1 (occluded); 1 and 0 (padding) stay."""
    points = np.array([[0, 0, 2], [0, 0, 1], [0, 0, 0], [11, 15, 2], [-1, -1, 0]], dtype)
    out = dropped({"points": points}, auxiliary_fields=["points"], keypoint_fields=("points",))
    assert out["points"].dtype == dtype
    np.testing.assert_array_equal(out["points"][:, 2], [1, 1, 0, 2, 0])
    np.testing.assert_array_equal(out["points"][:, :2], points[:, :2])
    assert out["points_visibility"].tolist() == [False, False, False, True, False]


def test_the_compiled_call_agrees_with_single_records():
    """Through a batch, everything follows the patches that its own image lost."""
    options = PatchDropoutOperatorConfig(
        field_key="image",
        auxiliary_fields=["mask", "boxes"],
        box_fields=("boxes",),
        mask_fill=0,
        num_patches=(0, 3),
        patch_size=((1, 6), (1, 6)),
        prob=0.7,
        stochastic=True,
    )
    op = PatchDropoutOperator(options, rngs=nnx.Rngs(0))
    batch = Batch.from_arrays(
        {
            "image": np.ones((20, 16, 12, 1), np.float32),
            "mask": np.ones((20, 16, 12), np.uint8),
            "boxes": np.broadcast_to(np.float32([[0, 0, 12, 16]]), (20, 1, 4)),
        },
        record_index=np.arange(20),
    )
    out = op(batch)
    image = np.asarray(out["image"])[..., 0]
    np.testing.assert_array_equal(out["mask"], image.astype(np.uint8))
    np.testing.assert_allclose(out["boxes_visibility"][:, 0], image.mean((1, 2)), atol=1e-6)
    assert len(np.unique(image.mean((1, 2)))) > 8
    spec = op.output_spec(
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), batch.data)
    )
    found = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), out.data)
    assert spec == found


@pytest.mark.parametrize("box_format", ["xyxy", "xywh"])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_boxes_shrink_to_the_pixels_that_are_left(box_format, dtype):
    """Touched boxes end where the first and last visible pixel do; the others keep every bit."""
    corners = {
        (0, 0, 6, 3): (4, 0, 6, 3),  # its upper part is hidden
        (0, 0, 4, 12): (0, 3, 4, 12),  # its left part
        (1, 1, 3, 3): (1, 1, 1, 1),  # all of it
        (0, 4, 2, 9): (0, 4, 2, 9),  # no part
        (-3, 6, 16, 12): (0, 6, 16, 12),  # it has hidden pixels, but none at its border
        (0, 0, 0, 0): (0, 0, 0, 0),
        (-2, 5, 2, 20): (-2, 5, 2, 20),  # untouched, even where it leaves the image
    }

    def formatted(boxes):
        y0, x0, y1, x1 = np.array(boxes).T
        ends = (x1, y1) if box_format == "xyxy" else (x1 - x0, y1 - y0)
        return np.stack([x0, y0, *ends], axis=1).astype(dtype)

    out = dropped(
        {"boxes": formatted(list(corners))},
        auxiliary_fields=["boxes"],
        box_fields=("boxes",),
        box_format=box_format,
        shrink_boxes=True,
    )
    assert out["boxes"].dtype == dtype
    np.testing.assert_array_equal(out["boxes"], formatted(list(corners.values())))
    assert out["boxes_visibility"][2] == 0


def test_shrinking_needs_boxes():
    """The option alone would do nothing."""
    with pytest.raises(ValueError, match="shrink_boxes=True has no effect without box_fields"):
        PatchDropoutOperatorConfig(field_key="image", shrink_boxes=True)
