"""A class number that does not exist is an error in a pipeline, wherever mixing stands in it."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.config import ElementOperatorConfig
from datarax.operators import (
    CompositeOperatorConfig,
    CompositeOperatorModule,
    ElementOperator,
)
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig
from datarax.pipeline import Pipeline
from datarax.sources import MemorySource, MemorySourceConfig

IMAGES = np.random.default_rng(0).random((10, 4, 4, 1), np.float32)
LABELS = np.array([0, 1, 2, 1, 0, 2, 1, 0, 2, 1])


def brighter(element, key):
    return element.update_data({"image": element.data["image"] + 1})


def renumbered(element, key):
    return element.update_data({"label": element.data["label"] - 1})


def pipeline_of(labels, stages=(), *, on_device=False, **options):
    config = BatchMixOperatorConfig(num_classes=3)
    mix = BatchMixOperator(config, rngs=nnx.Rngs(0), name="mix")
    earlier = [ElementOperator(ElementOperatorConfig(), fn=fn) for fn in stages]
    images = jnp.asarray(IMAGES) if on_device else IMAGES
    source = MemorySource(
        MemorySourceConfig(shuffle=True, seed=1), data={"image": images, "label": labels}
    )
    return Pipeline(source=source, stages=[*earlier, mix], batch_size=4, **options)


@pytest.mark.parametrize(
    ("stages", "options", "shift"),
    [
        ((), {}, 0),
        ((), {"on_device": True}, 0),
        ((brighter,), {"prefetch": 2}, 0),
        ((brighter,), {"on_device": True}, 0),
        ((renumbered,), {"prefetch": 0}, 1),
        ((brighter, renumbered), {"on_device": True}, 1),
    ],
    ids=["first", "first on device", "later", "later on device", "changed", "changed on device"],
)
def test_pipeline_names_record_and_class(stages, options, shift):
    """The error has the record's number in the source and the class, as it reaches the mix."""
    right = pipeline_of(LABELS + shift, stages, **options)
    assert all(np.isfinite(batch["label"]).all() for batch in right)
    wrong = LABELS + shift
    wrong[6] = 7 + shift
    with pytest.raises(ValueError, match=r"'label' of BatchMixOperator 'mix' .* got 7 in record 6"):
        list(pipeline_of(wrong, stages, **options))


@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_a_composition_checks_too(on_device):
    """Mixing inside a composition names record and class, in a pipeline and when it is called."""

    def build():
        mix = BatchMixOperator(BatchMixOperatorConfig(num_classes=3), rngs=nnx.Rngs(0), name="mix")
        first = ElementOperator(ElementOperatorConfig(), fn=brighter)
        inner = CompositeOperatorModule(CompositeOperatorConfig(), operators=[mix])
        return CompositeOperatorModule(CompositeOperatorConfig(), operators=[first, inner])

    wrong = LABELS.copy()
    wrong[6] = 7
    images = jnp.asarray(IMAGES) if on_device else IMAGES
    source = MemorySource(MemorySourceConfig(), data={"image": images, "label": wrong})
    message = r"'label' of BatchMixOperator 'mix' .* got 7 in"
    with pytest.raises(ValueError, match=message):
        list(Pipeline(source=source, stages=[build()], batch_size=4))
    op = build()
    for _ in range(2):
        op({"image": images, "label": LABELS})
        with pytest.raises(ValueError, match=message):
            op({"image": images, "label": wrong})


def test_labels_are_not_computed_twice_where_no_stage_changes_them():
    """The stages before the mix are traced once more, and never run for the check alone."""
    runs = []

    def counted(element, key):
        runs.append(1)
        return brighter(element, None)

    list(pipeline_of(LABELS, (counted,), remainder="drop"))
    assert len(runs) == 2
