"""Plain dicts, training and evaluation, and what a reader sees of an operator."""

import gc
import inspect
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.config import (
    DataraxModuleConfig,
    ElementOperatorConfig,
    Exact,
    OperatorConfig,
)
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.operators import ElementOperator

STOCHASTIC = OperatorConfig(stochastic=True)


class Noise(OperatorModule):
    """Adds a number to each record and counts its calls in the state `age`."""

    def generate_random_params(self, rng, data_shapes):
        return jax.random.normal(rng, data_shapes["x"][:1])

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "x": data["x"] + random_params}, {**state, "noise": random_params}, metadata


class Double(OperatorModule):
    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "x": 2 * data["x"]}, state, metadata


class Holder(OperatorModule):
    def __init__(self, config, *, operators, rngs=None, name=None):
        super().__init__(config, rngs=rngs, name=name)
        self.operators = nnx.List(operators)


def noise():
    return Noise(STOCHASTIC, rngs=nnx.Rngs(0))


def fields(rows=4):
    return {"x": np.arange(rows, dtype=np.float32), "label": np.arange(rows, dtype=np.int32)}


def test_a_dict_gives_a_dict():
    """With the same fields, what the operator leaves in the state, and no mask of its own."""
    out = noise()(fields())
    assert type(out) is dict
    assert list(out) == ["x", "label", "noise"]
    np.testing.assert_allclose(out["x"] - out["noise"], fields()["x"], atol=1e-6)
    np.testing.assert_array_equal(out["label"], fields()["label"])


def test_a_dict_is_the_batch_of_its_arrays():
    """The numbers are those of a `Batch`, call after call."""
    by_dict, by_batch = noise(), noise()
    for _ in range(2):
        expected = by_batch(Batch.from_arrays(fields()))
        np.testing.assert_array_equal(by_dict(fields())["x"], expected["x"])
    assert by_dict.get_operation_stats() == by_batch.get_operation_stats()


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, list], ids=["numpy", "jax", "list"])
def test_the_field_valid_mask_is_the_mask(kind):
    """It is known for what it is, comes back, and counts."""
    mask = np.array([True, False, True, False])
    op = noise()
    given = mask.tolist() if kind is list else kind(mask)
    out = op({**fields(), "valid_mask": given})
    np.testing.assert_array_equal(out["valid_mask"], mask)
    assert op.get_operation_stats()["applied_count"] == 2


def test_a_dict_goes_through_jit_with_a_key():
    """Inside the caller's jit, with the operator closed over."""
    op, key = noise(), jax.random.key(0)
    expected = op(fields(), key=key)
    out = jax.jit(lambda batch, key: op(batch, key=key))(fields(), key)
    np.testing.assert_allclose(out["x"], expected["x"], rtol=1e-6)
    assert jax.jit(Double(OperatorConfig()))(fields())["x"].tolist() == [0, 2, 4, 6]


def test_nested_fields_and_lists_are_columns():
    """A dict in the dict is a group of fields, and a list of numbers is a column."""
    op = ElementOperator(
        ElementOperatorConfig(), fn=lambda element, key: element.update_data({"y": element.data})
    )
    out = op({"x": [1, 2, 3], "more": {"z": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}})
    assert out["x"].shape == (3,)
    assert out["y"]["more"]["z"].shape == (3, 2)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ([1, 2], TypeError, r"Noise transforms a Batch or a dict of arrays .*, got list"),
        ({}, ValueError, "cannot read the dict as a batch: .*at least one leaf"),
        ({"x": np.float32(1)}, ValueError, "must have a batch axis.* a single record a batch axis"),
        ({"x": np.zeros(2), "y": np.zeros(3)}, ValueError, "must have 2 rows .*"),
        ({"x": [np.ones(3), np.ones(3)], "y": [1, 2]}, ValueError, "must have 3 rows.* np.stack"),
        ({"x": np.zeros(2), "ids": [[1], [2, 3]]}, TypeError, r"data\['ids'\] must be an array"),
        ({"x": np.array(["a"])}, TypeError, "must be an array of numbers.* leave others out"),
        ({"x": np.zeros(2), "valid_mask": np.ones(2)}, TypeError, "valid_mask must be bool"),
        ({"x": np.zeros(2), "valid_mask": np.ones(3, bool)}, ValueError, r"must have shape \(2,\)"),
    ],
    ids=[
        "list",
        "empty",
        "scalar",
        "ragged",
        "images",
        "ids",
        "strings",
        "float-mask",
        "long-mask",
    ],
)
def test_what_is_no_batch_is_refused_with_the_remedy(batch, error, message):
    """The error names the field, what came, and what to do."""
    with pytest.raises(error, match=message):
        noise()(batch)


def test_a_dict_keeps_the_order_of_its_fields():
    """Of nested ones too, with new fields after them."""
    op = ElementOperator(
        ElementOperatorConfig(),
        fn=lambda element, key: element.update_data({"a": element.data["z"]["q"]}),
    )
    column = np.zeros(2, np.float32)
    out = op({"z": {"q": column, "b": column}, "x": column})
    assert [list(out), list(out["z"])] == [["z", "x", "a"], ["q", "b"]]


def test_what_an_operator_makes_padding_is_padding_in_a_dict():
    """The result of a dict without a mask has one if the operator changed it."""

    class Positive(OperatorModule):
        def apply_batch(self, batch, stats=None):
            return batch.select(batch["x"] > 0)

    assert Positive(OperatorConfig())(fields())["valid_mask"].tolist() == [False, True, True, True]


def test_states_that_are_no_dict_are_not_lost():
    """They have no names under which they could be fields."""
    op = ElementOperator(
        ElementOperatorConfig(), fn=lambda element, key: element.replace(state=(element.data["x"],))
    )
    with pytest.raises(TypeError, match=r"its states are now tuple; call it with a Batch"):
        op(fields())


def test_a_state_does_not_overwrite_a_field():
    """A field that has the name of what the operator leaves is an error, and nothing is lost."""
    with pytest.raises(ValueError, match=r"leaves 'noise' beside the fields.* rename the field"):
        noise()({**fields(), "noise": np.zeros(4, np.float32)})


def test_evaluation_passes_records_through():
    """Bit-identical, NaN included, counted as skipped; training goes on where it stood."""
    op, twin = noise(), noise()
    batch = Batch.from_arrays({"x": np.float32([np.nan, -0.0, 1])})
    op.eval()
    out = op(batch)
    assert np.asarray(out["x"]).tobytes() == batch["x"].tobytes()
    assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": 3}
    assert np.asarray(op.apply_batch(batch)["x"]).tobytes() == batch["x"].tobytes()
    np.testing.assert_array_equal(jax.jit(op)(fields())["x"], fields()["x"])
    batch = jax.device_put(batch)
    assert op.recycle(batch, spent=batch)["x"] is batch["x"]
    op.train()
    np.testing.assert_array_equal(op(fields())["x"], twin(fields())["x"])


def test_a_view_in_evaluation_shares_the_operator():
    """`nnx.view` gives a second handle and leaves the first in training."""
    op = noise()
    view = nnx.view(op, deterministic=True)
    np.testing.assert_array_equal(view(fields())["x"], fields()["x"])
    assert (np.asarray(op(fields())["x"]) != fields()["x"]).all()
    assert not op.deterministic


def test_deterministic_operators_work_in_evaluation():
    """Only randomness is switched off."""
    op = Double(OperatorConfig())
    op.eval()
    assert op(fields())["x"].tolist() == [0, 2, 4, 6]


def test_one_compilation_a_mode():
    """Going to evaluation and back compiles nothing again."""
    traces = []

    class Traced(Noise):
        def pass_through(self, batch):
            traces.append("eval")
            return batch

        def apply(self, *args, **kwargs):
            traces.append("train")
            return super().apply(*args, **kwargs)

    op = Traced(STOCHASTIC, rngs=nnx.Rngs(0))
    for _ in range(3):
        op.train()
        op(fields())
        op.eval()
        op(fields())
    assert sorted(traces) == ["eval", "train"]


def test_the_mode_is_part_of_no_checkpoint_and_of_every_copy():
    """State saved in one mode goes into a module in the other."""
    op, other = noise(), noise()
    op.eval()
    assert "deterministic" not in str(op.get_state())
    other.set_state(op.get_state())
    assert not other.deterministic
    assert op.copy().deterministic
    assert op.clone().deterministic
    holder = Holder(OperatorConfig(), operators=(noise(), noise()))
    holder.operators[1].eval()
    for copy in (holder.copy(), holder.clone()):
        assert [member.deterministic for member in copy.operators] == [False, True]


def test_a_model_with_an_operator_changes_mode_as_one():
    """An operator inside an `nnx.Module` behaves as dropout does."""

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.noise = Noise(STOCHASTIC, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.linear = nnx.Linear(1, 1, rngs=rngs)

        def __call__(self, batch):
            return self.dropout(self.linear(self.noise(batch)["x"][:, None]))

    model = Model(nnx.Rngs(0))
    call = nnx.jit(lambda model, batch: model(batch))
    trained = call(model, fields())
    model.eval()
    evaluated = call(model, fields())
    np.testing.assert_allclose(evaluated, model.linear(fields()["x"][:, None]), rtol=1e-6)
    model.train()
    again = call(model, fields())
    assert (np.asarray(trained) != np.asarray(again)).any()


def test_draws_without_stochastic_are_an_error_at_construction():
    """An operator that would get None for its numbers says so before any data come."""
    with pytest.raises(ValueError, match=r"generate_random_params.* OperatorConfig\(stochastic"):
        Noise(OperatorConfig())

    def jitter(element, key):
        return element.update_data({"x": jax.random.normal(key, ())})

    with pytest.raises(ValueError, match=r"jitter uses its key.*ElementOperatorConfig\(stochastic"):
        ElementOperator(ElementOperatorConfig(), fn=jitter)
    with pytest.raises(ValueError, match="uses its key"):
        ElementOperator(
            ElementOperatorConfig(), fn=lambda e, key: (lambda: jax.random.normal(key))()
        )


def test_code_that_works_without_draws_is_taken():
    """A function that ignores its key, and an `apply` that asks for None."""

    class Optional(Noise):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            shift = 0 if random_params is None else random_params
            return {**data, "x": data["x"] + shift}, state, metadata

    assert Optional(OperatorConfig())(fields())["x"].tolist() == [0, 1, 2, 3]
    for fn in (lambda element, key: element, lambda element, key=None: element):
        ElementOperator(ElementOperatorConfig(), fn=fn)(fields())


def test_signatures_and_descriptions_are_real():
    """Editors show the constructor's arguments, and an operator is one line."""
    parameters = inspect.signature(Noise).parameters
    assert list(parameters) == ["config", "rngs", "name"]
    assert parameters["config"].annotation == "OperatorConfig"
    assert list(inspect.signature(ElementOperator).parameters) == ["config", "fn", "rngs", "name"]
    assert list(inspect.signature(noise()).parameters) == ["batch", "key"]
    assert repr(Noise(STOCHASTIC, rngs=nnx.Rngs(0), name="mine")) == (
        "Noise(stochastic=True, name='mine')"
    )
    assert repr(Double(OperatorConfig())) == "Double()"


def test_a_config_of_another_class_is_refused():
    """By the class attribute, with no check in the subclass."""
    with pytest.raises(TypeError, match="config of Double must be an OperatorConfig, got Datarax"):
        Double(DataraxModuleConfig())


def test_an_error_in_a_users_function_shows_the_users_line_last():
    """Within the last five frames, the first time and when it was compiled before."""

    def broken(element, key=None):
        return element.update_data({"x": element.data["missing"]})

    op = ElementOperator(ElementOperatorConfig(), fn=broken)
    for call in (op, jax.jit(op)):
        with pytest.raises(KeyError, match="missing") as caught:
            call(fields())
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "broken" in names[-5:]
        shown = [
            frame.frame.code.name
            for frame in caught.traceback.filter(lambda entry: not entry.ishidden(caught))
            if "datarax" in str(frame.path)
        ]
        assert len(shown) <= 3, shown


class Sampler:
    """A class with an equality of its own, which is Python's."""

    def __init__(self, size):
        self.size = size

    def __eq__(self, other):
        return isinstance(other, Sampler) and self.size == other.size

    def __hash__(self):
        return hash(self.size)

    def __repr__(self):
        return f"Sampler({self.size})"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, 1.0),
        (True, 1),
        (0.0, -0.0),
        ((1, 8), (1.0, 8)),
        ({"a": 1}, {"a": 1.0}),
        (Sampler(1), Sampler(1.0)),
    ],
    ids=["int-float", "bool-int", "signs", "nested", "dict", "sampler"],
)
@pytest.mark.parametrize("where", ["argument", "attribute"])
def test_what_is_compiled_depends_on_types_and_signs(first, second, where):
    """Two options that Python calls equal are still two."""

    class Says(OperatorModule):
        def __init__(self, option, **kwargs):
            super().__init__(OperatorConfig(), **kwargs)
            self.option = nnx.static(option) if isinstance(option, dict) else option

        def apply(self, data, state, metadata, random_params=None, stats=None):
            code = sum(map(ord, repr(self.option)))
            return {**data, "x": jnp.full_like(data["x"], code)}, state, metadata

    one, two = Says(first), Says(second)
    if where == "attribute":
        two = Says(first)
        two.option = second
    for op, option in ((one, first), (two, second), (one, first)):
        assert op(fields())["x"][0] == sum(map(ord, repr(option)))
    if where == "argument":
        call = nnx.jit(lambda op, batch: op(batch)["x"][0])
        assert call(one, fields()) != call(two, fields())


def test_an_option_that_is_nan_equals_itself():
    """So that what was compiled for it is found again."""
    option = float("nan")
    assert Exact(option) == Exact(option)
    assert Exact((option, 1)) != Exact((option, 1.0))


def test_a_stream_that_nnx_jit_bound_to_a_device_follows_the_batch():
    """After `nnx.jit` on one device, a call on eight devices draws the next numbers."""
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    op, twin = noise(), noise()
    batch = Batch.from_arrays({"x": np.zeros(8, np.float32)})
    for each in (op, twin):
        on_one = jax.device_put(batch, jax.devices()[1])
        nnx.jit(lambda op, batch: op(batch))(each, on_one)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    spread = jax.device_put(batch, NamedSharding(mesh, P("data")))
    np.testing.assert_allclose(op(spread)["x"], twin(batch)["x"], rtol=1e-6)


def test_a_batch_reads_like_a_mapping_and_like_rows():
    """items, values and slices, with everything that belongs to the rows."""
    batch = Batch.from_arrays(
        {"x": np.arange(5), "y": np.arange(5.0)},
        metadata=np.array(["a", "b", "c", "d", "e"]),
        record_index=np.arange(5),
        view=np.zeros(5, int),
    )
    assert dict(batch.items()).keys() == {"x", "y"}
    assert [value.shape for value in batch.values()] == [(5,), (5,)]
    part = batch[1:4:2]
    assert part["x"].tolist() == [1, 3]
    assert part.metadata == ("b", "d")
    assert part.record_index.tolist() == [1, 3]
    assert len(batch[-2:]) == 2
    assert len(batch[::-1]) == 5
    with pytest.raises(TypeError, match=r"batch\['image'\].* batch\[2:5\], got 2; .*element\(2\)"):
        batch[2]
    gc.collect()


def test_making_a_batch_of_elements_by_hand_names_the_way():
    """`Batch([element])` says to write `from_elements`."""
    with pytest.raises(TypeError, match=r"Batch\(list, ...\) lacks its valid_mask.*from_el"):
        Batch([1])
