"""Means and counts that padding must not reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from datarax.batching import fill_padding, masked_accuracy, masked_mean, masked_sum_count

FLOATS = st.floats(-100, 100, width=32)


@st.composite
def values_and_mask(draw):
    # Two shapes only: each is a compilation.
    rows, width = draw(st.sampled_from([(1, 3), (7, 2)]))
    values = draw(hnp.arrays(np.float32, (rows, width), elements=FLOATS))
    return values, draw(hnp.arrays(bool, rows))


@given(values_and_mask())
@settings(deadline=None, max_examples=40)
def test_mean_sum_and_count_are_those_of_the_valid_rows(case):
    """The oracle is NumPy in float64 on the valid rows alone, with NaN in the others."""
    values, mask = case
    valid = values[mask].astype(np.float64)
    dirty = np.where(mask[:, None], values, np.float32(np.nan))
    total, count = masked_sum_count(dirty, mask)
    assert count == valid.size
    np.testing.assert_allclose(total, valid.sum(), rtol=1e-5, atol=1e-3)
    expected = valid.mean() if valid.size else 0.0
    np.testing.assert_allclose(masked_mean(dirty, mask), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
def test_gradients_are_finite_whatever_stands_in_padding(bad):
    """Valid values get 1/count, padding exactly 0."""
    values = jnp.float32([1, 2, bad, bad])
    mask = jnp.array([True, True, False, False])
    assert jax.grad(masked_mean)(values, mask).tolist() == [0.5, 0.5, 0, 0]
    assert masked_mean(values, mask) == 1.5


def test_filled_padding_keeps_gradients_of_parameters_finite():
    """Where the loss itself is not finite in padding, cleaning its input is what helps."""
    x, mask = jnp.float32([1, 2, jnp.nan]), jnp.array([True, True, False])

    def loss(w, x):
        return masked_mean(jnp.square(w * x), mask)

    assert jnp.isnan(jax.grad(loss)(jnp.float32(3), x))
    assert jax.grad(loss)(jnp.float32(3), fill_padding(x, mask)) == 2 * 3 * (1 + 4) / 2


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16, np.int32, bool], ids=str)
def test_a_batch_of_padding_alone_gives_zero(dtype):
    """Value and gradient are 0, not NaN."""
    values, mask = jnp.ones((3, 2), dtype), jnp.zeros(3, bool)
    assert masked_mean(values, mask) == 0
    assert [x.tolist() for x in masked_sum_count(values, mask)] == [0, 0]
    if jnp.issubdtype(dtype, jnp.floating):
        assert not jax.grad(masked_mean)(values, mask).any()
    logits = jnp.ones((3, 2), jnp.float32)
    assert masked_accuracy(logits, jnp.zeros(3, jnp.int32), mask) == 0


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (jnp.bfloat16, np.float32),
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.int8, np.float32),
        (np.uint8, np.float32),
        (np.int32, np.float32),
        (bool, np.int32),
    ],
    ids=str,
)
def test_sums_are_as_wide_as_they_need_to_be(dtype, wide):
    """A thousand values add up exactly, which they would not in 8 or 16 bits."""
    total, count = masked_sum_count(jnp.ones(3000, dtype), jnp.ones(3000, bool))
    assert (total.dtype, count.dtype) == (wide, np.int32)
    assert (int(total), int(count)) == (3000, 3000)


EXTREMES = {
    "uint8 images": np.full((64, 96, 96, 3), 255, np.uint8),
    "int8": np.full((1000, 1000), -128, np.int8),
    "uint16": np.full((700, 200), 65535, np.uint16),
    "token ids": np.random.default_rng(0).integers(0, 50_000, (256, 512)).astype(np.int32),
    "int32": np.full((100, 3), -(2**31), np.int32),
    "uint32": np.full((100, 3), 2**32 - 1, np.uint32),
    "int64 that fits": np.full((100, 3), 2**31 - 1),
    "bool": np.ones((300, 300), bool),
    "float16": np.full((300, 300), 60_000, np.float16),
    "bfloat16": np.full((300, 300), 1.5, jnp.bfloat16),
}


@pytest.mark.parametrize("values", EXTREMES.values(), ids=EXTREMES)
def test_means_and_sums_do_not_wrap(values):
    """As `jnp.mean`, which adds in float32; the oracle is NumPy in float64."""
    # What float32 loses where 38 million values are added one after the other.
    wide, rows = values.astype(np.float64), len(values)
    for mask in (np.ones(rows, bool), np.arange(rows) % 3 == 0):
        np.testing.assert_allclose(masked_mean(values, mask), wide[mask].mean(), rtol=2e-3)
        total, count = masked_sum_count(values, mask)
        np.testing.assert_allclose(total, wide[mask].sum(), rtol=2e-3)
        assert count == wide[mask].size
    exact = jnp.asarray(values, jnp.float32)
    np.testing.assert_allclose(masked_mean(values, np.ones(rows, bool)), exact.mean(), rtol=2e-3)


def test_integer_sums_of_devices_do_not_wrap_together():
    """Parts that fit add up to what would not."""
    mesh = Mesh(np.array(jax.devices()), "data")

    def per_device(values, mask):
        return jax.lax.psum(masked_sum_count(values, mask), "data")

    step = jax.shard_map(per_device, mesh=mesh, in_specs=P("data"), out_specs=P())
    total, count = jax.jit(step)(np.full((8, 4), 10**9, np.int32), np.ones(8, bool))
    assert (float(total), int(count)) == (32e9, 32)


def test_64_bit_values_keep_their_accuracy_under_x64():
    """Floats and integers of 64 bits are added in float64, all others in float32."""
    with jax.enable_x64(True):
        mask = np.array([True, True, False])
        for dtype in (np.int64, np.uint64, np.float64):
            values = np.array([2**40 + 1, 2**40 + 2, 7], dtype)
            mean, (total, count) = masked_mean(values, mask), masked_sum_count(values, mask)
            assert (mean.dtype, total.dtype, count.dtype) == (np.float64, np.float64, np.int32)
            assert (mean.item(), total.item()) == (2**40 + 1.5, 2**41 + 3)
        for dtype in (np.int32, np.uint8, bool, np.float32, jnp.bfloat16):
            assert masked_mean(np.ones(3, dtype), mask).dtype == np.float32


@pytest.mark.parametrize("reduce", [masked_mean, masked_sum_count, fill_padding])
@pytest.mark.parametrize("value", [2**31, -(2**40), 1e39], ids=str)
def test_host_values_that_do_not_fit_are_refused(reduce, value):
    """JAX would wrap them, or make them infinite, without a word."""
    with pytest.raises(ValueError, match=r"(values|tree) has .*to which JAX narrows"):
        reduce(np.array([1, value]), np.ones(2, bool))


def test_more_values_than_a_count_holds():
    """The mean does without the count; where it is asked for, it is refused."""
    many = jax.ShapeDtypeStruct((2**17, 2**14), np.uint8)
    mask = jax.ShapeDtypeStruct((2**17,), np.bool_)
    assert jax.eval_shape(masked_mean, many, mask).dtype == np.float32
    with pytest.raises(ValueError, match="2147483648 numbers, whose count does not fit int32"):
        jax.eval_shape(masked_sum_count, many, mask)


@pytest.mark.parametrize(
    ("labels", "right"),
    [
        (np.array([1, -1, 1]), 2),
        (np.array([-127, 1, 0], np.int8), 1),
        (np.array([2**32 - 1, 1, 1], np.uint32), 2),
        (np.array([1, 1, 1], np.uint8), 3),
    ],
    ids=["ignored", "int8", "uint32", "uint8"],
)
def test_classes_that_do_not_exist_are_never_right(labels, right):
    """However wide the labels are, and whatever marks what is to be ignored."""
    logits = np.tile(np.float32([0, 1, 0]), (3, 1))
    accuracy = masked_accuracy(logits, labels, np.ones(3, bool))
    assert accuracy == np.float32(right / 3)


def test_masks_of_more_axes_select_steps():
    """A mask (batch, steps) counts steps, and each of their features."""
    values = jnp.arange(12, dtype=jnp.float32).reshape(2, 3, 2)
    mask = jnp.array([[True, False, False], [True, True, False]])
    total, count = masked_sum_count(values, mask)
    assert (total.item(), count.item()) == (0 + 1 + 6 + 7 + 8 + 9, 6)


@pytest.mark.parametrize("soft", [False, True], ids=["class numbers", "one-hot"])
def test_accuracy_counts_valid_rows(soft):
    """Two of three valid predictions are right; the padding would be right too."""
    logits = jnp.float32([[2, 1, 0], [0, 1, 5], [1, 0, 0], [9, 0, 0]])
    labels = jnp.array([0, 2, 1, 0])
    labels = jax.nn.one_hot(labels, 3) if soft else labels
    accuracy = masked_accuracy(logits, labels, jnp.array([True, True, True, False]))
    assert accuracy == np.float32(2 / 3)


def test_accuracy_of_sequences_takes_a_mask_per_step():
    """Labels and mask (batch, steps) go with logits (batch, steps, classes)."""
    logits = jax.nn.one_hot(jnp.array([[0, 1], [1, 1]]), 2)
    labels = jnp.array([[0, 0], [1, 0]])
    mask = jnp.array([[True, True], [True, False]])
    assert masked_accuracy(logits, labels, mask) == np.float32(2 / 3)


@pytest.mark.parametrize("devices", [1, 2, 8], ids="{} devices".format)
@pytest.mark.parametrize("batch_size", [8, 16, 56], ids="batches of {}".format)
def test_a_metric_does_not_depend_on_batch_size_or_device_count(devices, batch_size):
    """Counts of correct predictions add up to the same integers, so accuracy is the same float."""
    rng = np.random.default_rng(0)
    records = rng.integers(0, 2, 50).astype(bool)
    mesh = Mesh(np.array(jax.devices()[:devices]), "data")

    def per_device(values, mask):
        return jax.lax.psum(masked_sum_count(values, mask), "data")

    step = jax.jit(
        jax.shard_map(per_device, mesh=mesh, in_specs=(P("data"), P("data")), out_specs=P())
    )
    total = count = 0
    for start in range(0, 50, batch_size):
        rows = records[start : start + batch_size]
        padding = np.ones(batch_size - len(rows), bool)
        mask = np.arange(batch_size) < len(rows)
        right, seen = step(np.concatenate([rows, padding]), mask)
        total, count = total + int(right), count + int(seen)
    assert (total, count) == (int(records.sum()), 50)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: masked_mean(jnp.ones(3), jnp.ones(3)),
            TypeError,
            "mask must be bool, got float32",
        ),
        (lambda: masked_mean(jnp.ones(3), jnp.ones(2, bool)), ValueError, r"leading axes .*\(3,\)"),
        (lambda: masked_mean(jnp.ones(3), jnp.array(True)), ValueError, "leading axes"),
        (
            lambda: fill_padding({"x": jnp.ones((2, 3))}, jnp.ones(3, bool)),
            ValueError,
            r"leading axes of tree\['x'\], \(2, 3\), got \(3,\)",
        ),
        (
            lambda: masked_accuracy(jnp.ones((3, 2)), jnp.ones((3, 1)), jnp.ones(3, bool)),
            ValueError,
            r"labels must have shape \(3,\) \(class numbers\) or \(3, 2\)",
        ),
        (
            lambda: masked_accuracy(jnp.ones((3, 2)), jnp.ones(3), jnp.ones(3, bool)),
            TypeError,
            "labels must be integers to be class numbers, got float32",
        ),
    ],
    ids=["float mask", "length", "scalar", "fill", "label shape", "label dtype"],
)
def test_arguments_that_do_not_fit_are_refused(call, error, message):
    """Shapes and dtypes are checked when traced."""
    with pytest.raises(error, match=message):
        call()
