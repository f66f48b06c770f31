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
        (np.int8, np.int32),
        (np.uint8, np.uint32),
        (bool, np.int32),
    ],
    ids=str,
)
def test_sums_are_as_wide_as_they_need_to_be(dtype, wide):
    """A thousand values add up exactly, which they would not in 8 or 16 bits."""
    total, count = masked_sum_count(jnp.ones(3000, dtype), jnp.ones(3000, bool))
    assert (total.dtype, count.dtype) == (wide, np.int32)
    assert (int(total), int(count)) == (3000, 3000)


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
            r"leading axes of values, \(2, 3\), got \(3,\)",
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
