"""What all operators that are made of operators have in common."""

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
from datarax.operators import (
    CompositeOperatorConfig,
    CompositeOperatorModule,
    ElementOperator,
    ElementOperatorConfig,
    MapOperator,
    MapOperatorConfig,
    MultiModalOperator,
    MultiModalOperatorConfig,
    ProbabilisticOperator,
    ProbabilisticOperatorConfig,
    RepeatOperator,
    RepeatOperatorConfig,
    SelectorOperator,
    SelectorOperatorConfig,
)


class Shuffle(OperatorModule):
    """`x` becomes `31 x + bits`, with random bits of each record: no two orders give the same."""

    def generate_random_params(self, rng, data_shapes):
        # Those of jax.random.bits, which take longer to compile.
        return randomness.random_words(rng, (data_shapes["x"][0],))

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "x": data["x"] * np.uint32(31) + random_params}, state, metadata


class Other(Shuffle):
    """The same under another name."""


def shuffle(rngs, kind=Shuffle):
    return kind(OperatorConfig(stochastic=True), rngs=rngs)


def plus_one(x):
    return x + np.uint32(1)


def times_five(x):
    return x * np.uint32(5)


def mapped(fn=plus_one):
    """A deterministic operator. Functions of one name let operators share what is compiled."""
    return MapOperator(MapOperatorConfig(fields=("x",)), fn=fn)


def streams(seed=0, implementation="threefry2x32"):
    return nnx.Rngs(jax.random.key(seed, impl=implementation))


def records(rows=8, **fields):
    fields = {"record_index": np.arange(rows), "epoch": 3, **fields}
    data = {"x": np.arange(rows, dtype=np.uint32) * 7, "id": np.arange(rows)}
    return Batch.from_arrays(data, **fields)


def selector(members, rngs, k=1, **options):
    return SelectorOperator(SelectorOperatorConfig(k=k, **options), operators=members, rngs=rngs)


def composite(members, rngs=None, order="given"):
    config = CompositeOperatorConfig(order=order)
    return CompositeOperatorModule(config, operators=members, rngs=rngs)


def probabilistic(member, rngs, probability=0.5):
    config = ProbabilisticOperatorConfig(probability=probability)
    return ProbabilisticOperator(config, operator=member, rngs=rngs)


def by_field(rngs, *, shared=False, **members):
    config = MultiModalOperatorConfig(shared_draws=shared)
    return MultiModalOperator(config, operators=members, rngs=rngs)


def nested(rngs):
    """Four deep: a chain with a choice of a random order with an operator for some records."""
    inner = composite([shuffle(rngs), probabilistic(shuffle(rngs), rngs)], rngs, "random")
    return composite([shuffle(rngs), selector([inner, shuffle(rngs, Other)], rngs), mapped()])


KINDS = {
    "composite": lambda rngs: composite([shuffle(rngs), mapped(), shuffle(rngs)]),
    "random order": lambda rngs: composite([shuffle(rngs), mapped()], rngs, "random"),
    "probabilistic": lambda rngs: probabilistic(shuffle(rngs), rngs),
    "selector": lambda rngs: selector([shuffle(rngs), mapped()], rngs, weights=(2, 1)),
    "selector with replacement": lambda rngs: selector(
        [shuffle(rngs), mapped()], rngs, k=2, replace=True
    ),
    "by field": lambda rngs: by_field(rngs, x=shuffle(rngs)),
    "by field, shared": lambda rngs: by_field(rngs, x=shuffle(rngs), shared=True),
    "nested": nested,
}


pytestmark = pytest.mark.usefixtures("quick_compiles")
KIND = pytest.mark.parametrize("kind", KINDS)


def x_of(batch):
    return np.asarray(batch["x"])


@KIND
def test_a_records_result_depends_on_nothing_else(kind):
    """Rule 2 through every composition: order, padding and the other rows do not count."""
    op, batch = KINDS[kind](streams()), records()
    expected = x_of(op(batch))
    order = np.random.default_rng(0).permutation(8)
    mask = np.arange(8) % 3 > 0
    moved = batch.replace(
        data={"x": batch["x"][order], "id": batch["id"][order]}, record_index=order
    ).select(mask)
    np.testing.assert_array_equal(x_of(op(moved)), expected[order])
    assert (x_of(op(batch.replace(epoch=4))) != expected).any()
    assert op(batch)["id"] is batch["id"]


@KIND
def test_output_spec_is_the_spec_of_the_output(kind):
    """What comes out has the spec that is found without data."""
    op = KINDS[kind](streams())
    out = jax.eval_shape(op.apply_batch, records()).data
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), out)
    given = {"x": jax.ShapeDtypeStruct((), np.uint32), "id": jax.ShapeDtypeStruct((), np.int32)}
    assert op.output_spec(given) == wanted


@KIND
def test_evaluation_mode_runs_what_is_deterministic(kind):
    """A composition that draws passes records through; others let their members decide."""
    op, batch = KINDS[kind](streams()), records()
    assert "\n" not in repr(op)
    assert repr(op).endswith(f"operators=[{', '.join(type(m).__name__ for m in op.operators)}])")
    op.eval()
    steps = {"composite": 1, "nested": 1}.get(kind, 0)
    np.testing.assert_array_equal(x_of(op(batch)), batch["x"] + np.uint32(steps))
    applied = 8 if steps else 0
    assert op.get_operation_stats() == {"applied_count": applied, "skipped_count": 8 - applied}
    op.train()
    assert (x_of(op(batch)) != batch["x"]).any()


@pytest.mark.parametrize(
    ("implementation", "numbered"),
    [("rbg", True), pytest.param("threefry2x32", False, marks=pytest.mark.thorough)],
    ids=["rbg", "no index"],
)
def test_the_given_order_is_one_call_after_the_other(implementation, numbered):
    """Members draw what they draw outside, whatever else is in the composition."""

    def members():
        rngs = streams(2, implementation)
        return [shuffle(rngs), mapped(), shuffle(rngs), shuffle(rngs, Other)]

    op, outside, batch = composite(members()), members(), records()
    if not numbered:
        batch = batch.replace(record_index=None)
    for _ in range(2):
        expected = batch
        for member in outside:
            expected = member(expected)
        np.testing.assert_array_equal(x_of(op(batch)), x_of(expected))


class Noted(Shuffle):
    """Writes its bits into a field of their own."""

    def __init__(self, field):
        super().__init__(OperatorConfig(stochastic=True), rngs=streams(5))
        self.field = field

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, self.field: random_params}, state, metadata


@pytest.mark.parametrize("numbered", [True, False], ids=["record_index", "no index"])
def test_members_of_equal_keys_are_told_apart(numbered):
    """Members of one class from equal streams draw different numbers, at any depth."""
    batch = records() if numbered else records().replace(record_index=None)
    deep = composite([composite([Noted("a")]), composite([Noted("b"), Noted("c")]), Noted("d")])
    out = deep(batch)
    assert len({bits for field in "abcd" for bits in np.asarray(out[field]).tolist()}) == 4 * 8
    np.testing.assert_array_equal(out["a"], Noted("a")(batch)["a"])


def test_other_members_do_not_change_what_a_member_draws():
    """Records that go through a member come out the same, whatever the other members are."""
    batch = records()

    def choice_of(*others):
        rngs = streams()
        first = shuffle(rngs)
        return x_of(selector([first, *others], streams(9), weights=(1, 1))(batch)), first

    one, first = choice_of(mapped())
    two, _ = choice_of(mapped(times_five))
    alone = x_of(first(batch))
    chosen = one == alone
    assert 0 < chosen.sum() < 8
    np.testing.assert_array_equal(one == alone, two == alone)
    np.testing.assert_array_equal(one[~chosen], (batch["x"] + np.uint32(1))[~chosen])
    np.testing.assert_array_equal(two[~chosen], (batch["x"] * np.uint32(5))[~chosen])


@pytest.mark.parametrize(
    ("kind", "numbered"),
    [
        pytest.param("random order", True, marks=pytest.mark.thorough),
        ("selector", False),
        ("by field, shared", True),
    ],
    ids=["random order", "selector, no index", "by field, shared"],
)
def test_an_explicit_key_is_all_that_is_drawn_from(kind, numbered):
    """With a key the result is a pure function, in a jit too, and no stream advances."""
    op, other, batch = KINDS[kind](streams()), KINDS[kind](streams(1)), records()
    if not numbered:
        batch = batch.replace(record_index=None)
    before = op.get_state()["rngs"]
    out = x_of(op(batch, key=jax.random.key(7)))
    np.testing.assert_array_equal(x_of(other(batch, key=jax.random.PRNGKey(7))), out)
    run = jax.jit(lambda batch, key: op(batch, key=key))
    np.testing.assert_array_equal(x_of(run(batch, jax.random.key(7))), out)
    assert (x_of(op(batch, key=jax.random.key(8))) != out).any()
    jax.tree.map(np.testing.assert_array_equal, op.get_state()["rngs"], before)


def test_members_draw_from_one_key_by_their_place_in_their_class():
    """Two of one class draw different numbers, which others before them do not change."""
    key, batch = jax.random.key(3), records()
    out = composite([Noted("a"), Noted("b")])(batch, key=key)
    assert not set(np.asarray(out["a"]).tolist()) & set(np.asarray(out["b"]).tolist())
    mixed = composite([mapped(), Noted("a"), mapped(), Noted("b")])(batch, key=key)
    for field in "ab":
        np.testing.assert_array_equal(out[field], mixed[field])


def test_apply_takes_one_records_parameters():
    """generate_random_params and apply work as documented, and can be mapped."""
    op, batch = KINDS["selector with replacement"](streams()), records()

    @jax.jit
    def run(key, data):
        params = op.generate_random_params(key, {"x": (8,), "id": (8,)})

        def one(data, params):
            return op.apply(data, {}, None, params)[0]["x"]

        return (
            params,
            jax.vmap(one)(data, params),
            one(*jax.tree.map(lambda x: x[2], (data, params))),
        )

    params, every, third = run(jax.random.key(3), batch.data)
    assert {leaf.shape for leaf in jax.tree.leaves(params)} == {(8,)}
    assert every[2] == third
    assert len(set(np.asarray(every).tolist())) == 8


def test_state_goes_to_a_module_built_from_other_seeds():
    """get_state and set_state carry keys, counts and what tells equal keys apart."""

    def build(seeds):
        members = [shuffle(streams(seed)) for seed in seeds]
        return selector([composite(members), mapped()], streams(sum(seeds)))

    op, new = build([4, 4]), build([1, 2])
    batch = records()
    op(batch.replace(record_index=None))
    new.set_state(op.get_state())
    for each in (batch, batch.replace(record_index=None)):
        np.testing.assert_array_equal(x_of(op(each)), x_of(new(each)))
    assert (
        new.get_operation_stats()
        == op.get_operation_stats()
        == {
            "applied_count": 24,
            "skipped_count": 0,
        }
    )


def test_copies_are_independent_and_alike():
    """A copy builds from the members as they were given, with the state of now."""
    for kind in ("selector", "by field"):
        op, batch = KINDS[kind](streams()), records()
        expected = x_of(op(batch))
        counts = op.operators[0].get_operation_stats()
        copy = op.copy()
        np.testing.assert_array_equal(x_of(copy(batch)), expected)
        assert op.operators[0].get_operation_stats() == counts
        assert copy.operators[0].get_operation_stats() == counts


class Scale(OperatorModule):
    """Multiplies `x` by a parameter; `applied_records` says it does so for positive draws."""

    def __init__(self, rngs):
        super().__init__(OperatorConfig(stochastic=True), rngs=rngs)
        self.scale = nnx.Param(jnp.float32(3))

    def generate_random_params(self, rng, data_shapes):
        return randomness.random_words(rng, (data_shapes["x"][0],)) < np.uint32(2**31)

    def applied_records(self, random_params):
        return random_params

    def apply(self, data, state, metadata, random_params=None, stats=None):
        scale = jnp.where(random_params, self.scale.get_value(), jnp.float32(1))
        return {**data, "x": data["x"] * scale}, state, metadata


def zeros(x):
    return 0 * x


def test_gradients_and_counts_are_those_of_the_chosen_records():
    """The gradient of a member's parameter, and every count, follow from who went through it."""
    rngs = streams()
    scale, rest = Scale(rngs), mapped(zeros)
    op = probabilistic(selector([scale, rest], rngs), rngs, probability=0.75)
    mask = np.arange(64) < 50
    batch = Batch.from_arrays(
        {"x": np.arange(1, 65, dtype=np.float32)}, record_index=np.arange(64), valid_mask=mask
    )

    def loss(op, batch):
        return jnp.sum(op(batch)["x"])

    x = x_of(batch)
    out = x_of(op(batch))
    scaled, zeroed = out == 3 * x, out == 0
    unscaled = x_of(scale(batch)) == x
    assert 0 < scaled.sum() < 64
    assert 0 < zeroed.sum() < 64
    # Records that the member leaves alone, and those that no member gets.
    same = out == x
    assert (same == ~(scaled | zeroed)).all()
    # The call by itself counted too.
    counted = scale.get_operation_stats()
    assert counted["applied_count"] == (scaled & mask).sum() + (~unscaled & mask).sum()
    through = counted["skipped_count"] - (unscaled & mask).sum()
    assert 0 <= through <= (same & unscaled & mask).sum()
    assert rest.get_operation_stats()["applied_count"] == (zeroed & mask).sum()
    chosen = (scaled & mask).sum() + (zeroed & mask).sum() + through
    assert op.get_operation_stats() == {"applied_count": chosen, "skipped_count": 50 - chosen}
    assert op.operators[0].get_operation_stats()["applied_count"] == chosen
    (gradient,) = jax.tree.leaves(nnx.jit(nnx.grad(loss))(op, batch))
    assert gradient == x[scaled].sum()


def test_several_devices_give_the_same_bits():
    """Sharding the records changes no bit."""
    mesh = Mesh(np.array(jax.devices()), ("data",))

    def spread(leaf):
        return jax.device_put(leaf, NamedSharding(mesh, P("data") if np.ndim(leaf) else P()))

    op, batch = KINDS["selector"](streams()), records()
    expected = x_of(op(batch))
    np.testing.assert_array_equal(x_of(op(jax.tree.map(spread, batch))), expected)


def test_a_host_field_that_no_member_touches_stays_the_same():
    """What is passed through is not copied in the loop over records, nor narrowed."""
    op, batch = selector([mapped(), mapped(times_five)], streams()), records()
    out = op(batch)
    assert out["id"] is batch["id"]
    assert out["id"].dtype == np.int64


def test_a_deterministic_composition_can_remember():
    """cacheable=True is for members that do not draw."""
    config = CompositeOperatorConfig(cacheable=True)
    with pytest.raises(ValueError, match="cacheable=True, but a remembered"):
        composite_of(config, [mapped(), shuffle(streams())])
    op = composite_of(config, [mapped(), mapped(times_five)])
    batch = jax.device_put(records())
    assert op(batch)["x"] is op(batch)["x"]


def composite_of(config, members):
    return CompositeOperatorModule(config, operators=members)


class WholeBatch(OperatorModule):
    """Centres a batch."""

    def apply_batch(self, batch, stats=None):
        return batch.replace(data={**batch.data, "x": batch["x"] - batch["x"].min()})


def test_operators_of_whole_batches_go_in_the_given_order_only():
    """Elsewhere they are refused, with the way out."""
    whole = WholeBatch(OperatorConfig())
    assert x_of(composite([mapped(), whole])(records())).min() == 0
    for build in (
        lambda member: selector([member], streams()),
        lambda member: probabilistic(member, streams()),
        lambda member: composite([member], streams(), "random"),
        lambda member: by_field(None, x=member),
    ):
        for member in (whole, composite([mapped(), RepeatOperator(RepeatOperatorConfig())])):
            with pytest.raises(ValueError, match=r"records one by one, but .* CompositeOperatorM"):
                build(member)


def cast(x):
    return x.astype(jnp.float32)


def test_members_must_make_records_that_are_alike():
    """Without data and with it, the error names the operators and both specs."""
    given = {"x": jax.ShapeDtypeStruct((), np.uint32), "id": jax.ShapeDtypeStruct((), np.int32)}
    for op in (
        selector([mapped(), mapped(cast)], streams()),
        selector([mapped(cast), mapped()], streams(), k=2),
        composite([mapped(), mapped(cast)], streams(), "random"),
        probabilistic(mapped(cast), streams()),
    ):
        message = r"alike.*uint32.* and op.*float32\[\].*; bring (data\.)?x to|float32.*uint32"
        with pytest.raises(ValueError, match=message):
            op.output_spec(given)
        with pytest.raises(ValueError, match=message):
            op(records())
    same = selector([mapped(cast), mapped(cast)], streams())
    assert same.output_spec(given)["x"].dtype == np.float32
    assert same(records())["x"].dtype == np.float32


def test_members_must_leave_the_same_states():
    """States count as the fields do."""

    def noting(element, key=None):
        return element.update_state({"seen": np.int32(1)})

    plain = ElementOperator(ElementOperatorConfig(), fn=lambda element, key=None: element)
    noted = ElementOperator(ElementOperatorConfig(), fn=noting)
    with pytest.raises(ValueError, match=r"alike.*state\.seen: int32"):
        selector([plain, noted], streams())(records())
    out = composite([plain, noted])(records())
    np.testing.assert_array_equal(out.states["seen"], 1)


def twice():
    return [member := mapped(), member]


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: composite([]), ValueError, "at least one operator, got none"),
        (lambda: composite(mapped()), TypeError, r"write operators=\[operator\]"),
        (lambda: composite([plus], streams()), TypeError, "operators.0. .*got function; wrap"),
        (lambda: composite([MapOperator]), TypeError, "got the class MapOperator"),
        (lambda: composite(twice()), ValueError, r"operators\[1\] .*same object.*build another"),
        (lambda: composite([mapped()], order="shuffled"), ValueError, "order must be one of"),
        (lambda: composite([mapped()], order="random"), ValueError, "rngs is None"),
        (lambda: CompositeOperatorConfig(stochastic=True), ValueError, "set order='random'"),
        (lambda: MultiModalOperatorConfig(stochastic=True), ValueError, "set shared_draws=True"),
        (lambda: MultiModalOperatorConfig(shared_draws=1), TypeError, "must be True or False"),
        (lambda: selector([mapped()], streams(), k=2), ValueError, "k .*must be at most 1.*got 2"),
        (lambda: selector([mapped()], streams(), weights=(1, 2)), ValueError, "1 operators, got 2"),
        (lambda: SelectorOperatorConfig(k=0), ValueError, "k must be 1 or more, got 0"),
        (lambda: SelectorOperatorConfig(k=1.0), TypeError, "k must be an integer, got float"),
        (lambda: SelectorOperatorConfig(weights=(1, -1)), ValueError, "weights must be finite"),
        (lambda: SelectorOperatorConfig(weights=(0, 0)), ValueError, "not all 0"),
        (lambda: SelectorOperatorConfig(weights=("a",)), TypeError, "tuple of numbers"),
        (lambda: SelectorOperatorConfig(replace="yes"), TypeError, "replace must be True"),
        (lambda: ProbabilisticOperatorConfig(probability=1.5), ValueError, "from 0 to 1, got 1.5"),
        (lambda: ProbabilisticOperatorConfig(probability=True), TypeError, "number from 0 to 1"),
        (lambda: probabilistic(plus, streams()), TypeError, "operator of .*wrap a function"),
        (lambda: by_field(None), ValueError, "MultiModalOperator must have at least one"),
        (lambda: by_field(None, x=plus), TypeError, r"operators\['x'\]"),
        (lambda: MapOperatorConfig(fields="x"), TypeError, r"write fields=\('image',\)"),
        (lambda: MapOperatorConfig(fields=()), ValueError, "at least one"),
        (lambda: MapOperatorConfig(fields=("a", "a.b")), ValueError, "none within another"),
        (lambda: MapOperatorConfig(stochastic=True), ValueError, "use ElementOperator"),
        (lambda: mapped(lambda x, y: x), TypeError, "fn must take one array"),
        (lambda: mapped(3), TypeError, "fn must be callable"),
        (lambda: RepeatOperatorConfig(num_views=0), ValueError, "1 or more, got 0"),
        (lambda: RepeatOperatorConfig(num_views=2.0), TypeError, "must be an integer, got float"),
        (lambda: RepeatOperatorConfig(stochastic=True), ValueError, "copies are alike"),
    ],
)
def test_wrong_options_are_refused(build, error, message):
    """Each says what was expected, what came, and the way out."""
    with pytest.raises(error, match=message):
        build()


def plus(element, key=None):
    return element
