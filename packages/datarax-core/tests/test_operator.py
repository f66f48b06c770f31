"""Operators: what apply and its relatives get and what becomes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch, Element
from datarax.core.operator import OperatorModule
from datarax.operators import ElementOperator, ElementOperatorConfig


class Shift(OperatorModule):
    """Subtracts the mean of its statistics from `x` and counts calls in the state."""

    def apply(self, data, state, metadata, random_params=None, stats=None):
        assert metadata is None
        mean = jnp.float32(0) if stats is None else stats["mean"].astype(jnp.float32)
        return {**data, "x": data["x"] - mean}, {**state, "n": state["n"] + 1}, metadata


def batch(rows=5, **fields):
    data = {"x": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2), "id": np.arange(rows)}
    fields = {"metadata": [f"row {row}" for row in range(rows)], "batch_metadata": "b", **fields}
    return Batch.from_arrays(data, states={"n": np.zeros(rows, np.int32)}, **fields)


CALLS = pytest.mark.parametrize(
    "call",
    [
        lambda op, b: op(b),
        lambda op, b: op.apply_batch(b),
        lambda op, b: nnx.jit(lambda op, b: op(b))(op, b),
        lambda op, b: jax.jit(lambda b: op(b))(b),
    ],
    ids=["call", "apply_batch", "nnx.jit", "jax.jit"],
)
STRATEGIES = pytest.mark.parametrize("strategy", ["vmap", "scan"])


@CALLS
@STRATEGIES
def test_every_record_is_transformed(call, strategy):
    """All ways to call and both strategies give the same data, states, mask and indices."""
    op = Shift(OperatorConfig(precomputed_stats={"mean": 2.0}, batch_strategy=strategy))
    mask = np.array([True, True, False, True, True])
    b = batch(valid_mask=mask, record_index=np.arange(5), epoch=1)
    out = call(op, b)
    np.testing.assert_array_equal(out["x"], b["x"] - 2)
    np.testing.assert_array_equal(out["id"], b["id"])
    np.testing.assert_array_equal(out.states["n"], 1)
    np.testing.assert_array_equal(out.valid_mask, mask)
    np.testing.assert_array_equal(out.record_index, np.arange(5))
    assert int(out.epoch) == 1


def test_metadata_is_attached_again_and_never_anothers():
    """op(batch) returns the metadata of its own argument, compiled once."""
    op = Shift(OperatorConfig())
    one, two = batch(), batch(metadata=[1, 2, 3, 4, 5], batch_metadata=None)
    for b in (one, two, one):
        out = op(b)
        assert out.metadata == b.metadata
        assert out.batch_metadata == b.batch_metadata


def test_untouched_fields_are_the_same_objects():
    """What apply passes through is neither copied nor moved nor narrowed."""
    b = batch()
    out = Shift(OperatorConfig())(b)
    assert out["id"] is b["id"]
    assert out["id"].dtype == np.int64
    assert out.valid_mask is b.valid_mask
    assert out["x"] is not b["x"]


def test_explicit_statistics_replace_the_operators_own():
    """apply_batch(batch, stats) passes these statistics on."""
    op = Shift(OperatorConfig(precomputed_stats={"mean": 2.0}))
    b = batch()
    out = op.apply_batch(b, {"mean": jnp.float32(1)})
    np.testing.assert_array_equal(out["x"], b["x"] - 1)


def test_new_statistics_reach_the_next_call():
    """set, compute and reset of statistics act on compiled calls at once."""
    op = Shift(OperatorConfig(batch_stats_fn=lambda data: {"mean": data["x"].mean()}))
    b = batch()
    np.testing.assert_array_equal(op(b)["x"], b["x"])
    op.compute_statistics(b.data)
    np.testing.assert_array_equal(op(b)["x"], b["x"] - 4.5)
    op.set_statistics({"mean": 3.0})
    np.testing.assert_array_equal(op(b)["x"], b["x"] - 3)
    op.reset_statistics()
    np.testing.assert_array_equal(op(b)["x"], b["x"])


@pytest.mark.parametrize("call", ["op", "apply_batch", "nnx.jit"])
def test_valid_records_are_counted(call):
    """Padding is not counted, and skipped records are counted apart."""

    class Some(Shift):
        def applied_records(self, random_params):
            return jnp.arange(5) >= 2

    op = Some(OperatorConfig())
    run = {"op": op, "apply_batch": op.apply_batch}.get(call)
    run = run or (lambda b: nnx.jit(lambda op, b: op(b))(op, b))
    for _ in range(2):
        run(batch(valid_mask=np.array([True, False, True, False, True])))
    assert op.get_operation_stats() == {"applied_count": 4, "skipped_count": 2}


def test_an_overridden_apply_batch_is_counted_too():
    """A batch-level operator that counts nothing itself has its valid records counted."""

    class Center(OperatorModule):
        def apply_batch(self, batch, stats=None):
            return batch.replace(data={"x": batch["x"] - batch["x"].mean(0)})

    op = Center(OperatorConfig())
    out = op(batch(valid_mask=np.arange(5) < 3))
    np.testing.assert_allclose(out["x"].mean(0), 0)
    assert out.metadata == batch().metadata
    assert op.get_operation_stats() == {"applied_count": 3, "skipped_count": 0}


def test_parameters_learn_through_the_operator():
    """nnx.grad and nnx.Optimizer train a parameter inside apply."""

    class Scale(OperatorModule):
        def __init__(self, config):
            super().__init__(config)
            self.scale = nnx.Param(jnp.float32(0))

        def apply(self, data, state, metadata, random_params=None, stats=None):
            return {"x": data["x"] * self.scale}, state, metadata

    op = Scale(OperatorConfig())
    b = Batch.from_arrays({"x": np.float32([[1.0], [2.0]])})
    optimizer = nnx.Optimizer(op, optax.sgd(0.2), wrt=nnx.Param)

    @nnx.jit
    def step(op, optimizer, b):
        loss, grads = nnx.value_and_grad(lambda op: ((op(b)["x"] - 3 * b["x"]) ** 2).mean())(op)
        optimizer.update(op, grads)
        return loss

    losses = [step(op, optimizer, b) for _ in range(30)]
    assert losses[-1] < 1e-3 < losses[0]
    np.testing.assert_allclose(op(b)["x"], [[3.0], [6.0]], rtol=1e-2)


def test_an_operator_nested_in_a_module_keeps_its_state():
    """Parameters and counts of an operator inside a model live in the model's state."""

    class Model(nnx.Module):
        def __init__(self):
            self.augment = Shift(OperatorConfig())

        def __call__(self, b):
            return self.augment(b)["x"].sum()

    model = Model()
    nnx.jit(lambda m, b: m(b))(model, batch())
    assert model.augment.get_operation_stats()["applied_count"] == 5


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (
            lambda self, d, s, m, p=None, st=None: d,
            r"must return \(data, state, metadata\), got dict",
        ),
        (OperatorModule.apply, "must implement apply"),
    ],
    ids=["wrong result", "missing"],
)
def test_a_wrong_apply_is_named(apply, message):
    """The class whose apply is missing or returns something else is named."""
    kind = type("Broken", (OperatorModule,), {"apply": apply})
    with pytest.raises((TypeError, NotImplementedError), match=f"Broken.*{message}|{message}"):
        kind(OperatorConfig())(batch())


def test_random_params_must_have_the_batch_first():
    """One draw for a batch has to be declared, instead of being broadcast by accident."""

    class Once(OperatorModule):
        def generate_random_params(self, rng, data_shapes):
            return {"shift": jax.random.normal(rng, (3,))}

        def apply(self, data, state, metadata, random_params=None, stats=None):
            return data, state, metadata

    op = Once(OperatorConfig(stochastic=True), rngs=nnx.Rngs(0), name="once")
    message = (
        r"random_params\['shift'\] .* Once 'once' must have axis 0 of length 5, .*shape \(3,\)"
    )
    with pytest.raises(ValueError, match=message):
        op(batch())
    with pytest.raises(ValueError, match="must have axis 0 of length 1"):
        op(batch(record_index=np.arange(5)))
    with pytest.raises(NotImplementedError, match="must implement generate_random_params"):
        Shift(OperatorConfig(stochastic=True), rngs=nnx.Rngs(0))(batch())


def test_only_batches_are_transformed():
    """Anything else is refused, with the way to make a batch of it."""
    with pytest.raises(TypeError, match=r"a Batch or a dict of arrays .*Batch.from_arrays"):
        Shift(OperatorConfig())(np.zeros((2, 2)))
    with pytest.raises(TypeError, match=r"transforms a Batch, got dict; .*Batch.from_arrays"):
        Shift(OperatorConfig()).apply_batch({"x": np.zeros((2, 2))})


def test_output_structure_is_found_without_computing():
    """The default finds added fields by tracing, with None in place of arrays."""
    op = ElementOperator(
        ElementOperatorConfig(stochastic=True),
        fn=lambda e, key: e.update_data({"y": jax.random.normal(key, (3,))}),
        rngs=nnx.Rngs(0),
    )
    data, state = op.get_output_structure({"x": np.zeros(2, np.float32)}, {"n": np.int32(0)})
    assert data == {"x": None, "y": None}
    assert state == {"n": None}


def test_a_declared_output_structure_is_kept():
    """An override that promises another structure than apply returns is an error."""

    class Declares(Shift):
        def get_output_structure(self, sample_data, sample_state):
            return {**jax.tree.map(lambda _: None, sample_data), "score": None}, sample_state

    with pytest.raises(ValueError, match=r"data from apply must have the structure .*score"):
        Declares(OperatorConfig())(batch())


def test_output_spec():
    """Operators keep the spec by default; an element function's is found by tracing."""
    spec = {"x": jax.ShapeDtypeStruct((2,), jnp.float32)}
    assert Shift(OperatorConfig()).output_spec(spec) is spec
    op = ElementOperator(
        ElementOperatorConfig(),
        fn=lambda e, key=None: e.replace(data={"y": e.data["x"].sum().astype(jnp.bfloat16)}),
    )
    assert op.output_spec(spec) == {"y": jax.ShapeDtypeStruct((), jnp.bfloat16)}


def test_element_functions_get_an_element_and_a_key_of_their_own():
    """Deterministic functions get None as key, stochastic ones a different key per record."""
    keys = []

    def fn(element, key=None):
        keys.append(key)
        assert isinstance(element, Element)
        return element.update_data({"x": element.data["x"] * 2})

    b = batch()
    np.testing.assert_array_equal(
        ElementOperator(ElementOperatorConfig(), fn=fn)(b)["x"], 2 * b["x"]
    )
    assert keys == [None]

    def noisy(element, key):
        return element.update_data({"u": jax.random.bits(key)})

    config = ElementOperatorConfig(stochastic=True, stream_name="noise")
    op = ElementOperator(config, fn=noisy, rngs=nnx.Rngs(noise=0))
    assert len(np.unique(op(b)["u"])) == 5


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (3, "fn must be callable .* got int"),
        (lambda element: element, "fn must take an element and a key"),
        (lambda element, key, more: element, "fn must take an element and a key"),
    ],
    ids=["no function", "one argument", "three arguments"],
)
def test_a_wrong_element_function_is_refused_at_construction(fn, message):
    """A function that cannot be called with element and key is refused before any data."""
    with pytest.raises(TypeError, match=message):
        ElementOperator(ElementOperatorConfig(), fn=fn)


def test_an_element_function_must_return_an_element():
    """A dict in place of the element is refused when it is traced."""
    op = ElementOperator(ElementOperatorConfig(), fn=lambda e, key=None: e.data)
    with pytest.raises(TypeError, match="fn must return an Element, got dict"):
        op(batch())


def test_a_learnable_element_function_is_part_of_the_operator():
    """An nnx.Module as fn has its parameters in the operator's state, and copies have their own."""

    class Gain(nnx.Module):
        def __init__(self):
            self.gain = nnx.Param(jnp.float32(2))

        def __call__(self, element, key=None):
            return element.update_data({"x": element.data["x"] * self.gain})

    op = ElementOperator(ElementOperatorConfig(), fn=Gain())
    twin = op.copy()
    op.fn.gain.set_value(jnp.float32(3))
    b = batch()
    np.testing.assert_array_equal(op(b)["x"], 3 * b["x"])
    np.testing.assert_array_equal(twin(b)["x"], 2 * b["x"])
    np.testing.assert_array_equal(op.copy()(b)["x"], 3 * b["x"])
    assert op.get_state()["fn"]["gain"] == 3


class Returns(OperatorModule):
    """Returns what it was made with."""

    def __init__(self, data, state):
        super().__init__(OperatorConfig())
        self.made = {"data": data, "state": state}

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return self.made["data"], self.made["state"], metadata


class Forgets(OperatorModule):
    """Returns nothing for a batch."""

    def apply_batch(self, batch, stats=None):
        return None


@pytest.mark.parametrize(
    ("operator", "error", "message"),
    [
        (lambda: Returns({"x": None}, {}), TypeError, r"data\['x'\] a value, got None"),
        (lambda: Returns(None, {}), TypeError, "Returns must return data, got None"),
        (lambda: Returns({"valid_mask": 1}, {}), ValueError, r"not write data\['valid_mask'\]"),
        (lambda: Returns({"x": 1}, {"valid_mask": 1}), ValueError, "not write state"),
        (lambda: Forgets(OperatorConfig()), TypeError, "Forgets must return a Batch, got NoneType"),
    ],
    ids=["field", "data", "mask", "mask in state", "batch"],
)
def test_results_without_a_value_and_masks_are_refused(operator, error, message):
    """What an operator forgets to return, or writes over the mask, is named."""
    with pytest.raises(error, match=message):
        operator()({"x": np.zeros(2, np.float32)})
