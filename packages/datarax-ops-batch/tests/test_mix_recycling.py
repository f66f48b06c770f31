import jax
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig


def make_op(mode="mixup", **options):
    return BatchMixOperator(BatchMixOperatorConfig(mode=mode, **options), rngs=nnx.Rngs(0))


def make_batch(seed=0, rows=4):
    rng = np.random.default_rng(seed)
    data = {
        "image": rng.random((rows, 64, 64, 3), np.float32),
        "label": rng.integers(5, size=rows, dtype=np.int32),
    }
    return Batch.from_arrays(data)


@pytest.mark.parametrize("mode", ["mixup", "cutmix"])
def test_recycling_mixes_as_ever_in_the_memory_of_the_last_result(mode):
    """Images and labels are those of plain calls; the spent images' buffer is reused."""
    plain, thrifty = (make_op(mode, num_classes=5, mix_info=True) for _ in range(2))
    plain(make_batch())
    spent = thrifty(make_batch())
    for seed in range(1, 4):
        where = spent["image"].unsafe_buffer_pointer()
        old, spent = spent, thrifty.recycle(make_batch(seed), spent=spent)
        assert old["image"].is_deleted()
        assert spent["image"].unsafe_buffer_pointer() == where
        expected = plain(make_batch(seed))
        jax.tree.map(np.testing.assert_array_equal, spent, expected)
    assert thrifty.get_operation_stats() == plain.get_operation_stats()


def test_labels_are_checked_before_memory_is_given_away():
    """A class number out of range is an error, and the spent result is still there."""
    op = make_op(num_classes=5)
    spent, batch = op(make_batch()), make_batch(1)
    wrong = batch.replace(data={**batch.data, "label": np.int32([0, 1, 2, 5])})
    with pytest.raises(ValueError, match="num_classes"):
        op.recycle(wrong, spent=spent)
    assert not spent["image"].is_deleted()
