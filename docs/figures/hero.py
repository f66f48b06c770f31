"""The figure of README.md, written to docs/images/hero.jpg.

    python docs/figures/hero.py

Photographs in the public domain that come with scikit-image, and what the operators make of them.
"""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from skimage import data, transform

from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig, FMix
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)

IMAGES = Path(__file__).parents[1] / "images"
SIDE = 300
CLASSES = ("cat", "coffee", "astronaut", "rocket")
# Where the square that is shown has its left upper corner, and its side.
SQUARES = {
    data.chelsea: (0, 60, 300),
    data.coffee: (0, 60, 400),
    data.astronaut: (0, 20, 440),
    data.rocket: (0, 150, 427),
}
COLORS = {"cat": "#D55E00", "coffee": "#8B5A2B", "astronaut": "#0072B2", "rocket": "#5B2A86"}


def photograph(load, square):
    """A square of a photograph, 300 x 300 pixels."""
    y, x, side = square
    scaled = transform.resize(load()[y : y + side, x : x + side], (SIDE, SIDE), anti_aliasing=True)
    return np.rint(255 * scaled).astype(np.uint8)


def mixed(batch, seed, **options):
    """What `BatchMixOperator` gives."""
    config = BatchMixOperatorConfig(num_classes=len(CLASSES), alpha=4.0, **options)
    return BatchMixOperator(config, rngs=nnx.Rngs(seed))(batch)


def dropped(batch, seed):
    """What `PatchDropoutOperator` gives, with labels as mixing has them."""
    config = PatchDropoutOperatorConfig(
        field_key="image", num_patches=6, patch_size=(50, 50), fill="mean", stochastic=True
    )
    image = PatchDropoutOperator(config, rngs=nnx.Rngs(seed))(batch)["image"]
    return {"image": image, "label": np.eye(len(CLASSES))[batch["label"]]}


def draw(axis, image, weights, title):
    """An image, and under it a bar of its label's weights."""
    axis.imshow(image)
    axis.set_title(title, fontsize=13, pad=6)
    axis.set_axis_off()
    left = 0.0
    for name, weight in zip(CLASSES, weights, strict=True):
        if weight < 0.005:
            continue
        box = (left * SIDE, SIDE + 6), weight * SIDE, 26
        axis.add_patch(plt.Rectangle(*box, color=COLORS[name], clip_on=False, lw=0))
        text = name if weight > 0.995 else f"{name} {weight:.2f}"
        middle = ((left + weight / 2) * SIDE, SIDE + 19)
        axis.text(*middle, text, ha="center", va="center", color="white", fontsize=10)
        left += weight


def main():
    """Draws the photographs above and one result of each kind below."""
    images = np.stack([photograph(load, square) for load, square in SQUARES.items()])
    batch = {"image": images, "label": np.arange(4, dtype=np.int32)}
    below = {
        "MixUp": (mixed(batch, 3, mode="mixup"), 0),
        "CutMix": (mixed(batch, 5, mode="cutmix"), 1),
        "FMix": (mixed(batch, 2, mode="cutmix", sampler=FMix()), 2),
        "patch dropout": (dropped(batch, 0), 3),
    }
    figure, axes = plt.subplots(2, 4, figsize=(12, 6.9))
    for axis, image, weights in zip(axes[0], images, np.eye(4), strict=True):
        draw(axis, image, weights, "")
    for axis, (title, (result, row)) in zip(axes[1], below.items(), strict=True):
        draw(axis, np.asarray(result["image"])[row], np.asarray(result["label"])[row], title)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.06, wspace=0.04, hspace=0.3)
    figure.savefig(IMAGES / "hero.jpg", dpi=100, facecolor="white", pil_kwargs={"quality": 88})


if __name__ == "__main__":
    main()
