# %% [markdown]
# # DeiT's augmentation on photographs
#
# The recipe runs as stages of a pipeline, and in a loop of one's own. Both run it whole on the
# device: a random resized crop and a flip, RandAugment, normalising, random erasing, then MixUp or
# CutMix. A figure shows the photographs and what a network would see of them.
#
# ```
# python examples/image_recipe.py --output-dir recipe-output
# ```
#
# Most of its time, less than half a minute on two CPU cores, goes into compiling.

# %%
import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from skimage import data, transform

from datarax.operators import CompositeOperatorConfig, CompositeOperatorModule
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig
from datarax.operators.modality import image as ops
from datarax.pipeline import Pipeline
from datarax.sources import MemorySource, MemorySourceConfig

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY = tuple(round(255 * mean) for mean in MEAN)
CLASSES = ("astronaut", "cat", "cup", "rocket", "motorcycle")

# %% [markdown]
# ## Photographs


# %%
def photographs(height, width):
    """Five photographs as bytes, `(5, height, width, 3)`, and the number of each as its label."""
    originals = (
        data.astronaut()[20:404],
        data.chelsea(),
        data.coffee(),
        data.rocket(),
        data.stereo_motorcycle()[0],
    )
    scaled = [transform.resize(one, (height, width), anti_aliasing=True) for one in originals]
    return {
        "image": np.rint(255 * np.stack(scaled)).astype(np.uint8),
        "label": np.arange(len(CLASSES), dtype=np.int32),
    }


# %% [markdown]
# ## The recipe
#
# An operator for each line of the recipe. Those that change one image are composed to one operator.
# Mixing comes last, because it takes the other image of a pair from the batch.


# %%
def augmentation(size, rngs):
    """What happens to each image: timm's `rand-m9-mstd0.5-inc1` with random erasing."""
    crop = ops.ResizedCropOperatorConfig(size=size, method="bicubic", flip=0.5)
    rand = ops.RandAugmentOperatorConfig(magnitude=9, magnitude_std=0.5, prob=0.5, fill=GREY)
    normalize = ops.NormalizeOperatorConfig(mean=MEAN, std=STD)
    erase = ops.PatchDropoutOperatorConfig(
        field_key="image",
        stochastic=True,
        prob=0.25,
        num_patches=1,
        patch_area=(0.02, 1 / 3),
        aspect_ratio=(0.3, 1 / 0.3),
        fill="noise",
        fill_range=(-(3**0.5), 3**0.5),  # the variance is 1
    )
    members = [
        ops.ResizedCropOperator(crop, rngs=rngs),
        ops.RandAugmentOperator(rand, rngs=rngs),
        ops.NormalizeOperator(normalize),
        ops.PatchDropoutOperator(erase, rngs=rngs),
    ]
    return CompositeOperatorModule(CompositeOperatorConfig(), operators=members)


def mixing(rngs):
    """MixUp for half of the batches, CutMix for the others; labels become weights of classes."""
    config = BatchMixOperatorConfig(
        mode="both", alpha=0.8, cutmix_alpha=1.0, num_classes=len(CLASSES), label_smoothing=0.1
    )
    return BatchMixOperator(config, rngs=rngs)


# %% [markdown]
# ## As stages of a pipeline


# %%
def by_pipeline(records, size, epochs):
    """A batch of each epoch, its rows in the order of the photographs.

    What happens to an image depends on its number and the epoch; only mixing needs the others.
    """
    rngs = nnx.Rngs(0)
    source = MemorySource(MemorySourceConfig(shuffle=True, seed=0), data=records)
    stages = [augmentation(size, rngs), mixing(rngs)]
    pipeline = Pipeline(source=source, stages=stages, batch_size=len(CLASSES))
    seen = []
    for _ in range(epochs):
        for batch in pipeline:
            order = np.argsort(batch.record_index)
            seen.append({name: np.asarray(array)[order] for name, array in batch.data.items()})
    return seen


# %% [markdown]
# ## In a loop of one's own


# %%
def by_own_loop(records, size, steps):
    """The losses of a linear classifier, and what it saw in each step, from plain dicts.

    All of a step is one compiled function; the key of the step is the only source of chance.
    """
    rngs = nnx.Rngs(1)
    augment, mix = augmentation(size, rngs), mixing(rngs)
    model = nnx.Linear(size * size * 3, len(CLASSES), rngs=rngs)
    optimizer = nnx.Optimizer(model, optax.sgd(1e-4), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, fields, key):
        first, second = jax.random.split(key)
        seen = mix(augment(fields, key=first), key=second)

        def loss_of(model):
            logits = model(seen["image"].reshape(len(CLASSES), -1))
            return jnp.mean(optax.softmax_cross_entropy(logits, seen["label"]))

        loss, gradients = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, gradients)
        return loss, seen

    results = [
        step(model, optimizer, records, jax.random.fold_in(jax.random.key(0), number))
        for number in range(steps)
    ]
    return [float(loss) for loss, _ in results], [jax.device_get(seen) for _, seen in results]


# %% [markdown]
# ## What the network sees
#
# The normalised images, made visible again. Above each stands what its label consists of, without
# the smoothing.


# %%
def as_bytes(images):
    """Normalised images as they can be shown."""
    return np.rint(255 * np.clip(images * np.float32(STD) + np.float32(MEAN), 0, 1)).astype(
        np.uint8
    )


def title_of(weights):
    """The classes that a label is made of, beyond its smoothing."""
    chosen = [number for number in np.argsort(-weights) if weights[number] > 0.05]
    return ", ".join(f"{CLASSES[number]} {weights[number]:.2f}" for number in chosen[:2])


def draw(records, rows, path):
    """Writes a figure: the photographs, and below them a line for each of the batches."""
    columns = len(CLASSES)
    figure, axes = plt.subplots(
        1 + len(rows), columns, figsize=(2.4 * columns, 2.7 * (1 + len(rows)))
    )
    for axis, image, name in zip(axes[0], records["image"], CLASSES, strict=True):
        axis.imshow(image)
        axis.set_title(name, fontsize=9)
    for line, (name, seen) in zip(axes[1:], rows.items(), strict=True):
        for axis, image, weights in zip(line, as_bytes(seen["image"]), seen["label"], strict=True):
            axis.imshow(image)
            axis.set_title(title_of(weights), fontsize=8)
        line[0].text(-0.08, 0.5, name, rotation=90, va="center", transform=line[0].transAxes)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, dpi=80, facecolor="white")
    if "ipykernel" not in sys.modules:  # a notebook shows it
        plt.close(figure)


# %% [markdown]
# ## Both ways


# %%
def main():
    """Runs both ways, writes the figure, and returns what the network saw, by its row."""
    parser = argparse.ArgumentParser(description="DeiT's augmentation on photographs.")
    parser.add_argument("--output-dir", type=Path, default=Path("recipe-output"))
    parser.add_argument("--size", type=int, default=224, help="of what the network sees, in pixels")
    parser.add_argument("--height", type=int, default=300, help="of the photographs, in pixels")
    options = parser.parse_args([] if "ipykernel" in sys.modules else None)
    records = photographs(options.height, options.height * 4 // 3)
    epochs = by_pipeline(records, options.size, epochs=2)
    losses, steps = by_own_loop(records, options.size, steps=2)
    rows = {f"epoch {number}": seen for number, seen in enumerate(epochs)}
    rows |= {f"own loop, step {number}": seen for number, seen in enumerate(steps)}
    options.output_dir.mkdir(parents=True, exist_ok=True)
    path = options.output_dir / "image-recipe.png"
    draw(records, rows, path)
    print(f"{path}: losses of the loop {', '.join(f'{loss:.2f}' for loss in losses)}")
    return rows


if __name__ == "__main__":
    rows = main()
