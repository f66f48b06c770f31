"""Records of unequal length through a batcher: every one once, exactly resumed."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from datarax.batching import (
    BucketBatcher,
    BucketBatcherConfig,
    DefaultBatcher,
    DefaultBatcherConfig,
    PackingBatcher,
    PackingBatcherConfig,
)
from datarax.core.element_batch import Element
from datarax.operators import ElementOperator, ElementOperatorConfig
from datarax.pipeline import Pipeline

pytestmark = pytest.mark.usefixtures("quick_compiles")
LENGTHS = np.random.default_rng(0).integers(1, 9, 40).tolist()
BUCKETS = {"boundaries": (3, 8), "length_fields": ("t",)}


def records(lengths=LENGTHS):
    return [
        Element({"t": np.full(length, number, np.int32)}, metadata=f"r{number}")
        for number, length in enumerate(lengths)
    ]


def drawn(element, key):
    return element.update_data({"drawn": jax.random.bits(key)})


def bucket(**options):
    return BucketBatcher(BucketBatcherConfig(**(BUCKETS | options)))


def packing(**options):
    return PackingBatcher(PackingBatcherConfig(**({"row_length": 12} | options)))


def pipeline(batcher, source=None, **options):
    stage = ElementOperator(ElementOperatorConfig(stochastic=True), fn=drawn, rngs=nnx.Rngs(0))
    defaults = {"batch_size": 4, "shuffle": True, "seed": 1, "stages": [stage]}
    return Pipeline(source=source or records(), batcher=batcher, **(defaults | options))


def leaves(batches):
    return [np.asarray(leaf) for batch in batches for leaf in jax.tree.leaves(batch)]


def assert_same(came, expected):
    for one, other in zip(leaves(came), leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def numbers(batches):
    """Which records came, by their content."""
    steps = []
    for batch in batches:
        mask = batch["t_mask"] if "t_mask" in batch else batch["segment_ids"]
        steps.append(np.asarray(batch["t"])[np.asarray(mask) > 0])
    found, counts = np.unique(np.concatenate(steps), return_counts=True)
    assert counts.tolist() == [LENGTHS[number] for number in found]
    return found.tolist()


KINDS = pytest.mark.parametrize("make", [bucket, packing])


@KINDS
@pytest.mark.parametrize("options", [{}, {"prefetch": 0}, {"num_threads": 2}], ids=str)
def test_every_record_comes_once_in_each_epoch(make, options):
    """Whole, in another order each time, with the numbers, metadata and draws of its record."""
    shuffled, orders = pipeline(make(), **options), []
    for epoch in range(2):
        batches = list(shuffled)
        assert numbers(batches) == list(range(40))
        for batch in batches:
            assert batch.epoch == epoch
            for row in np.flatnonzero(batch.valid_mask):
                number = int(batch.record_index[row])
                assert int(batch["t"][row][0]) == number
                name = batch.metadata[row]
                assert (name if make is bucket else name[0]) == f"r{number}"
        orders.append(np.concatenate([batch.record_index for batch in batches]).tolist())
    assert orders[0] != orders[1]


def test_the_draw_of_a_record_does_not_depend_on_its_bucket():
    """Nor on the batch size: it is that of its number and epoch."""
    found = []
    for boundaries, size in (((3, 8), 4), ((8,), 5)):
        draws = {}
        for batch in pipeline(bucket(boundaries=boundaries), batch_size=size):
            rows = np.flatnonzero(batch.valid_mask)
            values = np.asarray(batch["drawn"])[rows].tolist()
            draws |= dict(zip(batch.record_index[rows].tolist(), values, strict=True))
        found.append(draws)
    assert found[0] == found[1]
    assert len(set(found[0].values())) == 40


@KINDS
@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_epoch_resumes_exactly_after_every_batch(make, prefetch):
    """The state holds the positions of records that wait, and the next epochs follow."""
    whole = pipeline(make(), prefetch=prefetch, epochs=2)
    iterator = iter(whole)
    states, batches = [iterator.get_state()], []
    for batch in iterator:
        batches.append(batch)
        states.append(iterator.get_state())
    assert any(state["waiting"] for state in states) == (make is bucket) or make is packing
    for done in range(0, len(batches), 3):
        resumed = iter(pipeline(make(), prefetch=prefetch, epochs=2))
        resumed.set_state(states[done])
        assert_same(list(resumed), batches[done:])


@KINDS
def test_another_batch_size_loses_no_record(make):
    """Records that wait are batched anew."""
    for first, second in ((6, 2), (2, 6)):
        old, new = (iter(pipeline(make(), batch_size=size)) for size in (first, second))
        begun = [next(old), next(old)]
        new.set_state(old.get_state())
        rest = list(new)
        assert numbers([*begun, *rest]) == list(range(40))


@KINDS
def test_a_mesh_gives_the_same_batches(make):
    """Where the batches' rows can be spread evenly."""
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
    where = NamedSharding(mesh, PartitionSpec("data"))
    batches = list(pipeline(make(), sharding=where))
    assert_same(batches, pipeline(make()))
    assert batches[0]["t"].sharding.is_equivalent_to(where, 2)


@KINDS
def test_the_specs_are_those_of_the_batches(make):
    """One for each bucket, with what stages add."""
    shapes = {
        tuple(sorted((name, leaf.shape) for name, leaf in spec.items()))
        for spec in pipeline(make()).batch_specs()
    }
    came = {
        tuple(sorted((name, leaf.shape) for name, leaf in batch.as_dict().items()))
        for batch in pipeline(make())
    }
    assert came == shapes


@KINDS
def test_how_much_was_padding_is_told(make):
    """In steps, by the iterator."""
    iterator = iter(pipeline(make()))
    steps = sum(batch["t"].size for batch in iterator)
    assert iterator.stats.padding == pytest.approx(1 - sum(LENGTHS) / steps)


def test_empty_sequences_are_not_packed():
    """They take no number of a row, and none is looked for again after a resume."""
    source = records([0, 3, 0, 2, 0, 0])
    iterator = iter(pipeline(packing(), source, shuffle=False, seed=None, stages=[]))
    (batch,) = list(iterator)
    assert batch["segment_ids"][0].tolist() == [1, 1, 1, 2, 2] + [0] * 7
    assert batch.metadata[0] == ("r1", "r3")
    assert iterator.get_state()["waiting"] == ""


def test_a_record_that_cannot_be_read_is_left_out():
    """With on_error='mask': the others come as they would, and it is counted."""

    class Broken(list):
        def __getitem__(self, index):
            if index == 7:
                raise OSError("unreadable")
            return super().__getitem__(index)

    masking = pipeline(bucket(), Broken(records()), on_error="mask")
    assert numbers(list(masking)) == [number for number in range(40) if number != 7]
    assert masking.error_count == 1
    with pytest.raises(OSError, match="unreadable"):
        list(pipeline(bucket(), Broken(records())))


def test_a_collate_function_is_the_default_batchers():
    """A `DefaultBatcher` with one makes batches too."""

    def summed(elements):
        return {"sum": np.asarray([element.data["t"].sum() for element in elements])}

    batcher = DefaultBatcher(DefaultBatcherConfig(collate_fn=summed))
    batches = list(pipeline(batcher, stages=[], shuffle=False, seed=None))
    sums = np.concatenate([batch["sum"] for batch in batches]).tolist()
    assert sums == [number * length for number, length in enumerate(LENGTHS)]


def test_the_number_of_batches_is_unknown():
    """It depends on the records' lengths; the pipeline is shown without it."""
    assert "epochs=1" in repr(pipeline(bucket()))
    with pytest.raises(TypeError, match="the lengths of records decide"):
        len(pipeline(bucket()))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batcher": "bucket"}, TypeError, "batcher must be a BucketBatcher, .* got str"),
        ({"remainder": "partial"}, ValueError, "set them in the config of BucketBatcher"),
        ({"pad_values": 1}, ValueError, "set them in the config of BucketBatcher"),
        ({"batch_size": None}, TypeError, "batch_size must be an integer, got NoneType"),
        ({"num_workers": 1}, ValueError, "make whole batches, which the batcher does"),
        ({"batcher": bucket(batch_sizes=(4, 2))}, ValueError, "no effect beside the batcher's"),
    ],
    ids=["no batcher", "remainder", "padding", "no size", "workers", "two sizes"],
)
def test_what_a_batcher_decides_is_not_said_twice(options, error, message):
    """Options that have no effect beside it are refused."""
    with pytest.raises(error, match=message):
        pipeline(**({"batcher": bucket()} | options))


def test_waiting_records_need_a_batcher():
    """A state with some is refused where there is none."""
    iterator = iter(pipeline(bucket()))
    next(iterator)
    state = {**iterator.get_state(), "batcher": ""}
    assert state["waiting"]
    with pytest.raises(ValueError, match="records wait for a batcher"):
        iter(pipeline(None)).set_state(state)
