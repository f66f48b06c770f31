"""Calls where JAX is told to be strict: what it forbids to the caller does not reach ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.core.statistics import RunningStatistics

pytestmark = pytest.mark.usefixtures("quick_compiles")


class Shift(OperatorModule):
    """Adds a row of numbers to the rows `(2, 3)` of every record."""

    def generate_random_params(self, rng, data_shapes):
        return jax.random.normal(rng, (data_shapes["x"][0], 3))

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "x": data["x"] + random_params}, state, metadata


def shift():
    return Shift(OperatorConfig(stochastic=True), rngs=nnx.Rngs(0))


def rows():
    return Batch.from_arrays({"x": np.arange(24, dtype=np.float32).reshape(4, 2, 3)})


def test_operators_broadcast_where_callers_must_not():
    """`jax_numpy_rank_promotion="raise"` is for the caller's own arithmetic."""
    expected = shift()(rows())
    with jax.numpy_rank_promotion("raise"):
        out = shift()(rows())
        traced = jax.eval_shape(
            lambda batch, key: shift()(batch, key=key), rows(), jax.random.key(0)
        )
    np.testing.assert_array_equal(out["x"], expected["x"])
    assert traced["x"].shape == expected["x"].shape


def test_what_a_caller_hands_over_is_transferred_under_a_guard():
    """With `jax.transfer_guard("disallow")`, calls take host arrays, masks, keys and own counts."""
    raw = np.asarray(jax.random.PRNGKey(1))
    calls = [
        lambda op, batch: op(batch)["x"],
        lambda op, batch: op(batch.as_dict())["x"],
        lambda op, batch: op(jax.device_put(batch), key=raw)["x"],
        lambda op, batch: op.recycle(jax.device_put(batch), spent=op(batch))["x"],
        lambda op, batch: op.copy()(batch)["x"],
    ]
    expected = [call(shift(), rows()) for call in calls]
    operators = [shift() for _ in calls]
    with jax.transfer_guard("disallow"):
        came = [call(op, rows()) for call, op in zip(calls, operators, strict=True)]
        with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
            jnp.add(came[0], np.ones(3, np.float32))
    for one, other in zip(came, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_batches_and_statistics_on_a_device_work_under_a_guard():
    """Rows are taken and joined, and fields counted, with numbers of ours."""
    batch = jax.device_put(rows())
    with jax.transfer_guard("disallow"):
        joined = Batch.concatenate([batch[1:3], batch.select(np.arange(4) < 2).compact()])
        result = RunningStatistics().update(joined).update(joined).result()
    x = rows()["x"]
    both = np.concatenate([x[1:3], x[:2]])
    np.testing.assert_array_equal(joined["x"], both)
    np.testing.assert_allclose(result["x"]["mean"], both.mean(), rtol=1e-6)
