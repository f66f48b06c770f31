"""Which members records go through: exact integers with the right frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx

from datarax.core import randomness
from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.core.schedule import Probability, Switch
from datarax.operators import (
    CompositeOperatorConfig,
    CompositeOperatorModule,
    MapOperator,
    MapOperatorConfig,
    ProbabilisticOperator,
    ProbabilisticOperatorConfig,
    SelectorOperator,
    SelectorOperatorConfig,
)
from datarax.operators._choice import drawn_numbers, whole_weights

pytestmark = pytest.mark.usefixtures("quick_compiles")
RECORDS = 10_000


def digit(number):
    """Appends a digit to `x`, which then tells who was there in which order."""
    return MapOperator(MapOperatorConfig(), fn=lambda x: x * np.int32(10) + np.int32(number))


def digits(*numbers):
    return [digit(number) for number in numbers]


def batch(numbered=True):
    index = np.arange(RECORDS) if numbered else None
    return Batch.from_arrays({"x": np.zeros(RECORDS, np.int32)}, record_index=index)


def likely(counts, expected):
    """Whether the counts fit the expected proportions, at a level of 1 in 1,000."""
    expected = np.asarray(expected, float)
    return scipy.stats.chisquare(counts, expected / expected.sum() * RECORDS).pvalue > 1e-3


def oracle(words, weights, replace):
    """The same draws with Python's integers."""
    left, drawn = list(weights), []
    for word in words:
        point, number = int(word) * sum(left) >> 32, 0
        while point >= sum(left[: number + 1]):
            number += 1
        drawn.append(number)
        if not replace:
            left[number] = 0
    return drawn


@pytest.mark.parametrize("replace", [True, False], ids=["with", "without"])
def test_draws_are_exact(replace):
    """Every word gives the number that whole numbers of any size would give."""
    words = np.random.default_rng(0).integers(0, 2**32, (500, 3), np.uint32)
    words[0], words[1] = 0, 2**32 - 1
    weights = whole_weights((1e-12, 0.0, 3.0, 1.5, 1e9))
    weights = (7, 0, *weights[2:4], 2**29) if not replace else weights
    run = jax.jit(jax.vmap(lambda words: drawn_numbers(words, weights, replace)))
    wanted = [oracle(row, weights, replace) for row in words]
    np.testing.assert_array_equal(run(words), wanted)


def test_whole_weights_keep_proportions():
    """None but 0 becomes 0, and the sum stays where `below` is exact."""
    weights = whole_weights((1e-30, 0.0, 1.0, 3.0))
    assert weights == (1, 0, 2**28, 3 * 2**28)
    assert sum(whole_weights((1.0,) * 1000)) <= 2**31


@pytest.mark.parametrize("numbered", [True, False], ids=["record_index", "no index"])
def test_weights_are_the_frequencies(numbered):
    """Operators are chosen in proportion to their weights; of weight 0 never."""
    config = SelectorOperatorConfig(weights=(1, 0, 2, 5))
    op = SelectorOperator(config, operators=digits(1, 2, 3, 4), rngs=nnx.Rngs(0))
    counts = np.bincount(op(batch(numbered))["x"], minlength=5)
    assert counts[[0, 2]].tolist() == [0, 0]
    assert likely(counts[[1, 3, 4]], [1, 2, 5])
    stats = [member.get_operation_stats()["applied_count"] for member in op.operators]
    assert stats == counts[1:].tolist()


class Seen(OperatorModule):
    """Counts in `seen` how often it was applied, from where an earlier one stopped."""

    def rest_fields(self, data):
        return {} if "seen" in data else {"seen": jnp.int32(0)}

    def pass_through(self, batch):
        return batch.replace(data={**batch.data, **jax.vmap(self.rest_fields)(batch.data)})

    def apply(self, data, state, metadata, random_params=None, stats=None):
        data = {**data, **self.rest_fields(data)}
        return {**data, "seen": data["seen"] + 1}, state, metadata


def test_what_one_member_adds_comes_to_all_records():
    """Those that go through others have it at rest; so have all in evaluation mode."""
    plus = MapOperator(MapOperatorConfig(fields=("x",)), fn=lambda x: x + np.int32(1))
    config = SelectorOperatorConfig(k=2, replace=True)
    op = SelectorOperator(config, operators=[plus, Seen(OperatorConfig())], rngs=nnx.Rngs(0))
    out = op(batch())
    np.testing.assert_array_equal(out["x"] + out["seen"], 2)
    assert likely(np.bincount(out["seen"]), [1, 2, 1])
    op.eval()
    np.testing.assert_array_equal(op(batch())["seen"], 0)


class Untouched(Seen):
    """Has no form to give to records."""

    def pass_through(self, batch):
        raise AssertionError("an operator of weight 0 was asked")


def test_what_is_never_chosen_gives_evaluation_no_form():
    """Nor does it run; what follows has the fields of the operators that can be chosen."""
    config = SelectorOperatorConfig(weights=(0, 1))
    members = [Untouched(OperatorConfig()), Seen(OperatorConfig())]
    op = SelectorOperator(config, operators=members, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(op(batch())["seen"], 1)
    op.eval()
    np.testing.assert_array_equal(op(batch())["seen"], 0)


def test_orders_of_several_have_the_frequencies_of_draws_without_replacement():
    """The first of two is drawn by weight, the second by weight among the rest."""
    weights = np.array([1, 2, 5])
    config = SelectorOperatorConfig(k=2, weights=tuple(weights))
    op = SelectorOperator(config, operators=digits(1, 2, 3), rngs=nnx.Rngs(1))
    counts = np.bincount(op(batch())["x"], minlength=34)
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    found = [counts[10 * (a + 1) + b + 1] for a, b in pairs]
    assert sum(found) == RECORDS
    assert likely(found, [weights[a] / 8 * weights[b] / (8 - weights[a]) for a, b in pairs])


def test_all_orders_are_equally_likely():
    """A random order takes each operator once, in any order."""
    config = CompositeOperatorConfig(order="random")
    op = CompositeOperatorModule(config, operators=digits(1, 2, 3), rngs=nnx.Rngs(2))
    counts = np.bincount(op(batch())["x"], minlength=322)
    orders = [123, 132, 213, 231, 312, 321]
    assert counts[orders].sum() == RECORDS
    assert likely(counts[orders], [1] * 6)


class Coin(OperatorModule):
    """Adds 1 to `x` for half of the records, and 2 for all."""

    def generate_random_params(self, rng, data_shapes):
        return randomness.random_words(rng, (data_shapes["x"][0],)) >> np.uint32(31)

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {"x": data["x"] + 2 + random_params.astype(jnp.int32)}, state, metadata


def test_a_probability_can_be_set_and_compiles_nothing_again():
    """The share of records follows the Variable; decisions are independent of what is drawn."""
    rngs, traces = nnx.Rngs(3), []

    class Traced(Coin):
        def apply(self, *args, **kwargs):
            traces.append(1)
            return super().apply(*args, **kwargs)

    member = Traced(OperatorConfig(stochastic=True), rngs=rngs)
    op = ProbabilisticOperator(
        ProbabilisticOperatorConfig(probability=0.3), operator=member, rngs=rngs
    )
    once = np.bincount(op(batch())["x"], minlength=4)
    traced = len(traces)
    assert once[1] == 0
    assert likely(once[[0, 2, 3]], [0.7, 0.15, 0.15])
    for probability, (fewest, most) in {0: (0, 0), 1.0: (RECORDS, RECORDS)}.items():
        op.probability = probability
        assert fewest <= np.count_nonzero(op(batch())["x"]) <= most
    assert len(traces) == traced
    with pytest.raises(ValueError, match=r"probability must be a number from 0 to 1, got 1\.5"):
        op.probability.set_value(1.5)


@pytest.mark.parametrize(
    ("kind", "value", "error", "message"),
    [
        (Probability, [0.5, 0.5], ValueError, r"rate must be a scalar, got shape \(2,\)"),
        (Probability, np.nan, ValueError, "rate must be a number from 0 to 1, got nan"),
        (Probability, True, ValueError, "rate must be a number from 0 to 1, got True"),
        (Switch, 1, TypeError, "rate must be True or False, got int64 1"),
    ],
    ids=["shape", "nan", "bool", "switch"],
)
def test_scalar_variables_refuse_what_they_cannot_be(kind, value, error, message):
    """Set or given at first, with the name of the option in the error."""
    with pytest.raises(error, match=message):
        kind(value, label="rate")
