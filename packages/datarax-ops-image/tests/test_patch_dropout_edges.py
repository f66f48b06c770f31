"""The edges of patch dropout: many patches, dtypes at their limits, and what nothing may touch."""

import logging

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators.modality.image._fills import random_bounds, random_values
from datarax.operators.modality.image._means import _nearest_integer, mean_color
from datarax.operators.modality.image._patches import MOST_BITS, covered, drop
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")


def operator(**options):
    options = {"field_key": "image", "stochastic": True} | options
    return PatchDropoutOperator(PatchDropoutOperatorConfig(**options), rngs=nnx.Rngs(0))


def applied(data, positions, **options):
    op = operator(**options)
    return op.apply(data, {}, None, {"patch_positions": np.int32(positions)})[0]


@pytest.mark.parametrize("count", [None, 290], ids=["all", "some"])
def test_more_patches_than_are_unrolled_cover_the_same_pixels(count):
    """Beyond the bits that are compared, patches of all sizes are summed up, edges included."""
    number = MOST_BITS + 44
    random = np.random.default_rng(0)
    sizes = random.integers(1, 4, (number, 2)).astype(np.int32)
    positions = random.integers(0, np.int32([41, 30]) - sizes).astype(np.int32)
    positions[0] = np.int32([40, 29]) - sizes[0]
    hit = np.zeros((40, 29), bool)
    for (y, x), (height, width) in zip(positions[:count], sizes[:count], strict=True):
        hit[y : y + height, x : x + width] = True
    given = None if count is None else np.int32(count)
    np.testing.assert_array_equal(covered(positions, sizes, given, height=40, width=29), hit)
    image = random.normal(size=(40, 29, 3)).astype(np.float32)
    expected = np.where(hit[..., None], np.float32(7), image)
    first = np.moveaxis(image, 2, 0)
    out = drop(first, positions, sizes, given, np.float32(7), axes=(1, 2))
    np.testing.assert_array_equal(np.moveaxis(out, 0, 2), expected)


def test_thousands_of_patches_compile_at_once():
    """The program of 12,544 cells is hardly longer than that of a few."""
    batch = Batch.from_arrays({"image": np.ones((1, 224, 224), np.uint8)}, record_index=[0])

    def program(number):
        op = operator(placement="grid", num_patches=number, patch_size=(1, 1))
        return str(jax.make_jaxpr(op)(batch)).count("\n")

    assert program(12_544) < 2 * program(4)
    op = operator(placement="grid", num_patches=12_544, patch_size=(1, 1))
    assert int(np.asarray(op(batch)["image"]).sum()) == 224 * 224 - 12_544


def test_thousands_of_tokens_are_found_by_the_same_sums():
    """Mask and indices of a fine grid say what the image lost."""
    op = operator(
        placement="grid", num_patches=600, patch_size=(2, 2), grid_ratio=1.0, drop_tokens=True
    )
    out = op(Batch.from_arrays({"image": np.ones((2, 64, 64), np.uint8)}, record_index=[0, 1]))
    whole = np.asarray(out["image"])[:, ::2, ::2].reshape(2, -1) == 1
    np.testing.assert_array_equal(out["image_token_mask"], whole)
    kept = [np.flatnonzero(record) for record in whole]
    np.testing.assert_array_equal(out["image_token_indices"], kept)


def rounded_mean(values):
    """The oracle: exact in Python's integers, the even one of two equally near."""
    total, number = sum(map(int, values)), len(values)
    quotient, rest = divmod(total, number)
    return quotient + (2 * rest > number or (2 * rest == number and quotient % 2 == 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32])
@pytest.mark.parametrize("part", ["lowest", "highest", "all", "ties"])
def test_means_of_integers_are_exact_to_the_end_of_their_dtype(dtype, part):
    """No sum wraps and none is rounded before the end."""
    limits, random = np.iinfo(dtype), np.random.default_rng(1)
    low, high = {
        "lowest": (limits.min, limits.min + 2),
        "highest": (limits.max - 2, limits.max),
        "all": (limits.min, limits.max),
        "ties": (limits.max - 1, limits.max),
    }[part]
    image = random.integers(low, high, (37, 22, 2), endpoint=True).astype(dtype)
    if part == "ties":
        image[:, ::2], image[:, 1::2] = high, low
    expected = [rounded_mean(image[..., channel].ravel()) for channel in range(2)]
    mean = mean_color(jnp.asarray(image), channel_axis=2)
    assert mean.dtype == dtype
    assert np.ravel(mean).tolist() == expected


@pytest.mark.parametrize("dtype", [np.int32])
def test_means_of_more_pixels_than_fit_one_block_are_exact(dtype):
    """Carries between words and blocks are kept."""
    limits = np.iinfo(dtype)
    image = np.random.default_rng(2).integers(limits.max // 2, limits.max, (300, 301)).astype(dtype)
    image[-1] = limits.max
    expected = rounded_mean(image.ravel())
    assert np.ravel(mean_color(jnp.asarray(image), channel_axis=None)).tolist() == [expected]


def test_means_of_wide_integers_are_exact_under_x64():
    """Sums of 64-bit integers need two words of 64 bits."""
    with jax.enable_x64(True):
        for dtype in (np.int64, np.uint64):
            limits = np.iinfo(dtype)
            image = np.array([limits.max, limits.max - 1, limits.max, limits.min], dtype)
            mean = mean_color(jnp.asarray(image.reshape(2, 2)), channel_axis=None)
            assert np.ravel(mean).tolist() == [rounded_mean(image)]


@pytest.mark.parametrize(
    ("mean", "dtype", "expected"),
    [
        (np.float32(4294967295), np.uint32, 4294967295),
        (np.float32(1e12), np.int32, 2147483647),
        (np.float32(-1e12), np.int32, -2147483648),
        (np.float32(2147483520), np.int32, 2147483520),
        (np.float32(2.5), np.int32, 2),
        (np.float32(-1.5), np.uint8, 0),
        (np.float16(300), np.uint8, 255),
        (np.int32(-7), np.uint32, 0),
        (np.int32(2147483647), np.uint32, 2147483647),
        (np.uint32(4294967295), np.int32, 2147483647),
    ],
)
def test_statistics_beyond_a_dtype_become_its_ends(mean, dtype, expected):
    """A mean of the data set that the image cannot hold is the nearest number it can."""
    found = _nearest_integer(jnp.asarray(mean), np.dtype(dtype))
    assert found.dtype == dtype
    assert found.item() == expected


def noise(dtype, bounds, words=20_000):
    bounds = random_bounds(bounds, None, np.dtype(dtype))
    seed = np.uint32([3, 4])
    return np.asarray(random_values(seed, shape=(words,), dtype=np.dtype(dtype), bounds=bounds))


@pytest.mark.parametrize(
    ("dtype", "bounds"),
    [
        (np.int32, (-(2**31), 2**31 - 1)),
        (np.uint32, (0, 2**32 - 1)),
        (np.uint32, (2**32 - 3, 2**32 - 1)),
        (np.int32, (-(2**31), 0)),
        (np.int8, None),
    ],
)
def test_noise_reaches_over_whole_integer_dtypes(dtype, bounds):
    """Ranges whose length does not fit the dtype, or a word, are drawn like any other."""
    values = noise(dtype, bounds).astype(np.float64)
    low, high = bounds or (-128, 127)
    assert values.dtype == np.float64
    assert low <= values.min() <= low + (high - low) * 1e-3
    assert high - (high - low) * 1e-3 <= values.max() <= high
    assert values.mean() == pytest.approx((low + high) / 2, abs=(high - low) * 0.01 + 1)


def test_noise_of_wide_integers_under_x64():
    """Up to 2**32 values anywhere in 64 bits."""
    with jax.enable_x64(True):
        low = 2**63 - 5
        values = noise(np.int64, (low, 2**63 - 1))
        assert np.unique(values).tolist() == list(range(low, 2**63))
        with pytest.raises(ValueError, match=r"fill_range .* must have at most 2\*\*32 values"):
            random_bounds((0, 2**33), None, np.dtype(np.int64))
        assert np.isfinite(noise(np.float64, (-1e308, 1.7e308))).all()


@pytest.mark.parametrize(
    ("dtype", "bounds"),
    [
        (np.float32, (-1000.0, 1.0)),
        (np.float16, None),
        (ml_dtypes.bfloat16, (0.1, 0.7)),
        (ml_dtypes.bfloat16, (-1.0, 0.0)),
    ],
)
def test_noise_never_reaches_its_end(dtype, bounds):
    """Also where rounding to a narrow dtype would lead there, and with words of all ones."""
    values = noise(dtype, bounds, 2**16).astype(np.float64)
    low, high = bounds or (0, 1)
    assert low <= values.min()
    assert values.max() < high
    assert values.max() > high - (high - low) * 0.02
    assert values.mean() == pytest.approx((low + high) / 2, abs=(high - low) * 0.02)


def test_noise_of_all_floats_is_finite():
    """A range whose difference overflows float32."""
    largest = float(np.finfo(np.float32).max)
    values = noise(np.float32, (-largest, largest)).astype(np.float64)
    assert np.isfinite(values).all()
    assert values.std() == pytest.approx(2 * largest / np.sqrt(12), rel=0.02)


@pytest.mark.parametrize(
    ("dtype", "bounds", "message"),
    [
        (ml_dtypes.bfloat16, (0.501, 0.5015), "has no value of bfloat16 below its end"),
        (np.uint8, (0, np.inf), "must be integers from 0 to 255 for images of uint8"),
        (np.uint32, (0, 2**32), "must be integers from 0 to 4294967295"),
    ],
)
def test_ranges_without_a_value_are_refused(dtype, bounds, message):
    """Rather than noise outside of them."""
    with pytest.raises(ValueError, match=message):
        random_bounds(None, bounds, np.dtype(dtype))


@pytest.mark.parametrize(
    ("shape", "fill"),
    [
        ((8, 6), "noise"),
        pytest.param((8, 6), "color", marks=pytest.mark.thorough),
        pytest.param((8, 6), "mean", marks=pytest.mark.thorough),
        ((8, 6, 0), "mean"),
    ],
)
def test_images_without_channels_have_every_fill(shape, fill):
    """A missing channel axis is one channel, and an empty one has nothing to fill."""
    op = operator(num_patches=1, patch_size=(4, 3), fill=fill)
    image = np.full((2, *shape), 9, np.uint8)
    out = np.asarray(op(Batch.from_arrays({"image": image}, record_index=[0, 1]))["image"])
    assert (out.shape, out.dtype) == (image.shape, np.uint8)
    if fill == "mean":
        np.testing.assert_array_equal(out, image)


def test_boxes_with_a_corner_beyond_their_dtype_do_not_wrap():
    """A uint8 box of corner and size may end past 255; int32 ends at its largest number."""
    boxes = np.uint8([[200, 250, 100, 100], [10, 10, 20, 20], [0, 0, 0, 0]])
    data = {"image": np.ones((400, 320), np.uint8), "boxes": boxes}
    options = {"auxiliary_fields": ["boxes"], "box_fields": ("boxes",), "box_format": "xywh"}
    hidden = [(250, 200), (15, 15)]
    out = applied(data, hidden, num_patches=2, patch_size=(20, 25), shrink_boxes=True, **options)
    expected = [1 - 20 * 25 / 100**2, 1 - 15 * 15 / 20**2, 0]
    np.testing.assert_allclose(out["boxes_visibility"], expected, rtol=1e-6)
    assert out["boxes"].dtype == np.uint8
    np.testing.assert_array_equal(out["boxes"], boxes)
    whole = {**data, "boxes": np.int32([[1, 1, 2**31 - 1, 2**31 - 1], [9, 9, 2**31 - 1, 5]])}
    out = applied(whole, hidden, num_patches=2, patch_size=(20, 25), shrink_boxes=True, **options)
    # The first is touched, and cut to the image; the second is not.
    assert out["boxes"].tolist() == [[1, 1, 319, 399], [9, 9, 2**31 - 1, 5]]
    assert out["boxes_visibility"][0] == pytest.approx(1 - 2 * 20 * 25 / (399 * 319))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"num_patches": 0}, id="none", marks=pytest.mark.thorough),
        pytest.param({"prob": 0}, id="never"),
    ],
)
def test_nothing_follows_where_nothing_is_dropped(options):
    """Boxes whose sides do not add up in floats and points outside the image keep every bit."""
    boxes = np.random.default_rng(0).uniform(0, 9, (2, 5, 4)).astype(np.float32)
    points = np.float32([[3, 4, 2], [3, 400, 2], [-3, 4, 2], [2, 2, 0]])
    data = {"image": np.ones((2, 16, 16), np.float32), "boxes": boxes}
    data["points"] = np.stack([points] * 2)
    op = operator(
        patch_size=(4, 4),
        auxiliary_fields=["boxes", "points"],
        box_fields=("boxes",),
        box_format="xywh",
        keypoint_fields=("points",),
        shrink_boxes=True,
        **options,
    )
    out = op(Batch.from_arrays(data, record_index=[0, 1]))
    for name in data:
        np.testing.assert_array_equal(out[name], data[name])
    assert out["points_visibility"][0].tolist() == [True, False, False, False]
    assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": 2}


def test_a_flag_stays_where_a_point_is_outside_the_image():
    """Only a patch hides a point; what left the image was not hidden by one."""
    points = np.int32([[20, 3, 2], [3, 3, 2]])
    data = {"image": np.ones((16, 16), np.float32), "points": points}
    out = applied(
        data, [(0, 0)], patch_size=(4, 4), auxiliary_fields=["points"], keypoint_fields=["points"]
    )
    assert out["points"].tolist() == [[20, 3, 2], [3, 3, 1]]
    assert out["points_visibility"].tolist() == [False, False]


@pytest.mark.parametrize(
    ("there", "options"),
    [
        ("copy", {"target_key": "copy"}),
        ("image_token_mask", {"placement": "grid", "grid_ratio": 1.0, "drop_tokens": True}),
    ],
)
def test_a_field_that_would_be_overwritten_is_refused(there, options):
    """What the user has under the name of an output is not lost."""
    op = operator(num_patches=1, patch_size=(4, 4), **options)
    data = {"image": np.ones((1, 8, 8), np.float32), "boxes": np.ones((1, 2, 4), np.float32)}
    op(Batch.from_arrays(data))
    with pytest.raises(ValueError, match=rf"writes the field '{there}', which the data has"):
        op(Batch.from_arrays({**data, there: np.ones(1, np.float32)}))


def test_what_an_earlier_operator_hid_stays_hidden():
    """Fractions are multiplied and flags joined; a field of another form is refused."""
    options = {
        "auxiliary_fields": ["boxes", "points"],
        "box_fields": ("boxes",),
        "keypoint_fields": ("points",),
        "patch_size": (4, 4),
    }
    data = {
        "image": np.ones((16, 16), np.float32),
        "boxes": np.float32([[0, 0, 8, 4], [0, 0, 0, 0]]),
        "boxes_visibility": np.float32([0.5, np.nan]),
        "points": np.float32([[10, 10], [10, 10]]),
        "points_visibility": np.array([True, False]),
    }
    out = applied(data, [(0, 0)], **options)
    assert out["boxes_visibility"].tolist() == pytest.approx([0.25, np.nan], nan_ok=True)
    assert out["points_visibility"].tolist() == [True, False]
    with pytest.raises(
        ValueError, match=r"'boxes_visibility' must be float32\[2\], as an operator"
    ):
        applied({**data, "boxes_visibility": np.ones(2, np.int32)}, [(0, 0)], **options)


def test_deterministic_patches_are_announced_once(caplog):
    """The operator says when it is made that all records lose the same patches."""
    with caplog.at_level(logging.INFO, logger="datarax.core.modality"):
        op = operator(stochastic=False, seed=7)
        batch = Batch.from_arrays({"image": np.ones((1, 16, 16), np.float32)})
        op(batch)
        op(batch)
        operator()
    [record] = caplog.records
    assert record.name == "datarax.core.modality"
    assert "drops the same patches, those of seed=7, of every record" in record.getMessage()


def test_channels_that_seem_to_come_first_are_pointed_out_once(caplog):
    """An image (3, height, width) is taken as three rows, which is hardly ever meant."""
    with caplog.at_level(logging.WARNING, logger="datarax.core.modality"):
        for _ in range(2):
            operator(patch_size=(0.5, 0.5))(
                Batch.from_arrays({"image": np.ones((2, 3, 18, 19), np.float32)})
            )
    [record] = caplog.records
    assert "(3, 18, 19) looks as if its channels came first" in record.getMessage()
