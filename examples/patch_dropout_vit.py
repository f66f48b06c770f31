# %% [markdown]
# # A vision transformer that trains faster on fewer tokens
#
# A vision transformer cuts an image into patches and treats each as a token. Neighbouring tokens
# say much the same, so in training half of them can be left out, at random and anew for every image
# (PatchDropout, [Liu et al. 2022](https://arxiv.org/abs/2208.07220)). A step then takes about half
# of the time, and the model still classifies whole images.
#
# `PatchDropoutOperator` with `drop_tokens=True` chooses the tokens. This takes less than 40 seconds
# on two CPU cores:
#
# ```
# python examples/patch_dropout_vit.py
# ```

# %%
import argparse
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from skimage import data as photographs
from tqdm.auto import tqdm

from datarax.core.element_batch import Batch
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)

# %%
parser = argparse.ArgumentParser(description="A small ViT with and without token dropping.")
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--steps", type=int, default=40, help="of each training")
parser.add_argument("--repeats", type=int, default=15, help="of each timed step")
parser.add_argument("--width", type=int, default=128, help="numbers in a token")
parser.add_argument("--depth", type=int, default=4, help="of the transformer, in blocks")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)

SIDE, PATCH, CHANNELS = 32, 4, 3
TOKENS = (SIDE // PATCH) ** 2
DROPPED = TOKENS // 2
print(f"JAX {jax.__version__} on {jax.default_backend()}, {DROPPED} of {TOKENS} tokens dropped")

# %% [markdown]
# ## Images
#
# Squares from five photographs in the public domain; the label says which photograph. Those to test
# on overlap those to train on, so the accuracies below only show that training works.

# %%
PHOTOGRAPHS = [
    photographs.astronaut(),
    photographs.chelsea(),
    photographs.coffee(),
    photographs.rocket(),
    photographs.stereo_motorcycle()[0],
]


def random_batch(seed):
    """A batch of squares of 32 x 32 pixels, every third of a photograph, with record indices."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(PHOTOGRAPHS), size=options.batch_size).astype(np.int32)
    images = []
    for label in labels:
        photograph = PHOTOGRAPHS[label]
        y, x = (rng.integers(side - 3 * SIDE + 1) for side in photograph.shape[:2])
        images.append(photograph[y : y + 3 * SIDE : 3, x : x + 3 * SIDE : 3])
    # No record comes twice, so that all are of one epoch.
    index = seed * options.batch_size + np.arange(options.batch_size)
    images = {"image": np.stack(images), "label": labels}
    return Batch.from_arrays(images, record_index=index, epoch=0)


# %% [markdown]
# ## Which tokens stay
#
# The tokens are the cells of a grid without gaps. The operator writes the numbers of those that
# stay to `image_token_indices`: as many for every image, so that nothing is compiled twice. The
# images that it also fills are not used here, and the compiler leaves that work out.

# %%
drop_tokens = PatchDropoutOperator(
    PatchDropoutOperatorConfig(
        field_key="image",
        placement="grid",
        grid_ratio=1.0,
        patch_size=(PATCH, PATCH),
        num_patches=DROPPED,
        drop_tokens=True,
        stochastic=True,
    ),
    rngs=nnx.Rngs(0),
)

# %% [markdown]
# ## The model
#
# Only one thing is special: the model may be told which tokens it gets. It takes these and their
# places before the first block, and everything after has a shorter sequence.


# %%
class Block(nnx.Module):
    def __init__(self, width, *, rngs):
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attend = nnx.MultiHeadAttention(4, width, decode=False, rngs=rngs)
        self.widen = nnx.Linear(width, 4 * width, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, hidden):
        hidden = hidden + self.attend(self.norms[0](hidden))
        return hidden + self.narrow(nnx.gelu(self.widen(self.norms[1](hidden))))


class SmallViT(nnx.Module):
    def __init__(self, width, depth, *, rngs):
        self.embed = nnx.Linear(PATCH * PATCH * CHANNELS, width, rngs=rngs)
        self.places = nnx.Param(0.02 * jax.random.normal(rngs.params(), (TOKENS, width)))
        self.blocks = nnx.List([Block(width, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, len(PHOTOGRAPHS), rngs=rngs)

    def __call__(self, images, indices=None):
        rows = SIDE // PATCH
        tokens = images.reshape(-1, rows, PATCH, rows, PATCH, CHANNELS).swapaxes(2, 3)
        tokens = tokens.reshape(-1, TOKENS, PATCH * PATCH * CHANNELS)
        tokens = tokens.astype(jnp.float32) / 127.5 - 1
        places = jnp.broadcast_to(self.places[...], (len(tokens), *self.places.shape))
        if indices is not None:
            tokens = jnp.take_along_axis(tokens, indices[..., None], axis=1)
            places = jnp.take_along_axis(places, indices[..., None], axis=1)
        hidden = self.embed(tokens) + places
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(self.norm(hidden.mean(axis=1)))


# %% [markdown]
# ## A training step
#
# Two steps that differ in one line.


# %%
def improve(model, optimizer, batch, indices):
    """Takes one step and returns the loss."""

    def loss_of(model):
        logits = model(batch["image"], indices)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


@nnx.jit
def all_tokens(model, optimizer, batch):
    return improve(model, optimizer, batch, None)


@nnx.jit
def half_of_the_tokens(model, optimizer, batch):
    return improve(model, optimizer, batch, drop_tokens(batch)["image_token_indices"])


STEPS = {"all tokens": all_tokens, "half of them": half_of_the_tokens}
ADAM = optax.adam(1e-3)  # shared, so that each step is compiled once


def create():
    model = SmallViT(options.width, options.depth, rngs=nnx.Rngs(0))
    return model, nnx.Optimizer(model, ADAM, wrt=nnx.Param)


# %% [markdown]
# ## How long a step takes
#
# The two steps take turns, so that whatever else the machine does slows down both alike.


# %%
def time_steps():
    """The median time of each step in milliseconds."""
    batch = jax.device_put(random_batch(seed=0))
    states = {name: create() for name in STEPS}
    times = {name: [] for name in STEPS}
    for repeat in tqdm(range(options.repeats + 1), desc="timing"):
        for name, step in STEPS.items():
            start = time.perf_counter()
            jax.block_until_ready(step(*states[name], batch))
            # The first call compiles.
            if repeat:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


milliseconds = time_steps()
speedup = milliseconds["all tokens"] / milliseconds["half of them"]
for name, median in milliseconds.items():
    print(f"{name:12} {median:7.1f} ms a step")
print(f"speed-up     {speedup:7.2f} times")

# %% [markdown]
# ## What the model learns
#
# Both models see the same batches, and both are tested on whole images.


# %%
@nnx.jit
def accuracy(model, batch):
    return (model(batch["image"]).argmax(axis=1) == batch["label"]).mean()


def train(name):
    """The last loss, and the accuracy on whole images, of a model trained with this step."""
    model, optimizer = create()
    for seed in tqdm(range(options.steps), desc=name):
        loss = STEPS[name](model, optimizer, random_batch(seed))
    tests = [accuracy(model, random_batch(10_000 + seed)) for seed in range(4)]
    return float(loss), float(np.mean(tests))


results = {name: train(name) for name in STEPS}
for name, (loss, correct) in results.items():
    print(f"{name:12} last loss {loss:.2f}, {correct:.0%} of whole test images right")
