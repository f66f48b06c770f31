# %% [markdown]
# # A training that is killed, and goes on
#
# A process of its own trains a small network on augmented digits, saves everything at every fifth
# step, and is killed in the middle of an epoch, with no chance to tidy up. Then this process takes
# the last checkpoint and goes on: every loss and every weight is, to the bit, that of a training
# which nobody stopped.
#
# ```
# python examples/resume_training.py
# ```
#
# takes about a minute on two CPU cores.

# %%
import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from datarax.batching import masked_mean
from datarax.core.checkpoint import Checkpointer
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig
from datarax.operators.modality import image as ops
from datarax.pipeline import Pipeline
from datarax.sources import MemorySource, MemorySourceConfig

RECORDS, BATCH_SIZE, EPOCHS, SAVE_EVERY = 250, 32, 4, 5

# %% [markdown]
# ## What has a state
#
# A network with a dropout, and batches that are shuffled, cropped, made brighter or darker, and
# mixed. Both draw random numbers, and both know where they are in their sequence of draws.


# %%
class Network(nnx.Module):
    """Two layers, with a dropout that has random numbers of its own."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 64, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images):
        hidden = nnx.relu(self.hidden(images.reshape(len(images), 64)))
        return self.head(self.dropout(hidden))


def batches_of_all_epochs():
    """An iterator over augmented batches, which knows where it is."""
    digits = load_digits()
    images = np.rint(255 / 16 * digits.images[:RECORDS, ..., None]).astype(np.uint8)
    records = {"image": images, "label": digits.target[:RECORDS].astype(np.int32)}
    rngs = nnx.Rngs(1)
    crop = ops.CropOperatorConfig(size=8, padding=1)
    brightness = ops.BrightnessOperatorConfig(factor=(0.6, 1.4))
    mix = BatchMixOperatorConfig(mode="mixup", alpha=0.2, num_classes=10)
    stages = [
        ops.CropOperator(crop, rngs=rngs),
        ops.BrightnessOperator(brightness, rngs=rngs),
        ops.NormalizeOperator(ops.NormalizeOperatorConfig(mean=0.2, std=0.35)),
        BatchMixOperator(mix, rngs=rngs),
    ]
    source = MemorySource(MemorySourceConfig(shuffle=True, seed=0), data=records)
    return iter(Pipeline(source=source, stages=stages, batch_size=BATCH_SIZE, epochs=EPOCHS))


# %% [markdown]
# ## The training
#
# `train` makes its parts anew in every process. Where it finds a checkpoint, it puts the saved
# values into these parts: weights, moments of Adam, the dropout's stream, the place in the epoch.


# %%
@nnx.jit
def train_step(model, optimizer, batch):
    """The loss of a batch, after which model and optimizer are a step further."""

    def loss_of(model):
        losses = optax.softmax_cross_entropy(model(batch["image"]), batch["label"])
        return masked_mean(losses, batch.valid_mask)

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


def train(folder, dies_at=None):
    """The losses by number of step, from the last checkpoint in the folder on, and the model.

    Args:
      folder: where the checkpoints are.
      dies_at: the step after which the process kills itself; None for never.
    """
    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    batches = batches_of_all_epochs()
    # All that changes during a training.
    parts = {"model": model, "optimizer": optimizer, "batches": batches}
    losses = {}
    with Checkpointer(folder, max_to_keep=2) as checkpointer:
        last = checkpointer.latest_step()
        if last is not None:
            checkpointer.restore(parts)
        for step, batch in enumerate(batches, start=0 if last is None else last + 1):
            losses[step] = float(train_step(model, optimizer, batch))
            if step == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if (step + 1) % SAVE_EVERY == 0:
                checkpointer.save(step, parts)
    return losses, model


# %% [markdown]
# ## A process that is killed
#
# It runs what stands above, so it needs the text of that: this file, or the cells of a notebook up
# to here, which IPython keeps in `In`.


# %%
TEXT = "\n\n".join(globals().get("In", [])) or Path(__file__).read_text(encoding="utf-8")


def train_until_killed(folder, dies_at):
    """Trains in a process of its own, whose checkpoints are in the folder."""
    with tempfile.TemporaryDirectory() as program:
        Path(program, "training.py").write_text(TEXT, encoding="utf-8")
        call = f"from training import train; train({str(folder)!r}, dies_at={dies_at})"
        child = subprocess.run([sys.executable, "-c", call], cwd=program, check=False)
    if child.returncode != -signal.SIGKILL:
        raise SystemExit(f"the child was to be killed, and ended with {child.returncode}")


# %% [markdown]
# ## With a stop and without


# %%
def main():
    """Trains without a stop, and with one, and compares."""
    parser = argparse.ArgumentParser(description="A training that is killed, and goes on.")
    parser.add_argument("--dies-at", type=int, default=17, help="step of the kill")
    options = parser.parse_args([] if "ipykernel" in sys.modules else None)
    with tempfile.TemporaryDirectory() as folder:
        killed = Path(folder) / "killed"
        train_until_killed(killed, options.dies_at)
        print(f"the child was killed after step {options.dies_at}")
        resumed, model = train(killed)
        whole, same_model = train(Path(folder) / "whole")
    print(f"it went on with step {min(resumed)}, and ended after step {max(resumed)}")
    assert resumed == {step: whole[step] for step in resumed}
    weights, same = (nnx.state(one, nnx.Param) for one in (model, same_model))
    assert jax.tree.all(jax.tree.map(np.array_equal, weights, same))
    print(f"all {len(resumed)} losses are the same to the bit, and so are the weights")
    return whole, resumed


if __name__ == "__main__":
    whole, resumed = main()
