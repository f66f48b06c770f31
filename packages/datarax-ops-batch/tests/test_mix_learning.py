import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig

ROWS = 512


def make_batch(dtype=np.float32, epoch=0):
    rng = np.random.default_rng(0)
    data = {
        "image": (rng.random((ROWS, 2, 2, 1)) * 255).astype(dtype),
        "label": np.eye(ROWS, dtype=np.float32),
    }
    return Batch.from_arrays(data, record_index=np.arange(ROWS), epoch=epoch)


def sharpness(op, batch):
    """The mean of Σ label², which is E[λ² + (1 − λ)²] = (α + 1) / (2 α + 1)."""
    return (op(batch)["label"] ** 2).sum(axis=1).mean()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8], ids=["f32", "u8"])
def test_alpha_is_learned(dtype):
    """Gradient descent on labels of a wanted sharpness finds the α that gives it."""
    config = BatchMixOperatorConfig(alpha=0.3, granularity="record", learn_alpha=True)
    op = BatchMixOperator(config, rngs=nnx.Rngs(0))

    @nnx.jit
    def step(op, batch):
        def loss(op):
            return (sharpness(op, batch) - 0.6) ** 2

        gradient = nnx.grad(loss)(op)["log_alpha"].get_value()
        op.log_alpha.set_value(op.log_alpha.get_value() - 60 * gradient)

    for epoch in range(80):
        step(op, make_batch(dtype, epoch))
    assert float(jnp.exp(op.log_alpha.get_value())) == pytest.approx(2, rel=0.2)


def test_gradient_in_alpha_reaches_through_the_images():
    """The slope of a loss on the images is that of finite differences."""
    config = BatchMixOperatorConfig(alpha=0.7, granularity="record", learn_alpha=True)
    op = BatchMixOperator(config, rngs=nnx.Rngs(0))
    batch = make_batch()

    def loss(log_alpha):
        mixed = nnx.merge(*nnx.split(op), copy=True)
        mixed.log_alpha.set_value(log_alpha)
        return (mixed(batch)["image"] ** 2).mean()

    at = jnp.log(jnp.float32(0.7))
    step = jnp.float32(0.02)
    measured = (loss(at + step) - loss(at - step)) / (2 * step)
    assert float(jax.grad(loss)(at)) == pytest.approx(float(measured), rel=0.05)


def test_padding_with_nan_leaves_the_gradient_finite():
    """NaN in padded rows reaches neither the images' gradient nor that of α."""
    batch = make_batch()
    image = batch["image"].copy()
    image[-5:] = np.nan
    batch = batch.replace(data={**batch.data, "image": image}).select(np.arange(ROWS) < ROWS - 5)
    config = BatchMixOperatorConfig(granularity="record", learn_alpha=True)
    op = BatchMixOperator(config, rngs=nnx.Rngs(0))

    def loss(op, image):
        out = op(batch.replace(data={**batch.data, "image": image}))
        return jnp.where(batch.valid_mask[:, None, None, None], out["image"], 0).sum()

    gradient, slope = nnx.jit(nnx.grad(loss, argnums=(1, 0)))(op, image)
    assert np.isfinite(gradient).all()
    assert np.isfinite(float(slope["log_alpha"].get_value()))


def test_alpha_is_learned_only_where_labels_are_smooth_in_it():
    """CutMix has whole pixels: learning α there is refused."""
    with pytest.raises(ValueError, match="learn_alpha has no effect in mode 'cutmix'"):
        BatchMixOperatorConfig(mode="cutmix", learn_alpha=True)
