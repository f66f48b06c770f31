"""Batches on a mesh: the same bits as on one device, and where every array lies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from datarax.batching import BucketBatcher, BucketBatcherConfig
from datarax.operators import ElementOperator, ElementOperatorConfig
from datarax.pipeline import Pipeline
from datarax.sources import MemorySource, MemorySourceConfig

pytestmark = pytest.mark.usefixtures("quick_compiles")
LENGTH = 21


def sharding(devices=8, axes=AxisType.Auto):
    mesh = jax.make_mesh((devices,), ("data",), (axes,), devices=jax.devices()[:devices])
    return NamedSharding(mesh, PartitionSpec("data"))


def noisy(element, key):
    noise = jax.random.normal(key, element.data["x"].shape)
    return element.update_data({"noisy": element.data["x"] + noise})


def pipeline(array=np.asarray, **options):
    data = {"x": array(np.linspace(0, 1, 2 * LENGTH, dtype=np.float32).reshape(LENGTH, 2))}
    stage = ElementOperator(ElementOperatorConfig(stochastic=True), fn=noisy, rngs=nnx.Rngs(0))
    source = MemorySource(MemorySourceConfig(shuffle=True, seed=3), data=data)
    return Pipeline(source=source, stages=[stage], **({"batch_size": 8} | options))


def leaves(batches):
    return [np.asarray(leaf) for batch in batches for leaf in jax.tree.leaves(batch)]


def assert_same(came, expected):
    for one, other in zip(leaves(came), leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def expected():
    """The batches of one device."""
    return list(pipeline())


@pytest.mark.parametrize("axes", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize(
    ("devices", "options"),
    [(1, {}), (2, {"prefetch": 2}), (8, {}), (8, {"array": jnp.asarray})],
    ids=["1", "2 read ahead", "8", "8 from a device"],
)
def test_a_mesh_gives_the_same_bits(devices, options, axes, expected):
    """Data, mask and numbers lie on it by rows, the last batch too; stages ran there."""
    where = sharding(devices, axes)
    batches = list(pipeline(sharding=where, **options))
    assert_same(batches, expected)
    for batch in batches:
        for leaf in jax.tree.leaves((batch.data, batch.valid_mask, batch.record_index)):
            assert leaf.sharding.is_equivalent_to(where, leaf.ndim)
        assert batch.epoch.sharding.is_fully_replicated
    if axes == AxisType.Explicit:
        assert jax.typeof(batches[0]["noisy"]).sharding.spec[0] == "data"


@pytest.mark.parametrize("batch_size", [8, 6])
def test_records_on_explicit_axes_are_gathered_there(batch_size):
    """Their batches lie on these axes: by rows if these divide evenly, else whole."""
    where = sharding(axes=AxisType.Explicit)
    data = {"x": np.arange(48, dtype=np.float32).reshape(24, 2)}
    config = MemorySourceConfig(shuffle=True, seed=1)
    on_mesh = MemorySource(config, data={"x": jax.device_put(data["x"], where)})
    stage = ElementOperator(ElementOperatorConfig(stochastic=True), fn=noisy, rngs=nnx.Rngs(0))
    options = {"stages": [stage], "batch_size": batch_size}
    batches = list(Pipeline(source=on_mesh, **options))
    assert_same(batches, Pipeline(source=MemorySource(config, data=data), **options))
    assert jax.typeof(batches[0]["x"]).sharding.spec[0] == ("data" if batch_size == 8 else None)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sharding": "data"}, TypeError, "sharding must be a jax.sharding.NamedSharding or None"),
        ({"batch_size": 12}, ValueError, "multiple of the 8 parts .* got 12; use 16"),
        ({"remainder": "partial"}, ValueError, "'partial' gives a last batch that a sharding"),
        (
            {"sharding": NamedSharding(sharding().mesh, PartitionSpec(None, "data"))},
            ValueError,
            "must spread the rows of a batch, axis 0, and nothing else",
        ),
        (
            {
                "batch_size": None,
                "batcher": BucketBatcher(
                    BucketBatcherConfig(boundaries=(4,), length_fields=("x",), batch_sizes=(4,))
                ),
            },
            ValueError,
            "batch_sizes of the batcher must be a multiple of the 8 parts",
        ),
    ],
    ids=["no sharding", "rows", "partial", "other axis", "buckets"],
)
def test_batches_that_cannot_be_spread_are_refused(options, error, message):
    """When the pipeline is made."""
    with pytest.raises(error, match=message):
        pipeline(**({"sharding": sharding()} | options))


@pytest.mark.parametrize("options", [{}, {"prefetch": 2, "sharding": 2}], ids=["one", "mesh"])
def test_batches_arrive_under_a_guard(options, expected):
    """`jax.transfer_guard("disallow")` forbids what nobody asks for, and a pipeline was asked."""
    if "sharding" in options:
        options = options | {"sharding": sharding(options["sharding"])}
    made = pipeline(**options)
    with jax.transfer_guard("disallow"):
        batches = list(made)
    assert_same(batches, expected)
