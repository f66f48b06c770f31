"""What all modules share: statistics, counts, streams, copies and state."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from datarax.core.config import DataraxModuleConfig, OperatorConfig, StructuralConfig
from datarax.core.element_batch import Batch
from datarax.core.module import DataraxModule
from datarax.core.operator import OperatorModule
from datarax.core.structural import StructuralModule

KEYS = pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])


class Noise(OperatorModule):
    """Adds scaled noise, with a learnable scale and a constructor argument of its own."""

    def __init__(self, config, width, *, rngs=None, name=None):
        super().__init__(config, rngs=rngs, name=name)
        self.scale = nnx.Param(jax.random.normal(rngs.params(), (width,)))

    def generate_random_params(self, rng, data_shapes):
        return jax.random.normal(rng, data_shapes["x"])

    def apply(self, data, state, metadata, random_params=None, stats=None):
        x = data["x"] + random_params * self.scale
        if stats is not None:
            x = x - stats["mean"].astype(x.dtype)
        return {**data, "x": x}, state, metadata


def noise(implementation="threefry2x32", seed=0, **options):
    rngs = nnx.Rngs(
        params=jax.random.key(seed, impl=implementation),
        noise=jax.random.key(seed + 1, impl=implementation),
    )
    config = OperatorConfig(stochastic=True, stream_name="noise", **options)
    return Noise(config, 3, rngs=rngs, name="noise")


def batch(rows=4):
    return Batch.from_arrays({"x": np.zeros((rows, 3), np.float32)})


def mean_of(data):
    return {"mean": np.mean(data)}


def test_statistics_follow_the_documented_order():
    """Given statistics win until the reset; then precomputed ones are gone too."""
    module = DataraxModule(DataraxModuleConfig(precomputed_stats={"mean": 0.5}))
    assert module.get_statistics() == {"mean": 0.5}
    assert module.compute_statistics([1.0]) is None
    module.set_statistics({"mean": 2.0})
    assert module.get_statistics() == {"mean": 2.0}
    module.reset_statistics()
    assert module.get_statistics() is None
    module.set_statistics({"mean": 3.0})
    assert module.get_statistics() == {"mean": 3.0}


def test_computed_statistics_come_from_what_was_given():
    """batch_stats_fn gets the argument of compute_statistics, and given values still win."""
    module = DataraxModule(DataraxModuleConfig(batch_stats_fn=mean_of))
    assert module.get_statistics() is None
    assert module.compute_statistics(np.array([1.0, 3.0])) == {"mean": 2.0}
    assert module.get_statistics() == {"mean": 2.0}
    module.set_statistics({"mean": 7.0})
    module.compute_statistics(np.array([5.0]))
    assert module.get_statistics() == {"mean": 7.0}
    module.reset_statistics()
    module.compute_statistics(np.array([5.0]))
    assert module.get_statistics() == {"mean": 5.0}


def test_statistics_cannot_be_changed_from_outside():
    """What is set is copied, and what is returned is not the module's own dict."""
    given = {"mean": np.zeros(2)}
    module = DataraxModule(DataraxModuleConfig())
    module.set_statistics(given)
    given["mean"][0] = 9
    module.get_statistics()["mean"] = None
    np.testing.assert_array_equal(module.get_statistics()["mean"], [0, 0])


@pytest.mark.parametrize("result", [3.0, [1], {"mean": "x"}], ids=["number", "list", "text"])
def test_statistics_must_be_a_dict_of_numbers(result):
    """Anything else is refused, and the statistics stay as they were."""
    module = DataraxModule(DataraxModuleConfig(batch_stats_fn=lambda _: result))
    with pytest.raises(TypeError, match=r"the result of batch_stats_fn.* must be a"):
        module.compute_statistics(0)
    with pytest.raises(TypeError, match=r"stats.* must be a"):
        module.set_statistics(result)
    assert module.get_statistics() is None


def test_a_statistics_module_is_part_of_the_state():
    """An nnx.Module as batch_stats_fn is cloned and checkpointed with its owner."""

    class Scaled(nnx.Module):
        def __init__(self):
            self.factor = nnx.Param(jnp.float32(2))

        def __call__(self, data):
            return {"mean": self.factor[...] * jnp.mean(data)}

    module = DataraxModule(DataraxModuleConfig(batch_stats_fn=Scaled()))
    twin = module.clone()
    state = module.get_state()
    assert state["_batch_stats_module"]["factor"] == 2
    state["_batch_stats_module"]["factor"] = np.float32(5)
    twin.set_state(state)
    assert twin.compute_statistics(jnp.ones(3)) == {"mean": 5}
    assert module.compute_statistics(jnp.ones(3)) == {"mean": 2}


def test_counts_are_exact_beyond_32_bits():
    """Counts carry into their high words and come back as Python integers."""
    module = DataraxModule(DataraxModuleConfig())
    module._operation_count.set_value(np.array([[2**32 - 1, 0], [5, 1]], np.uint32))
    module.count_operations(jnp.array([True, True, True]), jnp.array([True, True, False]))
    assert module.get_operation_stats() == {
        "applied_count": 2**32 + 1,
        "skipped_count": 2**32 + 6,
    }
    module.reset_operation_stats()
    assert module.get_operation_stats() == {"applied_count": 0, "skipped_count": 0}


@pytest.mark.parametrize(
    ("config", "arguments", "error", "message"),
    [
        ({}, {}, TypeError, "config of DataraxModule must be a DataraxModuleConfig, got dict"),
        (DataraxModuleConfig(), {"rngs": 0}, TypeError, r"rngs must be nnx.Rngs .* nnx.Rngs\(0\)"),
        (DataraxModuleConfig(), {"name": 3}, TypeError, "name must be a string or None, got int"),
        (
            StructuralConfig(stochastic=True, stream_name="shuffle"),
            {},
            ValueError,
            r"draws from \['shuffle'\], but rngs is None; .*nnx.Rngs\(shuffle=0\)",
        ),
        (
            StructuralConfig(stochastic=True, stream_name="shuffle"),
            {"rngs": nnx.Rngs(params=0)},
            ValueError,
            r"needs the random streams \['shuffle'\], but there are \['params'\]",
        ),
        (
            StructuralConfig(stochastic=True),
            {"rngs": nnx.Rngs(default=jax.random.split(jax.random.key(0), 2))},
            ValueError,
            r"must hold one key, got shape \(2,\)",
        ),
    ],
)
def test_bad_arguments_are_refused_at_construction(config, arguments, error, message):
    """Wrong configs, names and streams are named with the remedy."""
    with pytest.raises(error, match=message):
        DataraxModule(config, **arguments)


def test_operators_and_structural_modules_want_their_own_configs():
    """A config of the wrong family is refused."""
    with pytest.raises(TypeError, match="must be an OperatorConfig, got StructuralConfig"):
        OperatorModule(StructuralConfig())
    with pytest.raises(TypeError, match="must be a StructuralConfig, got OperatorConfig"):
        StructuralModule(OperatorConfig())


def test_required_streams():
    """A stochastic module requires its stream, for which "default" may stand in."""
    module = DataraxModule(StructuralConfig(stochastic=True, stream_name="a"), rngs=nnx.Rngs(0))
    assert module.requires_rng_streams() == ["a"]
    module.ensure_rng_streams(["b", "a"])
    module.ensure_rng_streams(["default"])
    with pytest.raises(ValueError, match=r"needs the random streams \['a'\], .* \['b'\]"):
        module.ensure_rng_streams(["b"])
    assert DataraxModule(DataraxModuleConfig()).requires_rng_streams() is None
    DataraxModule(DataraxModuleConfig()).ensure_rng_streams([])


def test_construction_advances_the_given_stream():
    """A module takes the stream's next key, as every NNX layer does."""
    rngs = nnx.Rngs(0)
    DataraxModule(StructuralConfig(stochastic=True), rngs=rngs)
    assert rngs.default.count.get_value() == 1


@KEYS
def test_copy_keeps_everything_and_advances_nothing(implementation):
    """A copy has the parameters, statistics and stream of its source, which stays as it is."""
    source = noise(implementation)
    source.scale.set_value(jnp.arange(3, dtype=jnp.float32))
    source.set_statistics({"mean": 0.25})
    source(batch())
    before = source.get_state()
    twin = source.copy()
    jax.tree.map(np.testing.assert_array_equal, source.get_state(), before)
    assert twin.name == "noise"
    assert twin.get_operation_stats()["applied_count"] == 0
    np.testing.assert_array_equal(twin(batch())["x"], source(batch())["x"])
    twin.scale.set_value(jnp.zeros(3))
    assert source.scale.get_value()[1] == 1


def test_copy_replaces_what_it_is_given():
    """A new config, streams or name takes the place of the old; the rest is kept."""
    source = noise()
    source.scale.set_value(jnp.ones(3))
    source.set_statistics({"mean": 0.25})
    scan = source.copy(
        config=OperatorConfig(stochastic=True, stream_name="noise", batch_strategy="scan")
    )
    assert scan.get_statistics() == {"mean": 0.25}
    np.testing.assert_array_equal(scan.scale.get_value(), jnp.ones(3))
    np.testing.assert_array_equal(scan(batch())["x"], source.clone()(batch())["x"])

    precomputed = source.copy(
        config=OperatorConfig(precomputed_stats={"mean": 0.5}, stochastic=True, stream_name="noise")
    )
    assert precomputed.get_statistics() == {"mean": 0.5}

    other = source.copy(rngs=nnx.Rngs(params=0, noise=77), name="other")
    assert other.name == "other"
    np.testing.assert_array_equal(other.scale.get_value(), jnp.ones(3))
    assert not np.array_equal(other(batch())["x"], source.clone()(batch())["x"])


def test_copy_refuses_parameters_that_no_longer_fit():
    """A config under which a parameter has another shape is named, and nothing is reshaped."""

    class Table(DataraxModule):
        def __init__(self, config, *, rngs=None, name=None):
            super().__init__(config, rngs=rngs, name=name)
            self.table = nnx.Param(jnp.zeros(len(config.precomputed_stats)))

    table = Table(DataraxModuleConfig(precomputed_stats={"a": 1}))
    with pytest.raises(ValueError, match="table of Table does not fit the copy's config"):
        table.copy(config=DataraxModuleConfig(precomputed_stats={"a": 1, "b": 2}))


@KEYS
def test_clone_is_independent(implementation):
    """A clone goes on exactly like its source and shares nothing with it."""
    source = noise(implementation)
    source(batch())
    twin = source.clone()
    np.testing.assert_array_equal(twin(batch())["x"], source(batch())["x"])
    twin(batch())
    assert source.rngs.noise.count.get_value() == 2
    assert twin.get_operation_stats()["applied_count"] == 12


@KEYS
def test_state_goes_through_orbax_and_back(implementation, tmp_path):
    """Orbax saves the state as it is; restored, the module goes on bit for bit."""
    source = noise(implementation)
    source.set_statistics({"mean": 0.25, "deep": {"var": np.ones(3, np.float32)}})
    source(batch())
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", source.get_state())
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(
            tmp_path / "state", jax.tree.map(np.asarray, source.get_state())
        )
    target = noise(implementation, seed=5)
    target.set_state(restored)
    jax.tree.map(np.testing.assert_array_equal, target.get_state(), source.get_state())
    np.testing.assert_array_equal(target(batch())["x"], source(batch())["x"])
    assert isinstance(target.rngs.noise.count.get_value(), np.uint32)


def test_the_state_is_a_snapshot():
    """Neither later calls change a state, nor does changing it change the module."""
    source = noise()
    state = source.get_state()
    source(batch())
    assert state["rngs"]["noise"]["count"] == 0
    state["rngs"]["noise"]["count"][...] = 9
    assert source.rngs.noise.count.get_value() == 1


def test_the_reset_of_statistics_is_part_of_the_state():
    """A module whose precomputed statistics were reset stays without them after a restore."""
    config = DataraxModuleConfig(precomputed_stats={"mean": 0.5})
    source, target = DataraxModule(config), DataraxModule(config)
    source.reset_statistics()
    target.set_state(source.get_state())
    assert target.get_statistics() is None


def test_a_state_that_does_not_fit_changes_nothing_and_lists_everything():
    """All differences are listed by path in one error, and the module is untouched."""
    module = noise()
    before = module.get_state()
    state = module.get_state()
    state["scale"] = np.zeros((4,), np.float32)
    state["rngs"]["noise"]["count"] = np.array(1, np.int32)
    state["rngs"]["noise"]["key"] = {"rbg": np.zeros(4, np.uint32)}
    state["extra"] = np.zeros(2)
    del state["_operation_count"]
    with pytest.raises(ValueError, match="does not fit Noise") as error:
        module.set_state(state)
    text = str(error.value)
    for line in (
        "scale: expected float32[3], got float32[4]",
        "rngs/noise/count: expected uint32[], got int32[]",
        "rngs/noise/key/threefry2x32: expected uint32[2], got nothing",
        "rngs/noise/key/rbg: not expected, got uint32[4]",
        "extra: not expected, got float64[2]",
        "_operation_count: expected uint32[2, 2], got nothing",
    ):
        assert line in text
    jax.tree.map(np.testing.assert_array_equal, module.get_state(), before)


def test_a_state_must_be_a_dict():
    """Something else is refused with a TypeError."""
    with pytest.raises(
        TypeError, match=r"state must be a dict as get_state\(\) returns it, got list"
    ):
        noise().set_state([])


def test_structural_modules_process_when_called():
    """Calling a structural module calls process; without one, the class is named."""

    class Reverse(StructuralModule):
        def process(self, elements, *, twice=False):
            return elements[::-1] * (2 if twice else 1)

    assert Reverse(StructuralConfig())([1, 2], twice=True) == [2, 1, 2, 1]
    with pytest.raises(NotImplementedError, match="StructuralModule must implement process"):
        StructuralModule(StructuralConfig())([])
