"""Operators in loops that are not ours: plain dicts in Grain's maps and on PyTorch's batches."""

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.core.config import OperatorConfig
from datarax.core.operator import OperatorModule
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)
from datarax.pipeline import Pipeline

RECORDS = 10_000
CALLS = pytest.mark.parametrize("where", ["pipeline", "loop", "numbered loop"])


class Flip(OperatorModule):
    def generate_random_params(self, rng, data_shapes):
        return jax.random.bernoulli(rng, shape=data_shapes["x"][:1])

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "flipped": random_params}, state, metadata


class Brightness(OperatorModule):
    def generate_random_params(self, rng, data_shapes):
        return jax.random.uniform(rng, data_shapes["x"][:1])

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "brighter": random_params}, state, metadata


class Brightness2(Brightness):
    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "brighter2": random_params}, state, metadata


def operators():
    """A drop and a mix of a training loop."""
    rngs = nnx.Rngs(0)
    drop = PatchDropoutOperatorConfig(
        field_key="image", num_patches=1, patch_size=(2, 2), stochastic=True
    )
    mix = BatchMixOperatorConfig(mode="mixup", num_classes=3)
    return PatchDropoutOperator(drop, rngs=rngs), BatchMixOperator(mix, rngs=rngs)


def images(count=6):
    rng = np.random.default_rng(0)
    return rng.random((count, 8, 8, 3), dtype=np.float32), np.arange(count) % 3


def test_operators_are_functions_for_grain():
    """A dict goes through `map` and comes out as a dict, batch after batch."""
    grain = pytest.importorskip("grain")
    image, label = images()
    records = [{"image": image[i], "label": label[i]} for i in range(6)]
    dataset = grain.MapDataset.source(records).batch(3)
    for operator in operators():
        dataset = dataset.map(operator)
    batches = list(dataset)
    assert [sorted(batch) for batch in batches] == [["image", "label"]] * 2
    assert all(batch["label"].shape == (3, 3) for batch in batches)
    np.testing.assert_allclose(batches[0]["label"].sum(1), 1, rtol=1e-6)


def test_operators_take_batches_of_a_torch_loader():
    """Tensors are read where they lie, 64-bit labels included."""
    torch = pytest.importorskip("torch")
    image, label = images()
    data = [{"image": torch.from_numpy(image[i]), "label": int(label[i])} for i in range(6)]
    drop, mix = operators()
    for batch in torch.utils.data.DataLoader(data, batch_size=3):
        out = mix(drop(batch))
        assert out["image"].shape == (3, 8, 8, 3)
        assert out["label"].shape == (3, 3)


def test_one_key_a_step_is_a_pure_training_step():
    """Under the caller's `jax.jit`, with keys passed by hand, twice the same."""
    image, label = images()
    drop, mix = operators()

    @jax.jit
    def step(batch, key):
        first, second = jax.random.split(key)
        return mix(drop(batch, key=first), key=second)

    batch = {"image": image, "label": label.astype(np.int32)}
    one, two = (step(batch, jax.random.key(3)) for _ in range(2))
    np.testing.assert_array_equal(one["image"], two["image"])
    assert (np.asarray(step(batch, jax.random.key(4))["image"]) != one["image"]).any()


@CALLS
@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_operators_of_one_rngs_decide_independently(where, implementation):
    """A flip and two brightnesses of one `nnx.Rngs` do not correlate over 10,000 records."""
    rngs = nnx.Rngs(jax.random.key(0, impl=implementation))
    stages = [
        kind(OperatorConfig(stochastic=True), rngs=rngs) for kind in (Flip, Brightness, Brightness2)
    ]
    x = {"x": np.zeros(RECORDS, np.float32)}
    if where == "pipeline":
        from datarax.sources import MemorySource, MemorySourceConfig

        source = MemorySource(MemorySourceConfig(), data=x)
        (batch,) = Pipeline(source=source, stages=stages, batch_size=RECORDS)
    elif where == "loop":
        batch = x
        for stage in stages:
            batch = stage(batch)
    else:
        from datarax.core.element_batch import Batch

        batch = Batch.from_arrays(x, record_index=np.arange(RECORDS), epoch=0)
        for stage in stages:
            batch = stage(batch)
    decisions = np.stack(
        [np.asarray(batch[n], float) for n in ("flipped", "brighter", "brighter2")]
    )
    correlation = np.abs(np.corrcoef(decisions) - np.eye(3)).max()
    assert correlation < 4 / np.sqrt(RECORDS)
