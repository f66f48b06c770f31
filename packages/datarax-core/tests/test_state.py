"""States of Flax objects: copies that own their memory, put back where the values were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.core.state import Statistics, read_state, transfer_state, write_state


class Noise(OperatorModule):
    """Scales with a parameter and adds noise."""

    def __init__(self, config, *, rngs):
        super().__init__(config, rngs=rngs)
        self.scale = nnx.Param(jnp.ones(2))
        self.table = jnp.zeros(2)

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {"x": data["x"] * self.scale[...] + random_params}, state, metadata

    def generate_random_params(self, rng, data_shapes):
        return jax.random.normal(rng, data_shapes["x"])


def noise(implementation="threefry2x32", seed=0):
    key = jax.random.key(seed, impl=implementation)
    return Noise(OperatorConfig(stochastic=True, stream_name="noise"), rngs=nnx.Rngs(noise=key))


def over_devices(value, *axes):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    return jax.device_put(value, NamedSharding(mesh, PartitionSpec(*axes)))


def committed_to_first(state):
    return jax.tree.map(lambda leaf: jax.device_put(leaf, jax.devices()[0]), state)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_a_state_from_one_device_serves_a_batch_on_eight(implementation):
    """Keys and parameters that no device held are held by none after set_state."""
    op, fresh = noise(implementation), noise(implementation, seed=1)
    fresh.set_state(committed_to_first(op.get_state()))
    assert not fresh.rngs.noise.key.get_raw_value()._committed
    assert not fresh.scale.get_raw_value().committed
    x = np.zeros((8, 2), np.float32)
    batch = Batch.from_arrays({"x": x})
    spread = batch.replace(data={"x": over_devices(x, "data")})
    np.testing.assert_array_equal(fresh(spread)["x"], op(batch)["x"])


def test_statistics_are_held_by_no_device():
    """What stands where a module has no value yet follows no device, except that of many."""
    module, state = nnx.Dict({"s": Statistics({})}), {"s": {"mean": jnp.ones(8)}}
    write_state(module, committed_to_first(state))
    assert not module["s"].get_value()["mean"].committed
    write_state(module, {"s": {"mean": over_devices(np.ones(8), "data")}})
    assert len(module["s"].get_value()["mean"].sharding.device_set) == 8


@pytest.mark.parametrize("came", ["host", "first device", "all devices"])
@pytest.mark.parametrize(
    "place",
    [
        lambda value: over_devices(value, "data"),
        lambda value: over_devices(value),
        lambda value: jax.device_put(value, jax.devices()[3]),
        jnp.asarray,
        np.asarray,
    ],
    ids=["sharded", "replicated", "one device", "no device", "host"],
)
def test_values_go_where_the_present_ones_are(came, place):
    """Wherever a state came from, Variables keep their sharding or the lack of one."""
    keys = jax.random.split(jax.random.key(0, impl="rbg"), 8)
    values = np.arange(16, dtype=np.float32).reshape(8, 2)
    own = {"w": nnx.Param(place(np.zeros_like(values)))}
    if place is not np.asarray:
        own["k"] = nnx.RngKey(place(keys), tag="k")
    module = nnx.Dict(own)
    words = np.asarray(jax.random.key_data(keys)) + np.uint32(1)
    state = {"w": values, "k": {"rbg": words}} if "k" in own else {"w": values}
    move = {
        "host": np.asarray,
        "first device": lambda leaf: jax.device_put(leaf, jax.devices()[0]),
        "all devices": lambda leaf: over_devices(leaf, "data"),
    }[came]
    before = {name: module[name].get_raw_value() for name in own}
    write_state(module, jax.tree.map(move, state))
    for name, old in before.items():
        new = module[name].get_raw_value()
        assert type(new) is type(old)
        if isinstance(old, jax.Array):
            assert new.sharding == old.sharding
            assert new._committed == old._committed
    np.testing.assert_array_equal(module["w"].get_raw_value(), values)
    if "k" in own:
        np.testing.assert_array_equal(jax.random.key_data(module["k"].get_raw_value()), words)


def deleted(tree):
    """Deletes all arrays, as a step does that donates them."""
    for leaf in jax.tree.leaves(tree):
        (leaf._base_array if hasattr(leaf, "_base_array") else leaf).delete()


def arrays_of(module):
    leaves = jax.tree.leaves(nnx.to_pure_dict(nnx.state(module)))
    return [leaf for leaf in leaves if isinstance(leaf, jax.Array)]


@pytest.mark.parametrize(
    "copy",
    [
        lambda op: op.get_state(),
        lambda op: arrays_of(op.copy()),
        lambda op: arrays_of(op.clone()),
        lambda op: arrays_of(transferred(op)),
        lambda op: arrays_of(written(op)),
    ],
    ids=["get_state", "copy", "clone", "transfer_state", "write_state"],
)
def test_copies_own_their_memory(copy):
    """A step that donates the module's arrays leaves its copies whole, and the other way round."""
    op = noise("rbg")
    op.set_statistics({"mean": jnp.ones(2)})
    taken = copy(op)
    expected = [np.asarray(words_of(leaf)) for leaf in jax.tree.leaves(taken)]
    deleted(arrays_of(op))
    for leaf, value in zip(jax.tree.leaves(taken), expected, strict=True):
        np.testing.assert_array_equal(words_of(leaf), value)


def words_of(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def transferred(op):
    other = noise("rbg", seed=1)
    transfer_state(op, other, keep=lambda variable: True)
    return other


def written(op):
    """A module set from a state whose arrays are then donated."""
    other, state = noise("rbg", seed=1), jax.tree.map(jnp.asarray, op.get_state())
    other.set_state(state)
    deleted(state)
    return other


def test_host_arrays_are_copied():
    """Writing into the state that was read or given changes no module."""
    module = nnx.Dict({"n": nnx.Variable(np.zeros(2)), "s": nnx.Variable(np.float32(1))})
    state = read_state(module)
    state["n"][:] = 7
    assert module["n"].get_value().tolist() == [0, 0]
    write_state(module, state)
    state["n"][:] = 8
    assert module["n"].get_value().tolist() == [7, 7]
    assert type(module["s"].get_raw_value()) is np.float32


def test_statistics_keep_empty_dicts():
    """Statistics that were set to nothing are not the same as none."""
    op, other = noise(), noise()
    op.set_statistics({})
    other.set_state(op.get_state())
    assert other.get_statistics() == {}
