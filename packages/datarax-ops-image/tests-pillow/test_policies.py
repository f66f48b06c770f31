"""The file that the unit tests trust, and more records than they have time for."""

import jax
import numpy as np
from flax import nnx
from policies import FILE, FILL, augmented, batch, text

from datarax.operators.modality.image import RandAugmentOperator, RandAugmentOperatorConfig


def test_the_file_is_what_pillow_makes():
    """The golden file is the one that the script would write."""
    assert FILE.read_text(encoding="utf-8") == text()


def test_batches_are_pillows_but_for_rare_steps_of_one():
    """Of 10⁷ values 9,999 in 10,000 are equal: moved pixels differ by one here and there."""
    config = RandAugmentOperatorConfig(fill=FILL)
    augment = RandAugmentOperator(config, rngs=nnx.Rngs(0))
    different = values = 0
    for seed in range(8):
        pictures, operation, magnitude = batch(1 + seed, 150)
        numbers = {"operation": operation, "magnitude": magnitude}
        made = np.asarray(augment.replay({"image": jax.numpy.asarray(pictures)}, numbers)["image"])
        different += np.count_nonzero(made != augmented(pictures, operation, magnitude))
        values += made.size
    assert values > 10**7
    assert different < 1e-4 * values
