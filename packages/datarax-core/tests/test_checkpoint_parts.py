"""Checkpoints of several parts: models, optimizers and iterators, all of one step or none."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from datarax.core.checkpoint import Checkpointer
from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.core.state import variables


class Own:
    """A part of one's own, strict about the names in its state."""

    def __init__(self, state, fails=False):
        self.state, self.fails, self.sets = state, fails, 0

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.sets += 1
        if set(state) != set(self.state):
            raise ValueError(f"expected {sorted(self.state)}, got {sorted(state)}")
        self.state = state
        if self.fails:
            raise RuntimeError("broken after the change")


class InPlace:
    """A part that gives its own array away and restores by writing into it."""

    def __init__(self, value):
        self.array = np.full(3, value)

    def get_state(self):
        return {"array": self.array}

    def set_state(self, state):
        self.array[:] = state["array"]


class Noise(OperatorModule):
    """Adds noise: has a stream and counts."""

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {"x": data["x"] + random_params}, state, metadata

    def generate_random_params(self, rng, data_shapes):
        return jax.random.normal(rng, data_shapes["x"])


class Model(nnx.Module):
    """Of everything that models hold."""

    def __init__(self, seed):
        rngs = nnx.Rngs(seed, dropout=jax.random.key(seed, impl="rbg"))
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)])
        self.named = nnx.Dict({"half": nnx.Param(jnp.full(2, seed, jnp.bfloat16))})
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.tied = self.layers[0].kernel
        self.offset = jnp.full(2, float(seed))
        self.table = np.full(2, seed)
        self.label, self.function = f"model {seed}", jnp.tanh


def optimizer_of(model):
    transforms = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.masked(optax.adamw(1e-3), lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)),
        optax.inject_hyperparams(optax.sgd, hyperparam_dtype=jnp.float32)(learning_rate=0.1),
        optax.identity(),
    )
    return nnx.Optimizer(model, transforms, wrt=nnx.Param)


def noise_of(seed, stream="noise"):
    return Noise(OperatorConfig(stochastic=True, stream_name=stream), rngs=nnx.Rngs(seed))


def leaves_of(part):
    return {
        jax.tree_util.keystr(path): np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.state(part)))
    }


def is_key(leaf):
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def assert_equal_parts(got, expected):
    ours, theirs = leaves_of(got), leaves_of(expected)
    assert ours.keys() == theirs.keys()
    for path, value in theirs.items():
        assert ours[path].dtype == value.dtype, path
        assert ours[path].tobytes() == value.tobytes(), path


def parts_of(seed):
    model = Model(seed)
    return {
        "model": model,
        "optimizer": optimizer_of(model),
        "metrics": nnx.metrics.Average(),
        "noise": noise_of(seed),
        "own": Own({"epoch": np.uint32(seed)}),
    }


def trained(seed):
    """Parts whose every number is another than when they were built."""
    parts = parts_of(seed)
    for part in parts.values():
        for _, variable in variables(part) if isinstance(part, nnx.Pytree) else ():
            value = variable.get_raw_value()
            if not is_key(value):
                variable.set_raw_value(jax.tree.map(increased, value))
    parts["model"].offset = increased(parts["model"].offset)
    return parts


def increased(leaf):
    one = np.asarray(leaf) + np.ones((), leaf.dtype)
    return jnp.asarray(one) if isinstance(leaf, jax.Array) else one


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with step 3 of all parts, and the parts."""
    directory, parts = tmp_path_factory.mktemp("saved"), trained(1)
    with Checkpointer(directory) as checkpointer:
        checkpointer.save(3, parts)
    return directory, parts


def test_all_parts_come_back_bit_exact(saved):
    """Model, optimizer, metric, operator and own object have every bit; the rest stays theirs."""
    directory, parts = saved
    fresh = parts_of(2)
    Checkpointer(directory).restore(fresh)
    for name in ("model", "optimizer", "metrics", "noise"):
        assert_equal_parts(fresh[name], parts[name])
    assert fresh["own"].state == {"epoch": 1}
    assert fresh["model"].label == "model 2"
    assert fresh["model"].tied is fresh["model"].layers[0].kernel
    assert type(fresh["model"].table) is np.ndarray


@pytest.mark.parametrize("wrong", ["model", "optimizer", "noise", "own"])
def test_nothing_changes_where_one_part_does_not_fit(saved, wrong):
    """Whichever part has another structure, the others keep their state, and its name is said."""
    directory, _ = saved
    fresh = parts_of(2)
    fresh[wrong] = {
        "model": nnx.Linear(2, 5, rngs=nnx.Rngs(0)),
        "optimizer": nnx.Optimizer(fresh["model"], optax.sgd(0.1), wrt=nnx.Param),
        "noise": noise_of(2, "another stream"),
        "own": Own({"another": np.uint32(2)}),
    }[wrong]
    before = {name: leaves_of(part) for name, part in fresh.items() if name != "own"}
    state = fresh["own"].state
    with pytest.raises(ValueError, match=r"expected|does not fit") as error:
        Checkpointer(directory).restore(fresh)
    assert f"in part '{wrong}'" in " ".join(error.value.__notes__)
    assert fresh["own"].state is state
    for name, leaves in before.items():
        for path, value in leaves_of(fresh[name]).items():
            np.testing.assert_array_equal(value, leaves[path], err_msg=name + path)


@pytest.mark.parametrize("bad", ["a", "c"])
def test_parts_are_put_back_when_a_set_state_raises(tmp_path, bad):
    """Also the one that raised after it had changed, and one that restores in place."""
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"a": Own(COUNT), "b": InPlace(1), "c": Own(COUNT)})
        parts = {"a": Own({"n": np.int32(5)}), "b": InPlace(5), "c": Own({"n": np.int32(5)})}
        states = {name: parts[name].state for name in "ac"}
        parts[bad].fails = True
        with pytest.raises(RuntimeError, match="broken after"):
            checkpointer.restore(parts)
    np.testing.assert_array_equal(parts["b"].array, 5)
    for name, state in states.items():
        assert parts[name].state is state


COUNT = {"n": np.int32(1)}


def test_nothing_is_saved_where_one_part_cannot_be(tmp_path):
    """A part with an object in its state leaves the step unwritten, and is named."""
    with Checkpointer(tmp_path) as checkpointer:
        for bad, error, match in [
            ({"f": np.array(["a"])}, TypeError, "state of 'bad': 'f' is a ndarray of dtype <U1"),
            ({"f": {1: np.ones(1)}}, TypeError, "state of 'bad': names must be strings, got 1 at"),
            ({"f": np.longdouble(1)}, TypeError, "'f' is a longdouble of dtype"),
            ({"f": np.ones((0, 2))}, ValueError, r"without elements cannot .* \['bad/f'\]"),
        ]:
            with pytest.raises(error, match=match):
                checkpointer.save(1, {"good": Own(COUNT), "bad": Own(bad)})
        assert checkpointer.all_steps() == ()


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ({"a": 1}, r"missing \['b'\], not in the checkpoint \[\]"),
        ({"a": 1, "b": 1, "c": 1}, r"missing \[\], not in the checkpoint \['c'\]"),
        ({"a": 1, "B": 1}, r"missing \['b'\], not in the checkpoint \['B'\]; name .* only="),
    ],
    ids=["missing", "extra", "other"],
)
def test_other_names_are_listed(tmp_path, parts, match):
    """Parts that only one side has are said, and nothing changes."""
    parts = {name: Own({"n": np.int32(value)}) for name, value in parts.items()}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"a": Own(COUNT), "b": Own(COUNT)})
        with pytest.raises(ValueError, match=match):
            checkpointer.restore(parts)
    assert all(part.sets == 0 for part in parts.values())


def test_paths_of_parts_are_restored_alone(saved):
    """only= with the names of parts in front changes what it names, and needs no other part."""
    directory, parts = saved
    fresh = parts_of(2)
    kept = leaves_of(fresh["model"])
    given = {"model": fresh["model"], "own": fresh["own"], "another": Own(COUNT)}
    Checkpointer(directory).restore(given, only=("model/layers/0/kernel", "model/named"))
    for path, value in leaves_of(fresh["model"]).items():
        restored = "kernel" in path or "half" in path
        expected = leaves_of(parts["model"])[path] if restored else kept[path]
        assert value.tobytes() == expected.tobytes(), path
    assert fresh["own"].sets == given["another"].sets == 0
    with pytest.raises(KeyError, match=r"no path 'model/head'.*'model/layers/0/kernel'"):
        Checkpointer(directory).restore(given, only=("model/head",))
    with pytest.raises(KeyError, match=r"no path 'another'"):
        Checkpointer(directory).restore(given, only=("another",))
    with pytest.raises(ValueError, match=r"'optimizer/step' is of no part given: \['model'"):
        Checkpointer(directory).restore(given, only=("optimizer/step",))


def test_a_module_and_parts_are_told_apart(tmp_path):
    """A dict is not restored from a single module's checkpoint, nor the other way round."""
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, Own(COUNT))
        checkpointer.save(2, {"own": Own(COUNT)})
        with pytest.raises(ValueError, match=r"step 1 .* is of a single module, not of parts"):
            checkpointer.restore({"own": Own(COUNT)}, step=1)
        with pytest.raises(ValueError, match=r"step 2 .* has the parts \['own'\]; restore a dict"):
            checkpointer.restore(Own(COUNT), step=2)


@pytest.mark.parametrize(
    ("parts", "error", "match"),
    [
        ({}, TypeError, "module must have get_state and set_state, got dict"),
        ({"a": 3}, TypeError, "part 'a' must have get_state and set_state, got int"),
        ({"a": Own}, TypeError, "part 'a' must have get_state"),
        ({1: Own(COUNT)}, TypeError, "strings as names, got 1"),
        ({"a/b": Own(COUNT)}, ValueError, "no slash, got 'a/b'"),
        ({"": Own(COUNT)}, ValueError, "must not be empty"),
        ({"a": Own({}), "b": Own({"c": {}})}, ValueError, "has no arrays"),
    ],
    ids=["none", "number", "class", "name", "slash", "empty name", "no state"],
)
def test_bad_parts_are_refused(tmp_path, parts, error, match):
    """Before anything is written."""
    with Checkpointer(tmp_path / "new") as checkpointer, pytest.raises(error, match=match):
        checkpointer.save(1, parts)
    assert not (tmp_path / "new").exists()


def test_a_part_may_have_no_state(tmp_path):
    """A layer without parameters is a part like others."""
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"a": Own(COUNT), "b": nnx.Sequential(jnp.tanh), "c": Own({})})
        own = Own({"n": np.int32(5)})
        checkpointer.restore({"a": own, "b": nnx.Sequential(jnp.tanh), "c": Own({})})
    assert own.state == COUNT


KINDS = {"module": Model, "mapping": lambda seed: nnx.Dict(a=nnx.Param(jnp.full(2, seed)))}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_bare_model_is_a_module(tmp_path, kind):
    """Without a dict around it, what Flax has needs no get_state either, mappings of Flax too."""
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, kind(1))
        model = kind(2)
        checkpointer.restore(model)
    assert_equal_parts(model, kind(1))


def test_states_keep_values_and_containers(tmp_path):
    """Numbers, texts, None, keys, lists, tuples and named tuples come back as they were."""
    state = {
        "numbers": [1, 2**80, -0.0, float("inf"), True, None],
        "texts": ("naïve/path", b"\0\xff"),
        "keys": {
            "fry": jax.random.key(3),
            "rbg": jax.random.split(jax.random.key(3, impl="rbg"), 2),
        },
        "optax": optax.adam(0.1).init({"w": jnp.ones(2, jnp.bfloat16)}),
        "scalar": np.float64(0.1),
        "small": np.asarray([1, -2], ml_dtypes.int4),
        "nothing": {"empty": {}, "list": [], "tuple": ()},
    }
    fresh = Own(jax.tree.map(lambda leaf: leaf, state))
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"own": Own(state)})
        checkpointer.restore({"own": fresh})
    assert jax.tree.structure(fresh.state) == jax.tree.structure(state)
    assert fresh.state["numbers"] == state["numbers"]
    assert str(fresh.state["numbers"][2]) == "-0.0"
    assert fresh.state["texts"] == state["texts"]
    assert fresh.state["keys"]["fry"] == state["keys"]["fry"]
    np.testing.assert_array_equal(*map(jax.random.bits, (fresh.state["keys"]["rbg"][1],
                                                         state["keys"]["rbg"][1])))  # fmt: skip
    for path, leaf in jax.tree_util.tree_leaves_with_path(state["optax"]):
        got = dict(jax.tree_util.tree_leaves_with_path(fresh.state["optax"]))[path]
        np.testing.assert_array_equal(got, leaf)
        assert got.dtype == leaf.dtype
    assert fresh.state["scalar"] == 0.1
    assert fresh.state["small"].dtype == ml_dtypes.int4


def sharding(*axes):
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    return NamedSharding(mesh, PartitionSpec(*axes))


def test_arrays_go_to_the_shardings_of_the_target(tmp_path):
    """Sharded, committed to one device, or uncommitted: as in the module that is restored into."""
    values = np.arange(64.0, dtype=np.float32).reshape(8, 8)
    third = jax.devices()[3]

    def model(value, first, second):
        keys = jax.random.split(jax.random.key(int(value[0, 1]), impl="rbg"), 8)
        return nnx.Dict(
            {
                "sharded": nnx.Param(jax.device_put(value, first)),
                "resharded": nnx.Param(jax.device_put(value, second)),
                "free": nnx.Param(jnp.asarray(value)),
                "keys": nnx.RngKey(jax.device_put(keys, sharding("data")), tag="keys"),
            }
        )

    def places(module):
        values = nnx.to_pure_dict(nnx.state(module))
        return jax.tree.map(lambda leaf: (leaf.sharding, leaf._committed), values)

    saved, fresh = (
        model(values, sharding("data", None), third),
        model(np.zeros_like(values), sharding(None, "data"), sharding("model")),
    )
    before = places(fresh)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"model": saved})
        checkpointer.restore({"model": fresh})
    assert_equal_parts(fresh, saved)
    assert places(fresh) == before


def test_checkpoints_of_the_first_release_are_read(tmp_path):
    """Schema version 1, written by Orbax as datarax-core 0.1 wrote it, entirely and in part."""
    import orbax.checkpoint as ocp

    operator = noise_of(1)
    operator(Batch.from_arrays({"x": np.zeros((2, 2), np.float32)}))
    handlers = {"state": ocp.StandardCheckpointHandler(), "schema": ocp.JsonCheckpointHandler()}
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    with ocp.CheckpointManager(tmp_path, options=options, item_handlers=handlers) as manager:
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(operator.get_state()),
            schema=ocp.args.JsonSave({"version": 1}),
        )
        manager.save(4, args=items)
    fresh, part = noise_of(2), noise_of(2)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.latest_step() == 4
        checkpointer.restore(fresh)
        checkpointer.restore(part, only=("_operation_count",))
        assert_equal_parts(fresh, operator)
        assert part.get_operation_stats() == operator.get_operation_stats()
        checkpointer.save(5, {"noise": operator})
        with pytest.raises(ValueError, match=r"step 4 .* is of a single module"):
            checkpointer.restore({"noise": fresh}, step=4)
        assert checkpointer.all_steps() == (4, 5)
