"""The compiled call: one trace for what is alike, and always the truth about the operator."""

import gc
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import _compiled, _dispatch
from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.operators import ElementOperator, ElementOperatorConfig


class Traced(OperatorModule):
    """Adds an offset to `x` and notes every trace."""

    traces = 0

    def __init__(self, config, *, rngs=None, name=None):
        super().__init__(config, rngs=rngs, name=name)
        self.offset = nnx.Param(jnp.float32(1))
        self.factor = 1.0

    def apply(self, data, state, metadata, random_params=None, stats=None):
        type(self).traces += 1
        x = data["x"] * np.float32(self.factor) + self.offset
        if stats is not None:
            x = x - stats["mean"].astype(jnp.float32)
        return {**data, "x": x}, state, metadata


@pytest.fixture
def traced():
    """A fresh class of operators, whose traces nobody else has counted."""
    return type("Fresh", (Traced,), {"traces": 0})


def batch(rows=4, **fields):
    return Batch.from_arrays({"x": jnp.arange(rows, dtype=jnp.float32)}, **fields)


def test_one_trace_for_other_values_masks_and_metadata(traced):
    """Values, masks, metadata, parameters and statistics change without a new trace."""
    op = traced(OperatorConfig(precomputed_stats={"mean": np.float32(0)}))
    op(batch())
    op(batch(valid_mask=np.arange(4) < 2, metadata=list("abcd")))
    op.offset.set_value(jnp.float32(5))
    np.testing.assert_array_equal(op(batch())["x"], np.arange(4) + 5)
    assert traced.traces == 1
    op.set_statistics({"mean": np.float32(0)})
    op(batch())
    op.set_statistics({"mean": np.float32(2)})
    np.testing.assert_array_equal(op(batch())["x"], np.arange(4) + 3)
    assert traced.traces == 2
    op(batch(5))
    assert traced.traces == 3


def test_equal_operators_share_a_trace(traced):
    """A second operator of equal config is not compiled again, and keeps its own values."""
    one, two = traced(OperatorConfig()), traced(OperatorConfig())
    two.offset.set_value(jnp.float32(7))
    assert float(one(batch())["x"][0]) == 1
    assert float(two(batch())["x"][0]) == 7
    assert traced.traces == 1
    assert one.get_operation_stats() == two.get_operation_stats()


def test_a_changed_attribute_is_seen(traced):
    """Setting a plain attribute or exchanging a Variable takes effect on the next call."""
    op = traced(OperatorConfig())
    assert float(op(batch())["x"][3]) == 4
    op.factor = 2.0
    assert float(op(batch())["x"][3]) == 7
    op.offset = nnx.Param(jnp.float32(0))
    assert float(op(batch())["x"][3]) == 6
    op.factor = 1.0
    assert float(op(batch())["x"][3]) == 3


def test_a_changed_nested_attribute_is_seen():
    """A change inside a submodule, list or dict of the operator takes effect too."""

    class Inner(nnx.Module):
        def __init__(self):
            self.weights = nnx.List([nnx.Param(jnp.float32(1))])
            self.power = 1

    class Outer(OperatorModule):
        def __init__(self, config):
            super().__init__(config)
            self.inner = Inner()

        def apply(self, data, state, metadata, random_params=None, stats=None):
            x = sum(w * data["x"] ** self.inner.power for w in self.inner.weights)
            return {"x": x}, state, metadata

    op = Outer(OperatorConfig())
    assert float(op(batch())["x"][3]) == 3
    op.inner.power = 2
    assert float(op(batch())["x"][3]) == 9
    op.inner.weights.append(nnx.Param(jnp.float32(10)))
    assert float(op(batch())["x"][3]) == 99


@pytest.mark.parametrize("library", [jnp, np], ids=["jax", "numpy"])
def test_a_plain_array_is_a_constant_of_the_operator(library):
    """An array attribute is used, exchanged, copied and cloned, and is no part of the state."""

    class Center(OperatorModule):
        def __init__(self, config, mean):
            super().__init__(config)
            self.mean = mean

        def apply(self, data, state, metadata, random_params=None, stats=None):
            return {"x": data["x"] - self.mean}, state, metadata

    op = Center(OperatorConfig(), library.asarray(np.float32(1)))
    assert float(op(batch())["x"][3]) == 2
    for twin in (op.copy(), op.clone()):
        assert float(twin(batch())["x"][3]) == 2
    assert "mean" not in op.get_state()
    op.set_state(op.get_state())
    op.mean = library.asarray(np.float32(3))
    assert float(op(batch())["x"][3]) == 0


def test_a_plain_array_that_changes_in_a_call_is_refused():
    """A change that a compiled call would lose is an error that names the attribute."""

    class Tally(OperatorModule):
        def __init__(self, config):
            super().__init__(config)
            self.total = jnp.float32(0)

        def apply_batch(self, batch, stats=None):
            self.total = self.total + batch["x"].sum()
            return batch

    with pytest.raises(ValueError, match=r"Tally changed its array total .* in an nnx.Variable"):
        Tally(OperatorConfig())(batch())


def test_variables_tell_the_truth_after_every_call():
    """State that apply_batch changes is in its Variable at once, for split and checkpoints."""

    class Tally(OperatorModule):
        def __init__(self, config):
            super().__init__(config)
            self.seen = nnx.Variable(jnp.float32(0))

        def apply_batch(self, batch, stats=None):
            self.seen[...] += batch["x"].sum()
            return batch

    op = Tally(OperatorConfig())
    op(batch())
    op(batch())
    assert float(op.seen.get_value()) == 12
    assert float(nnx.state(op)["seen"].get_value()) == 12
    assert op.get_state()["_operation_count"][0, 0] == 8


class Offset(OperatorModule):
    """Adds a number that its Variable holds on the host, and skips odd rows."""

    traces = 0

    def __init__(self, config, value):
        super().__init__(config)
        self.offset = nnx.Variable(value)

    def apply_batch(self, batch, stats=None):
        type(self).traces += 1
        even = jnp.arange(len(batch)) % 2 == 0
        self.count_operations(batch.valid_mask, applied=even)
        x = jnp.where(even, batch["x"] + jnp.float32(self.offset.get_value()), batch["x"])
        return batch.replace(data={"x": x})


def test_a_number_on_the_host_is_the_variables_latest():
    """A number that stayed the same for some calls takes effect when it changes, untraced."""
    kind = type("Fresh", (Offset,), {"traces": 0})
    op = kind(OperatorConfig(), np.float32(1))
    for value in (1, 1, 1, 5, 5, 5, 1):
        if float(op.offset.get_value()) != value:
            op.offset.set_value(np.float32(value))
        assert float(op(batch())["x"][2]) == 2 + value
    assert kind.traces == 1


def test_a_number_of_64_bits_keeps_its_precision():
    """What was computed in 32 bits is no substitute once 64 are wanted."""
    third = np.float64(1) / 3

    class Hold(OperatorModule):
        def __init__(self, config):
            super().__init__(config)
            self.third = nnx.Variable(third)

        def apply_batch(self, batch, stats=None):
            return batch.replace(data={"x": jnp.broadcast_to(self.third.get_value(), (4,))})

    op = Hold(OperatorConfig())
    op(batch())
    op(batch())
    with jax.enable_x64(True):
        assert float(op(batch())["x"][0]) == third


def test_recycling_knows_numbers_of_python():
    """A Variable that holds a Python number is no hindrance to recycling."""
    op = Offset(OperatorConfig(), 3.0)
    fresh = op(batch())
    assert float(op.recycle(batch(), spent=fresh)["x"][2]) == 5


def test_batches_may_be_on_other_devices_than_those_before():
    """Counts that a call left on its devices follow to those of the next batch."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "data")
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    op = Offset(OperatorConfig(), np.float32(1))
    for place in (spread, jax.devices()[3], jax.devices()[1], spread):
        out = op(jax.device_put(batch(8), place))
        np.testing.assert_array_equal(out["x"], np.arange(8) + (np.arange(8) % 2 == 0))
    second = jax.device_put(batch(8), jax.devices()[2])
    out = op.recycle(second, spent=op(second))
    assert out["x"].devices() == {jax.devices()[2]}
    assert op.get_operation_stats() == {"applied_count": 24, "skipped_count": 24}


@pytest.mark.parametrize("cacheable", [False, True])
def test_counts_follow_from_one_accelerator_to_another(monkeypatch, traced, cacheable):
    """Rows that are counted on the batch's device are added to a count from another."""
    monkeypatch.setattr(type(jnp.ones(1)), "platform", lambda self: "accelerator")
    op = traced(OperatorConfig(cacheable=cacheable))
    for device in jax.devices()[1:4]:
        placed = jax.device_put(batch(), device)
        for _ in range(2):
            assert op(placed)["x"].devices() == {device}
    assert op.get_operation_stats()["applied_count"] == 24


def test_an_operators_own_error_is_raised_once():
    """An operator that raises is not called again, wherever its counts are."""

    class Refuse(Offset):
        calls = 0

        def apply_batch(self, batch, stats=None):
            type(self).calls += len(batch) == 3
            if len(batch) == 3:
                raise ValueError("three rows")
            return super().apply_batch(batch)

    op = Refuse(OperatorConfig(), np.float32(1))
    op(batch())
    with pytest.raises(ValueError, match="three rows"):
        op(Batch.from_arrays({"x": np.zeros(3, np.float32)}))
    assert Refuse.calls == 1


def test_an_unhashable_attribute_still_compiles(traced):
    """An attribute that cannot be hashed keeps the operator from sharing, once for each mode."""

    class Unhashable:
        __hash__ = None

        def __eq__(self, other):
            return self is other

    op = traced(OperatorConfig())
    op.extra = Unhashable()
    for _ in range(3):
        op.train()
        op(batch())
        op.eval()
        op(batch())
    # A deterministic operator is traced in evaluation too.
    assert traced.traces == 2


def test_a_dropped_operator_is_freed(traced):
    """The compiled call keeps no operator alive."""
    op = traced(OperatorConfig())
    op(batch())
    gone = weakref.ref(op)
    del op
    gc.collect()
    assert gone() is None


class Table:
    """Something large, which can be asked whether it is still there."""

    def __init__(self):
        self.values = np.arange(4, dtype=np.float32)


def closes_over(table):
    return ElementOperator(
        ElementOperatorConfig(), fn=lambda e, key: e.update_data({"x": e.data["x"] + table.values})
    )


def has_as_default(table):
    def fn(element, key, table=table):
        return element.update_data({"x": element.data["x"] + table.values})

    return ElementOperator(ElementOperatorConfig(), fn=fn)


@pytest.mark.parametrize("make", [closes_over, has_as_default])
def test_what_an_operator_closes_over_goes_with_it(make):
    """As with plain jax.jit, no compiled call keeps a table alive that nobody else has."""
    table = Table()
    op, gone = make(table), weakref.ref(table)
    np.testing.assert_array_equal(op({"x": np.ones((2, 4), np.float32)})["x"], [[1, 2, 3, 4]] * 2)
    del op, table
    gc.collect()
    assert gone() is None


def test_an_operator_that_is_gone_leaves_its_call_to_equal_ones(traced):
    """A loop that makes its operator anew compiles once, where nothing of the caller's is held."""
    for _ in range(3):
        traced(OperatorConfig())(batch())
        gc.collect()
    assert traced.traces == 1


def test_threads_share_an_operator():
    """Eight threads draw 400 different numbers, and every record is counted."""

    class Draw(OperatorModule):
        def generate_random_params(self, rng, data_shapes):
            return jax.random.bits(rng, data_shapes["x"][:1])

        def apply(self, data, state, metadata, random_params=None, stats=None):
            return {"x": random_params}, state, metadata

    op = Draw(OperatorConfig(stochastic=True), rngs=nnx.Rngs(0))
    start = threading.Barrier(8)

    def run(_):
        start.wait()
        return [int(op({"x": np.zeros(1, np.uint32)})["x"][0]) for _ in range(50)]

    with ThreadPoolExecutor(8) as pool:
        drawn = [number for numbers in pool.map(run, range(8)) for number in numbers]
    assert len(set(drawn)) == 400
    assert op.get_operation_stats()["applied_count"] == 400


def test_the_shared_calls_are_bounded(monkeypatch, traced):
    """The oldest static part is forgotten when too many are kept."""
    monkeypatch.setattr(_compiled, "_runs", type(_compiled._runs)())
    monkeypatch.setattr(_compiled, "_kept", type(_compiled._kept)())
    monkeypatch.setattr(_compiled, "MAX_KEPT_RUNS", 2)
    for name in "abc":
        traced(OperatorConfig(), name=name)(batch())
    gc.collect()
    assert len(_compiled._runs) == len(_compiled._kept) == 2


def test_disable_jit_gives_the_same(traced):
    """With compilation switched off, results and counts are the same."""
    op = traced(OperatorConfig())
    with jax.disable_jit():
        np.testing.assert_array_equal(op(batch())["x"], np.arange(4) + 1)
    assert op.get_operation_stats()["applied_count"] == 4


def test_a_called_operator_can_be_pickled():
    """What a call keeps for itself is not part of the operator."""
    op = Traced(OperatorConfig(), name="kept")
    op(batch())
    twin = pickle.loads(pickle.dumps(op))
    np.testing.assert_array_equal(twin(batch())["x"], op(batch())["x"])
    assert twin.get_operation_stats() == op.get_operation_stats()


def cached(traced, **options):
    return traced(OperatorConfig(cacheable=True, **options))


def test_the_cache_returns_the_same_result_for_the_same_arrays(traced):
    """The very same arrays give the very same result, counted and with their own metadata."""
    op = cached(traced)
    b = batch(metadata=list("abcd"), valid_mask=jnp.array([True, True, True, False]))
    first = op(b)
    again = op(b.replace(metadata=list("efgh")))
    assert again["x"] is first["x"]
    assert again.metadata == tuple("efgh")
    assert op.get_operation_stats() == {"applied_count": 6, "skipped_count": 0}
    op.reset_cache()
    assert op(b)["x"] is not first["x"]


def test_the_cache_is_off_by_default(traced):
    """Without cacheable=True every call computes."""
    op, b = traced(OperatorConfig()), batch()
    assert op(b)["x"] is not op(b)["x"]


@pytest.mark.parametrize(
    "change",
    [
        lambda op: op.offset.set_value(jnp.float32(3)),
        lambda op: op.set_statistics({"mean": 1.0}),
        lambda op: op.reset_statistics(),
        lambda op: setattr(op, "factor", 4.0),
    ],
    ids=["parameter", "statistics", "reset", "attribute"],
)
def test_the_cache_drops_what_changed(traced, change):
    """A change of parameters, statistics or attributes is never answered from the cache."""
    op = cached(traced, precomputed_stats={"mean": 0.5})
    b = batch()
    before = np.asarray(op(b)["x"])
    change(op)
    fresh = np.asarray(op(b)["x"])
    op.reset_cache()
    np.testing.assert_array_equal(fresh, op(b)["x"])
    assert not np.array_equal(before, fresh)


def test_the_cache_never_answers_for_arrays_that_can_change(traced):
    """A NumPy array that was changed in place is computed again."""
    op = cached(traced)
    x = np.zeros(4, np.float32)
    b = Batch.from_arrays({"x": x})
    assert float(op(b)["x"][0]) == 1
    x[0] = 9
    assert float(op(b)["x"][0]) == 10


def test_the_cache_is_bounded_and_keeps_no_input_alive(traced):
    """Entries go with their arrays, and the number of entries has a limit."""
    op = cached(traced)
    batches = [batch() for _ in range(20)]
    for b in batches:
        op(b)
    entries = _dispatch._calls[op].bindings[0].cache._entries
    assert len(entries) == 8
    del b, batches
    gc.collect()
    assert len(entries) == 0


def test_an_operator_that_changes_state_is_not_cached():
    """A result that comes with a change of state is computed every time."""

    class Tally(OperatorModule):
        def __init__(self, config):
            super().__init__(config)
            self.calls = nnx.Variable(jnp.int32(0))

        def apply_batch(self, batch, stats=None):
            self.calls[...] += 1
            return batch.replace(data={"x": batch["x"] + 1})

    op, b = Tally(OperatorConfig(cacheable=True)), batch()
    op(b)
    op(b)
    assert int(op.calls.get_value()) == 2
