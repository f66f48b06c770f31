"""`Element` and `Batch`: what goes in comes out, and nothing invalid becomes valid."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from datarax.core.element_batch import Batch, Element


def make_batch(rows=4, library=np, **fields):
    data = {
        "image": library.asarray(np.arange(rows * 6, dtype=np.float32).reshape(rows, 2, 3)),
        "label": {"class": library.asarray(np.arange(rows, dtype=np.int32))},
    }
    defaults = {
        "states": {"age": library.asarray(np.arange(rows, dtype=np.uint8))},
        "valid_mask": library.asarray(np.arange(rows) != 1),
        "record_index": np.arange(rows) + 10,
        "epoch": 3,
        "batch_state": {"seen": library.asarray(np.float32(7))},
        "metadata": [f"row {row}" for row in range(rows)],
        "batch_metadata": "all",
    }
    return Batch.from_arrays(data, **{**defaults, **fields})


def rows_of(batch):
    """All that belongs to each row, as comparable Python values."""
    return [
        (
            np.asarray(batch["image"])[row].tolist(),
            int(batch["label"]["class"][row]),
            int(batch.states["age"][row]),
            bool(batch.valid_mask[row]),
            int(batch.record_index[row]),
            batch.metadata[row],
        )
        for row in range(len(batch))
    ]


LIBRARIES = pytest.mark.parametrize("library", [np, jnp], ids=["numpy", "jax"])


def test_element_updates_return_new_elements():
    """Updating an element adds or replaces fields and leaves the original alone."""
    element = Element({"a": 1}, {"n": 2}, metadata="m")
    new = element.update_data({"b": 3}).update_state({"n": 4})
    assert (new.data, new.state, new.metadata) == ({"a": 1, "b": 3}, {"n": 4}, "m")
    assert (element.data, element.state) == ({"a": 1}, {"n": 2})
    assert element.replace(metadata=None).metadata is None
    for name in ("data", "label"):
        with pytest.raises(dataclasses.FrozenInstanceError, match=rf"'{name}'.*replace"):
            setattr(element, name, {})
        with pytest.raises(dataclasses.FrozenInstanceError, match=rf"'{name}'.*replace"):
            delattr(element, name)


def test_element_update_needs_a_dict():
    """Updating by field is refused where data is not a dict, with the way out."""
    with pytest.raises(TypeError, match=r"data must be a dict .* got ndarray; use replace\(data="):
        Element(np.zeros(3)).update_data({"a": 1})


@LIBRARIES
def test_reading_like_a_mapping(library):
    """Fields are read by name, and len counts rows."""
    batch = make_batch(4, library)
    assert batch["image"].shape == (4, 2, 3)
    assert "image" in batch
    assert "nothing" not in batch
    assert list(batch.keys()) == ["image", "label"]
    assert len(batch) == batch.batch_size == 4
    assert list(batch.as_dict()) == ["image", "label", "valid_mask"]
    assert batch.as_dict()["valid_mask"] is batch.valid_mask
    assert isinstance(batch["image"], np.ndarray if library is np else jax.Array)


def test_an_unknown_field_names_those_there_are():
    """A wrong field name is answered with the right ones."""
    with pytest.raises(KeyError, match=r"no field 'img'; there are \['image', 'label'\]"):
        make_batch()["img"]


def test_a_batch_is_not_iterated_by_accident():
    """Iterating, which could mean rows or fields, is refused."""
    with pytest.raises(TypeError, match="not iterable"):
        iter(make_batch())


def test_host_arrays_stay_on_the_host():
    """Arrays are neither copied nor moved to a device."""
    image = np.zeros((3, 2), np.float64)
    assert Batch.from_arrays({"image": image})["image"] is image


@LIBRARIES
def test_from_elements_stacks_data_states_and_metadata(library):
    """Records become rows, with their states and metadata."""
    elements = [
        Element({"x": library.full((2,), i, np.float32)}, {"n": library.asarray(i)}, i)
        for i in range(3)
    ]
    batch = Batch.from_elements(elements)
    np.testing.assert_array_equal(batch["x"], [[0, 0], [1, 1], [2, 2]])
    np.testing.assert_array_equal(batch.states["n"], [0, 1, 2])
    assert batch.metadata == (0, 1, 2)
    assert batch.valid_mask.all()
    assert isinstance(batch["x"], np.ndarray if library is np else jax.Array)


def test_from_elements_says_which_record_differs():
    """The message has the leaf's path, the record's number and both specs."""
    good = Element({"a": {"b": np.zeros((2, 2), np.float32)}})
    bad = Element({"a": {"b": np.zeros((2, 3), np.float32)}})
    message = r"data\['a'\]\['b'\] of record 2 must be float32\[2,2\] .* got float32\[2,3\]"
    with pytest.raises(ValueError, match=message):
        Batch.from_elements([good, good, bad])
    with pytest.raises(ValueError, match=r"record 1 differs in structure .*got \{c: int64\[\]\}"):
        Batch.from_elements([good, Element({"c": 1})])
    with pytest.raises(ValueError, match="at least one Element, got none"):
        Batch.from_elements([])
    with pytest.raises(TypeError, match=r"elements\[1\] must be an Element, got dict"):
        Batch.from_elements([good, {"a": 1}])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data": {}}, ValueError, "at least one leaf and one row"),
        ({"data": {"x": np.zeros((0, 3))}}, ValueError, "at least one leaf and one row"),
        ({"data": {"x": np.float32(1)}}, ValueError, r"data\['x'\] must have a batch axis"),
        (
            {"data": {"x": np.zeros(3), "y": np.zeros(4)}},
            ValueError,
            r"data\['y'\] must have 3 rows on axis 0, got shape \(4,\)",
        ),
        ({"data": {"x": np.array(["a"])}}, TypeError, r"data\['x'\] must be an array of numbers"),
        ({"data": {"valid_mask": np.ones(3)}}, ValueError, "must not have a field 'valid_mask'"),
        (
            {"data": {"x": np.array([0, 2**31])}},
            ValueError,
            r"data\['x'\] has int64 values from 0 to 2147483648, which do not fit the int32",
        ),
        ({"states": {"s": np.zeros(4)}}, ValueError, r"states\['s'\] must have 3 rows"),
        ({"valid_mask": np.ones(4, bool)}, ValueError, r"valid_mask must have shape \(3,\)"),
        ({"valid_mask": np.ones(3)}, TypeError, "valid_mask must be bool, got float64"),
        ({"record_index": [0, 1]}, ValueError, r"record_index must have shape \(3,\)"),
        ({"record_index": [0, 1, -1]}, ValueError, "between 0 and 2\\*\\*32 - 1, got -1 to 1"),
        ({"record_index": [0.0, 1, 2]}, TypeError, "record_index must be integers, got float64"),
        ({"epoch": [1, 2, 3]}, ValueError, "epoch must be a scalar"),
        ({"epoch": -1}, ValueError, "epoch must lie between 0"),
        ({"metadata": ["a"]}, ValueError, "one entry for each of the 3 rows, got 1"),
        ({"metadata": "abc"}, TypeError, "metadata must be a sequence .* got str"),
    ],
)
def test_from_arrays_refuses_what_does_not_fit(arguments, error, message):
    """Each misfit is refused with the field, what was expected and what came."""
    arguments = {"data": {"x": np.zeros((3, 2))}, **arguments}
    with pytest.raises(error, match=message):
        Batch.from_arrays(**arguments)


@LIBRARIES
def test_element_returns_the_row_and_refuses_padding(library):
    """A record comes with its state and metadata; padding is not a record."""
    batch = make_batch(4, library)
    element = batch.element(-1)
    np.testing.assert_array_equal(element.data["image"], batch["image"][3])
    assert int(element.state["age"]) == 3
    assert element.metadata == "row 3"
    with pytest.raises(ValueError, match="row 1 is padding"):
        batch.element(1)
    with pytest.raises(IndexError, match="index must be from -4 to 3, got 4"):
        batch.element(4)


@given(
    rows=st.integers(1, 9),
    cuts=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    jax_arrays=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_slices_concatenate_to_the_whole(rows, cuts, jax_arrays):
    """Cutting a batch anywhere and joining the parts gives all rows back, with all they have."""
    batch = make_batch(rows, jnp if jax_arrays else np)
    first, second = sorted(min(cut, rows) for cut in cuts)
    parts = [batch.slice(0, first), batch.slice(first, second), batch.slice(second, rows)]
    whole = Batch.concatenate(parts)
    assert rows_of(whole) == rows_of(batch)
    assert int(whole.epoch) == 3
    assert whole.batch_metadata == "all"
    assert float(whole.batch_state["seen"]) == 7
    assert isinstance(whole["image"], type(batch["image"]))


def test_slice_refuses_bounds_outside():
    """Bounds outside the batch are refused and not clipped."""
    with pytest.raises(ValueError, match=r"0 <= start <= stop <= 4, got 2:5"):
        make_batch().slice(2, 5)


@LIBRARIES
def test_select_keeps_the_shape_and_never_revives_padding(library):
    """Selecting ands the mask: a padded row stays padding even if it is selected."""
    batch = make_batch(4, library)
    chosen = batch.select(np.array([True, True, False, True]))
    assert np.asarray(chosen.valid_mask).tolist() == [True, False, False, True]
    assert chosen["image"] is batch["image"]
    with pytest.raises(ValueError, match=r"mask must be bool of shape \(4,\), got int"):
        batch.select(np.ones(4, np.int32))


@LIBRARIES
def test_compact_drops_padding_with_all_that_belongs_to_it(library):
    """Only valid rows are left, each with its own index and metadata."""
    batch = make_batch(4, library)
    expected = [row for row in rows_of(batch) if row[3]]
    assert rows_of(batch.compact()) == expected
    assert len(batch.select(np.zeros(4, bool)).compact()) == 0


def test_replace_refuses_to_revive_padding():
    """A new mask cannot turn padding into a record, traced or not."""
    batch = make_batch(4)
    with pytest.raises(ValueError, match=r"rows \[1\] were padding"):
        batch.replace(valid_mask=np.ones(4, bool))
    traced = jax.jit(lambda b: b.replace(valid_mask=jnp.ones(4, bool)))(batch)
    assert traced.valid_mask.tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"data": {"x": np.zeros(3)}}, ValueError, r"data\['x'\] must have 4 rows"),
        ({"data": {"x": np.full(4, 2**40)}}, ValueError, "do not fit the int32"),
        ({"record_index": [1, 2, 3, -4]}, ValueError, "between 0"),
        ({"metadata": [1]}, ValueError, "one entry for each of the 4 rows"),
        ({"images": 1}, TypeError, "unexpected keyword argument 'images'"),
    ],
)
def test_replace_checks_what_it_takes(fields, error, message):
    """A replacement that does not fit is refused."""
    with pytest.raises(error, match=message):
        make_batch(4).replace(**fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 4}, "epoch must be the same in all batches, but batch 1"),
        ({"record_index": None}, r"record_index .* but batches \[1\] have none"),
        ({"metadata": None}, r"metadata .* but batches \[1\] have none"),
        ({"batch_state": {"seen": np.float32(8)}}, "batch_state must be the same"),
        ({"data": {"image": np.zeros((4, 2, 3))}}, "differs in structure"),
    ],
)
def test_concatenate_refuses_what_cannot_be_one_batch(change, message):
    """Batches that disagree on what a batch has once are refused, naming batch and field."""
    batch = make_batch(4)
    with pytest.raises(ValueError, match=message):
        Batch.concatenate([batch, batch.replace(**change)])
    with pytest.raises(ValueError, match="at least one Batch, got none"):
        Batch.concatenate([])


def test_concatenate_refuses_another_dtype():
    """Nothing is promoted silently."""
    batch = Batch.from_arrays({"x": np.zeros(2, np.float32)})
    other = Batch.from_arrays({"x": np.zeros(2, np.float64)})
    message = r"data\['x'\] of batch 1 must be float32\[\] .* got float64\[\]"
    with pytest.raises(ValueError, match=message):
        Batch.concatenate([batch, other])


def test_a_jitted_function_traces_once_whatever_the_values():
    """Other values, masks and metadata neither retrace nor leak into each other's results."""
    traces = []

    @jax.jit
    def double(batch):
        traces.append(batch)
        return batch.replace(data=jax.tree.map(lambda leaf: leaf * 2, batch.data))

    first = make_batch(4, metadata=["a", "b", "c", "d"], batch_metadata="one")
    second = make_batch(4, metadata=None, batch_metadata={"two": 2}, epoch=9).select(
        np.array([True, False, False, True])
    )
    for batch in (first, second, first):
        out = double(batch)
        assert out.metadata is None
        assert out.batch_metadata is None
        np.testing.assert_array_equal(out["image"], batch["image"] * 2)
        np.testing.assert_array_equal(out.valid_mask, batch.valid_mask)
    assert len(traces) == 1
    assert traces[0].metadata is None


@LIBRARIES
def test_a_batch_passes_through_the_transformations(library):
    """vmap, grad, scan, device_put and jax.tree functions take and return batches."""
    batch = make_batch(4, library).replace(epoch=None, batch_state={})
    per_row = jax.vmap(lambda b: b.replace(data={"sum": b["image"].sum()}))(batch)
    np.testing.assert_array_equal(per_row["sum"], batch["image"].sum((1, 2)))

    gradient = jax.grad(lambda b: (b["image"] ** 2).sum(), allow_int=True)(batch)
    np.testing.assert_array_equal(gradient["image"], 2 * batch["image"])

    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), batch)
    carry, out = jax.lax.scan(lambda c, b: (c + b["image"].sum(), b), jnp.float32(0), stacked)
    assert float(carry) == 2 * float(batch["image"].sum())
    np.testing.assert_array_equal(out["image"][1], batch["image"])

    on_device = jax.device_put(batch, jax.devices()[1])
    assert on_device["image"].devices() == {jax.devices()[1]}
    assert jax.tree.structure(batch) == jax.tree.structure(on_device)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_a_batch_passes_through_shard_map(devices):
    """Each device sees its rows of every field."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    batch = make_batch(8)
    specs = jax.tree.map(lambda leaf: P("data") if np.ndim(leaf) else P(), batch)
    sharded = jax.device_put(batch, jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs))

    def local(b):
        assert b.batch_size == 8 // devices
        return b.replace(data={**b.data, "image": b["image"] + 1})

    out = jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=specs)(sharded)
    np.testing.assert_array_equal(out["image"], batch["image"] + 1)
    np.testing.assert_array_equal(out.record_index, batch.record_index)


def test_repr_is_short_and_says_what_counts():
    """One line with rows, valid rows, shapes and dtypes, and no values."""
    text = repr(make_batch(4))
    assert text == (
        "Batch(4 rows, 3 valid, data={image: float32[4,2,3], label.class: int32[4]}, "
        "states={age: uint8[4]}, epoch=3)"
    )
    seen = []
    jax.jit(lambda b: seen.append(repr(b)))(make_batch(4))
    assert seen[0].startswith("Batch(4 rows, data={image: float32[4,2,3]")


def test_key_arrays_and_bfloat16_are_data_too():
    """Typed PRNG keys and ml_dtypes leaves are rows like any other."""
    keys = jax.random.split(jax.random.key(0), 3)
    batch = Batch.from_arrays({"key": keys, "x": np.zeros(3, jnp.bfloat16)})
    assert batch.slice(1, 2)["key"].shape == (1,)
    assert batch["x"].dtype == jnp.bfloat16
