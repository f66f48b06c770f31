"""Batches on a mesh whose axes are explicit, which `jax.make_mesh` makes by default since 0.9."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from datarax.core.element_batch import Batch
from datarax.operators import (
    ElementOperator,
    ElementOperatorConfig,
    SelectorOperator,
    SelectorOperatorConfig,
)


@pytest.fixture
def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))


def make_batch(mesh=None, **fields):
    def placed(array):
        return array if mesh is None else jax.device_put(array, NamedSharding(mesh, P("data")))

    image = np.random.default_rng(0).random((16, 4, 3), np.float32)
    data = {"image": placed(image), "label": placed(np.arange(16, dtype=np.int32))}
    return Batch.from_arrays(data, **fields)


def noisy(element, key):
    image = element.data["image"] + jax.random.uniform(key, element.data["image"].shape)
    return element.update_data({"image": image, "largest": image.max()})


def make_op():
    return ElementOperator(ElementOperatorConfig(stochastic=True), fn=noisy, rngs=nnx.Rngs(0))


def assert_like(expected, out, mesh):
    jax.tree.map(np.testing.assert_array_equal, expected.data, out.data)
    for name in ("image", "label", "largest"):
        assert jax.typeof(out[name]).sharding.spec[0] == "data"
        assert jax.typeof(out[name]).sharding.mesh == mesh.abstract_mesh


def test_calls_give_what_one_device_gives_with_the_rows_where_they_were(mesh):
    """Results, streams and counts agree, call after call; what was not touched is the same."""
    one, many = make_op(), make_op()
    for _ in range(2):
        batch = make_batch(mesh)
        out = many(batch)
        assert_like(one(make_batch()), out, mesh)
        assert out["label"] is batch["label"]
    assert many.get_operation_stats() == one.get_operation_stats()
    jax.tree.map(np.testing.assert_array_equal, many.get_state(), one.get_state())


@pytest.mark.parametrize("context", [False, True], ids=["no context", "set_mesh"])
def test_calls_inside_a_jit_agree(mesh, context):
    """Traced inline, with an operator made outside or inside of a mesh context."""
    index = np.arange(16)
    expected = make_op()(make_batch(record_index=index))
    if context:
        with jax.set_mesh(mesh):
            op = make_op()
            out = jax.jit(lambda batch: op(batch))(make_batch(mesh, record_index=index))
    else:
        op = make_op()
        out = jax.jit(lambda batch: op(batch))(make_batch(mesh, record_index=index))
    assert_like(expected, out, mesh)


def test_a_key_reaches_compositions_in_a_jit(mesh):
    """An explicit key draws what it draws on one device."""

    def build():
        config = SelectorOperatorConfig()
        return SelectorOperator(config, operators=[make_op()], rngs=nnx.Rngs(1))

    expected = build()(make_batch(), key=jax.random.key(3))
    with jax.set_mesh(mesh):
        op, key = build(), jax.random.key(3)
        out = jax.jit(lambda batch, key: op(batch, key=key))(make_batch(mesh), key)
    np.testing.assert_allclose(out["image"], expected["image"], rtol=1e-5, atol=1e-6)
    assert jax.typeof(out["image"]).sharding.spec[0] == "data"


def test_calls_inside_nnx_jit_advance_the_stream(mesh):
    """State that a call inside a trace leaves is that of one device."""
    one, many = make_op(), make_op()
    step = nnx.jit(lambda op, batch: op(batch))
    for _ in range(2):
        assert_like(one(make_batch()), step(many, make_batch(mesh)), mesh)
    assert many.get_operation_stats() == one.get_operation_stats()


def test_a_stream_that_cannot_advance_is_an_error(mesh):
    """As with automatic axes, no jit that closes over the operator or takes it repeats draws."""
    op, batch = make_op(), make_batch(mesh)
    for call in (jax.jit(lambda batch: op(batch)), lambda batch: jax.jit(lambda op: op(batch))(op)):
        with pytest.raises(ValueError, match=r"cannot advance its random stream .* key=key"):
            call(batch)


def test_recycling_keeps_the_sharding(mesh):
    """Memory of an earlier result serves on all devices."""
    one, many = make_op(), make_op()
    one(make_batch())
    spent = many(make_batch(mesh))
    out = many.recycle(make_batch(mesh), spent=spent)
    assert spent["image"].is_deleted()
    assert_like(one(make_batch()), out, mesh)


def test_batches_are_picked_apart(mesh):
    """Records and slices of a sharded batch are those of one on the host."""
    batch, expected = make_batch(mesh), make_batch()
    np.testing.assert_array_equal(batch.element(3).data["image"], expected["image"][3])
    np.testing.assert_array_equal(batch.slice(3, 9)["image"], expected["image"][3:9])
    kept = batch.select(jnp.arange(16) < 5).compact()
    np.testing.assert_array_equal(kept["image"], expected["image"][:5])
