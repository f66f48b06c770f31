"""A training run that is killed and started again goes on as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from datarax.core.checkpoint import Checkpointer
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)
from datarax.pipeline import Pipeline
from datarax.sources import MemorySource, MemorySourceConfig

STEPS = 7


class Model(nnx.Module):
    """With dropout of its own, running statistics and parameters of two dtypes."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(12, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.linear = nnx.Linear(12, 1, param_dtype=jnp.bfloat16, rngs=rngs)

    def __call__(self, image):
        return self.linear(self.dropout(self.norm(image.reshape(len(image), 12))))


@nnx.jit
def step(model, optimizer, batch):
    def loss_of(model):
        return jnp.mean(jnp.square(model(batch["image"]) - batch["label"][:, None]))

    loss, grads = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, grads)
    return loss


def pipeline_of(rngs):
    generator = np.random.default_rng(0)
    records = {
        "image": generator.normal(size=(13, 2, 2, 3)).astype(np.float32),
        "label": generator.normal(size=13).astype(np.float32),
    }
    config = PatchDropoutOperatorConfig(
        field_key="image", num_patches=1, patch_size=(1, 1), stochastic=True
    )
    return Pipeline(
        source=MemorySource(MemorySourceConfig(shuffle=True, seed=3), data=records),
        stages=[PatchDropoutOperator(config, rngs=rngs)],
        batch_size=4,
        remainder="drop",
    )


def train(directory, dies_at=None):
    """Trains from the latest checkpoint, or from the start; yields step, loss and mean loss."""
    rngs = nnx.Rngs(0)
    pipeline, model = pipeline_of(rngs), Model(rngs)
    parts = {
        "model": model,
        "optimizer": nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param),
        "data": iter(pipeline),
        "mean": nnx.metrics.Average(),
    }
    with Checkpointer(directory, max_to_keep=2) as checkpointer:
        done = checkpointer.latest_step()
        if done is not None:
            checkpointer.restore(parts)
        for number in range(0 if done is None else done + 1, STEPS):
            batch = next(parts["data"], None)
            if batch is None:
                parts["data"] = iter(pipeline)
                batch = next(parts["data"])
            # Optax and the metrics of Flax rely on promotion.
            with jax.numpy_dtype_promotion("standard"):
                loss = step(model, parts["optimizer"], batch.as_dict())
                parts["mean"].update(values=loss)
                mean = parts["mean"].compute()
            yield number, float(loss).hex(), float(mean).hex()
            if number == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if number % 2:
                checkpointer.save(number, parts)


def test_a_killed_run_goes_on_with_the_same_losses(tmp_path):
    """Model, optimizer, metric, order of records, both kinds of dropout: every bit of a loss."""
    whole = {number: losses for number, *losses in train(tmp_path / "whole")}
    assert list(whole) == list(range(STEPS))
    assert len({loss for loss, _ in whole.values()}) == STEPS
    killed_at = random.Random(os.getpid()).choice([2, 3, 4, 5])
    program = "import sys, test_resume; [*test_resume.train(sys.argv[1], int(sys.argv[2]))]"
    killed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "killed"), str(killed_at)],
        cwd=os.path.dirname(__file__),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = {number: losses for number, *losses in train(tmp_path / "killed")}
    assert min(resumed) == killed_at // 2 * 2
    assert resumed == {number: whole[number] for number in resumed}
