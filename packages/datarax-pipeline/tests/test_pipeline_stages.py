"""Stages: one compiled call whose results are those of the operators on their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.config import OperatorConfig
from datarax.core.operator import OperatorModule
from datarax.operators import (
    ElementOperator,
    ElementOperatorConfig,
    RepeatOperator,
    RepeatOperatorConfig,
)
from datarax.pipeline import Pipeline
from datarax.sources import MemorySource, MemorySourceConfig

pytestmark = pytest.mark.usefixtures("quick_compiles")
KEYS = pytest.mark.parametrize(
    "implementation", ["threefry2x32", pytest.param("rbg", marks=pytest.mark.thorough)]
)


def source(length=12, *, shuffle=False, seed=0, array=np.asarray):
    data = {"x": array(np.arange(length, dtype=np.int32))}
    return MemorySource(MemorySourceConfig(shuffle=shuffle, seed=seed), data=data)


def draw(field, *, stream="default", seed=0, implementation="threefry2x32"):
    """An operator that writes random bits of each record into a field."""

    def fn(element, key):
        return element.update_data({field: jax.random.bits(key)})

    return ElementOperator(
        ElementOperatorConfig(stochastic=True, stream_name=stream),
        fn=fn,
        rngs=nnx.Rngs(**{stream: jax.random.key(seed, impl=implementation)}),
    )


def plain(function):
    return ElementOperator(ElementOperatorConfig(), fn=function)


def incremented(element, key=None):
    return element.update_data({"x": element.data["x"] + 1})


def by_record(pipeline, field, epochs=1):
    """The field's value for each (epoch, record) that a pipeline gives."""
    values = {}
    for _ in range(epochs):
        for batch in pipeline:
            for row in np.flatnonzero(batch.valid_mask):
                values[int(batch.epoch), int(batch.record_index[row])] = int(batch[field][row])
    return values


class BatchDraw(OperatorModule):
    """Writes one random number, drawn for the whole batch, into a field."""

    per_record_params = False

    def __init__(self, seed):
        super().__init__(OperatorConfig(stochastic=True), rngs=nnx.Rngs(seed))

    def generate_random_params(self, rng, data_shapes):
        return jax.random.bits(rng)

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "batch": random_params}, state, metadata


class Recorder(OperatorModule):
    """Sums the field `x` of all valid records in a Variable, and scales by a parameter."""

    def __init__(self):
        super().__init__(OperatorConfig())
        self.total = nnx.Variable(jnp.int32(0))
        self.scale = nnx.Param(jnp.int32(3))

    def apply_batch(self, batch, stats=None):
        valid = jnp.where(batch.valid_mask, batch["x"], 0)
        self.total.set_value(self.total.get_value() + valid.sum(dtype=jnp.int32))
        return batch.replace(data={**batch.data, "x": batch["x"] * self.scale.get_value()})


def test_stages_run_in_order():
    """The second stage sees what the first one made."""

    def tripled(element, key=None):
        return element.update_data({"x": element.data["x"] * 3})

    stages = [plain(incremented), plain(tripled), plain(incremented)]
    batch = next(iter(Pipeline(source=source(), stages=stages, batch_size=4)))
    assert batch["x"].tolist() == [4, 7, 10, 13]


@pytest.mark.parametrize(
    ("implementation", "array"),
    [
        pytest.param("threefry2x32", np.asarray, marks=pytest.mark.thorough),
        ("threefry2x32", jnp.asarray),
        ("rbg", np.asarray),
    ],
    ids=["host", "device", "rbg"],
)
def test_a_stage_gives_what_the_operator_gives_outside(implementation, array):
    """The raw batches through the operators, one by one, are the pipeline's batches."""
    records = source(shuffle=True, array=array)

    def stages():
        return [
            plain(incremented),
            draw("a", implementation=implementation),
            draw("b", stream="other", implementation=implementation),
            BatchDraw(5),
        ]

    outside = stages()
    raw = Pipeline(source=records, batch_size=5)
    for batch, expected in zip(
        Pipeline(source=records, stages=stages(), batch_size=5), raw, strict=True
    ):
        for stage in outside:
            expected = stage(expected)
        for field in ("x", "a", "b", "batch"):
            np.testing.assert_array_equal(batch[field], expected[field])


@KEYS
def test_a_records_randomness_depends_on_record_and_epoch_alone(implementation):
    """Batch size, order, padding, prefetching and device residence change no record's draw."""

    def values(batch_size, shuffle, seed=0, array=np.asarray, prefetch=0):
        pipeline = Pipeline(
            source=source(shuffle=shuffle, seed=seed, array=array),
            stages=[draw("a", implementation=implementation)],
            batch_size=batch_size,
            prefetch=prefetch,
        )
        return by_record(pipeline, "a", epochs=2)

    expected = values(12, shuffle=False)
    assert len(set(expected.values())) == 24
    assert values(5, shuffle=False) == expected
    assert values(1, shuffle=True) == expected
    assert values(5, shuffle=True, seed=8, array=jnp.asarray, prefetch=2) == expected


@KEYS
def test_stages_that_share_a_stream_draw_differently(implementation):
    """Two operators made with the same rngs, or one used twice, are told apart by their order."""
    one = draw("a", implementation=implementation)
    twin = draw("b", implementation=implementation)
    pipeline = Pipeline(source=source(), stages=[one, twin], batch_size=4)
    first, second = by_record(pipeline, "a"), by_record(pipeline, "b")
    assert not set(first.values()) & set(second.values())

    def added(element, key):
        return element.update_data(
            {"x": element.data["x"] + jax.random.bernoulli(key).astype(np.int32)}
        )

    rngs = nnx.Rngs(jax.random.key(0, impl=implementation))
    stage = ElementOperator(ElementOperatorConfig(stochastic=True), fn=added, rngs=rngs)
    pipeline = Pipeline(source=source(1000), stages=[stage, stage], batch_size=1000)
    batch = next(iter(pipeline))
    steps = np.asarray(batch["x"]) - batch.record_index.astype(np.int64)
    # Draws that agreed would leave no record with one step; independent ones half of them.
    assert 400 < (steps == 1).sum() < 600


def test_unrelated_stages_change_nothing():
    """Stages of other streams before, between and after leave a stage's draws as they were."""
    pair = [draw("a"), draw("b")]
    unrelated = [
        draw("c", seed=9),
        plain(lambda element, key=None: element),
        draw("d", stream="other"),
        draw("e", seed=9),
    ]
    among = [*unrelated[:2], pair[0], unrelated[2], pair[1], unrelated[3]]
    for field in ("a", "b"):
        alone, mixed = (
            by_record(Pipeline(source=source(), stages=stages, batch_size=4), field)
            for stages in (pair, among)
        )
        assert alone == mixed


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["host", "device"])
def test_stages_keep_their_own_state(array):
    """Counts and Variables of the very operators that were given follow the batches delivered."""
    recorder, drawing = Recorder(), draw("a")
    pipeline = Pipeline(
        source=source(10, array=array), stages=[recorder, drawing], batch_size=4, prefetch=2
    )
    iterator = iter(pipeline)
    next(iterator)
    assert int(recorder.total.get_value()) == sum(range(4))
    for _ in iterator:
        pass
    assert int(recorder.total.get_value()) == sum(range(10))
    for stage in (recorder, drawing):
        assert stage.get_operation_stats() == {"applied_count": 10, "skipped_count": 0}


def test_a_stage_can_be_changed_between_batches():
    """A new value of a Variable works from the next batch on, without another trace."""
    recorder = Recorder()
    iterator = iter(Pipeline(source=source(), stages=[recorder], batch_size=2, prefetch=2))
    assert next(iterator)["x"].tolist() == [0, 3]
    recorder.scale.set_value(jnp.int32(10))
    assert next(iterator)["x"].tolist() == [20, 30]


def test_an_error_in_a_stage_changes_nothing():
    """A batch that a stage refuses is not counted; without the cause, it comes next."""
    broken = {"now": True}

    def picky(element, key=None):
        if broken["now"]:
            raise ValueError("x is not to my taste")
        return element

    recorder = Recorder()
    iterator = iter(Pipeline(source=source(), stages=[recorder, plain(picky)], batch_size=4))
    before = iterator.get_state()
    with pytest.raises(ValueError, match="x is not to my taste"):
        next(iterator)
    jax.tree.map(np.testing.assert_array_equal, iterator.get_state(), before)
    broken["now"] = False
    assert next(iterator).record_index.tolist() == [0, 1, 2, 3]


def test_a_stage_can_repeat_records():
    """Batches hold whole records, whose copies later stages augment apart; the spec says so."""
    repeat = RepeatOperator(RepeatOperatorConfig(num_views=3))
    pipeline = Pipeline(source=source(5), stages=[repeat, draw("a")], batch_size=2)
    alone = by_record(Pipeline(source=source(5), stages=[draw("a")], batch_size=5), "a")
    for batch in pipeline:
        spec = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), batch)
        assert spec.as_dict() == pipeline.batch_spec()
        assert batch.view.tolist() == [0, 1, 2] * 2
        rows = np.asarray(batch["a"]).reshape(2, 3)[np.asarray(batch.valid_mask)[::3]]
        assert len(set(rows.ravel().tolist())) == rows.size
        index = np.asarray(batch.record_index)[::3]
        assert rows[:, 0].tolist() == [alone[0, number] for number in index[: len(rows)].tolist()]
