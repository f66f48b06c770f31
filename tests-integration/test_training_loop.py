"""All packages together: a training run that is fast, exact and can be resumed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from datarax.batching import masked_accuracy, masked_mean, masked_sum_count
from datarax.core.checkpoint import Checkpointer
from datarax.core.config import BatchMixOperatorConfig
from datarax.core.element_batch import Batch
from datarax.operators import ElementOperator, ElementOperatorConfig
from datarax.operators.batch_mix_operator import BatchMixOperator
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)
from datarax.pipeline import Pipeline
from datarax.sources import MemorySource, MemorySourceConfig

KEYS = pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
RECORDS, CLASSES = 37, 5


def preprocess(element, key=None):
    image = element.data["image"].astype(jnp.float32) / 255
    label = jax.nn.one_hot(element.data["label"], CLASSES)
    return element.update_data({"image": image, "label": label, "label_idx": element.data["label"]})


def records():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (RECORDS, 8, 8, 3), np.uint8),
        "label": rng.integers(0, CLASSES, RECORDS, np.int32),
    }


def stages(implementation="threefry2x32"):
    def rngs(seed):
        return nnx.Rngs(jax.random.key(seed, impl=implementation))

    dropout = PatchDropoutOperatorConfig(
        field_key="image", num_patches=2, patch_size=(2, 2), stochastic=True
    )
    mix = BatchMixOperatorConfig(mode="mixup", alpha=0.4, mix_group_size=4, stream_name="mixup")
    return [
        ElementOperator(ElementOperatorConfig(), fn=preprocess),
        PatchDropoutOperator(dropout, rngs=rngs(1)),
        BatchMixOperator(mix, rngs=rngs(2)),
    ]


def pipeline(implementation="threefry2x32", batch_size=8, **options):
    source = MemorySource(MemorySourceConfig(shuffle=True, seed=3), data=records())
    return Pipeline(source=source, stages=stages(implementation), batch_size=batch_size, **options)


class Classifier(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(8 * 8 * 3, CLASSES, rngs=rngs)

    def __call__(self, image):
        return self.linear(image.reshape(len(image), -1))


def by_record(batches):
    """The valid rows of an epoch by record, as host arrays."""
    rows = {}
    for batch in batches:
        host = jax.device_get(batch.as_dict())
        for row, record in enumerate(np.asarray(batch.record_index)):
            if host["valid_mask"][row]:
                rows[int(record)] = {name: value[row] for name, value in host.items()}
    return rows


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


@KEYS
def test_records_come_out_the_same_at_any_batch_size(implementation):
    """With mixing in groups, an epoch is the same for every batch size that keeps groups whole."""
    epochs = [by_record(pipeline(implementation, size)) for size in (4, 8, 40)]
    assert len(epochs[0]) == RECORDS
    for epoch in epochs[1:]:
        assert_same(epoch, epochs[0])


@KEYS
def test_the_pipeline_equals_its_operators_called_by_hand(implementation):
    """One compiled call for all stages gives what the operators give one after the other."""
    batch = next(iter(pipeline(implementation)))
    data = records()
    index = np.asarray(batch.record_index)
    by_hand = Batch.from_arrays(
        {name: values[index] for name, values in data.items()}, record_index=index, epoch=0
    )
    for stage in stages(implementation):
        by_hand = stage(by_hand)
    np.testing.assert_array_equal(batch["label_idx"], data["label"][index])
    np.testing.assert_allclose(batch["label"], by_hand["label"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(batch["image"], by_hand["image"], rtol=0, atol=1e-6)


def test_a_training_epoch_traces_its_step_once():
    """The padded last batch, other masks and the next epoch bring no new trace."""
    traces = []
    model = Classifier(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, batch):
        traces.append(batch)

        def loss(model):
            losses = optax.softmax_cross_entropy(model(batch["image"]), batch["label"])
            return masked_mean(losses, batch.valid_mask)

        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    train = pipeline()
    losses = [float(step(model, optimizer, batch)) for _ in range(3) for batch in train]
    assert len(traces) == 1
    assert len(losses) == 3 * 5
    assert np.isfinite(losses).all()
    counts = train.stages[0].get_operation_stats()
    assert counts == {"applied_count": 3 * RECORDS, "skipped_count": 0}


@KEYS
def test_a_run_resumes_in_the_middle_of_an_epoch(implementation, tmp_path):
    """Saved by the checkpointer and restored in a new pipeline, the same batches follow."""
    whole = [jax.device_get(b.as_dict()) for b in pipeline(implementation)]
    first = iter(pipeline(implementation))
    for _ in range(2):
        next(first)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(2, first)
        resumed = iter(pipeline(implementation))
        checkpointer.restore(resumed)
    rest = [jax.device_get(b.as_dict()) for b in resumed]
    assert_same(rest, whole[2:])


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_a_sharded_batch_is_augmented_like_a_whole_one(devices):
    """Spread over devices, each operator gives every record the same result."""
    data = records()
    index = np.arange(32, dtype=np.uint32)
    batch = Batch.from_arrays(
        {name: values[:32] for name, values in data.items()}, record_index=index, epoch=1
    )
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    sharded = jax.tree.map(
        lambda leaf: jax.device_put(leaf, NamedSharding(mesh, P("data") if np.ndim(leaf) else P())),
        batch,
    )
    for stage in stages():
        batch, sharded = stage(batch), stage(sharded)
        assert_same(jax.device_get(sharded.as_dict()), jax.device_get(batch.as_dict()))


def test_an_evaluation_does_not_depend_on_the_batch_size():
    """Masked sums over any batching add up to the metrics of all records at once."""
    model = Classifier(nnx.Rngs(0))
    totals = []
    for batch_size in (1, 8, 37, 64):
        source = MemorySource(MemorySourceConfig(), data=records())
        prep = ElementOperator(ElementOperatorConfig(), fn=preprocess)
        hits, count = 0, 0
        for batch in Pipeline(source=source, stages=[prep], batch_size=batch_size):
            logits = model(batch["image"])
            right = logits.argmax(1) == batch["label_idx"]
            s, n = masked_sum_count(right.astype(jnp.float32), batch.valid_mask)
            accuracy = masked_accuracy(logits, batch["label_idx"], batch.valid_mask)
            np.testing.assert_allclose(accuracy, float(s) / int(n), rtol=1e-6)
            hits, count = hits + int(s), count + int(n)
        totals.append((hits, count))
    assert totals == [totals[0]] * 4
    assert totals[0][1] == RECORDS
