"""What `DefaultBatcher` makes of a stream of records."""

import itertools
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datarax.batching import (
    DefaultBatcher,
    DefaultBatcherConfig,
    check_batch,
    fill_padding,
    masked_mean,
    record_spec,
)
from datarax.core.element_batch import Element

REMAINDERS = ("pad", "drop", "partial")


def batcher(**options):
    return DefaultBatcher(DefaultBatcherConfig(**options))


def numbered(count):
    return [Element({"x": np.float32([i, -i]), "id": np.int32(i)}) for i in range(count)]


def pulls(count):
    """An iterator over numbered records, and the list of the numbers pulled so far."""
    pulled = []

    def generate():
        for i, element in enumerate(numbered(count)):
            pulled.append(i)
            yield element

    return generate(), pulled


@given(
    count=st.integers(0, 40),
    batch_size=st.integers(1, 12),
    remainder=st.sampled_from(REMAINDERS),
    drop_remainder=st.booleans(),
    as_iterator=st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_every_record_comes_once_and_in_order(
    count, batch_size, remainder, drop_remainder, as_iterator
):
    """Valid rows, read one batch after the other, are the records that the policy keeps."""
    records = numbered(count)
    stream = iter(records) if as_iterator else records
    made = list(
        batcher(remainder=remainder)(stream, batch_size=batch_size, drop_remainder=drop_remainder)
    )
    drops = drop_remainder or remainder == "drop"
    kept = count - count % batch_size if drops else count
    assert [i for b in made for i in b["id"][b.valid_mask].tolist()] == list(range(kept))
    assert np.concatenate([b["x"][b.valid_mask] for b in made] or [np.zeros((0, 2))]).tolist() == [
        [i, -i] for i in range(kept)
    ]
    sizes = [len(b) for b in made]
    if remainder == "partial" and not drops and count % batch_size:
        assert sizes.pop() == count % batch_size
    assert set(sizes) <= {batch_size}
    assert all(b.valid_mask.all() for b in made[:-1])


LEAVES = {
    "uint8": np.uint8(200),
    "bool": np.bool_(True),
    "float16": np.full((2, 1), 0.5, np.float16),
    "bfloat16": jnp.bfloat16(1.5).reshape(1),
    "int64": np.int64(-5),
    "float64": np.array([1e-3, 2.0]),
    "complex128": np.complex128(1 + 2j),
    "python int": 7,
    "python float": 0.25,
    "python bool": False,
    "jax": jnp.arange(3),
    "jax scalar": jnp.float32(2),
    "threefry key": jax.random.key(3),
    "rbg key": jax.random.key(3, impl="rbg"),
    "raw key": jax.random.PRNGKey(3),
    "empty": np.zeros((0, 4), np.float32),
    "zero-dimensional": np.array(3.5, np.float32),
    "big-endian": np.array([1, 2], ">i4"),
    "strided": np.arange(12, dtype=np.int32).reshape(3, 4)[::2, ::-1],
    "read-only": np.broadcast_to(np.int16(4), (2, 2)),
}


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=LEAVES)
@pytest.mark.parametrize("remainder", REMAINDERS)
def test_every_batch_keeps_its_spec(leaf, remainder):
    """Structure, shape and dtype of every full batch are those that `batch_spec` says."""
    element = Element({"leaf": leaf, "nested": {"again": (leaf, [leaf])}}, {"state": leaf})
    made = batcher(remainder=remainder)
    spec = made.batch_spec(record_spec(element), batch_size=3)
    batches = list(made([element] * 5, batch_size=3))
    assert len(batches) == (1 if remainder == "drop" else 2)
    for batch in batches[: 1 if remainder == "partial" else 2]:
        check_batch(batch, spec)
        same = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)
        assert same.as_dict() == spec
    if remainder == "partial":
        check_batch(batches[1], made.batch_spec(record_spec(element), batch_size=2))
    for batch in batches:
        assert jax.tree.structure(batch) == jax.tree.structure(batches[0])
        for kept in (batch["leaf"], batch["nested"]["again"][1][0], batch.states["state"]):
            for row in np.flatnonzero(batch.valid_mask):
                assert _same(kept[row], leaf)


def _same(left, right):
    if isinstance(right, jax.Array) and jnp.issubdtype(right.dtype, jax.dtypes.prng_key):
        left, right = jax.random.key_data(left), jax.random.key_data(right)
    narrow = jax.dtypes.canonicalize_dtype(np.asarray(right).dtype.newbyteorder("="))
    return np.array_equal(np.asarray(left), np.asarray(right).astype(narrow))


def test_host_records_stay_on_the_host_and_device_records_on_the_device():
    """A leaf's home does not change."""
    (made,) = batcher()([Element({"host": np.ones(3), "device": jnp.ones(3)})], batch_size=2)
    assert type(made["host"]) is np.ndarray
    assert isinstance(made["device"], jax.Array)


@pytest.mark.parametrize("count", [0, 4, 8], ids="{} records".format)
def test_full_batches_are_followed_by_nothing(count):
    """A stream that ends with a full batch gives no batch of padding alone."""
    assert [len(b) for b in batcher()(numbered(count), batch_size=4)] == [4] * (count // 4)


def test_nothing_is_pulled_before_it_is_needed():
    """Making the iterator pulls nothing, and each batch exactly its own records."""
    records, pulled = pulls(100)
    stream = batcher()(records, batch_size=7)
    assert pulled == []
    for number in range(1, 4):
        next(stream)
        assert pulled == list(range(7 * number))


def test_batches_share_no_memory():
    """Writing to one batch changes no other batch and no record."""
    records = numbered(8)
    first, second = batcher()(records, batch_size=4)
    first["x"][...] = 99
    assert second["x"].tolist() == [[i, -i] for i in range(4, 8)]
    assert records[0].data["x"].tolist() == [0, 0]
    assert not np.shares_memory(first["x"], second["x"])


def test_reused_buffers_are_the_same_memory_and_never_under_a_device_array():
    """With `reuse_buffers` a batch overwrites the one before, but no array made of it."""
    stream = batcher(reuse_buffers=True)(numbered(8), batch_size=4)
    first = next(stream)
    on_device = jnp.asarray(first["x"])
    second = next(stream)
    assert np.shares_memory(first["x"], second["x"])
    assert on_device.tolist() == [[i, -i] for i in range(4)]


def test_device_batches_of_reused_buffers_stay_what_they_were():
    """Device records become device arrays of their own."""
    records = [Element({"x": jnp.full(16, i, jnp.float32)}) for i in range(4)]
    first, second = batcher(reuse_buffers=True)(records, batch_size=2)
    assert first["x"][:, 0].tolist() == [0, 1]
    assert second["x"][:, 0].tolist() == [2, 3]


@pytest.mark.parametrize("shape", [(3,), (32, 32, 3), ()], ids=str)
def test_the_cpu_device_takes_a_batch_without_a_copy(shape):
    """Memory of a batch begins where XLA wants it, so that no copy is made."""
    records = [Element({"x": np.full(shape, i, np.float32)}) for i in range(64)]
    for batch in batcher()(records, batch_size=32):
        on_device = jax.device_put(batch["x"], jax.devices("cpu")[0])
        assert on_device.unsafe_buffer_pointer() == batch["x"].ctypes.data


@pytest.mark.parametrize("remainder", ["pad", "drop"])
def test_a_jitted_step_is_traced_once_over_an_epoch(remainder):
    """The last batch has the shape of the others."""
    traces = itertools.count()

    @jax.jit
    def step(batch):
        next(traces)
        return jnp.where(batch.valid_mask, batch["x"].sum(1), 0).sum()

    for batch in batcher(remainder=remainder)(numbered(30), batch_size=8):
        step(batch)
    assert next(traces) == 1


def test_metadata_is_kept_and_none_for_padding():
    """Each record's metadata stays in its row."""
    records = [Element({"x": np.float32(i)}, metadata=f"{i}.png") for i in range(3)]
    first, second = batcher()(records, batch_size=2)
    assert first.metadata == ("0.png", "1.png")
    assert second.metadata == ("2.png", None)
    assert next(batcher()(numbered(2), batch_size=2)).metadata is None


@pytest.mark.parametrize(
    ("pad_values", "x", "label", "state"),
    [
        (0, [0, 0], 0, 0),
        (-1, [-1, -1], -1, 0),
        ("last", [3, 4], 2, 7),
        ({"label": -100}, [0, 0], -100, 0),
        ({"x": "last", "label": 1}, [3, 4], 1, 0),
        ({"x": np.inf}, [np.inf, np.inf], 0, 0),
    ],
    ids=str,
)
def test_padding_holds_what_the_config_says(pad_values, x, label, state):
    """One number, the last record, or either of them by field."""
    elements = [Element({"x": np.float32([3, 4]), "label": np.int32(2)}, {"s": np.int32(7)})]
    (made,) = batcher(pad_values=pad_values)(elements, batch_size=3)
    assert made.valid_mask.tolist() == [True, False, False]
    assert made["x"].tolist() == [[3, 4], x, x]
    assert made["label"].tolist() == [2, label, label]
    assert made.states["s"].tolist() == [7, state, state]


def test_pad_values_reach_into_nested_fields():
    """A dotted path names a leaf, and a path above it all leaves below."""
    elements = [Element({"a": {"b": np.int32(5), "c": np.int32(6)}, "d": [np.int32(1)]})]
    options = {"pad_values": {"a": -1, "a.c": -2, "d.0": "last"}}
    (made,) = batcher(**options)(elements, batch_size=2)
    assert made["a"]["b"].tolist() == [5, -1]
    assert made["a"]["c"].tolist() == [6, -2]
    assert made["d"][0].tolist() == [1, 1]


def test_unusual_nodes_are_batched_too():
    """Ordered dicts, None and registered dataclasses keep their structure."""
    data = {"o": OrderedDict(b=np.int32(1), a=np.int32(2)), "n": None, "e": Element(np.int32(3))}
    (made,) = batcher()([Element(data)], batch_size=2)
    assert jax.tree.structure(made.data) == jax.tree.structure(data)
    assert made["o"]["a"].tolist() == [2, 0]
    assert made["e"].data.tolist() == [3, 0]


def test_dicts_may_differ_in_the_order_of_their_keys():
    """Fields are told apart by name, not by position."""
    records = [Element({"a": 1, "b": 2}), Element({"b": 20, "a": 10})]
    (made,) = batcher()(records, batch_size=2)
    assert made["a"].tolist() == [1, 10]
    assert made["b"].tolist() == [2, 20]


def test_leaves_of_one_canonical_dtype_go_together():
    """A Python number, a NumPy scalar and an array narrow to the same dtype and may alternate."""
    values = [1, np.int64(2), np.int32(3), np.array(4), jnp.int32(5)]
    for order in itertools.permutations(values[:4]):
        (made,) = batcher()([Element({"x": value}) for value in order], batch_size=4)
        assert made["x"].tolist() == [int(value) for value in order]
        assert made["x"].dtype == np.int32
    (made,) = batcher()([Element({"x": value}) for value in values], batch_size=6)
    assert made["x"].tolist() == [1, 2, 3, 4, 5, 0]


def test_collate_fn_replaces_stacking_and_is_padded():
    """Records of unequal length go through a collate function to one padded, masked shape."""

    def collate(elements):
        rows = np.zeros((len(elements), 4), np.int64)
        for row, element in zip(rows, elements, strict=True):
            row[: len(element.data["t"])] = element.data["t"]
        return {"t": rows}

    records = [Element({"t": np.arange(n)}, {"s": n}, metadata=n) for n in (1, 3, 2)]
    made = batcher(collate_fn=collate, pad_values=-1)
    first, second = made(records, batch_size=2)
    spec = made.batch_spec({"t": jax.ShapeDtypeStruct((2,), np.int32)}, batch_size=2)
    check_batch(first, spec)
    check_batch(second, spec)
    assert first["t"].tolist() == [[0, 0, 0, 0], [0, 1, 2, 0]]
    assert second["t"].tolist() == [[0, 1, 0, 0], [-1] * 4]
    assert second.valid_mask.tolist() == [True, False]
    assert second.states["s"].tolist() == [2, 0]
    assert second.metadata == (2, None)


def test_collate_fn_gets_elements_of_the_spec_for_its_own():
    """`batch_spec` runs the function on zeros, random keys included."""

    def collate(elements):
        keys = jnp.stack([element.data["k"] for element in elements])
        return {"k": keys, "x": np.stack([element.data["x"] for element in elements])[:, :1]}

    made = batcher(collate_fn=collate)
    record = Element({"k": jax.random.key(0, impl="rbg"), "x": np.ones(3)})
    spec = made.batch_spec(record_spec(record), batch_size=2)
    assert spec["x"] == jax.ShapeDtypeStruct((2, 1), np.float32)
    for batch in made([record] * 3, batch_size=2):
        check_batch(batch, spec)


def test_a_training_step_is_traced_once_over_an_epoch_with_a_short_end():
    """Loss, gradients and update stay finite and of one shape, with NaN in the padding."""
    records = [Element({"x": np.float32([i, 1]), "y": np.float32(3 * i - 2)}) for i in range(11)]
    traces = itertools.count()

    def loss(weights, batch):
        batch = batch.replace(data=fill_padding(batch.data, batch.valid_mask))
        return masked_mean(jnp.square(batch["x"] @ weights - batch["y"]), batch.valid_mask)

    @jax.jit
    def step(weights, batch):
        next(traces)
        value, gradient = jax.value_and_grad(loss)(weights, batch)
        return weights - jnp.float32(0.01) * gradient, value

    weights = jnp.zeros(2)
    made = batcher(pad_values={"x": np.nan})
    for _ in range(20):
        losses = []
        for batch in made(records, batch_size=4):
            weights, value = step(weights, batch)
            losses.append(float(value))
    assert next(traces) == 1
    assert len(losses) == 3
    assert max(losses) < 5
    np.testing.assert_allclose(weights[0], 3, atol=0.5)


def test_a_copy_a_clone_and_a_checkpoint_batch_alike():
    """The module's documented methods work for a batcher."""
    made = batcher(remainder="drop")
    list(made(numbered(5), batch_size=2))
    again = batcher(remainder="drop")
    again.set_state(made.get_state())
    for other in (made.clone(), again):
        assert other.get_operation_stats() == {"applied_count": 4, "skipped_count": 1}
    copy = made.copy(config=DefaultBatcherConfig(remainder="partial"), name="copy")
    assert copy.name == "copy"
    assert [len(batch) for batch in copy(numbered(5), batch_size=2)] == [2, 2, 1]


def test_batcher_counts_records():
    """Applied are records in batches, skipped those left out."""
    made = batcher(remainder="drop")
    list(made(numbered(10), batch_size=4))
    assert made.get_operation_stats() == {"applied_count": 8, "skipped_count": 2}
    list(made(numbered(4), batch_size=4))
    assert made.get_operation_stats() == {"applied_count": 12, "skipped_count": 2}
