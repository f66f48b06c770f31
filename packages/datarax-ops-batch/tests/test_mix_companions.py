"""Fields of other layouts beside the image, labels of several kinds, and classes that are none."""

import logging

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators.batch_mix_operator import (
    BatchMixOperator,
    BatchMixOperatorConfig,
    FMix,
    ResizeMix,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")

ROWS, HEIGHT, WIDTH = 5, 6, 7


def make_op(**options):
    options = {"mode": "cutmix", "granularity": "record", "mix_info": True, **options}
    return BatchMixOperator(BatchMixOperatorConfig(**options), rngs=nnx.Rngs(3))


def numbered(*shape, dtype=np.int32):
    return np.arange(ROWS * np.prod(shape), dtype=dtype).reshape(ROWS, *shape)


def inside(info, sizes):
    """Which pixels each row's region covers."""
    if "mask" in info:
        return np.asarray(info["mask"])
    out = np.zeros((ROWS, *sizes), bool)
    for row, box in enumerate(np.asarray(info["box"])):
        corner = zip(box[: len(sizes)], box[len(sizes) :], strict=True)
        out[(row, *(slice(start, stop) for start, stop in corner))] = True
    return out


def pasted(own, info, axes):
    """What comes of an array whose spatial axes these are."""
    own = np.asarray(own)
    moved = np.moveaxis(own, axes, range(1, 1 + len(axes)))
    where = inside(info, moved.shape[1 : 1 + len(axes)])
    wide = where.reshape(*where.shape, *(1,) * (moved.ndim - where.ndim))
    out = np.where(wide, moved[np.asarray(info["partner"])], moved)
    return np.moveaxis(out, range(1, 1 + len(axes)), axes)


LAYOUTS = {
    "instances": ((HEIGHT, WIDTH, 3), (1, 2), (4, HEIGHT, WIDTH), (2, 3)),
    "one for all frames": ((2, HEIGHT, WIDTH, 3), (2, 3), (HEIGHT, WIDTH), (1, 2)),
    "beside channels first": ((3, HEIGHT, WIDTH), (2, 3), (HEIGHT, WIDTH), (1, 2)),
    "channels last beside first": ((3, HEIGHT, WIDTH), (2, 3), (HEIGHT, WIDTH, 2), (1, 2)),
}


@pytest.mark.parametrize(
    ("image", "spatial_axes", "mask", "mask_axes"),
    [
        *list(LAYOUTS.values())[:2],
        *(
            pytest.param(*layout, marks=pytest.mark.thorough)
            for layout in list(LAYOUTS.values())[2:]
        ),
    ],
    ids=LAYOUTS,
)
def test_masks_of_other_layouts_get_the_box_of_their_image(image, spatial_axes, mask, mask_axes):
    """A box is pasted on the axes of a field that have the sizes of the image; padding stays."""
    fields = {
        "image": numbered(*image),
        "mask": numbered(*mask),
        "depth": numbered(*mask, dtype=np.float32),
        "label": np.eye(ROWS, dtype=np.float32),
    }
    batch = Batch.from_arrays(fields, valid_mask=np.array([1, 1, 0, 1, 1], bool))
    op = make_op(spatial_axes=spatial_axes, paste_fields=("mask",), mix_fields=("depth",))
    out = op(batch)
    info = out.states["mix_info"]
    assert (np.asarray(info["lam"])[[0, 1, 3, 4]] < 1).any()
    for name in ("mask", "depth"):
        np.testing.assert_array_equal(out[name], pasted(fields[name], info, mask_axes))
    np.testing.assert_array_equal(out["image"], pasted(fields["image"], info, spatial_axes))
    np.testing.assert_array_equal(out["mask"][2], fields["mask"][2])


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": FMix()},
        pytest.param(
            {"sampler": ResizeMix(), "batch_strategy": "scan"}, marks=pytest.mark.thorough
        ),
    ],
    ids=["blobs", "resized one by one"],
)
def test_axes_that_cannot_be_told_from_shapes_are_given(options, caplog):
    """Square stacks of as many masks as pixels are read as field_axes says, else as images."""
    # What is told once is told of each name.
    stack, first = numbered(6, 6, 6), type(options["sampler"]).__name__
    fields = {"image": numbered(6, 6, 3), first: stack, "b": stack}
    op = make_op(label_field=None, paste_fields=(first, "b"), field_axes={"b": (-2, -1)}, **options)
    assert op.config.field_axes == (("b", (-2, -1)),)
    with caplog.at_level(logging.INFO):
        out = op(Batch.from_arrays(fields))
    assert f"'{first}' of shape (5, 6, 6, 6)" in caplog.text
    assert "'b'" not in caplog.text
    info = out.states["mix_info"]
    if "box" not in info:
        np.testing.assert_array_equal(out[first], pasted(stack, info, (1, 2)))
        np.testing.assert_array_equal(out["b"], pasted(stack, info, (2, 3)))
    moved = np.moveaxis(stack, 1, 3)
    turned = op.replay(Batch.from_arrays({**fields, first: moved}), info)[first]
    np.testing.assert_array_equal(out["b"], np.moveaxis(np.asarray(turned), 3, 1))


def test_embeddings_are_averaged_with_the_weights_of_the_labels(caplog):
    """A companion (batch, tokens, width) has no pixels to paste; bf16 is kept."""
    text = np.random.default_rng(0).normal(size=(ROWS, 3, 8)).astype("bfloat16")
    square = np.random.default_rng(1).normal(size=(ROWS, HEIGHT, WIDTH)).astype(np.float32)
    fields = {"image": numbered(HEIGHT, WIDTH, 3), "text": text, "square": square}
    op = make_op(label_field=None, mix_fields=("text", "square"), field_axes={"square": ()})
    with caplog.at_level(logging.INFO):
        out = op(Batch.from_arrays(fields))
    assert "'text' of shape (5, 3, 8) has the sizes of the image, (6, 7), on no axes" in caplog.text
    info = jax.tree.map(np.asarray, out.states["mix_info"])
    lam = info["lam"].astype(np.float64)[:, None, None]
    for name, tolerance in (("text", 2**-8), ("square", 1e-6)):
        own = fields[name].astype(np.float64)
        expected = lam * own + (1 - lam) * own[info["partner"]]
        assert out[name].dtype == fields[name].dtype
        mixed = np.asarray(out[name]).astype(np.float64)
        np.testing.assert_allclose(mixed, expected, tolerance, tolerance)


def test_images_whose_channels_come_first_are_told_of(caplog):
    """A height of 3 beside 9 channels is likely a mistake, which the log says once."""
    batch = Batch.from_arrays({"image": numbered(3, 8, 9)})
    make_op(label_field=None)(batch)
    make_op(label_field=None)(batch)
    assert caplog.text.count("looks as if its channels came first") == 1


def test_each_label_has_its_number_of_classes_and_ignored_ones_have_none():
    """Labels of 4, 3 and no number of classes; 255 is a row of zeros, unsmoothed; uint8 too."""
    fine, coarse = np.uint8([0, 3, 255, 2, 99]), np.array([2, 255, 1, 0, 0])
    soft = np.full((ROWS, 2), 0.5, np.float32)
    batch = Batch.from_arrays(
        {"image": numbered(6, 6, 1), "fine": fine, "coarse": coarse, "soft": soft},
        valid_mask=np.arange(ROWS) < 4,
    )
    labels = ("fine", "coarse", "soft")
    op = make_op(
        label_field=labels,
        num_classes={"coarse": 3, "fine": 4},
        ignore_index=255,
        label_smoothing=0.1,
    )
    assert op.config.num_classes == (4, 3, None)
    out = op(batch)
    info = jax.tree.map(np.asarray, out.states["mix_info"])
    lam, partner = info["lam"].astype(np.float64)[:, None], info["partner"]
    assert (lam[:4] < 1).any()
    for name, count in (("fine", 4), ("coarse", 3)):
        classes = batch[name].astype(int)
        hot = (classes[:, None] == np.arange(count)).astype(np.float64)
        smooth = np.where(classes[:, None] == 255, 0, 0.9 * hot + 0.1 / count)
        expected = lam * smooth + (1 - lam) * smooth[partner]
        np.testing.assert_allclose(out[name][:4], expected[:4], atol=1e-6)
    np.testing.assert_array_equal(out["soft"][:4], 0.5)
    with pytest.raises(ValueError, match=r"'fine'.* from 0 to 3, got 99 in row 4;.*ignore_index"):
        op(Batch.from_arrays(batch.data))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ignore_index": 255}, ValueError, "ignore_index=255 has no effect without num_classes"),
        ({"ignore_index": 0.5}, TypeError, "ignore_index must be an integer, got float"),
        ({"num_classes": {"coarse": 3}}, ValueError, r"names \['coarse'\], but .*\['label'\]"),
        ({"num_classes": (3, 4)}, ValueError, r"one for each label of \['label'\], got \(3, 4\)"),
        ({"num_classes": {"label": 0}}, ValueError, "num_classes must be at least 1, got 0"),
        ({"field_axes": {"mask": (1, 2)}}, ValueError, r"field_axes names 'mask'.*of \['depth'\]"),
        ({"field_axes": {"depth": (1,)}}, ValueError, r"'depth'\] must be 2 axes.*got \(1,\)"),
        ({"field_axes": {"depth": 1}}, TypeError, "must be a dict of axes by field"),
        (
            {"mode": "mixup", "field_axes": {"depth": (1, 2)}},
            ValueError,
            "field_axes.*has no effect in mode 'mixup'",
        ),
    ],
)
def test_options_of_companions_are_refused_where_they_say_nothing(options, error, message):
    """A field that nobody names, or a number that fits no label, is refused with its name."""
    with pytest.raises(error, match=rf"BatchMixOperatorConfig.*{message}"):
        BatchMixOperatorConfig(**{"mode": "cutmix", "mix_fields": ("depth",), **options})


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"mix_fields": ("c",)}, (3, 4, 3), r"'c' must be \(6, 7\).* got shape \(5, 3, 4, 3\).*()"),
        (
            {"paste_fields": ("c",), "field_axes": {"c": (3, 2)}},
            (4, 7, 6),
            r"'c' must be \(6, 7\) like 'image' on the axes \(3, 2\) of field_axes, ascending",
        ),
        (
            {"paste_fields": ("c",), "field_axes": {"c": (-2, -1)}},
            (6, 7, 4),
            r"'c' must be \(6, 7\) like 'image' on the axes \(-2, -1\) of field_axes.*7, 4\)",
        ),
    ],
)
def test_companions_of_other_sizes_are_refused(options, shape, message):
    """What looks like an image of another size, or has not the given axes, is named."""
    batch = Batch.from_arrays({"image": numbered(HEIGHT, WIDTH, 3), "c": numbered(*shape)})
    with pytest.raises(ValueError, match=message):
        make_op(label_field=None, **options)(batch)
