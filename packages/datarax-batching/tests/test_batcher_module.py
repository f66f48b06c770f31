"""The documented base class of batchers."""

import logging

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.batching import DefaultBatcher, DefaultBatcherConfig
from datarax.core.batcher import BatcherModule, logger
from datarax.core.config import StructuralConfig
from datarax.core.element_batch import Element


def spec(shape, dtype):
    return jax.ShapeDtypeStruct(shape, np.dtype(dtype))


def test_documented_example_runs():
    """The example of the documentation works as it stands there, undecorated config included."""

    class DefaultBatcherConfig(StructuralConfig):
        pass

    class DefaultBatcher(BatcherModule):
        def process(self, elements, batch_size, drop_remainder=False):
            return []

    config = DefaultBatcherConfig(stochastic=False)
    batcher = DefaultBatcher(config, rngs=nnx.Rngs(0))
    assert list(batcher([], batch_size=32)) == []


def test_process_must_be_overridden():
    """The base class says which class lacks `process`."""

    class Nothing(BatcherModule):
        pass

    with pytest.raises(NotImplementedError, match="Nothing must implement process"):
        Nothing(StructuralConfig())([Element({"x": 1})], batch_size=1)


def test_batch_spec_prepends_the_batch_and_adds_the_mask():
    """Every leaf gets the batch axis, nested ones too, and the mask is bool."""
    element_spec = {"image": spec((4, 5, 3), np.uint8), "meta": {"label": spec((), np.int32)}}
    assert BatcherModule(StructuralConfig()).batch_spec(element_spec, batch_size=7) == {
        "image": spec((7, 4, 5, 3), np.uint8),
        "meta": {"label": spec((7,), np.int32)},
        "valid_mask": spec((7,), bool),
    }


def test_batch_spec_narrows_64_bit_types():
    """A spec says int32 and float32 where the batch will have them."""
    made = BatcherModule(StructuralConfig()).batch_spec(
        {"i": spec((), np.int64), "f": spec((2,), np.float64)}, batch_size=1
    )
    assert made["i"].dtype == np.int32
    assert made["f"].dtype == np.float32


@pytest.mark.parametrize("size", [0, -1, 2.0, "3", None, True, np.float32(2)], ids=repr)
def test_batch_spec_refuses_a_batch_size_that_is_no_positive_integer(size):
    """Sizes that are not positive, and what only looks like a size, are errors."""
    batcher = BatcherModule(StructuralConfig())
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got"):
        batcher.batch_spec({"x": spec((), np.int32)}, batch_size=size)


@pytest.mark.parametrize(
    ("element_spec", "error", "message"),
    [
        (spec((), np.int32), TypeError, "element_spec must be a dict of fields, got ShapeDtype"),
        ({"valid_mask": spec((), bool)}, ValueError, "must not have a field 'valid_mask'"),
        ({}, ValueError, "element_spec must have at least one leaf"),
        ({"x": "text"}, TypeError, r"element_spec\['x'\] must be an array of numbers"),
    ],
    ids=["no dict", "reserved name", "empty", "string"],
)
def test_batch_spec_refuses_specs_of_nothing(element_spec, error, message):
    """Specs that no batch could have are refused with the field and the remedy."""
    with pytest.raises(error, match=message):
        BatcherModule(StructuralConfig()).batch_spec(element_spec, batch_size=2)


def test_numpy_batch_sizes_are_integers_too():
    """A NumPy integer is a size."""
    made = BatcherModule(StructuralConfig()).batch_spec(
        {"x": spec((), np.int32)}, batch_size=np.int64(3)
    )
    assert made["x"].shape == (3,)


@pytest.mark.parametrize(
    ("remainder", "message"), [("drop", "left out 1"), ("pad", "added 2 rows")]
)
def test_what_became_of_the_remainder_is_logged_once_a_pass(remainder, message, caplog):
    """At INFO, by the documented logger; a pass that comes out even says nothing."""
    batcher = DefaultBatcher(DefaultBatcherConfig(remainder=remainder), name="train")
    with caplog.at_level(logging.INFO, logger=logger.name):
        for count in (7, 7, 6):
            stream = batcher([{"x": n} for n in range(count)], batch_size=3)
            assert len(list(stream)) + len(list(stream)) >= 2
    said = [entry.getMessage() for entry in caplog.records]
    assert len(said) == 2
    assert all("DefaultBatcher 'train'" in line and message in line for line in said)
    assert logger.name == "datarax.core.batcher"
