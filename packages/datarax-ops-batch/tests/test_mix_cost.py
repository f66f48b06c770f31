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


def test_a_second_pass_is_noticed():
    """Mixing one row after another copies the images, which the reading of the text must see."""
    assert len(passes_over_images(mode="mixup", batch_strategy="scan")) > 1
