import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule


class AddNoise(OperatorModule):
    """Adds noise to `image`, makes `largest` from it, and leaves the rest alone."""

    def generate_random_params(self, rng, data_shapes):
        return jax.random.uniform(rng, data_shapes["image"])

    def apply(self, data, state, metadata, random_params=None, stats=None):
        image = data["image"] + random_params
        return {**data, "image": image, "largest": image.max()}, state, metadata


class Halve(OperatorModule):
    """Gives `image` another dtype."""

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "image": data["image"].astype(jnp.bfloat16)}, state, metadata


def add_noise():
    return AddNoise(OperatorConfig(stochastic=True), rngs=nnx.Rngs(0))


def make_batch(seed=0, rows=4):
    images = np.random.default_rng(seed).random((rows, 64, 64, 3), np.float32)
    data = {"image": images, "label": np.arange(rows, dtype=np.int32)}
    metadata = [f"{seed} {row}" for row in range(rows)]
    # Copied, because an array that shares its memory with NumPy cannot be overwritten.
    batch = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), Batch.from_arrays(data))
    return batch.replace(metadata=metadata)


def address(batch):
    return batch["image"].unsafe_buffer_pointer()


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert first.metadata == second.metadata


@pytest.mark.parametrize("own", [False, True], ids=["earlier result", "the batch itself"])
def test_recycling_gives_what_a_call_gives_in_memory_that_was_there(own):
    """Results, stream and counts are those of plain calls; only the changed arrays are spent."""
    plain, thrifty = add_noise(), add_noise()
    plain(make_batch())
    last = thrifty(make_batch())
    for seed in range(1, 4):
        batch = make_batch(seed)
        spent = batch if own else last
        where, untouched = address(spent), spent["label"]
        last = thrifty.recycle(batch, spent=spent)
        assert address(last) == where
        assert spent["image"].is_deleted()
        assert not untouched.is_deleted()
        assert last["label"] is batch["label"]
        assert_same(last, plain(make_batch(seed)))
    assert thrifty.get_operation_stats() == plain.get_operation_stats()
    jax.tree.map(np.testing.assert_array_equal, thrifty.get_state(), plain.get_state())


@pytest.mark.parametrize(
    ("spent", "message"),
    [
        (lambda op, batch: op(make_batch(rows=3)), r"float32\(4, 64, 64, 3\) like the new result"),
        (lambda op, batch: make_batch(1), "must have the structure of its result"),
        (
            lambda op, batch: jax.tree.map(np.asarray, op(batch)),
            r"spent.data\['image'\] for AddNoise must be a jax.Array.* got numpy.ndarray",
        ),
        (
            lambda op, batch: op(batch).replace(data={**op(batch).data, "image": batch["image"]}),
            "the batch's own array",
        ),
    ],
    ids=["shape", "structure", "host", "in use"],
)
def test_memory_that_does_not_fit_is_refused(spent, message):
    """What is no earlier result is named, and neither memory nor randomness is gone."""
    op, batch = add_noise(), make_batch()
    wrong = spent(op, batch)
    before = op.get_state()
    with pytest.raises(ValueError, match=message):
        op.recycle(batch, spent=wrong)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(batch))
    jax.tree.map(np.testing.assert_array_equal, op.get_state(), before)


def test_the_same_memory_is_recycled_once():
    """A result that is gone cannot be spent again."""
    op, batch = add_noise(), make_batch()
    first = op(batch)
    op.recycle(batch, spent=first)
    with pytest.raises(ValueError, match="recycled before; pass the latest result"):
        op.recycle(batch, spent=first)


def test_a_batch_without_a_place_for_the_result_is_refused():
    """Nothing is given away where the result has another dtype, rather than lost for nothing."""
    op, batch = Halve(OperatorConfig()), make_batch()
    with pytest.raises(ValueError, match="no memory to recycle; call the operator instead"):
        op.recycle(batch, spent=batch)
    assert not batch["image"].is_deleted()
    assert op.recycle(batch, spent=op(batch))["image"].dtype == jnp.bfloat16


def test_an_array_that_the_result_still_holds_is_not_given_away():
    """An operator may keep the image under another name; that one must not be deleted."""

    class Keep(OperatorModule):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            image, label = data["image"] + 1, data["label"] + 1
            return {"image": image, "label": label, "first": data["image"]}, state, metadata

    batch = make_batch()
    image = np.array(batch["image"])
    out = Keep(OperatorConfig()).recycle(batch, spent=batch)
    np.testing.assert_array_equal(out["first"], image)
    np.testing.assert_array_equal(out["image"], image + 1)
    assert batch["label"].is_deleted()


def test_recycling_inside_a_trace_is_refused():
    """Inside a jit the memory belongs to that jit."""
    op = Halve(OperatorConfig())
    with pytest.raises(ValueError, match="inside a trace, where the outer jit owns it"):
        jax.jit(lambda batch: op.recycle(batch, spent=batch))(make_batch())


def test_recycling_of_remembered_results_is_refused():
    """A cached result must not be overwritten."""
    op, batch = Halve(OperatorConfig(cacheable=True)), make_batch()
    with pytest.raises(ValueError, match=r"remembers results \(cacheable=True\)"):
        op.recycle(batch, spent=op(batch))


def test_recycling_traces_once():
    """Results of the same shapes compile nothing again."""
    traces = []

    class Count(Halve):
        def apply(self, *args, **kwargs):
            traces.append(1)
            return super().apply(*args, **kwargs)

    op = Count(OperatorConfig())
    last = op(make_batch())
    last = op.recycle(make_batch(1), spent=last)
    seen = len(traces)
    for seed in range(2, 5):
        last = op.recycle(make_batch(seed), spent=last)
    assert len(traces) == seen
