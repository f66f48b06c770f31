# %% [markdown]
# # What mixing does to a small classifier
#
# The data are scikit-learn's digits, 1,797 images of 8 x 8 pixels; 200 of them are for training.
# We compare the accuracy, the negative log-likelihood and the calibration of no mixing, MixUp,
# CutMix and both, over many seeds. Nothing was tuned: α, epochs and learning rate were set
# beforehand.
#
# ```
# python examples/mixing_experiment.py
# ```
#
# takes less than five minutes on two CPU cores, and writes a figure and all numbers as JSON. In a
# notebook it is short: 4 seeds and 40 epochs, which is too little to compare the kinds of mixing.

# %%
import argparse
import json
import sys
from pathlib import Path

import jax
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from scipy import stats
from sklearn.datasets import load_digits
from tqdm.auto import tqdm

from datarax.batching import masked_mean
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig
from datarax.pipeline import Pipeline
from datarax.sources import MemorySource, MemorySourceConfig

parser = argparse.ArgumentParser(description="No mixing, MixUp, CutMix and both on digits.")
parser.add_argument("--output-dir", type=Path, default=Path("experiment-output"))
parser.add_argument("--seeds", type=int, default=20)
parser.add_argument("--epochs", type=int, default=100, help="of each training")
in_notebook = "ipykernel" in sys.modules
options = parser.parse_args(["--seeds=4", "--epochs=40"] if in_notebook else None)
options.output_dir.mkdir(parents=True, exist_ok=True)
if not in_notebook:
    matplotlib.use("Agg")  # draws to files, needs no screen

NUM_CLASSES, TRAIN, VALIDATION, BATCH_SIZE = 10, 200, 400, 50
MIXING = {
    "none": None,
    "MixUp": {"mode": "mixup", "alpha": 0.4},
    "CutMix": {"mode": "cutmix", "alpha": 1.0},
    "both": {"mode": "both", "alpha": 0.4, "cutmix_alpha": 1.0, "switch_prob": 0.5},
}

# %% [markdown]
# ## Data
#
# A seed decides the split into images for training, for validation and for testing, the initial
# weights, the order of the images and the draws of the mixing. With the same seed, these are the
# same for the four kinds of mixing.

# %%
digits = load_digits()
images = (digits.images[..., None] / 16).astype(np.float32)
classes = digits.target.astype(np.int32)


def split(seed):
    """Numbers of the images to train, validate and test on."""
    order = np.random.default_rng(seed).permutation(len(images))
    return np.split(order, [TRAIN, TRAIN + VALIDATION])


def create_pipeline(numbers, mixing, seed):
    """Batches with labels as weights of classes, mixed or not."""
    source = MemorySource(
        MemorySourceConfig(shuffle=True, seed=seed),
        data={"image": images[numbers], "label": np.eye(NUM_CLASSES)[classes[numbers]]},
        rngs=nnx.Rngs(seed),
    )
    stages = []
    if mixing is not None:
        stages.append(BatchMixOperator(BatchMixOperatorConfig(**mixing), rngs=nnx.Rngs(seed)))
    return Pipeline(source=source, stages=stages, batch_size=BATCH_SIZE, rngs=nnx.Rngs(seed))


# %% [markdown]
# ## Classifier


# %%
class Classifier(nnx.Module):
    def __init__(self, *, rngs):
        self.first = nnx.Conv(1, 16, kernel_size=(3, 3), rngs=rngs)
        self.second = nnx.Conv(16, 32, kernel_size=(3, 3), strides=2, rngs=rngs)
        self.hidden = nnx.Linear(4 * 4 * 32, 64, rngs=rngs)
        self.head = nnx.Linear(64, NUM_CLASSES, rngs=rngs)

    def __call__(self, images):
        images = nnx.relu(self.second(nnx.relu(self.first(images))))
        return self.head(nnx.relu(self.hidden(images.reshape(len(images), -1))))


@nnx.jit
def train_step(model, optimizer, batch):
    def loss_of(model):
        losses = optax.softmax_cross_entropy(model(batch["image"]), batch["label"])
        return masked_mean(losses, batch.valid_mask)

    optimizer.update(model, nnx.grad(loss_of)(model))


@nnx.jit
def predict(model, images):
    return model(images)


ADAM = optax.adam(2e-3)


def train(mixing, seed, progress):
    """Logits on the validation and the test images after a training."""
    train_numbers, *others = split(seed)
    pipeline = create_pipeline(train_numbers, mixing, seed)
    model = Classifier(rngs=nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, ADAM, wrt=nnx.Param)
    for _ in range(options.epochs):
        for batch in pipeline:
            train_step(model, optimizer, batch)
        progress.update()
    logits = np.asarray(predict(model, images[np.concatenate(others)]), np.float64)
    return np.split(logits, [VALIDATION])


# %% [markdown]
# ## Measures
#
# - *Accuracy* on the test images.
# - *Negative log-likelihood* (NLL): the mean of −log p of the true class.
# - *Expected calibration error* (ECE): predictions are sorted into 15 bins by the largest
#   probability; the mean over all predictions of |accuracy − mean confidence| of their bin.
# - The last two again after *temperature scaling*: logits are divided by the one number T that
#   gives the smallest NLL on the validation images. T below 1 means that the model is less sure
#   than it should be, T above 1 that it is too sure.

# %%
BINS = 15
TEMPERATURES = np.exp(np.linspace(-2, 2, 201))


def log_probabilities(logits, temperature=1.0):
    scaled = logits / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))


def nll(logits, labels, temperature=1.0):
    return -log_probabilities(logits, temperature)[np.arange(len(labels)), labels].mean()


def calibration(logits, labels, temperature=1.0):
    """Of each bin: predictions in it, the sum of their confidence, and how many are right."""
    probabilities = np.exp(log_probabilities(logits, temperature))
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    weights = (None, confidence, right)
    return np.stack([np.bincount(number, weight, minlength=BINS) for weight in weights])


def calibration_error(logits, labels, temperature=1.0):
    count, confidence, right = calibration(logits, labels, temperature)
    return np.abs(right - confidence).sum() / count.sum()


def measure(validation_logits, test_logits, seed):
    _, validation, test = (classes[numbers] for numbers in split(seed))
    losses = [nll(validation_logits, validation, temperature) for temperature in TEMPERATURES]
    temperature = TEMPERATURES[np.argmin(losses)]
    return {
        "accuracy": (test_logits.argmax(axis=1) == test).mean(),
        "NLL": nll(test_logits, test),
        "ECE": calibration_error(test_logits, test),
        "T": temperature,
        "NLL, scaled": nll(test_logits, test, temperature),
        "ECE, scaled": calibration_error(test_logits, test, temperature),
    }


# %%
measures = {name: [] for name in MIXING}
bins = {name: np.zeros((3, BINS)) for name in MIXING}
steps = options.seeds * len(MIXING) * options.epochs
with tqdm(total=steps, unit="epoch", mininterval=1) as progress:
    for seed in range(options.seeds):
        for name, mixing in MIXING.items():
            validation_logits, test_logits = train(mixing, seed, progress)
            measures[name].append(measure(validation_logits, test_logits, seed))
            bins[name] += calibration(test_logits, classes[split(seed)[2]])

# %% [markdown]
# ## Results
#
# The intervals are 95 % confidence intervals of the mean by Student's t over seeds. Differences to
# *none* are computed for each seed, which removes the effect of the split. All seeds share one data
# set, so the intervals are about other trainings on these digits, not about other data.
# [Batch mixing](../batch-mixing.md#an-experiment) has the results of 20 seeds.

# %%
NAMES = list(measures["none"][0])


def interval(values):
    """The mean and half of its 95 % confidence interval."""
    values = np.asarray(values)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), half


def column(name, measure):
    return np.array([values[measure] for values in measures[name]])


def shown(measure, mean, half, sign=""):
    if measure == "accuracy":
        return f"{100 * mean:{sign}.1f} ± {100 * half:.1f} %"
    places = 2 if measure == "T" else 3
    return f"{round(mean, places) + 0.0:{sign}.{places}f} ± {half:.{places}f}"


def table(title, cell, names):
    print(f"\n| {title} | {' | '.join(NAMES)} |")
    print("|---" * (1 + len(NAMES)) + "|")
    for name in names:
        print(f"| {name} | {' | '.join(cell(name, measure) for measure in NAMES)} |")


def difference(name, measure):
    values = column(name, measure) - column("none", measure)
    return shown(measure, *interval(values), sign="+")


print(f"{options.seeds} seeds, {options.epochs} epochs, {len(split(0)[2])} test images")
table("mixing", lambda name, measure: shown(measure, *interval(column(name, measure))), MIXING)
table("compared with none", difference, list(MIXING)[1:])

results = {
    "seeds": options.seeds,
    "epochs": options.epochs,
    "mixing": MIXING,
    "jax": jax.__version__,
    "device": jax.devices()[0].device_kind,
    "measures": {
        name: {measure: column(name, measure).tolist() for measure in NAMES} for name in MIXING
    },
    "calibration": {name: values.tolist() for name, values in bins.items()},
}
path = options.output_dir / "mixing-experiment.json"
with path.open("w", encoding="utf-8") as file:
    json.dump(results, file, indent=1)

# %%
COLOURS = ["#555555", "#0072B2", "#D55E00", "#009E73"]


def plain_axes(axis, title, xlabel="", ylabel=""):
    axis.set_title(title, fontsize=11, loc="left")
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.spines[["top", "right"]].set_visible(False)


def plot_measure(axis, measure, scale=1):
    """Every seed as a dot, the mean with its interval; hollow after temperature scaling."""
    kinds = [(measure, 0, "full")]
    if f"{measure}, scaled" in NAMES:
        kinds.append((f"{measure}, scaled", 0.3, "none"))
    for kind, shift, fill in kinds:
        for place, (name, colour) in enumerate(zip(MIXING, COLOURS, strict=True)):
            values = scale * column(name, kind)
            x = np.full(len(values), place + shift - 0.1)
            axis.plot(x, values, ".", color=colour, alpha=0.25, ms=4, mew=0)
            mean, half = interval(values)
            style = {"color": colour, "fmt": "o", "ms": 5, "capsize": 3, "fillstyle": fill}
            axis.errorbar(place + shift, mean, half, **style)
    axis.set_xticks(np.arange(len(MIXING)) + 0.1 * len(kinds) - 0.1, list(MIXING))


figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), layout="constrained")
plot_measure(axes[0], "accuracy", 100)
plain_axes(axes[0], "Test accuracy", ylabel="%")
plot_measure(axes[1], "NLL")
plain_axes(axes[1], "NLL (hollow: scaled)")
plot_measure(axes[2], "ECE")
plain_axes(axes[2], "ECE (hollow: scaled)")
for axis in axes[1:3]:
    axis.set_ylim(0)
for (name, (count, confidence, right)), colour in zip(bins.items(), COLOURS, strict=True):
    enough = count >= 20
    x, y = confidence[enough] / count[enough], right[enough] / count[enough]
    axes[3].plot(x, y, "o-", ms=3, color=colour, label=name)
axes[3].plot([0, 1], [0, 1], ":", color="black", lw=1)
axes[3].legend(frameon=False, fontsize=8)
plain_axes(axes[3], "Calibration, not scaled", "confidence", "accuracy")
figure.savefig(options.output_dir / "mixing-experiment.png", dpi=110, facecolor="white")
if not in_notebook:
    plt.close(figure)
print(f"\nFigure and numbers are in {options.output_dir.resolve()}")
