# %% [markdown]
# # MixUp and CutMix
#
# Flipping or shifting changes one image at a time. MixUp and CutMix take two images, and make a new
# one from them together with a *soft* label, which says how much of each class the new image shows:
#
# - **MixUp** blends: $\tilde x = \lambda x_a + (1 - \lambda) x_b$
#   ([Zhang et al. 2018](https://arxiv.org/abs/1710.09412))
# - **CutMix** pastes a box: $\tilde x = M \odot x_a + (1 - M) \odot x_b$
#   ([Yun et al. 2019](https://arxiv.org/abs/1905.04899))
#
# and both mix the labels: $\tilde y = \lambda y_a + (1 - \lambda) y_b$. The number $\lambda$ comes
# from a distribution Beta(α, α); in CutMix it is the fraction of the image outside the box.
#
# We mix batches inside a pipeline, see what α does and what soft labels look like, add patch
# dropout, and train a small classifier. This takes less than two minutes on two CPU cores:
#
# ```
# python examples/mixup_cutmix_tutorial.py
# ```

# %% [markdown]
# ## Setup

# %%
import argparse
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from skimage import data as photographs
from tqdm.auto import tqdm

from datarax.batching import masked_mean, masked_sum_count
from datarax.core.config import BatchMixOperatorConfig
from datarax.operators import ElementOperator, ElementOperatorConfig
from datarax.operators.batch_mix_operator import BatchMixOperator
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)
from datarax.pipeline import Pipeline
from datarax.sources import MemorySource, MemorySourceConfig, TFDSEagerConfig, TFDSEagerSource

# %%
parser = argparse.ArgumentParser(description="MixUp, CutMix and patch dropout, step by step.")
parser.add_argument("--output-dir", type=Path, default=Path("tutorial-output"), help="for figures")
parser.add_argument("--tfds-dir", help="directory with TFDS's CIFAR-10, prepared as array_record")
parser.add_argument("--epochs", type=int, default=10, help="of each training")

in_notebook = "ipykernel" in sys.modules
options = parser.parse_args([] if in_notebook else None)
if options.epochs < 1:
    parser.error(f"--epochs must be 1 or more, got {options.epochs}")
options.output_dir.mkdir(parents=True, exist_ok=True)
if not in_notebook:
    matplotlib.use("Agg")  # draws to files, needs no screen

print(f"JAX {jax.__version__} on {jax.default_backend()}")

# %% [markdown]
# ## Part 1: Load data
#
# scikit-image ships eight photographs in the public domain. We cut squares out of them, at random
# places and of random sizes, shrink each to 32 x 32 x 3, and label it with the photograph that it
# is from. That makes 1,600 crops to train on and 320 to test on, without a download.
#
# Crops overlap, those for training with those for testing too. **An accuracy on these test crops
# says that the training works; it says nothing about images from elsewhere.**

# %%
PHOTOGRAPHS = {
    "astronaut": photographs.astronaut,
    "cat": photographs.chelsea,
    "coffee": photographs.coffee,
    "rocket": photographs.rocket,
    "galaxies": photographs.hubble_deep_field,
    "retina": photographs.retina,
    "tissue": photographs.immunohistochemistry,
    "motorbike": lambda: photographs.stereo_motorcycle()[0],
}


def shrink(image, factor):
    """The mean of each `factor` x `factor` pixels; an incomplete rest is cut off."""
    height, width = (side // factor for side in image.shape[:2])
    blocks = image[: height * factor, : width * factor]
    return blocks.reshape(height, factor, width, factor, 3).mean((1, 3), dtype=np.float32)


def random_crop(rng, photograph):
    factor = rng.integers(2, min(photograph.shape[:2]) // 32)
    y, x = (rng.integers(side - 32 * factor + 1) for side in photograph.shape[:2])
    return shrink(photograph[y : y + 32 * factor, x : x + 32 * factor], factor)


def make_crops(seed, per_class):
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for label, load in enumerate(PHOTOGRAPHS.values()):
        photograph = load()
        photograph = shrink(photograph, min(photograph.shape[:2]) // 200)
        images += [random_crop(rng, photograph) for _ in range(per_class)]
        labels += [label] * per_class
    return {
        "image": np.stack(images).round().astype(np.uint8),
        "label": np.array(labels, np.int32),
    }


# %% [markdown]
# With `--tfds-dir` we read CIFAR-10 itself instead, from a directory that TensorFlow Datasets has
# prepared in its ArrayRecord format. A tenth of it keeps the run short.

# %%
if options.tfds_dir:
    CLASSES = ["airplane", "automobile", "bird", "cat", "deer"]
    CLASSES += ["dog", "frog", "horse", "ship", "truck"]
    MEAN = jnp.array([0.4914, 0.4822, 0.4465])
    STD = jnp.array([0.2470, 0.2435, 0.2616])
else:
    CLASSES = list(PHOTOGRAPHS)
    crops = {"train": make_crops(seed=0, per_class=200), "test": make_crops(seed=1, per_class=40)}
    MEAN = jnp.array(crops["train"]["image"].mean((0, 1, 2)) / 255, jnp.float32)
    STD = jnp.array(crops["train"]["image"].std((0, 1, 2)) / 255, jnp.float32)

NUM_CLASSES = len(CLASSES)
BATCH_SIZE = 32
SEED = 18


def create_source(split="train", seed=SEED, shuffle=True):
    if options.tfds_dir:
        return TFDSEagerSource(
            TFDSEagerConfig(
                name="cifar10",
                split=f"{split}[:10%]",
                data_dir=options.tfds_dir,
                shuffle=shuffle,
                seed=seed,
                exclude_keys={"id"},
            ),
            rngs=nnx.Rngs(seed),
        )
    return MemorySource(
        MemorySourceConfig(shuffle=shuffle, seed=seed), data=crops[split], rngs=nnx.Rngs(seed)
    )


print(f"{len(create_source('train'))} training images, {len(create_source('test'))} test images")

# %% [markdown]
# Preprocessing is written for one record; `ElementOperator` maps it over the batch. It standardises
# the image and makes the label one-hot, because mixed labels are weights of classes. `label_idx`
# keeps the class number: mixing touches the fields that it is told to, and no others.


# %%
def preprocess(element, key=None):
    image = element.data["image"].astype(jnp.float32) / 255.0
    image = (image - MEAN) / STD

    label = element.data["label"]
    label_onehot = jnp.eye(NUM_CLASSES, dtype=jnp.float32)[label]

    return element.update_data({"image": image, "label": label_onehot, "label_idx": label})


def create_preprocessor():
    return ElementOperator(ElementOperatorConfig(stochastic=False), fn=preprocess, rngs=nnx.Rngs(0))


def create_base_pipeline(seed=SEED):
    return Pipeline(
        source=create_source(seed=seed),
        stages=[create_preprocessor()],
        batch_size=BATCH_SIZE,
        rngs=nnx.Rngs(0),
    )


original_batch = next(iter(create_base_pipeline()))
print(original_batch)

# %% [markdown]
# ## Part 2: MixUp
#
# `BatchMixOperator` is the next stage. Its random stream is called "mixup" here. As in the authors'
# code, one λ is drawn for the whole batch; each image gets a partner, which is never itself.


# %%
def create_mixup_pipeline(alpha=0.4, seed=SEED, **more):
    mixup = BatchMixOperator(
        BatchMixOperatorConfig(
            mode="mixup",
            alpha=alpha,  # λ ~ Beta(α, α)
            data_field="image",
            label_field="label",
            stochastic=True,
            stream_name="mixup",
            **more,
        ),
        rngs=nnx.Rngs(mixup=100 + seed),
    )
    return Pipeline(
        source=create_source(seed=seed),
        stages=[create_preprocessor(), mixup],
        batch_size=BATCH_SIZE,
        rngs=nnx.Rngs(0),
    )


mixup_batch = next(iter(create_mixup_pipeline(alpha=0.4)))

print("MixUp batch:")
print(f"  image {mixup_batch['image'].shape}, label {mixup_batch['label'].shape}")
print(f"  first label {np.asarray(mixup_batch['label'][0]).round(2)}")

# %% [markdown]
# The same seed gives the same records in the same order, so that we can put the originals above the
# mixed images. Every batch says which records it holds. The class numbers in `label_idx` came
# through unchanged.

# %%
np.testing.assert_array_equal(mixup_batch.record_index, original_batch.record_index)
np.testing.assert_array_equal(mixup_batch["label_idx"], original_batch["label_idx"])
print(f"label_idx before {original_batch['label_idx'][:8]}")
print(f"label_idx after  {mixup_batch['label_idx'][:8]}")


# %%
def to_pixels(images):
    """Standardised images as they are shown: numbers from 0 to 1."""
    return np.clip(np.asarray(images) * np.asarray(STD) + np.asarray(MEAN), 0, 1)


def two_strongest(label):
    """The two classes with the largest weights, and the weights."""
    order = np.argsort(-np.asarray(label), kind="stable")[:2]
    return "\n".join(f"{CLASSES[k]} {label[k]:.2f}" for k in order if label[k] >= 0.005)


def class_names(batch):
    return [CLASSES[k] for k in batch["label_idx"]]


def save(figure, name):
    figure.savefig(options.output_dir / name, dpi=150, facecolor="white", bbox_inches="tight")
    if not in_notebook:
        plt.close(figure)


def plot_rows(rows, name):
    """A row of eight images for each (row name, images, titles)."""
    lines = sum(1 + max(title.count("\n") for title in titles) for _, _, titles in rows)
    size = (9, 1.1 * len(rows) + 0.16 * lines)
    figure, axes = plt.subplots(len(rows), 8, figsize=size, layout="constrained")
    for line, (row_name, images, titles) in zip(axes, rows, strict=True):
        line[0].set_ylabel(row_name, fontsize=10)
        for axis, image, title in zip(line, to_pixels(images[:8]), titles[:8], strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set_title(title, fontsize=8.5, pad=3)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    save(figure, name)


original_row = ("Original", original_batch["image"], class_names(original_batch))

# %% [markdown]
# Each title names the two strongest classes and their weights.

# %%
mixup_titles = [two_strongest(label) for label in mixup_batch["label"]]
plot_rows([original_row, ("MixUp", mixup_batch["image"], mixup_titles)], "mixup.png")

# %% [markdown]
# ## Part 3: CutMix
#
# Only the config changes. The weight in the label is the exact fraction of pixels that come from
# each image, after the box was rounded to whole pixels.


# %%
def create_cutmix_pipeline(alpha=1.0, seed=SEED, **more):
    cutmix = BatchMixOperator(
        BatchMixOperatorConfig(
            mode="cutmix",
            alpha=alpha,  # 1: every area is equally likely
            data_field="image",
            label_field="label",
            stochastic=True,
            stream_name="cutmix",
            **more,
        ),
        rngs=nnx.Rngs(cutmix=200 + seed),
    )
    return Pipeline(
        source=create_source(seed=seed),
        stages=[create_preprocessor(), cutmix],
        batch_size=BATCH_SIZE,
        rngs=nnx.Rngs(0),
    )


cutmix_batch = next(iter(create_cutmix_pipeline(alpha=1.0)))
cutmix_titles = [two_strongest(label) for label in cutmix_batch["label"]]
plot_rows([original_row, ("CutMix", cutmix_batch["image"], cutmix_titles)], "cutmix.png")

# %% [markdown]
# ### Both
#
# timm switches between the two: each draw is CutMix with probability `switch_prob`, else MixUp.
# Here `granularity="record"` draws for each image of the batch, so that one batch shows both.


# %%
def create_both(**more):
    return BatchMixOperator(
        BatchMixOperatorConfig(
            mode="both", alpha=0.2, cutmix_alpha=1.0, switch_prob=0.5, stream_name="mix", **more
        ),
        rngs=nnx.Rngs(mix=300),
    )


both_batch = create_both(granularity="record")(original_batch)
both_titles = [two_strongest(label) for label in both_batch["label"]]
plot_rows([original_row, ("Both", both_batch["image"], both_titles)], "both.png")

# %% [markdown]
# An operator is called on a batch directly, too, as we just did.
#
# ## Part 4: The effect of alpha
#
# - α < 1: λ is near 0 or 1, and one of the two images dominates.
# - α = 1: every λ is equally likely.
# - α > 1: λ is near 0.5, and most images are halves of both.
#
# Each row shows the same eight images with the same partners, mixed with another α and a λ for each
# image. `mix_info=True` leaves each record's λ in `batch.states`.

# %%
alpha_rows = []
for alpha in (0.2, 0.5, 1.0, 2.0):
    pipeline = create_mixup_pipeline(alpha=alpha, seed=11, granularity="record", mix_info=True)
    batch = next(iter(pipeline))
    titles = [f"λ = {lam:.2f}" for lam in batch.states["mix_info"]["lam"]]
    alpha_rows.append((f"α = {alpha}", batch["image"], titles))
plot_rows(alpha_rows, "alpha.png")

# %% [markdown]
# ## Part 5: Label distributions
#
# How soft are the labels? We take one epoch of each pipeline, with a λ for each image, and look at
# the largest weight in every label. It is 1, or close, in two cases: λ is near 0 or 1, or both
# images have the same class.


# %%
def collect_labels(pipeline):
    """The labels of an epoch, without the padding of the last batch."""
    return np.concatenate([batch["label"][batch.valid_mask] for batch in pipeline])


mixup_labels = collect_labels(create_mixup_pipeline(alpha=0.4, granularity="record"))
cutmix_labels = collect_labels(create_cutmix_pipeline(alpha=1.0, granularity="record"))

print(f"mean largest weight: MixUp {mixup_labels.max(axis=1).mean():.2f}", end=", ")
print(f"CutMix {cutmix_labels.max(axis=1).mean():.2f}")

# %%
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"


def plain_axes(axis, title, xlabel, ylabel):
    axis.set_title(title, fontsize=11, loc="left")
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.spines[["top", "right"]].set_visible(False)


names, colours = ("MixUp, α = 0.4", "CutMix, α = 1"), (BLUE, ORANGE)
labels = np.stack([mixup_labels, cutmix_labels])
largest = labels.max(axis=2)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
plain_axes(left, "How hard are the labels?", "largest weight in the label", "% of images")
share = np.full_like(largest, 100 / largest.shape[1])
left.hist(list(largest), np.linspace(0.5, 1, 11), weights=list(share), color=colours, label=names)
left.legend(frameon=False, loc="upper left")

# The first image that is clearly mixed in both epochs, which have the same order.
image = np.argmax(((largest > 0.55) & (largest < 0.8)).all(axis=0))
plain_axes(right, "The labels of one image", "", "weight")
for number, colour in enumerate(colours):
    right.bar(np.arange(NUM_CLASSES) + 0.4 * number - 0.2, labels[number, image], 0.4, color=colour)
right.set_xticks(range(NUM_CLASSES), CLASSES, rotation=40, ha="right", rotation_mode="anchor")
save(figure, "labels.png")

# %% [markdown]
# ## Part 6: Patch dropout
#
# Another way to make a model look at all of an image: hide parts of it. This works on each image
# alone, with patches of its own, and leaves the label as it is. Zero is the mean colour here,
# because the images are standardised. In a pipeline it goes before mixing.


# %%
def create_patch_dropout():
    return PatchDropoutOperator(
        PatchDropoutOperatorConfig(
            field_key="image",
            num_patches=4,
            patch_size=(8, 8),
            drop_value=0.0,
            stochastic=True,
            stream_name="patches",
        ),
        rngs=nnx.Rngs(patches=400),
    )


dropped_batch = create_patch_dropout()(original_batch)
plot_rows(
    [original_row, ("Patch dropout", dropped_batch["image"], class_names(dropped_batch))],
    "patch_dropout.png",
)

# %% [markdown]
# ## Part 7: Train a classifier
#
# A small convolutional network in Flax NNX.


# %%
class Classifier(nnx.Module):
    def __init__(self, *, rngs):
        self.convolutions = nnx.List(
            [
                nnx.Conv(channels, out, kernel_size=(3, 3), strides=2, rngs=rngs)
                for channels, out in ((3, 32), (32, 64), (64, 64))
            ]
        )
        self.head = nnx.Linear(64, NUM_CLASSES, rngs=rngs)

    def __call__(self, images):
        for convolution in self.convolutions:
            images = nnx.relu(convolution(images))
        return self.head(images.mean(axis=(1, 2)))


# %% [markdown]
# Soft labels need the cross-entropy between distributions, `optax.softmax_cross_entropy`; the one
# for class numbers cannot express them.
#
# 1,600 images do not divide into batches of 128. The last batch is padded to the full size, so that
# nothing is compiled twice, and `valid_mask` says which rows are images. Means must leave the
# padding out: `masked_mean` does.


# %%
@nnx.jit
def train_step(model, optimizer, batch):
    """Improves the model; the means of the loss and of the largest weight in each label."""

    def loss_of(model):
        losses = optax.softmax_cross_entropy(model(batch["image"]), batch["label"])
        return masked_mean(losses, batch.valid_mask)

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return jnp.stack([loss, masked_mean(batch["label"].max(axis=1), batch.valid_mask)])


@nnx.jit
def evaluation_step(model, batch):
    """How many predictions are right, the sum of their probabilities, and how many there are."""
    probabilities = nnx.softmax(model(batch["image"]))
    right = probabilities.argmax(axis=1) == batch["label_idx"]
    right_sum, count = masked_sum_count(right, batch.valid_mask)
    confidence_sum, _ = masked_sum_count(probabilities.max(axis=1), batch.valid_mask)
    return jnp.array([right_sum, confidence_sum, count], jnp.float32)


# %% [markdown]
# The pipeline that we evaluate on has neither patch dropout nor mixing. Sums and counts of its
# batches add up to exact means over all test images, the partly filled last batch included.

# %%
test_pipeline = Pipeline(
    source=create_source("test", shuffle=False),
    stages=[create_preprocessor()],
    batch_size=128,
    rngs=nnx.Rngs(0),
)


def evaluate(model):
    """Accuracy and mean confidence on the test images."""
    right, confidence, count = sum(evaluation_step(model, batch) for batch in test_pipeline)
    return float(right / count), float(confidence / count)


# %% [markdown]
# Four trainings, which differ in the mixing and in nothing else.


# %%
def create_mixer(mode, alpha):
    return BatchMixOperator(
        BatchMixOperatorConfig(
            mode=mode,
            alpha=alpha,
            data_field="image",
            label_field="label",
            stochastic=True,
            stream_name="mix",
        ),
        rngs=nnx.Rngs(mix=100),
    )


MIXERS = {
    "none": [],
    "MixUp": [create_mixer("mixup", alpha=0.4)],
    "CutMix": [create_mixer("cutmix", alpha=1.0)],
    "both": [create_both()],
}


# %% [markdown]
# Each `for batch in pipeline` is the next epoch, in another order and with other randomness. The
# trainings share one optimiser transformation, so that `train_step` is compiled once for all.

# %%
ADAM = optax.adam(3e-3)


def train(name):
    pipeline = Pipeline(
        source=create_source(),
        stages=[create_preprocessor(), create_patch_dropout(), *MIXERS[name]],
        batch_size=128,
        rngs=nnx.Rngs(0),
    )
    model = Classifier(rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, ADAM, wrt=nnx.Param)
    progress = tqdm(
        total=options.epochs * len(pipeline), desc=f"{name:6}", unit="batch", mininterval=1
    )
    losses, accuracies, confidences, weights, seconds = [], [], [], [], []
    for _ in range(options.epochs):
        start = time.perf_counter()
        means, counts = [], []
        for batch in pipeline:
            means.append(train_step(model, optimizer, batch))
            counts.append(batch.valid_mask.sum())
            progress.update()
        loss, weight = np.average(means, axis=0, weights=counts)
        seconds.append(time.perf_counter() - start)
        accuracy, confidence = evaluate(model)
        losses.append(loss)
        weights.append(weight)
        accuracies.append(accuracy)
        confidences.append(confidence)
        progress.set_postfix(loss=f"{loss:.2f}", accuracy=f"{accuracy:.1%}", refresh=False)
    progress.close()
    return {
        "losses": losses,
        "accuracy": accuracies[-1],
        "confidences": confidences,
        "weight": np.mean(weights),
        "speed": len(pipeline.source) / min(seconds),
    }


# %%
results = {name: train(name) for name in MIXERS}

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
styles = [(GREY, "-", "o"), (BLUE, "--", "s"), (ORANGE, "-.", "^"), (GREEN, ":", "D")]
epochs = np.arange(1, options.epochs + 1)
for (name, result), (colour, line, marker) in zip(results.items(), styles, strict=True):
    style = {"color": colour, "ls": line, "marker": marker, "ms": 4, "label": name}
    left.plot(epochs, result["losses"], **style)
    right.plot(epochs, 100 * np.array(result["confidences"]), **style)
plain_axes(left, "Loss on the training images", "epoch", "cross-entropy")
plain_axes(right, "Confidence on the test images", "epoch", "%")
left.set_ylim(0)
right.set_ylim(0, 100)
right.legend(title="mixing", frameon=False, loc="lower right")
save(figure, "training.png")

# %% [markdown]
# ## Results
#
# *Largest weight* is the mean over the training labels: how much is mixed. *Confidence* is the mean
# of the largest predicted probability on test images: mixing makes a model less sure. *Images/s* is
# that of the fastest epoch, pipeline and training step together.
#
# Accuracies are not compared. Mixing pays where a model would learn its training images by heart,
# in long trainings on few images; here, crops of eight photographs are easy, seen for seconds, and
# overlap. `mixing_experiment.py` compares on digits with a real split.

# %%
line = "{:8}{:>16}{:>12}{:>10}".format
print(line("mixing", "largest weight", "confidence", "images/s"))
for name, result in results.items():
    weight, confidence = f"{result['weight']:.2f}", f"{result['confidences'][-1]:.1%}"
    print(line(name, weight, confidence, f"{result['speed']:.0f}"))
accuracy = min(result["accuracy"] for result in results.values())
print(f"\nAll four have learned: each is right on at least {accuracy:.1%} of the test images.")
print("Which of them is best, this short run cannot say; docs/batch-mixing.md has an experiment.")
if not options.tfds_dir:
    print("Training and test crops overlap, so accuracies are no measure of generalisation.")
print(f"Figures are in {options.output_dir.resolve()}: ", end="")
print(", ".join(sorted(path.name for path in options.output_dir.glob("*.png"))))

# %% [markdown]
# ## What to take away
#
# 1. Mixing works on a whole batch, so it is a stage of the pipeline, after preprocessing.
# 2. Labels must be weights of classes, hence one-hot first; or set `num_classes` and hand in class
#    numbers.
# 3. Train with soft cross-entropy, and never mix when you evaluate.
# 4. Larger α mixes more; with α near 0, most images are nearly unmixed.
# 5. Padding is never mixed and must not be averaged: use `valid_mask`.
