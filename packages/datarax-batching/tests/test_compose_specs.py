"""Specs from source to batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.batching import DefaultBatcher, DefaultBatcherConfig, check_batch, compose_specs
from datarax.core.config import ElementOperatorConfig, OperatorConfig
from datarax.core.element_batch import Element
from datarax.core.operator import OperatorModule
from datarax.operators import ElementOperator

SPEC = {
    "image": jax.ShapeDtypeStruct((4, 4, 3), np.uint8),
    "label": jax.ShapeDtypeStruct((), np.int64),
}


def scale(element, key=None):
    image = element.data["image"].astype(jnp.float32) / 255
    return element.update_data({"image": image})


def noise(element, key):
    image = element.data["image"]
    return element.update_data({"image": image + jax.random.normal(key, image.shape)})


def operators():
    return [
        ElementOperator(ElementOperatorConfig(), fn=scale, name="scale"),
        ElementOperator(ElementOperatorConfig(stochastic=True), fn=noise, rngs=nnx.Rngs(0)),
    ]


def default():
    return DefaultBatcher(DefaultBatcherConfig())


def test_the_chain_ends_with_what_a_batch_looks_like():
    """The composed spec is that of a real batch through the real operators."""
    chain = compose_specs(SPEC, operators(), default(), batch_size=5)
    records = [Element({"image": np.zeros((4, 4, 3), np.uint8), "label": 3})] * 7
    for batch in default()(records, batch_size=5):
        for operator in operators():
            batch = operator(batch)
        check_batch(batch, chain.batch_spec)


def test_the_chain_prints_as_a_table():
    """One line per stage and field, aligned."""
    chain = compose_specs(SPEC, operators()[:1], default(), batch_size=5)
    assert str(chain).splitlines() == [
        "stage                    field       dtype    shape",
        "source                   image       uint8    (4, 4, 3)",
        "                         label       int32    ()",
        "ElementOperator 'scale'  image       float32  (4, 4, 3)",
        "                         label       int32    ()",
        "DefaultBatcher           image       float32  (5, 4, 4, 3)",
        "                         label       int32    (5,)",
        "                         valid_mask  bool     (5,)",
    ]


@pytest.mark.parametrize("as_method", [False, True], ids=["attribute", "method"])
def test_a_source_brings_its_spec(as_method):
    """The spec of a record may be an attribute of the source, or a method."""

    class Source:
        element_spec = staticmethod(lambda: SPEC) if as_method else SPEC

    assert compose_specs(Source(), [], default(), batch_size=2).batch_spec["label"].shape == (2,)


def test_no_random_stream_advances():
    """Working specs out leaves the operators as they were."""
    used, unused = operators()[1], operators()[1]
    compose_specs(
        {"image": jax.ShapeDtypeStruct((2,), np.float32)}, [used], default(), batch_size=3
    )
    for left, right in zip(*map(jax.tree.leaves, (used.get_state(), unused.get_state()))):  # noqa: B905
        assert np.array_equal(left, right)


def test_an_operator_that_does_not_keep_its_word_is_named():
    """An output spec that is not what `apply` makes is an error that lists the difference."""

    class Grow(OperatorModule):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            return {"image": data["image"][None]}, state, metadata

    message = (
        r"(?s)output_spec of operators\[0\] Grow does not say .*override output_spec"
        r".*\['image'\]: expected uint8\[3,4,4,3\], got uint8\[3,1,4,4,3\]"
        r".*\['label'\]: expected int32\[3\], got nothing"
    )
    with pytest.raises(ValueError, match=message):
        compose_specs(SPEC, [Grow(OperatorConfig())], default(), batch_size=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SPEC, [scale], default()), r"operators\[0\] must be an OperatorModule, got function"),
        ((SPEC, [], scale), "batcher must be a BatcherModule, got function"),
        ((SPEC["label"], [], default()), "element_spec must be a dict of fields"),
    ],
    ids=["operator", "batcher", "source"],
)
def test_stages_of_the_wrong_kind_are_named(arguments, message):
    """Each argument is checked."""
    with pytest.raises(TypeError, match=message):
        compose_specs(*arguments, batch_size=2)
