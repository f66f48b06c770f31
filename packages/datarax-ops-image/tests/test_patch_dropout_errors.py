"""What patch dropout refuses, and in which words."""

import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.core.modality import ModalityOperatorConfig
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")

NAN = float("nan")


def config(**options):
    return PatchDropoutOperatorConfig(**{"field_key": "image", "stochastic": True} | options)


def operator(**options):
    return PatchDropoutOperator(config(**options), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_patches": -1}, ValueError, "num_patches must be at least 0, got -1"),
        ({"num_patches": 1.5}, TypeError, "num_patches must be an int, got 1.5"),
        ({"num_patches": True}, TypeError, "num_patches must be a number, got bool True"),
        ({"num_patches": "4"}, TypeError, "num_patches must be a number, got str '4'"),
        ({"num_patches": (3, 1)}, ValueError, "num_patches must be .* 0 <= min <= max"),
        ({"num_patches": (1, 2, 3)}, TypeError, r"num_patches must be an int or \(min, max\)"),
        ({"num_patches": (1, 2), "stochastic": False}, ValueError, "needs stochastic=True"),
        ({"patch_size": (0, 8)}, ValueError, "patch_size must be at least 1 pixel, got 0"),
        ({"patch_size": (-2, 8)}, ValueError, "patch_size must be at least 1 pixel, got -2"),
        ({"patch_size": 8}, TypeError, r"patch_size must be \(height, width\), got 8"),
        ({"patch_size": (8, 8, 8)}, TypeError, r"patch_size must be \(height, width\)"),
        ({"patch_size": (8, NAN)}, ValueError, "patch_size must be a finite number, got nan"),
        ({"patch_size": (8, 8.0)}, ValueError, "is a fraction of the image.*for pixels use an int"),
        ({"patch_size": (8, 0.0)}, ValueError, "is a fraction of the image"),
        ({"patch_size": ((4, 2), 8)}, ValueError, "range must be .* min <= max"),
        ({"patch_size": ((4, 0.5), 8)}, TypeError, "both in pixels .int. or both fractions"),
        ({"drop_value": NAN}, ValueError, "drop_value must be a finite number, got nan"),
        ({"drop_value": float("inf")}, ValueError, "drop_value must be a finite number, got inf"),
        ({"drop_value": "black"}, TypeError, "drop_value must be a number, got str 'black'"),
        (
            {"drop_value": ()},
            ValueError,
            "drop_value must be a number or one per channel, got none",
        ),
        (
            {"drop_value": 2, "clip_range": (0, 1)},
            ValueError,
            "drop_value=2 lies outside clip_range",
        ),
        ({"prob": 1.1}, ValueError, "prob must be from 0 to 1, got 1.1"),
        ({"prob": -0.1}, ValueError, "prob must be from 0 to 1"),
        ({"prob": NAN}, ValueError, "prob must be a finite number"),
        ({"prob": 0.5, "stochastic": False}, ValueError, "prob.* needs stochastic=True"),
        ({"fill": "random"}, ValueError, "fill must be one of .*'noise'.* got 'random'"),
        ({"fill": None}, TypeError, "fill must be a non-empty string"),
        (
            {"fill": "mean", "drop_value": 1},
            ValueError,
            "drop_value.* has no effect with fill='mean'",
        ),
        ({"fill_range": (0, 1)}, ValueError, "fill_range=.* has no effect with fill='constant'"),
        ({"fill": "noise", "fill_range": (1, 0)}, ValueError, "fill_range must be .* min < max"),
        ({"mask_fill": 0}, ValueError, "mask_fill=0 has no effect.* name no mask"),
        (
            {"mask_fill": NAN, "auxiliary_fields": ["m"]},
            ValueError,
            "mask_fill must be a finite number",
        ),
        ({"seed": -1}, ValueError, "seed must be from 0 to"),
        ({"seed": 0.5}, TypeError, "seed must be an int"),
        ({"spatial_axes": (1, 0)}, ValueError, "spatial_axes must be two axes of a record"),
        (
            {"spatial_axes": 1},
            TypeError,
            r"spatial_axes must be \(height axis, width axis\), got 1",
        ),
        ({"channel_axis": "last"}, TypeError, "channel_axis must be a number, got str"),
        ({"stochastic": False, "stream_name": "s"}, ValueError, "stream_name='s' has no effect"),
    ],
)
def test_wrong_options_are_refused(options, error, message):
    """Each option is checked when the config is made, and the message names it."""
    with pytest.raises(error, match=message):
        config(**options)


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("size", [(40, 8), (8, 33), ((8, 40), 8)])
def test_a_patch_larger_than_the_image_is_refused(stochastic, size):
    """It is an error with the largest size that fits, never a silent no-op."""
    op = operator(patch_size=size, stochastic=stochastic)
    with pytest.raises(
        ValueError,
        match=r"patch_size .* does not fit 'image' of shape \(32, 32, 3\); use at most \(32, 32\)",
    ):
        op(Batch.from_arrays({"image": np.zeros((2, 32, 32, 3), np.float32)}))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (
            np.zeros((2, 8), np.float32),
            ValueError,
            r"must be \(height, width\) or \(height, width, channel\)",
        ),
        (np.zeros((2, 4, 8, 8, 3), np.float32), ValueError, r"got shape \(4, 8, 8, 3\)"),
        (
            np.zeros((2, 8, 8, 3), bool),
            TypeError,
            "kind integer or float to be used as image, got bool",
        ),
        (np.zeros((2, 8, 8), np.complex64), TypeError, "got complex64"),
    ],
    ids=["rank-1", "rank-4", "bool", "complex"],
)
@pytest.mark.parametrize("stochastic", [True, False])
def test_fields_that_are_no_images_are_refused(image, error, message, stochastic):
    """Rank and dtype are checked before anything is computed, and nothing changes."""
    op = operator(patch_size=(2, 2), stochastic=stochastic)
    with pytest.raises(error, match=message):
        op(Batch.from_arrays({"image": image}))
    assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": 0}


def test_a_missing_image_is_refused():
    """The error lists the fields that there are, in a batch and in data_shapes."""
    op = operator()
    with pytest.raises(KeyError, match=r"no field 'image'; there are \['picture'\]"):
        op(Batch.from_arrays({"picture": np.zeros((2, 8, 8))}))
    with pytest.raises(KeyError, match="no field 'image'"):
        op.generate_random_params(None, {"picture": (2, 8, 8)})


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        (
            None,
            ValueError,
            "is stochastic and apply needs random_params, a dict with 'patch_positions'",
        ),
        ({"positions": 0}, KeyError, r"lack 'patch_positions'.* there are \['positions'\]"),
        (
            {"patch_positions": np.zeros((2, 3), int)},
            ValueError,
            r"shape \(num_patches, 2\), got \(2, 3\)",
        ),
        (
            {"patch_positions": np.zeros((1, 2, 2), int)},
            ValueError,
            "of one record must have shape",
        ),
        ({"patch_positions": np.zeros((2, 2))}, TypeError, "must be integers, got float"),
        (
            {"patch_positions": np.int32([[0, 0], [7, 2]])},
            ValueError,
            r"\[1\] \[7, 2\] puts a patch of \(2, 3\)",
        ),
        ({"patch_positions": np.int32([[0, 6]])}, ValueError, r"must be from \(0, 0\) to \(6, 5\)"),
        ({"patch_positions": np.int32([[-1, 0]])}, ValueError, "outside the image"),
    ],
    ids=["none", "name", "pairs", "batch", "float", "row", "column", "negative"],
)
def test_wrong_random_params_are_refused(params, error, message):
    """Positions from outside are validated, not clipped."""
    op = operator(patch_size=(2, 3))
    with pytest.raises(error, match=message):
        op.apply({"image": np.zeros((8, 8, 3), np.float32)}, {}, None, params)


@pytest.mark.parametrize(
    ("options", "missing"),
    [({"patch_size": ((1, 2), 3)}, "patch_sizes"), ({"fill": "noise"}, "fill_seed")],
)
def test_random_params_must_have_what_the_options_need(options, missing):
    """Sizes that vary and random fills are not made up."""
    with pytest.raises(KeyError, match=f"lack '{missing}', which its config needs"):
        operator(**{"patch_size": (2, 3)} | options).apply(
            {"image": np.zeros((8, 8, 3), np.float32)},
            {},
            None,
            {"patch_positions": np.int32([[0, 0]])},
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_axes": (1, 3)}, r"must have the spatial axes \(1, 3\), got shape \(8, 8, 3\)"),
        ({"channel_axis": 1, "fill": "mean"}, r"channel_axis 1 must be an axis of field 'image'"),
        ({"channel_axis": 3, "fill": "mean"}, "other than the spatial axes"),
    ],
)
def test_axes_that_the_image_has_not_are_refused(options, message):
    """Spatial and channel axes must exist and differ."""
    with pytest.raises(ValueError, match=message):
        operator(**{"patch_size": (2, 2)} | options)(
            Batch.from_arrays({"image": np.zeros((2, 8, 8, 3), np.float32)})
        )


def test_constructor_refuses_other_configs_and_missing_streams():
    """A modality config is not enough, and stochastic operators need rngs."""
    with pytest.raises(
        TypeError, match="must be a PatchDropoutOperatorConfig, got ModalityOperatorConfig"
    ):
        PatchDropoutOperator(ModalityOperatorConfig(field_key="image"))
    with pytest.raises(
        ValueError, match=r"is stochastic and draws from .*'default'.* rngs is None"
    ):
        PatchDropoutOperator(config())
    with pytest.raises(ValueError, match="needs the random streams"):
        PatchDropoutOperator(config(stream_name="augment"), rngs=nnx.Rngs(other=0))
