import jax
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig


def make_op(mode="mixup"):
    return BatchMixOperator(BatchMixOperatorConfig(mode=mode), rngs=nnx.Rngs(0))


def make_batch(seed=0, rows=4):
    rng = np.random.default_rng(seed)
    data = {"image": rng.random((rows, 64, 64, 3), np.float32), "label": np.eye(rows)}
    return Batch.from_arrays(data, metadata=[f"{seed} {row}" for row in range(rows)])


@pytest.mark.parametrize("mode", ["mixup", "cutmix"])
def test_recycling_mixes_as_ever_in_the_memory_of_the_last_result(mode):
    """Results, stream and counts are those of plain calls; the spent images' buffer is reused."""
    plain, thrifty = make_op(mode), make_op(mode)
    spent = thrifty(make_batch())
    expected = plain(make_batch())
    for seed in range(1, 4):
        expected = plain(make_batch(seed))
        where = spent["image"].unsafe_buffer_pointer()
        old, spent = spent, thrifty.recycle(make_batch(seed), spent=spent)
        assert old["image"].is_deleted()
        assert spent["image"].unsafe_buffer_pointer() == where
        np.testing.assert_array_equal(spent["image"], expected["image"])
        np.testing.assert_array_equal(spent["label"], expected["label"])
        assert spent.metadata == expected.metadata
    assert thrifty.get_operation_stats() == plain.get_operation_stats()


@pytest.mark.parametrize(
    ("spent", "message"),
    [
        (lambda op: op(make_batch(rows=3)), r"float32\(4, 64, 64, 3\) like the batch"),
        (lambda op: make_batch(1), "must be a jax.Array .* got numpy"),
    ],
    ids=["shape", "host"],
)
def test_memory_that_does_not_fit_is_refused(spent, message):
    """Another shape, or an array on the host, cannot be recycled."""
    op = make_op()
    with pytest.raises(ValueError, match=message):
        op.recycle(make_batch(), spent=spent(op))


def test_memory_that_is_needed_or_gone_is_refused():
    """The batch itself cannot be overwritten, nor the same result twice."""
    op, batch = make_op(), jax.device_put(make_batch())
    with pytest.raises(ValueError, match="the batch's own array"):
        op.recycle(batch, spent=batch)
    first = op(batch)
    op.recycle(batch, spent=first)
    with pytest.raises(ValueError, match="recycled before"):
        op.recycle(batch, spent=first)
