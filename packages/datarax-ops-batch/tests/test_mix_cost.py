"""What the compiled program does, read from its text."""

import math
import re

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig

SHAPE = (8, 24, 20, 3)


def passes_over_images(**options):
    """Instructions of the compiled program whose result is as large as the images."""
    op = BatchMixOperator(BatchMixOperatorConfig(**options), rngs=nnx.Rngs(0))
    data = {"image": np.zeros(SHAPE, np.float32), "label": np.eye(8, dtype=np.float32)}
    batch = Batch.from_arrays(data, record_index=np.arange(8))
    text = jax.jit(op).lower(batch).compile().as_text()
    entry = text[text.index("ENTRY") :]
    made = re.findall(r"= \w+\[([\d,]+)\]\S* ([\w-]+)\(", entry)
    size = math.prod(SHAPE)
    return [
        opcode
        for shape, opcode in made
        if math.prod(map(int, shape.split(","))) >= size and opcode not in ("parameter", "bitcast")
    ]


@pytest.mark.parametrize("mode", ["mixup", "cutmix"])
def test_images_are_written_once(mode):
    """Options that are off cost nothing: one fused loop reads both rows and writes the result."""
    assert passes_over_images(mode=mode) == ["fusion"]


def test_rows_of_pixels_stay_rows():
    """No long line of a whole image, in which a pixel's row is found by dividing, is ever made."""
    config = BatchMixOperatorConfig(mode="both", alpha=0.8, cutmix_alpha=1.0, num_classes=8)
    op = BatchMixOperator(config, rngs=nnx.Rngs(0))
    fields = {"image": np.zeros(SHAPE, np.float32), "label": np.zeros(8, np.int32)}
    text = jax.jit(op).lower(fields, key=jax.random.key(0)).as_text()
    assert "8x24x60x" in text
    assert f"8x{24 * 60}x" not in text


def test_a_second_pass_is_noticed():
    """Mixing one row after another copies the images, which the reading of the text must see."""
    assert len(passes_over_images(mode="mixup", batch_strategy="scan")) > 1
