"""Two operators never share a draw by accident, and a record's draw is its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from datarax.core.config import ElementOperatorConfig, OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.core.randomness import as_key, member, ordinals, record_keys
from datarax.operators import (
    CompositeOperatorConfig,
    CompositeOperatorModule,
    ElementOperator,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")
KEYS = pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
MOSTLY_THREEFRY = pytest.mark.parametrize(
    "implementation", ["threefry2x32", pytest.param("rbg", marks=pytest.mark.thorough)]
)
RECORDS = 10_000
STOCHASTIC = OperatorConfig(stochastic=True)


class Coin(OperatorModule):
    """Writes a uniform number for each record."""

    def generate_random_params(self, rng, data_shapes):
        return jax.random.bits(rng, data_shapes["x"][:1])

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "x": random_params}, state, metadata


class OtherCoin(Coin):
    """The same under another name."""


def drawn(operator, records=RECORDS, **fields):
    batch = Batch.from_arrays({"x": np.zeros(records, np.uint32)}, **fields)
    return np.asarray(operator(batch)["x"])


def correlation(left, right):
    return abs(np.corrcoef(left.astype(float), right.astype(float))[0, 1])


def seeded(implementation, seed=0):
    return nnx.Rngs(jax.random.key(seed, impl=implementation))


def pair_of_one(implementation):
    rngs = seeded(implementation)
    return Coin(STOCHASTIC, rngs=rngs), Coin(STOCHASTIC, rngs=rngs)


def classes_of_one(implementation):
    rngs = seeded(implementation)
    return Coin(STOCHASTIC, rngs=rngs), OtherCoin(STOCHASTIC, rngs=rngs)


def classes_of_equal_seeds(implementation):
    return tuple(kind(STOCHASTIC, rngs=seeded(implementation)) for kind in (Coin, OtherCoin))


@MOSTLY_THREEFRY
@pytest.mark.parametrize("numbered", [False, True], ids=["calls", "records"])
@pytest.mark.parametrize("pair", [pair_of_one, classes_of_one, classes_of_equal_seeds])
def test_two_operators_do_not_correlate(pair, numbered, implementation):
    """Not if they are of one class and one Rngs, nor of two classes and equal seeds."""
    fields = {"record_index": np.arange(RECORDS), "epoch": 0} if numbered else {}
    left, right = (drawn(operator, **fields) for operator in pair(implementation))
    assert correlation(left, right) < 4 / np.sqrt(RECORDS)


@KEYS
def test_equal_seeds_and_equal_class_give_equal_draws(implementation):
    """A run can be repeated."""
    one, two = (Coin(STOCHASTIC, rngs=seeded(implementation)) for _ in range(2))
    for fields in ({}, {"record_index": [5, 6, 7], "epoch": 1}):
        np.testing.assert_array_equal(drawn(one, 3, **fields), drawn(two, 3, **fields))


def test_a_stream_of_its_own_makes_an_operator_independent_of_others():
    """What else is built from the same Rngs does not matter."""
    config = OperatorConfig(stochastic=True, stream_name="coin")
    alone = Coin(config, rngs=nnx.Rngs(coin=3))
    rngs = nnx.Rngs(0, coin=3)
    Coin(STOCHASTIC, rngs=rngs)
    nnx.Linear(2, 2, rngs=rngs)
    np.testing.assert_array_equal(drawn(alone, 8), drawn(Coin(config, rngs=rngs), 8))


def test_the_draw_depends_on_the_class_name_and_not_on_its_module():
    """Moving a file changes no draw."""
    moved = type("Coin", (Coin,), {"__module__": "elsewhere"})
    operators = [kind(STOCHASTIC, rngs=nnx.Rngs(0)) for kind in (Coin, moved)]
    np.testing.assert_array_equal(*(drawn(operator, 8) for operator in operators))


@MOSTLY_THREEFRY
def test_a_view_is_another_draw_and_view_0_is_none(implementation):
    """Copies of a record draw for themselves; the first one as if there were no others."""
    operator = Coin(STOCHASTIC, rngs=seeded(implementation))
    index = np.repeat(np.arange(RECORDS // 2), 2)
    views = np.tile([0, 1], RECORDS // 2)
    both = drawn(operator, record_index=index, epoch=0, view=views)
    plain = drawn(operator, record_index=index, epoch=0)
    np.testing.assert_array_equal(both[::2], plain[::2])
    assert correlation(both[::2], both[1::2]) < 4 / np.sqrt(RECORDS // 2)
    zeros = drawn(operator, record_index=index, epoch=0, view=np.zeros(RECORDS, int))
    np.testing.assert_array_equal(zeros, plain)


def test_a_view_does_not_depend_on_the_rows_around_it():
    """Record and view decide, whatever the order and on however many devices."""
    operator = Coin(STOCHASTIC, rngs=nnx.Rngs(0))
    index, view = np.array([3, 3, 9, 9, 0, 0, 7, 7]), np.array([0, 1] * 4)
    expected = drawn(operator, 8, record_index=index, epoch=2, view=view)
    order = np.array([6, 1, 0, 7, 3, 2, 5, 4])
    shuffled = drawn(operator, 8, record_index=index[order], epoch=2, view=view[order])
    np.testing.assert_array_equal(shuffled, expected[order])
    batch = Batch.from_arrays({"x": np.zeros(8, np.uint32)}, record_index=index, epoch=2, view=view)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    spread = jax.tree.map(
        lambda leaf: (
            jax.device_put(leaf, NamedSharding(mesh, P("data" if np.ndim(leaf) else None)))
            if np.ndim(leaf)
            else leaf
        ),
        batch,
    )
    np.testing.assert_array_equal(operator(spread)["x"], expected)


@pytest.mark.parametrize("kind", ["uint8", "int64", "uint64", "list", "jax"])
def test_numbers_of_any_integer_type_are_taken(kind):
    """Record numbers, views and epochs are the same draw whatever type they come in."""
    operator = Coin(STOCHASTIC, rngs=nnx.Rngs(0))
    expected = drawn(operator, 3, record_index=np.uint32([1, 2, 100]), view=np.uint32([0, 1, 2]))
    make = {"list": list, "jax": jnp.asarray}.get(kind) or (lambda array: array.astype(kind))
    index, view = make(np.array([1, 2, 100])), make(np.array([0, 1, 2]))
    np.testing.assert_array_equal(drawn(operator, 3, record_index=index, view=view), expected)


def test_large_numbers_keep_every_bit():
    """int64 numbers above 2**31 are numbers up to 2**32 - 1, and larger ones are refused."""
    top = 2**32 - 1
    batch = Batch.from_arrays(
        {"x": np.zeros(2)}, record_index=[top, 2**31], view=[top, 0], epoch=top
    )
    assert batch.record_index.tolist() == [top, 2**31]
    assert batch.view.tolist() == [top, 0]
    assert int(batch.epoch) == top
    for name in ("record_index", "view"):
        with pytest.raises(ValueError, match=f"{name} must lie between 0 and .* to 4294967296"):
            Batch.from_arrays({"x": np.zeros(2)}, **{name: [0, 2**32]})
        masked = np.ma.masked_array([0, 1], [True, False])
        with pytest.raises(ValueError, match=f"{name} is a masked array"):
            Batch.from_arrays({"x": np.zeros(2)}, **{name: masked})
    with pytest.raises(TypeError, match="view must be integers, got float64"):
        Batch.from_arrays({"x": np.zeros(2)}, view=[0.0, 1.0])


def call_of(operator, batch):
    return np.asarray(operator(batch)["x"])


@pytest.mark.parametrize(
    ("implementation", "numbered"),
    [("threefry2x32", True), ("rbg", False)],
    ids=["records", "calls"],
)
def test_an_explicit_key_decides_alone(implementation, numbered):
    """Typed or raw, with any transform, whatever stream the operator has; no stream advances."""
    key = jax.random.key(7, impl=implementation)
    raw = jax.random.key_data(key)
    fields = {"record_index": [4, 2, 9], "epoch": 1} if numbered else {}
    batch = Batch.from_arrays({"x": np.zeros(3, np.uint32)}, **fields)
    one, two = (Coin(STOCHASTIC, rngs=nnx.Rngs(seed)) for seed in range(2))
    expected = np.asarray(one(batch, key=key)["x"])
    assert len(set(expected)) == 3
    for other in (
        two(batch, key=key),
        one(batch, key=raw),
        jax.jit(lambda batch, key: one(batch, key=key))(batch, key),
        jax.jit(lambda batch, key: one(batch, key=key))(batch, raw),
        nnx.jit(lambda op, batch, key: op(batch, key=key))(one, batch, key),
        one.recycle(jax.device_put(batch), spent=jax.device_put(one(batch)), key=key),
    ):
        np.testing.assert_array_equal(other["x"], expected)
    other = one(batch, key=jax.random.key(8, impl=implementation))
    assert (np.asarray(other["x"]) != expected).all()
    several = jax.vmap(lambda key: one(batch, key=key)["x"])(jax.random.split(key, 3))
    assert len(np.unique(several)) == 9


def test_an_explicit_key_touches_no_stream():
    """The next call without a key draws what it would have drawn."""
    one, two = (Coin(STOCHASTIC, rngs=nnx.Rngs(0)) for _ in range(2))
    drawn_with_key = one({"x": np.zeros(3, np.uint32)}, key=jax.random.key(1))
    assert drawn_with_key["x"].shape == (3,)
    np.testing.assert_array_equal(drawn(one, 3), drawn(two, 3))


class Pair(OperatorModule):
    """A composition that somebody wrote by hand, with two of one class."""

    def __init__(self, rngs):
        super().__init__(OperatorConfig())
        self.left, self.right = Coin(STOCHASTIC, rngs=rngs), Coin(STOCHASTIC, rngs=rngs)

    def apply_batch(self, batch, stats=None):
        return batch.replace(data={"x": self.left(batch)["x"], "y": self.right(batch)["x"]})


@pytest.mark.parametrize("numbered", [False, True], ids=["calls", "records"])
def test_an_explicit_key_reaches_operators_inside_an_operator_of_ones_own(numbered):
    """Each of them draws for itself, from the key alone, and no stream advances."""
    fields = {"record_index": np.arange(1000), "epoch": 0} if numbered else {}
    batch = Batch.from_arrays({"x": np.zeros(1000, np.uint32)}, **fields)
    key = jax.random.key(0)
    pair = Pair(nnx.Rngs(0))
    out = pair(batch, key=key)
    assert correlation(*map(np.asarray, out.values())) < 4 / np.sqrt(1000)
    other = jax.jit(lambda batch, key: Pair(nnx.Rngs(1))(batch, key=key))(batch, key)
    for name in ("x", "y"):
        np.testing.assert_array_equal(out[name], other[name])
    assert int(pair.left.rngs.default.count.get_value()) == 0


def test_a_key_on_a_mesh_with_explicit_axes_is_taken():
    """A training step that carries its key on the mesh gives the numbers of one device."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    operator = Coin(STOCHASTIC, rngs=nnx.Rngs(0))
    key = jax.random.key(3)
    expected = operator({"x": np.zeros(8, np.uint32)}, key=key)["x"]
    rows = jax.device_put(np.zeros(8, np.uint32), NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh):
        placed = jax.device_put(key, NamedSharding(mesh, P()))
        out = jax.jit(lambda x, key: operator({"x": x}, key=key)["x"])(rows, placed)
    np.testing.assert_array_equal(out, expected)


def test_one_key_for_two_classes_gives_two_draws():
    """A loop that hands the same key to all its operators is not punished for it."""
    key = jax.random.key(0)
    batch = {"x": np.zeros(RECORDS, np.uint32)}
    left, right = (
        np.asarray(kind(STOCHASTIC, rngs=nnx.Rngs(0))(batch, key=key)["x"])
        for kind in (Coin, OtherCoin)
    )
    assert correlation(left, right) < 4 / np.sqrt(RECORDS)


def test_a_deterministic_operator_takes_a_key_and_ignores_it():
    """So that a loop need not know which of its operators draw."""
    double = ElementOperator(
        ElementOperatorConfig(), fn=lambda element, key: element.update_data({"x": 2})
    )
    batch = {"x": np.ones(2, np.float32)}
    assert double(batch, key=jax.random.key(0))["x"].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (3, TypeError, r"key must be a key of jax.random.key\(seed\) .* got int"),
        (nnx.Rngs(0), TypeError, "key must be a key of .* got Rngs"),
        (np.float32([1, 2]), TypeError, "got ndarray of float32"),
        (np.uint32([1, 2, 3]), ValueError, r"key must be one key, got shape \(3,\)"),
        (jax.random.split(jax.random.key(0), 4), ValueError, r"got shape \(4,\); pass one of"),
    ],
    ids=["int", "rngs", "floats", "three-words", "split"],
)
def test_what_is_no_key_is_refused(key, error, message):
    """The error says what a key is."""
    with pytest.raises(error, match=message):
        Coin(STOCHASTIC, rngs=nnx.Rngs(0))({"x": np.zeros(2, np.uint32)}, key=key)


def test_the_error_for_a_stream_that_cannot_advance_names_the_key_first():
    """What most people can write at once stands first."""
    operator = Coin(STOCHASTIC, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"cannot advance .* key=key.* nnx.jit .* record_index"):
        jax.jit(operator)({"x": np.zeros(2, np.uint32)})


@MOSTLY_THREEFRY
def test_members_of_a_composition_have_keys_of_their_own(implementation):
    """By their number among their class with an explicit key, by their ordinal with equal keys."""
    key = jax.random.key(0, impl=implementation)
    operators = [Coin(STOCHASTIC, rngs=nnx.Rngs(key)) for _ in range(3)]
    assert ordinals(operators) == (0, 1, 2)
    assert ordinals([operators[0], OtherCoin(STOCHASTIC, rngs=nnx.Rngs(key))]) == (0, 0)
    nested = nnx.List([operators[0], operators[1]])
    assert ordinals([nested, operators[2]]) == (0, 2)
    words = []
    for number, operator in enumerate(operators):
        with member(OperatorModule, number, number):
            words.append(drawn(operator, 4, record_index=np.arange(4)))
    assert len(np.unique(words)) == 12


def test_a_composition_can_be_made_inside_a_trace():
    """By `nnx.eval_shape` and `nnx.jit`, with the draws of one that is made eagerly."""

    def made():
        rngs = nnx.Rngs(0)
        members = [Coin(STOCHASTIC, rngs=rngs), Coin(STOCHASTIC, rngs=rngs)]
        return CompositeOperatorModule(CompositeOperatorConfig(), operators=members)

    abstract = nnx.graphdef(nnx.eval_shape(made))
    expected = drawn(made(), 4)
    np.testing.assert_array_equal(drawn(nnx.jit(made)(), 4), expected)
    np.testing.assert_array_equal(drawn(nnx.merge(abstract, nnx.state(made())), 4), expected)


def test_raw_keys_are_known_by_their_words():
    """Two words are threefry, four are rbg."""
    for implementation in ("threefry2x32", "rbg"):
        key = jax.random.key(5, impl=implementation)
        for raw in (jax.random.key_data(key), np.asarray(jax.random.key_data(key))):
            assert str(jax.random.key_impl(as_key(raw))) == implementation
    assert as_key(key) is key


def test_raw_keys_follow_the_default_kind_at_each_call():
    """Four words stand for unsafe_rbg where that is the default, for rbg elsewhere, always."""
    operator, raw = Coin(STOCHASTIC, rngs=nnx.Rngs(0)), np.uint32([1, 2, 3, 4])
    batch, seen = {"x": np.zeros(3, np.uint32)}, set()
    for implementation in ("rbg", "unsafe_rbg", "rbg"):
        with jax.default_prng_impl(implementation):
            out = operator(batch, key=raw)
        expected = operator(batch, key=jax.random.wrap_key_data(raw, impl=implementation))
        np.testing.assert_array_equal(out["x"], expected["x"])
        seen.add(int(out["x"][0]))
    assert len(seen) == 2


def test_record_keys_of_views_are_all_different():
    """No view of a record has the key of another record or view."""
    index, view = np.meshgrid(np.arange(50, dtype=np.uint32), np.arange(20, dtype=np.uint32))
    keys = record_keys(jax.random.key(0), None, index.ravel(), view.ravel())
    assert len(np.unique(jax.random.key_data(keys), axis=0)) == 1000
