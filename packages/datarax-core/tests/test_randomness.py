"""The four rules of randomness, for both kinds of keys and on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from datarax.core import randomness
from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule

pytestmark = pytest.mark.usefixtures("quick_compiles")
KEYS = pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
# Where a rule has another test with both kinds of keys, the second kind is for the thorough run.
MOSTLY_THREEFRY = pytest.mark.parametrize(
    "implementation", ["threefry2x32", pytest.param("rbg", marks=pytest.mark.thorough)]
)
DEVICES = pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.thorough), 8])


class Draw(OperatorModule):
    """Writes the number that it draws for each record into the field `drawn`."""

    def generate_random_params(self, rng, data_shapes):
        return jax.random.bits(rng, data_shapes["x"][:1], jnp.uint32)

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "drawn": random_params}, state, metadata


class DrawOnce(Draw):
    """Writes one draw for the whole batch into every row."""

    per_record_params = False

    def generate_random_params(self, rng, data_shapes):
        return jax.random.bits(rng, (3,), jnp.uint32)


def operator(implementation="threefry2x32", seed=0, stream="draw", kind=Draw, **options):
    rngs = nnx.Rngs(**{stream: jax.random.key(seed, impl=implementation)})
    config = OperatorConfig(stochastic=True, stream_name=stream, **options)
    return kind(config, rngs=rngs)


def indexed(index, epoch=0, mask=None):
    return Batch.from_arrays(
        {"x": np.zeros((len(index), 2), np.float32)},
        record_index=index,
        epoch=epoch,
        valid_mask=mask,
    )


def plain(rows=4):
    return Batch.from_arrays({"x": np.zeros((rows, 2), np.float32)})


def spread(batch, devices):
    """The batch with its rows on the first devices."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    return jax.tree.map(
        lambda leaf: jax.device_put(leaf, NamedSharding(mesh, P("data") if np.ndim(leaf) else P())),
        batch,
    )


def drawn(batch):
    return np.asarray(batch["drawn"])


def same(left, right):
    return np.array_equal(drawn(left), drawn(right))


@MOSTLY_THREEFRY
@DEVICES
def test_apply_is_pure(implementation, devices):
    """Rule 1: apply draws nothing itself, so the same parameters give the same result."""
    op = operator(implementation)
    before = op.get_state()
    params = spread(jnp.arange(8.0), devices)
    for _ in range(2):
        data, _, metadata = op.apply({"x": jnp.zeros(2)}, {}, "kept", params)
        assert data["drawn"] is params
        assert metadata == "kept"
    jax.tree.map(np.testing.assert_array_equal, op.get_state(), before)


@KEYS
def test_a_record_draws_the_same_in_any_company(implementation):
    """Rule 2: batch size, order, padding and the call before do not matter to a record."""
    op = operator(implementation)
    whole = drawn(op(indexed(np.arange(7), epoch=2)))
    for index in ([6], [3, 0], [2, 2, 6, 1, 0, 5, 3, 4, 6]):
        mask = np.arange(len(index)) != 1
        np.testing.assert_array_equal(drawn(op(indexed(index, 2, mask))), whole[index])


@MOSTLY_THREEFRY
def test_records_and_epochs_differ(implementation):
    """Rule 2: no two records of an epoch, and no two epochs of a record, draw alike."""
    op = operator(implementation)
    bits = np.concatenate([drawn(op(indexed(np.arange(50), epoch))) for epoch in range(4)])
    assert len(np.unique(bits)) == 200


@MOSTLY_THREEFRY
def test_a_missing_epoch_is_epoch_0(implementation):
    """Rule 2: a batch with indices alone draws like the first epoch."""
    op = operator(implementation)
    without = indexed(np.arange(3)).replace(epoch=None)
    assert same(op(without), op(indexed(np.arange(3), 0)))


@MOSTLY_THREEFRY
def test_the_whole_range_of_indices_counts(implementation):
    """Rule 2: indices that differ in any of their 32 bits draw differently."""
    index = np.array([0] + [2**bit for bit in range(32)], np.uint32)
    bits = drawn(operator(implementation)(indexed(index)))
    assert len(np.unique(bits)) == 33


@MOSTLY_THREEFRY
def test_indexed_calls_do_not_advance_the_stream(implementation):
    """Rule 2: a call on records with indices leaves the operator's stream where it was."""
    op = operator(implementation)
    op(indexed(np.arange(3)))
    op.apply_batch(indexed(np.arange(3)))
    assert op.rngs.draw.count.get_value() == 0


@KEYS
def test_records_draw_the_same_after_a_restore(implementation):
    """Rule 2: an operator with the same base key, however restored, draws the same."""
    op, other = operator(implementation), operator(implementation, seed=8)
    other.set_state(op.get_state())
    assert same(op(indexed(np.arange(4), 3)), other(indexed(np.arange(4), 3)))


@MOSTLY_THREEFRY
@DEVICES
def test_records_draw_the_same_on_any_number_of_devices(implementation, devices):
    """Rule 2: sharding the batch, by jit or by shard_map, changes no record's numbers."""
    op = operator(implementation)
    batch = indexed(np.arange(16)[::-1], epoch=5)
    expected = drawn(op(batch))
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    specs = jax.tree.map(lambda leaf: P("data") if np.ndim(leaf) else P(), batch)
    sharded = jax.device_put(batch, jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs))
    mapped = jax.shard_map(
        lambda b: op(b).data["drawn"], mesh=mesh, in_specs=(specs,), out_specs=P("data")
    )
    for got in (op(sharded)["drawn"], jax.jit(mapped)(sharded)):
        np.testing.assert_array_equal(got, expected)


@MOSTLY_THREEFRY
def test_eager_jit_scan_and_grad_agree(implementation):
    """Rule 2: where the call is traced does not matter."""
    op = operator(implementation)
    batch = indexed(np.arange(6), epoch=1)
    expected = op(batch)
    assert same(jax.jit(lambda b: op(b))(batch), expected)
    assert same(nnx.jit(lambda op, b: op(b))(op, batch), expected)
    assert same(op.apply_batch(batch), expected)
    assert same(operator(implementation, batch_strategy="scan")(batch), expected)

    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), batch)
    _, out = jax.lax.scan(lambda carry, b: (carry, op(b)), None, stacked)
    assert same(jax.tree.map(lambda leaf: leaf[1], out), expected)

    def loss(x):
        return (op(batch.replace(data={"x": x}))["drawn"].astype(jnp.float32) * x[:, 0]).sum()

    gradient = jax.grad(loss)(jnp.zeros((6, 2)))
    np.testing.assert_array_equal(gradient[:, 0], drawn(expected).astype(np.float32))


@MOSTLY_THREEFRY
def test_a_draw_for_the_batch_comes_from_its_first_valid_record(implementation):
    """Operators that draw once for a batch take the first valid row's record, padding aside."""
    op = operator(implementation, kind=DrawOnce)

    def draw(index, mask):
        return np.asarray(op(indexed(index, 4, np.array(mask)))["drawn"])[0]

    one = draw([7, 3], [True, True])
    np.testing.assert_array_equal(one, draw([5, 7, 9], [False, True, True]))
    assert not np.array_equal(one, draw([3, 7], [True, True]))


@MOSTLY_THREEFRY
def test_calls_differ_and_repeat_from_the_seed(implementation):
    """Rule 3: without indices every call draws anew, in a sequence that the seed determines."""
    one, two = operator(implementation), operator(implementation)
    sequence = [drawn(one(plain())) for _ in range(4)]
    assert len(np.unique(np.concatenate(sequence))) == 16
    for expected in sequence:
        np.testing.assert_array_equal(drawn(two(plain())), expected)
    assert one.rngs.draw.count.get_value() == 4


@MOSTLY_THREEFRY
def test_the_sequence_is_the_same_eager_and_compiled(implementation):
    """Rule 3: op(batch), apply_batch and nnx.jit take their turns in one sequence."""
    one, two = operator(implementation), operator(implementation)
    run = nnx.jit(lambda op, b: op(b))
    expected = [one(plain()) for _ in range(4)]
    got = [two(plain()), run(two, plain()), two.apply_batch(plain()), two(plain())]
    assert all(map(same, got, expected))


@KEYS
def test_the_sequence_goes_on_after_a_restore(implementation):
    """Rule 3: the place in the sequence is part of the checkpoint."""
    one, two = operator(implementation), operator(implementation)
    one(plain())
    two.set_state(one.get_state())
    assert same(one(plain()), two(plain()))


@MOSTLY_THREEFRY
@DEVICES
def test_the_sequence_is_the_same_on_any_number_of_devices(implementation, devices):
    """Rule 3: where the rows are changes neither the numbers of a call nor their order."""
    one, two = operator(implementation), operator(implementation)
    for _ in range(2):
        assert same(one(plain(8)), two(spread(plain(8), devices)))
    assert two.rngs.draw.count.get_value() == 2


@pytest.mark.parametrize(
    "transform",
    [
        jax.jit,
        lambda f: lambda b: jax.lax.scan(lambda c, _: (c, f(b)), None, None, length=2),
        lambda f: lambda b: jax.grad(lambda x: f(b.replace(data={"x": x}))["x"].sum())(b["x"]),
        lambda f: lambda b: jax.jit(lambda f, b: (f(b), f))(f, b),
        lambda f: lambda b: jax.vmap(lambda f, _: f(b), in_axes=(None, 0))(f, b["x"]),
        lambda f: lambda b: jax.lax.scan(lambda f, _: (f, f(b)), f, None, length=2),
        lambda f: lambda b: nnx.jit(lambda f: jax.checkpoint(lambda f: f(b))(f))(f),
    ],
    ids=["jit", "scan", "grad", "jit of it", "vmap of it", "scan of it", "checkpoint of it"],
)
def test_a_stream_that_cannot_advance_is_an_error(transform):
    """Rule 3: JAX's transformations bring no stream back, of a closure or of an argument."""
    op = operator()
    message = r"cannot advance its random stream .* key=key.* nnx.jit .* record_"
    with pytest.raises(ValueError, match=message):
        transform(op)(plain())
    assert op.rngs.draw.count.get_value() == 0


def test_an_operator_given_to_a_jit_needs_a_key_or_numbers():
    """With either, the result is the eager call's, and an operator that came back draws on."""
    op, given = operator(), indexed([3, 1])
    run = jax.jit(lambda op, batch, key: (op(batch, key=key), op))
    for key in (None, jax.random.key(1)):
        out, again = run(op, given, key)
        assert same(out, op(given, key=key))
    assert same(again(plain()), op(plain()))


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
def test_transformations_of_nnx_advance_the_stream(graph):
    """Rule 3: made of a graph or of a tree, an operator draws what it draws eagerly."""
    op, eager = operator(), operator()

    def loss(x, op, batch):
        out = op(batch)
        return x * out["x"].sum(), out

    run = nnx.jit(lambda op, batch: op(batch), graph=graph)
    grad = nnx.grad(loss, has_aux=True, graph=graph)
    for call in (run, run, lambda op, batch: grad(1.0, op, batch)[1]):
        assert same(call(op, plain()), eager(plain()))
    assert op.rngs.draw.count.get_value() == 3


def test_a_failed_call_does_not_advance_the_stream():
    """Rule 3: when apply raises, eagerly or compiled, the next call draws what this one would."""

    class Fails(Draw):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            if data["x"].shape != (2,):
                raise ValueError("wrong width")
            return super().apply(data, state, metadata, random_params, stats)

    op = operator(kind=Fails)
    bad = Batch.from_arrays({"x": np.zeros((4, 3), np.float32)})
    before = op.get_state()
    for call in (op, op.apply_batch, lambda b: nnx.jit(lambda op, b: op(b))(op, b)):
        with pytest.raises(ValueError, match="wrong width"):
            call(bad)
        jax.tree.map(np.testing.assert_array_equal, op.get_state(), before)


@MOSTLY_THREEFRY
@DEVICES
def test_others_never_change_an_operators_numbers(implementation, devices):
    """Rule 4: to a stream of its own, other streams, operators and later calls do not matter."""

    def plain():
        return spread(Batch.from_arrays({"x": np.zeros((8, 2), np.float32)}), devices)

    key = jax.random.key(3, impl=implementation)
    config = OperatorConfig(stochastic=True, stream_name="draw")
    expected = Draw(config, rngs=nnx.Rngs(draw=key))
    rngs = nnx.Rngs(a=1, draw=key, z=2)
    neighbour = Draw(OperatorConfig(stochastic=True, stream_name="a"), rngs=rngs)
    rngs.z()
    twin = Draw(config, rngs=rngs)
    rngs.draw()
    neighbour(plain())
    assert same(twin(plain()), expected(plain()))
    neighbour(plain())
    records = spread(indexed(np.arange(8)), devices)
    assert same(twin(records), expected(records))
    assert same(twin(plain()), expected(plain()))


@MOSTLY_THREEFRY
def test_streams_of_one_seed_differ(implementation):
    """Rule 4: two streams that fall back on the same default are still different streams."""
    rngs = nnx.Rngs(jax.random.key(0, impl=implementation))
    one, two = (Draw(OperatorConfig(stochastic=True, stream_name=name), rngs=rngs) for name in "ab")
    assert not same(one(plain()), two(plain()))
    assert not same(one(indexed(np.arange(4))), two(indexed(np.arange(4))))


@MOSTLY_THREEFRY
def test_stages_that_share_a_base_key_are_told_apart(implementation):
    """Ordinal 0 is the operator alone, and each further ordinal draws differently."""
    op = operator(implementation)
    batch = indexed(np.arange(4))
    results = []
    for ordinal in range(3):
        with randomness.member(Draw, 0, ordinal):
            results.append(drawn(op.apply_batch(batch)))
    np.testing.assert_array_equal(results[0], drawn(op(batch)))
    assert len(np.unique(np.concatenate(results))) == 12


@MOSTLY_THREEFRY
def test_per_record_numbers_are_uniform_and_uncorrelated(implementation):
    """Neighbouring records and epochs have the mean, variance and correlation of noise."""
    op = operator(implementation)
    epochs = [drawn(op(indexed(np.arange(2000), epoch))) / 2.0**32 for epoch in range(2)]
    for values in epochs:
        # Of a uniform number: mean 1/2, variance 1/12, and 1/180 the variance of its square.
        assert abs(values.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / 2000)
        assert abs(values.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / 2000)
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4 / np.sqrt(2000)
    assert abs(np.corrcoef(*epochs)[0, 1]) < 4 / np.sqrt(2000)
