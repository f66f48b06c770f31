# %% [markdown]
# # Learning how much to mix
#
# The α of MixUp is usually guessed. With `learn_alpha=True` it is a parameter of the operator,
# `op.log_alpha`, and gets gradients through the mixed images and labels. Which loss shall it lower?
# Not the training loss: images that are not mixed are easier, so α would go to 0. We take the loss
# on a *validation* split after the step that the mixed batch would make, a gradient through a
# gradient. Model and operator are ordinary Flax NNX modules, each with an optimizer.
#
# The data are scikit-learn's digits, 8 x 8 pixels, split three times at random. This takes less
# than half a minute on two CPU cores:
#
# ```
# python examples/learned_mixing.py
# ```

# %%
import argparse
import sys

import jax
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig
from datarax.pipeline import Pipeline
from datarax.sources import MemorySource, MemorySourceConfig

parser = argparse.ArgumentParser(description="MixUp whose α is learned on a validation split.")
parser.add_argument("--splits", type=int, default=3, help="of the data, each with a training")
parser.add_argument("--epochs", type=int, default=120, help="of each training")
parser.add_argument("--alpha", type=float, default=0.3, help="to start with")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)

NUM_CLASSES, TRAIN, VALIDATION, BATCH_SIZE = 10, 200, 400, 100
digits = load_digits()
images = (digits.images[..., None] / 16).astype(np.float32)
classes = digits.target.astype(np.int32)


class Classifier(nnx.Module):
    def __init__(self, *, rngs):
        self.first = nnx.Linear(64, 64, rngs=rngs)
        self.second = nnx.Linear(64, 64, rngs=rngs)
        self.head = nnx.Linear(64, NUM_CLASSES, rngs=rngs)

    def __call__(self, images):
        hidden = nnx.relu(self.first(images.reshape(-1, 64)))
        return self.head(nnx.relu(self.second(hidden)))


# %% [markdown]
# ## One step
#
# The steps of the model and of α come from the same mixed batch. λ is drawn for each record, so
# that a batch tells more about α.

# %%
RATE = 0.1
SGD, ADAM = optax.sgd(RATE, momentum=0.9), optax.adam(0.02)


def create_mixup(seed):
    config = BatchMixOperatorConfig(
        mode="mixup",
        alpha=options.alpha,
        learn_alpha=True,
        granularity="record",
        num_classes=NUM_CLASSES,
    )
    return BatchMixOperator(config, rngs=nnx.Rngs(seed))


def cross_entropy(model, data):
    return optax.softmax_cross_entropy(model(data["image"]), data["label"]).mean()


def loss_after_step(mixup, model, batch, held_out):
    """The validation loss after a step of plain gradient descent, and that step's gradient."""
    mixed = mixup(batch)
    graph, weights = nnx.split(model, nnx.Param)
    gradient = jax.grad(lambda weights: cross_entropy(nnx.merge(graph, weights), mixed))(weights)
    moved = jax.tree.map(lambda weight, slope: weight - RATE * slope, weights, gradient)
    return cross_entropy(nnx.merge(graph, moved), held_out), gradient


@nnx.jit
def train_step(model, optimizer, mixup, alpha_optimizer, batch, held_out):
    slope_of = nnx.value_and_grad(loss_after_step, has_aux=True)
    (loss, gradient), slope = slope_of(mixup, model, batch, held_out)
    optimizer.update(model, gradient)
    alpha_optimizer.update(mixup, slope)
    return loss


@nnx.jit
def predict(model, images):
    return model(images).argmax(axis=1)


# %% [markdown]
# ## A training for each split
#
# 200 images to train on, 400 to validate on, the rest to test on, without overlap.


# %%
def train(seed):
    """α after each epoch, and the accuracy on the test images."""
    order = np.random.default_rng(seed).permutation(len(images))
    train, validation, test = np.split(order, [TRAIN, TRAIN + VALIDATION])
    labels = np.eye(NUM_CLASSES, dtype=np.float32)[classes[validation]]
    held_out = {"image": images[validation], "label": labels}
    source = MemorySource(
        MemorySourceConfig(shuffle=True, seed=seed),
        data={"image": images[train], "label": classes[train]},
        rngs=nnx.Rngs(seed),
    )
    pipeline = Pipeline(source=source, stages=[], batch_size=BATCH_SIZE, rngs=nnx.Rngs(seed))
    model, mixup = Classifier(rngs=nnx.Rngs(seed)), create_mixup(seed)
    optimizer = nnx.Optimizer(model, SGD, wrt=nnx.Param)
    alpha_optimizer = nnx.Optimizer(mixup, ADAM, wrt=nnx.Param)
    alphas = []
    for _ in range(options.epochs):
        for batch in pipeline:
            train_step(model, optimizer, mixup, alpha_optimizer, batch, held_out)
        alphas.append(np.exp(mixup.log_alpha.get_value()))
    right = np.asarray(predict(model, images[test])) == classes[test]
    return alphas, right.mean()


for seed in range(options.splits):
    alphas, accuracy = train(seed)
    path = " ".join(f"{alpha:.2f}" for alpha in alphas[:: max(1, options.epochs // 6)])
    print(f"split {seed}: α {path} ... {alphas[-1]:.2f}, test accuracy {accuracy:.1%}")

# %% [markdown]
# ## What to make of it
#
# - α moves away from where it starts, but not to the same value in each split: 400 validation
#   images and a look of one step ahead say only roughly how much mixing is good.
# - A learned α is state like the weights: `get_state`, `set_state` and `copy` include it.
# - Mixing with a λ of your own, for example from a network: `op.replay(batch, {"lam": lam, ...})`
#   has gradients in `lam`.
