"""Orders and mixtures: found position by position, exact and random enough."""

import time
import tracemalloc
from math import factorial

import numpy as np
import pytest
from scipy import stats

from datarax.sources import DataSourceModule, SourceConfig
from datarax.sources._mixture import Mixture
from datarax.sources._order import Order, Plan, Positions
from datarax.sources._permutation import permuted


class Numbers(DataSourceModule):
    """As many records as asked for, none of which takes memory."""

    def __init__(self, length, **options):
        super().__init__(SourceConfig(**options))
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"x": np.uint32(index)}


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 9, 64, 1024, 1025, 4096, 70_001])
def test_an_order_holds_every_record_once(length):
    """Of any length, odd and even, a power of two or none; the next epoch has another."""
    orders = [Numbers(length, shuffle=True, seed=3).order(epoch) for epoch in range(2)]
    for order in orders:
        assert order.dtype == np.uint32
        np.testing.assert_array_equal(np.sort(order), np.arange(length))
    assert length < 8 or orders[0].tolist() != orders[1].tolist()


def test_every_order_of_a_few_records_is_equally_likely():
    """All 24 orders of four records come, and all 120 of five, by a chi-squared test."""
    for length, draws in ((4, 3000), (5, 3000)):
        orders = [
            tuple(Order(length, (7, draw)).at(np.arange(length)).tolist()) for draw in range(draws)
        ]
        counts = [orders.count(order) for order in set(orders)]
        assert len(counts) == factorial(length)
        assert stats.chisquare(counts).pvalue > 1e-3


def test_two_records_of_many_stand_anywhere():
    """Their places, and the distance between them, are uniform by chi-squared tests."""
    length, draws = 1025, 6000
    placed = np.stack([Order(length, (5, draw)).at(np.arange(2)) for draw in range(draws)])
    gaps = (placed[:, 0].astype(int) - placed[:, 1]) % length
    for values, cells in ((placed[:, 0], length), (placed[:, 1], length), (gaps - 1, length - 1)):
        counts = np.bincount(values, minlength=cells)
        assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("length", [2**32 - 1, 10**12])
def test_positions_of_huge_orders_take_no_memory(length):
    """A batch of 1,024 positions is found at once; different positions have different records."""
    positions = np.random.default_rng(0).choice(10**9, 1024, replace=False) + (length - 10**9)
    tracemalloc.start()
    begun = time.perf_counter()
    found = permuted(positions, [1, 2, 3], length)
    spent = time.perf_counter() - begun
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert spent < 1
    assert len(set(found.tolist())) == 1024
    assert found.max() < length
    assert stats.kstest(found / length, "uniform").pvalue > 1e-3


def test_an_order_of_four_billion_records_begins_at_once():
    """Nothing is made for the whole epoch."""
    source = Numbers(4 * 10**9, shuffle=True, seed=1)
    batch = next(source.batches(3, 2 * 10**9, 5))
    expected = source.record_numbers(3, 2 * 10**9 + np.arange(5))
    assert batch["x"].tolist() == batch.record_index.tolist() == expected.tolist()


def test_a_plan_has_the_rows_of_one_host():
    """Hosts together read every position once; one without a record gets a stand-in."""
    plans = [Positions(3, 20, 8, rows) for rows in (range(4), range(4, 6), (6, 7))]
    read = [[plan[step][: plan.present(step)].tolist() for step in range(3)] for plan in plans]
    assert read[0] == [[3, 4, 5, 6], [11, 12, 13, 14], [19]]
    assert read[1] == [[7, 8], [15, 16], []]
    assert read[2] == [[9, 10], [17, 18], []]
    assert plans[1][2].tolist() == [19]
    with pytest.raises(IndexError, match="from 0 to 2, got 3"):
        plans[0][3]


def test_a_plan_is_the_same_for_any_number_of_batches_at_once():
    """Numbers are found for many batches together, and each batch has memory of its own."""
    source = Numbers(9000, shuffle=True, seed=1)
    plan = Plan(source, 2, Positions(5, 9000, 700, range(700)))
    for number, indices in enumerate(plan):
        np.testing.assert_array_equal(indices, plan[number])
        assert indices.base is None
    np.testing.assert_array_equal(np.concatenate(list(plan)), source.order(2)[5:])


MIXTURES = {
    "integers": ([3, 1], 4),
    "fractions": ([0.5, 0.3, 0.2], 10),
    "thirds": ([1 / 3, 2 / 3], 3),
    "irrational": ([np.pi, np.e, 1e-7], None),
    "a thousand": (np.random.default_rng(0).random(1000).tolist(), None),
    "a thousand integers": (list(range(1, 1001)), 500_500),
}


@pytest.mark.parametrize(("weights", "length"), MIXTURES.values(), ids=MIXTURES)
def test_a_mixture_is_exact_within_each_block(weights, length):
    """Each source has its share of every block, in its own order, evenly spread."""
    mixture = Mixture(weights)
    block = int(mixture.counts.sum())
    assert length is None or block == length
    sources, positions = mixture.at(np.arange(2 * block))
    for part in (sources[:block], sources[block:]):
        np.testing.assert_array_equal(np.bincount(part), mixture.counts)
    if length is None:
        shares = np.array(weights) / sum(weights)
        assert np.abs(mixture.counts / block - shares).max() < 2e-5
    for source in range(0, len(weights), 97):
        mine = positions[sources == source]
        np.testing.assert_array_equal(mine, np.arange(2 * mixture.counts[source]))
        # Never further than about a record from what the weight says.
        due = np.cumsum(sources == source) - mixture.counts[source] / block * np.arange(
            1, 2 * block + 1
        )
        assert np.abs(due).max() < 2


def test_a_position_of_a_mixture_stands_for_itself():
    """Far positions need none before them."""
    mixture = Mixture([2, 1, 1])
    sources, positions = mixture.at(np.array([10**12 + 1, 3]))
    assert sources.tolist() == [mixture.at(np.array([1]))[0][0], mixture.at(np.array([3]))[0][0]]
    assert positions[0] == 10**12 // 4 * mixture.counts[sources[0]] + mixture.at(np.array([1]))[1]


@pytest.mark.parametrize("weights", [[], [1, 0], [1, -1], [1, float("nan")], [float("inf")]])
def test_a_mixture_refuses_weights_that_are_none(weights):
    """Each source needs a positive share."""
    with pytest.raises(ValueError, match="weights must be a positive number for each source"):
        Mixture(weights)
