"""The rows of docs/coming-from.md, asked of the libraries themselves, those that are installed.

What stands in the column "there" and what stands in "options here" change one image many times. The
results must have the same law: means and spreads of the image, of its halves and of its channels.
"""

from __future__ import annotations

import importlib
import re
from math import inf
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from datarax.operators.modality import image as ops

PAGE = Path(__file__).parents[3] / "docs/coming-from.md"
TIMES = 300
NOISE = 1.5


def table_rows():
    """By row: what stands there, the options here, the operator."""
    text = PAGE.read_text(encoding="utf-8")
    for name, rest in re.findall(r"^\| `([a-z]+(?:-[a-z]+)+)` \|(.*)\|$", text, re.MULTILINE):
        there, here, kind, _ = rest.split("|")
        options = eval(f"dict({', '.join(re.findall(r'`([^`]+)`', here))})", {"inf": inf})
        yield name, (re.findall(r"`([^`]+)`", there)[0], options, kind.strip(" `"))


ROWS = dict(table_rows())
LARGE = ("resize", "crop")


def picture(row):
    """An image whose halves, channels and spreads differ, large enough for what crops 224."""
    height, width = (300, 400) if any(word in row for word in LARGE) else (48, 64)
    y, x = np.mgrid[0:height, 0:width] / height
    waves = [20 * np.sin(9 * x + 4 * y), 30 * np.sin(7 * y), 25 * np.cos(5 * x - y)]
    ramps = [60 + 90 * x / x.max(), 130 - 60 * y, 60 + 80 * y * x / x.max()]
    image = np.stack([a + b for a, b in zip(waves, ramps, strict=True)], axis=-1)
    image = np.rint(image).clip(0, 255).astype(np.uint8)
    return np.repeat(image[..., :1], 3, axis=2) if row in GRAY else image


def measures(images):
    """Numbers of each image, `(images, measures)`, with noise that hides steps of one level."""
    rows = []
    for image in images:
        image = np.asarray(image, np.float64)
        height, width, _ = image.shape
        top, left = image[: height // 2], image[:, : width // 2]
        below, right = image[height // 2 :], image[:, width // 2 :]
        red, green, blue = image.mean((0, 1))
        halves = top.mean() - below.mean(), left.mean() - right.mean()
        rows.append([image.mean(), image.std(), *halves, red - blue, green - blue])
    return np.array(rows)


def by_torchvision(there, image):
    torch, v2 = (importlib.import_module(n) for n in ("torch", "torchvision.transforms.v2"))
    policies = importlib.import_module("torchvision.transforms").AutoAugmentPolicy
    one = eval(there, {**vars(v2), "AutoAugmentPolicy": policies})
    tensor = torch.from_numpy(np.moveaxis(image, -1, 0).copy())
    floats = "Noise" in there
    torch.manual_seed(0)
    for _ in range(TIMES):
        made = one(tensor.to(torch.float32) / 255 if floats else tensor)
        yield np.moveaxis(np.asarray(made), 0, -1) * (255 if floats else 1)


def by_timm(there, image):
    data = importlib.import_module("timm.data")
    transforms, policies = (
        importlib.import_module(f"timm.data.{name}") for name in ("transforms", "auto_augment")
    )
    from PIL import Image

    one = eval(there, {**vars(transforms), **vars(policies), **vars(data)})
    if "create_transform" in there:
        (one,) = (each for each in one.transforms if type(each).__name__ == "ColorJitter")
    seed_everything()
    for _ in range(TIMES):
        yield np.asarray(one(Image.fromarray(image)))


def by_keras(there, image):
    keras = importlib.import_module("keras")
    keras.utils.set_random_seed(0)
    one = eval(there, vars(keras.layers))
    for _ in range(TIMES):
        yield np.asarray(one(image[None], training=True))[0]


def by_albumentations(there, image):
    library, cv2 = (importlib.import_module(n) for n in ("albumentations", "cv2"))
    one = library.Compose([eval(there, {**vars(library), "cv2": cv2})], seed=0)
    for _ in range(TIMES):
        yield one(image=image)["image"]


def by_augmax(there, image):
    augmax = importlib.import_module("augmax")
    chain = augmax.Chain(eval(there, vars(augmax)))
    keys = jax.random.split(jax.random.key(0), TIMES)
    pixels = jnp.asarray(image, jnp.float32) / 255
    yield from 255 * np.asarray(jax.vmap(chain, (0, None))(keys, pixels))


def seed_everything():
    import random

    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  timm draws from it
    torch.manual_seed(0)


PEERS = {
    "torchvision": by_torchvision,
    "timm": by_timm,
    "keras": by_keras,
    "albumentations": by_albumentations,
    "augmax": by_augmax,
}
# What is said to differ: colours there have another weight or mean, which grey hides.
GRAY = ("keras-contrast",)
# Only how often an image is changed is the same.
CHANGED = ("augmax-grayscale",)
# What cannot be asked for one image, and why.
LEFT_OUT = {
    "torchvision-scale-jitter": "the size of its images changes",
    "torchvision-iou-crop": "its parts keep their size, and overlaps are drawn until one fits",
    "timm-auto-augment": "its magnitudes are parts of 10",
    "keras-rand-augment": "its operations are others",
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_changes_images_as_the_library_does(row):
    """Six measures of 300 results have the same law there and here, but for steps of a level."""
    if row in LEFT_OUT:
        pytest.skip(LEFT_OUT[row])
    library = row.partition("-")[0]
    pytest.importorskip(library, reason=f"{library} is not installed")
    there, options, kind = ROWS[row]
    image = picture(row)
    theirs = measures(PEERS[library](there, image))
    operator = getattr(ops, f"{kind}Operator")
    op = operator(operator.config_class(**options), rngs=nnx.Rngs(1))
    ours = measures(op({"image": np.repeat(image[None], TIMES, axis=0)})["image"])
    if row in CHANGED:
        still = measures([image])
        left, right = (np.any(abs(m - still) > 0.01, axis=1).mean() for m in (theirs, ours))
        assert left == pytest.approx(right, abs=0.15)
        return
    rng = np.random.default_rng(2)
    worst = min(
        stats.ks_2samp(*(m + rng.normal(0, NOISE, m.shape) for m in (left, right))).pvalue
        for left, right in zip(theirs.T, ours.T, strict=True)
    )
    print(f"{row}: p = {worst:.2g}")
    assert worst > 1e-4
