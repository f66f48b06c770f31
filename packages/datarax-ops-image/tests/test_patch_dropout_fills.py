"""What stands in the patches: constants that fit, noise, colours and means."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from datarax.core.element_batch import Batch
from datarax.operators.modality.image._means import mean_color
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")


def filled(image, **options):
    """All of each record, filled."""
    side = image.shape[1:3]
    options = {
        "field_key": "image",
        "stochastic": options.get("fill") in ("noise", "color"),
        "num_patches": 1,
        "patch_size": side,
    } | options
    op = PatchDropoutOperator(PatchDropoutOperatorConfig(**options), rngs=nnx.Rngs(0))
    return np.asarray(
        op(Batch.from_arrays({"image": image}, record_index=np.arange(len(image))))["image"]
    )


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (255, np.uint8), (-128, np.int8), (0.1, np.float32), (0.5, ml_dtypes.bfloat16),
        (65504, np.float16),
        (16777217, np.int32), (np.float32(0.3), np.float32), (np.int64(3), np.uint8),
    ],
)  # fmt: skip
def test_constants_that_the_dtype_holds(value, dtype):
    """The fill is the number itself."""
    out = filled(np.zeros((1, 4, 4), dtype), drop_value=value)
    assert out.dtype == dtype
    assert (out == np.asarray(value).astype(dtype)).all()


@pytest.mark.parametrize(
    ("value", "dtype", "remedy"),
    [
        (0.5, np.uint8, "an integer from 0 to 255"),
        (256, np.uint8, "an integer from 0 to 255"),
        (-1, np.uint8, "an integer from 0 to 255"),
        (0.1, ml_dtypes.bfloat16, "use 0.10"),
        (70000, np.float16, "a number from -65504"),
        (1e39, np.float32, "a number from -3.4"),
    ],
)
def test_constants_that_the_dtype_cannot_hold_are_refused(value, dtype, remedy):
    """No rounding and no wrapping behind the user's back."""
    with pytest.raises(
        ValueError, match=rf"drop_value .* cannot be held exactly by dtype .*{remedy}"
    ):
        filled(np.zeros((1, 4, 4), dtype), drop_value=value)


def test_one_constant_per_channel():
    """Each channel has its own, on whichever axis the channels are."""
    values = (1.0, 2.0, 3.0)
    last = filled(np.zeros((2, 4, 5, 3), np.float32), drop_value=values)
    np.testing.assert_array_equal(last, np.broadcast_to(np.float32(values), last.shape))
    first = filled(
        np.zeros((2, 3, 4, 5), np.float32),
        drop_value=np.float32(values), patch_size=(4, 5), spatial_axes=(1, 2), channel_axis=0,
    )  # fmt: skip
    np.testing.assert_array_equal(first, np.moveaxis(last, -1, 1))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 4, 4, 2), "has 3 numbers, one per channel, but .* has 2 channels"),
        ((2, 4, 4), "no channel axis"),
    ],
)
def test_constants_that_do_not_match_the_channels_are_refused(shape, message):
    """Their number must be that of the channels."""
    with pytest.raises(ValueError, match=message):
        filled(np.zeros(shape, np.float32), drop_value=(1, 2, 3))


@pytest.mark.parametrize(
    ("dtype", "bounds", "expected"),
    [
        (np.uint8, None, stats.randint(0, 256)),
        (np.int16, (-2, 2), stats.randint(-2, 3)),
        (np.int32, (0, 9), stats.randint(0, 10)),
        (np.float32, None, stats.uniform(0, 1)),
        (np.float32, (-1.0, 3.0), stats.uniform(-1, 4)),
    ],
)
def test_noise_is_uniform_and_different_everywhere(dtype, bounds, expected):
    """Every element of every record has its own value, over the whole range."""
    out = filled(np.zeros((8, 32, 32, 3), dtype), fill="noise", fill_range=bounds)
    assert out.dtype == dtype
    low, high = expected.support()
    if out.dtype.kind == "f":
        assert stats.kstest(out.ravel(), expected.cdf).pvalue > 1e-3
    else:
        counts = np.bincount(out.ravel().astype(int) - low, minlength=high - low + 1)
        assert stats.chisquare(counts).pvalue > 1e-3
    assert abs(np.corrcoef(out[0].ravel(), out[1].ravel())[0, 1]) < 0.08
    assert abs(np.corrcoef(out[..., 0].ravel(), out[..., 1].ravel())[0, 1]) < 0.05


def test_noise_is_drawn_where_patches_are():
    """On a CPU, records without patches draw nothing, and no record widens the batch's bfloat16."""
    config = PatchDropoutOperatorConfig(
        field_key="image", num_patches=1, patch_size=(2, 2), prob=0.5, fill="noise", stochastic=True
    )
    op = PatchDropoutOperator(config, rngs=nnx.Rngs(0))
    fields = {"image": np.zeros((6, 8, 8, 3), ml_dtypes.bfloat16)}
    text = jax.jit(op).lower(fields, key=jax.random.key(0)).compile().as_text()
    assert re.search(r"bf16\[8,8,3\]\S* conditional\(", text)
    assert "f32[6,8,8,3]" not in text.replace("bf16[", "")


def test_color_is_one_per_record():
    """All pixels of a record share a colour, whose channels differ; records differ."""
    out = filled(np.zeros((400, 4, 4, 3), np.uint8), fill="color")
    np.testing.assert_array_equal(out, np.broadcast_to(out[:, :1, :1], out.shape))
    assert len(np.unique(out[:, 0, 0], axis=0)) > 390
    assert stats.kstest(out[:, 0, 0].ravel() + 0.5, stats.uniform(0, 256).cdf).pvalue > 1e-3


def test_noise_stays_within_clip_range():
    """Without fill_range the range is clip_range."""
    out = filled(np.zeros((2, 16, 16), np.float32), fill="noise", clip_range=(2.0, 3.0))
    assert 2 <= out.min() < 2.1
    assert 2.9 < out.max() <= 3


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((9, 7, 3), id="rgb"),
        pytest.param((9, 7), id="grey", marks=pytest.mark.thorough),
    ],
)
def test_mean_is_that_of_each_channel_of_the_record(dtype, shape):
    """The nearest integer for integers, float32 accuracy for floats."""
    image = np.random.default_rng(0).integers(0, 250, (3, *shape)).astype(dtype)
    out = filled(image, fill="mean")
    mean = image.astype(np.float64).mean((1, 2), keepdims=True)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, np.broadcast_to(out[:, :1, :1], out.shape))
    if np.dtype(dtype).kind in "iu":
        np.testing.assert_array_equal(out[:, :1, :1], np.round(mean))
    else:
        error = 2**-8 if dtype == ml_dtypes.bfloat16 else 2e-7
        np.testing.assert_allclose(out[:, :1, :1].astype(np.float64), mean, rtol=error)


def test_mean_is_the_same_however_it_is_computed():
    """The order of summation is fixed: alone, mapped and on other axes, to the bit."""
    image = np.random.default_rng(0).normal(size=(3, 37, 41, 3)).astype(np.float32)
    one = [np.asarray(mean_color(jnp.asarray(i), channel_axis=2)) for i in image]
    mapped = jax.jit(jax.vmap(lambda i: mean_color(i, channel_axis=2)))(image)
    np.testing.assert_array_equal(mapped, one)
    moved = mean_color(jnp.asarray(np.moveaxis(image[0], 2, 0)), channel_axis=0)
    np.testing.assert_array_equal(np.ravel(moved), np.ravel(one[0]))
    np.testing.assert_allclose(np.ravel(one[0]), image[0].mean((0, 1), dtype=np.float64), rtol=3e-6)


@pytest.mark.parametrize(
    ("dtype", "options", "message"),
    [
        (np.int32, {}, "fill_range must be given for images of int32"),
        (np.uint8, {"fill_range": (0, 256)}, "must be integers from 0 to 255"),
        (np.uint8, {"fill_range": (0.5, 2)}, "must be integers from 0 to 255"),
        (np.float16, {"fill_range": (0, 1e6)}, "must lie from -65504.0 to 65504.0"),
    ],
)
def test_ranges_that_the_dtype_cannot_hold_are_refused(dtype, options, message):
    """A random fill's range must be of the dtype."""
    with pytest.raises(ValueError, match=message):
        filled(np.zeros((1, 4, 4), dtype), fill="noise", **options)


def test_deterministic_noise_is_fixed():
    """Without stochastic the fill too comes from the seed, the same for every record."""
    image = np.zeros((2, 8, 8, 3), np.float32)
    one = filled(image, stochastic=False, fill="noise", seed=4)
    np.testing.assert_array_equal(one[0], one[1])
    np.testing.assert_array_equal(one, filled(image, stochastic=False, fill="noise", seed=4))
    assert (one != filled(image, stochastic=False, fill="noise", seed=5)).any()


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        ({"mean": 0.25}, [0.25, 0.25, 0.25]),
        ({"mean": np.float32([1, 2, 3])}, [1, 2, 3]),
        ({"image": {"mean": np.float64([1, 2, 3])}, "mean": 7}, [1, 2, 3]),
    ],
    ids=["number", "channels", "of the field"],
)
def test_dataset_mean_comes_from_the_statistics(statistics, expected):
    """The field's own mean wins over a general one."""
    out = filled(
        np.zeros((2, 4, 4, 3), np.float32), fill="dataset_mean", precomputed_stats=statistics
    )
    np.testing.assert_array_equal(out, np.broadcast_to(np.float32(expected), out.shape))


def test_dataset_mean_of_running_statistics_is_rounded_for_integers():
    """What a pass over the data found fills the patches, to the nearest integer."""
    from datarax.core.statistics import RunningStatistics

    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3)).astype(np.uint8)

    def measure(data):
        running = RunningStatistics.create(data, axes={"image": (0, 1, 2)})
        return running.update(data).result()

    op = PatchDropoutOperator(
        PatchDropoutOperatorConfig(
            field_key="image",
            fill="dataset_mean",
            num_patches=1,
            patch_size=(4, 4),
            batch_stats_fn=measure,
        )
    )
    batch = Batch.from_arrays({"image": images})
    with pytest.raises(
        KeyError, match=r"needs the statistic 'image.mean' or 'mean', but there are \[\]"
    ):
        op(batch)
    op.compute_statistics({"image": images})
    expected = np.round(images.astype(float).mean((0, 1, 2)))
    np.testing.assert_array_equal(op(batch)["image"], np.broadcast_to(expected, images.shape))


def test_dataset_mean_must_fit_the_channels():
    """Two means do not fill three channels."""
    with pytest.raises(
        ValueError, match=r"must be a number or 3, one per channel .* got shape \(2,\)"
    ):
        filled(
            np.zeros((1, 4, 4, 3), np.float32),
            fill="dataset_mean",
            precomputed_stats={"mean": np.float32([1, 2])},
        )
