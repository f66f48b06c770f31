"""Operators as transforms of Grain."""

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.operators import ElementOperator, ElementOperatorConfig
from datarax.pipeline import GrainMap, GrainMapWithIndex, GrainRandomMap, Pipeline

GRAIN = pytest.importorskip("grain", reason="needs the extra [grain]")

pytestmark = pytest.mark.usefixtures("quick_compiles")
COUNT = 6
RECORDS = [{"x": np.full(2, number, np.float32)} for number in range(COUNT)]


def noisy(element, key):
    return element.update_data({"noise": jax.random.normal(key, (3,))})


class Noisy(ElementOperator):
    def output_spec(self, input_spec):
        return {**input_spec, "noise": jax.ShapeDtypeStruct((3,), np.float32)}


def operator():
    return Noisy(ElementOperatorConfig(stochastic=True), fn=noisy, rngs=nnx.Rngs(0))


def dataset():
    return GRAIN.MapDataset.source(RECORDS)


def test_maps_that_know_the_number_draw_as_a_pipeline_does():
    """By the record's number, given or in a field, and, where the length is told, the epoch."""
    pipeline = Pipeline(source=RECORDS, stages=[operator()], batch_size=COUNT)
    with_index = GrainMapWithIndex(operator(), COUNT)
    mapped = dataset().map_with_index(with_index)
    random_map = GrainRandomMap(operator(), index_field="number", length=COUNT)
    shuffled = dataset().map_with_index(lambda number, record: {**record, "number": number})
    shuffled = shuffled.seed(5).shuffle().random_map(random_map)
    by_number = {record["number"]: record["noise"] for record in shuffled}
    for epoch in range(2):
        (batch,) = pipeline
        for number in range(COUNT):
            record = with_index(number + epoch * COUNT, RECORDS[number])
            np.testing.assert_array_equal(record["noise"], batch["noise"][number])
            numbered = {**RECORDS[number], "number": number + epoch * COUNT}
            other = random_map.random_map(numbered, np.random.default_rng())
            np.testing.assert_array_equal(other["noise"], record["noise"])
            if not epoch:
                np.testing.assert_array_equal(mapped[number]["noise"], record["noise"])
                np.testing.assert_array_equal(by_number[number], record["noise"])


def test_a_random_map_draws_from_its_generator():
    """In Grain and in a pipeline's transforms: different for records, the same again."""
    random_map = GrainRandomMap(operator())
    runs = [dataset().seed(3).random_map(random_map) for _ in range(2)]
    noise = [[record["noise"].tolist() for record in run] for run in runs]
    assert noise[0] == noise[1]
    assert len({tuple(each) for each in noise[0]}) == COUNT
    one, other = (
        next(iter(Pipeline(source=RECORDS, transforms=[random_map], batch_size=size, seed=1)))
        for size in (2, 4)
    )
    np.testing.assert_array_equal(one["noise"], other["noise"][:2])


def test_element_specs_are_passed_on():
    """Of batches with their rows, of records without."""
    expected = jax.ShapeDtypeStruct((3,), np.float32)
    records = {"x": jax.ShapeDtypeStruct((2,), np.float32)}
    numbered = GrainRandomMap(operator(), index_field="x")
    for transform in (GrainMapWithIndex(operator()), GrainRandomMap(operator()), numbered):
        assert transform.output_spec(records) == {**records, "noise": expected}
    batches = {"x": jax.ShapeDtypeStruct((4, 2), np.float32)}
    assert GrainMap(operator()).output_spec(batches)["noise"].shape == (4, 3)
    mapped = dataset().batch(4).map(GrainMap(operator()))
    assert mapped[0]["noise"].shape == (4, 3)


def test_only_operators_become_transforms():
    """A function needs no wrapper."""
    for kind in (GrainMap, GrainMapWithIndex, GrainRandomMap):
        with pytest.raises(TypeError, match="operator must be an operator, got function"):
            kind(noisy)
    with pytest.raises(ValueError, match="length must be 1 or more, got 0"):
        GrainMapWithIndex(operator(), 0)
    with pytest.raises(ValueError, match="length=3 tells the epochs of numbers in index_field"):
        GrainRandomMap(operator(), length=3)
    with pytest.raises(KeyError, match=r"'number' is no field .* which has \['x'\]"):
        GrainRandomMap(operator(), index_field="number").random_map(RECORDS[0], None)
