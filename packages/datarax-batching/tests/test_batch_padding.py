"""`pad_batch` and `check_batch`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.batching import check_batch, pad_batch
from datarax.core.element_batch import Batch


def batch(rows=2, library=np):
    return Batch.from_arrays(
        {"x": library.arange(2 * rows, dtype=np.float32).reshape(rows, 2) + 1},
        states={"s": library.full(rows, 5, np.int32)},
        record_index=library.arange(rows, dtype=np.uint32) + 10,
        epoch=3,
        batch_state={"total": np.float32(9)},
        metadata=tuple("ab")[:rows],
        batch_metadata="whole",
    )


@pytest.mark.parametrize("library", [np, jnp], ids=["numpy", "jax"])
def test_padding_is_invalid_and_nothing_else_changes(library):
    """First rows, epoch, batch state and metadata stay; the rest is padding."""
    made = pad_batch(batch(library=library), 4)
    assert made["x"].tolist() == [[1, 2], [3, 4], [0, 0], [0, 0]]
    assert made.valid_mask.tolist() == [True, True, False, False]
    assert made.states["s"].tolist() == [5, 5, 0, 0]
    assert made.record_index.tolist() == [10, 11, 0, 0]
    assert made.metadata == ("a", "b", None, None)
    assert (int(made.epoch), made.batch_metadata, made.batch_state["total"]) == (3, "whole", 9)
    assert isinstance(made["x"], np.ndarray if library is np else jax.Array)
    assert made["x"].dtype == np.float32
    assert made.record_index.dtype == np.uint32


def test_rows_that_were_invalid_stay_invalid():
    """Padding a batch never makes a record of a row that was none."""
    made = pad_batch(batch().select(np.array([False, True])), 3)
    assert made.valid_mask.tolist() == [False, True, False]


@pytest.mark.parametrize("library", [np, jnp], ids=["numpy", "jax"])
def test_the_last_row_can_be_repeated(library):
    """`"last"` copies the last row of data and states."""
    made = pad_batch(batch(library=library), 3, pad_values="last")
    assert made["x"].tolist() == [[1, 2], [3, 4], [3, 4]]
    assert made.states["s"].tolist() == [5, 5, 5]


def test_a_full_batch_comes_back_as_it_is():
    """There is nothing to copy."""
    full = batch()
    assert pad_batch(full, 2) is full


def test_host_padding_is_fresh_aligned_memory():
    """The CPU device takes the padded batch as it is, and the source is not written to."""
    source = batch()
    made = pad_batch(source, 4)
    assert made["x"].ctypes.data % 64 == 0
    made["x"][...] = -1
    assert source["x"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_are_padded_with_zero_keys_or_the_last(impl):
    """Typed keys keep their implementation."""
    keys = jax.random.split(jax.random.key(1, impl=impl), 2)
    made = Batch.from_arrays({"k": keys})
    zero = jax.random.key_data(pad_batch(made, 3)["k"])
    last = jax.random.key_data(pad_batch(made, 3, pad_values="last")["k"])
    assert not zero[2].any()
    assert np.array_equal(last[2], jax.random.key_data(keys)[1])
    assert np.array_equal(zero[:2], jax.random.key_data(keys))


def test_padding_works_inside_a_compiled_function():
    """Shapes are known at trace time, so there is nothing to wait for."""
    made = jax.jit(lambda b: pad_batch(b, 4, pad_values=-1))(batch(library=jnp))
    assert made["x"].tolist() == [[1, 2], [3, 4], [-1, -1], [-1, -1]]
    assert made.valid_mask.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: pad_batch(batch(), 1), ValueError, "must be at least the 2 rows of the batch"),
        (lambda: pad_batch(batch(), 0), ValueError, "batch_size must be a positive integer"),
        (lambda: pad_batch({"x": 1}, 2), TypeError, "batch must be a Batch, got dict"),
        (
            lambda: pad_batch(batch(), 3, pad_values={"y": 1}),
            KeyError,
            r"'y', but there are \['x'\]",
        ),
        (lambda: pad_batch(batch(), 3, pad_values="mean"), ValueError, "a number or 'last'"),
        (
            lambda: pad_batch(batch(library=jnp), 3, pad_values=1e300),
            ValueError,
            r"pad_values of data\['x'\] must fit its dtype float32",
        ),
        (
            lambda: pad_batch(batch().select(np.zeros(2, bool)).compact(), 3, pad_values="last"),
            ValueError,
            "repeats the last row, but the batch has none",
        ),
    ],
    ids=["too large", "no size", "no batch", "no field", "no value", "no fit", "no row"],
)
def test_impossible_padding_is_refused(make, error, message):
    """What cannot be padded is an error that says why."""
    with pytest.raises(error, match=message):
        make()


SPEC = {
    "x": jax.ShapeDtypeStruct((2, 2), np.float32),
    "valid_mask": jax.ShapeDtypeStruct((2,), np.bool_),
}


def test_check_batch_accepts_what_fits():
    """Batches and their dicts, on the host or a device, with a spec in wide dtypes too."""
    check_batch(batch(), SPEC)
    check_batch(batch(library=jnp).as_dict(), SPEC)
    check_batch(batch(), {**SPEC, "x": jax.ShapeDtypeStruct((2, 2), np.float64)})


def test_check_batch_lists_every_difference():
    """All of them in one message, each with its path."""
    wrong = Batch.from_arrays({"y": np.zeros((2, 3)), "x": np.zeros((2, 4), np.int16)})
    with pytest.raises(ValueError, match="batch does not fit its spec") as caught:
        check_batch(wrong, {**SPEC, "z": jax.ShapeDtypeStruct((2,), np.int32)})
    assert str(caught.value).splitlines()[1:] == [
        "  ['x']: expected float32[2,2], got int16[2,4]",
        "  ['y']: expected nothing, got float64[2,3]",
        "  ['z']: expected int32[2], got nothing",
    ]


def test_check_batch_tells_tuples_from_lists():
    """Structures with equal paths are still different structures."""
    made = Batch.from_arrays({"x": (np.zeros(2, np.float32),)})
    spec = {"x": [jax.ShapeDtypeStruct((2,), np.float32)], "valid_mask": SPEC["valid_mask"]}
    with pytest.raises(ValueError, match="structure: expected"):
        check_batch(made, spec)


def test_check_batch_needs_a_dict():
    """A spec that is no dict is refused."""
    with pytest.raises(TypeError, match="spec must be a dict as batch_spec returns it"):
        check_batch(batch(), SPEC["x"])
