"""The operator, by itself, by record, and before MixUp."""

import jax
import numpy as np
import pytest
from flax import nnx
from vignette import Vignette, VignetteConfig

from datarax.core.element_batch import Batch
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig


@pytest.fixture
def white():
    """Four white photographs and their labels."""
    return {"image": np.ones((4, 9, 9, 3), np.float32), "label": np.arange(4, dtype=np.int32)}


@pytest.fixture
def vignette():
    """The operator as a user makes it."""
    return Vignette(VignetteConfig(strongest=0.5), rngs=nnx.Rngs(0))


def test_centers_stay_and_corners_are_darker(white, vignette):
    """Each photograph has its own strength, and the middle pixel none of it."""
    image = np.asarray(vignette(white)["image"])
    corners = image[:, 0, 0, 0]
    np.testing.assert_array_equal(image[:, 4, 4], 1.0)
    assert ((corners >= 0.5) & (corners < 1)).all()
    assert len(np.unique(corners)) == 4


def test_a_record_is_drawn_by_its_number(white, vignette):
    """The last two records are the same photographs without the first two."""
    batch = Batch.from_arrays(white, record_index=[7, 3, 8, 1], epoch=2)
    together = np.asarray(vignette(batch)["image"])
    np.testing.assert_array_equal(vignette(batch[2:])["image"], together[2:])


def test_it_is_a_part_of_a_compiled_step(white, vignette):
    """Under `jax.jit`, followed by MixUp, one key decides all."""
    mixup = BatchMixOperator(
        BatchMixOperatorConfig(mode="mixup", alpha=1.0, num_classes=4), rngs=nnx.Rngs(0)
    )

    @jax.jit
    def augment(batch, key):
        return mixup(vignette(batch, key=key), key=key)

    first, again = (augment(white, jax.random.key(seed)) for seed in (5, 5))
    np.testing.assert_array_equal(first["image"], again["image"])
    np.testing.assert_allclose(first["label"].sum(axis=1), 1.0, rtol=1e-6)


def test_evaluation_leaves_photographs_alone(white, vignette):
    """`eval()` is what it is for dropout."""
    vignette.eval()
    np.testing.assert_array_equal(vignette(white)["image"], white["image"])
