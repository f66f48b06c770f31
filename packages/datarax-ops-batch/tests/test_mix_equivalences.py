"""Given the same λ, partner and region, the numbers are those of other libraries' formulas.

There is a test for each row of the table in docs/batch-mixing.md. The formulas are written from
what the libraries document, in NumPy and float64, for images `(batch, height, width, channel)`,
class numbers, and a plan of `lam`, `partner` and `box` or `mask`; they return images and soft
labels.
"""

import functools

import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators.batch_mix_operator import (
    BatchMixOperator,
    BatchMixOperatorConfig,
    FMix,
    ResizeMix,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")

COUNT, HEIGHT, WIDTH, CLASSES = 12, 8, 6, 10
DRAWS = 4
ROWS = {}


def row(name, pairing, *, image="image", label="one-hot", **options):
    """Registers the formula of a row under its id, with the options in the row's third column."""

    def register(formula):
        ROWS[name] = formula, pairing, (image, label), options
        return formula

    return register


def reverse(rng):
    """The pairing of timm: the batch reversed."""
    return np.arange(COUNT)[::-1]


def roll(rng):
    """The pairing of torchvision: the row before."""
    return np.roll(np.arange(COUNT), 1)


def permutation(rng):
    """The pairing of Keras, Kornia and OpenMixup, which may leave rows where they are."""
    order = rng.permutation(COUNT)
    order[order == 0], order[0] = order[0], 0
    return order


def one(values):
    """The value that a whole batch shares."""
    assert len(np.unique(values, axis=0)) == 1
    return values[0]


def wide(values):
    """A value a row, to be multiplied with images."""
    return values[:, None, None, None]


def one_hot(classes, on=1.0, off=0.0):
    return np.where(np.arange(CLASSES) == np.asarray(classes)[:, None], on, off)


def multi_hot(classes):
    """The class and the one after it."""
    return one_hot(classes) + one_hot((np.asarray(classes) + 1) % CLASSES)


def in_box(box):
    """Where each row's box (y0, x0, y1, x1) is, to choose between images."""
    y0, x0, y1, x1 = (side[:, None, None] for side in np.asarray(box).T)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return ((y0 <= y) & (y < y1) & (x0 <= x) & (x < x1))[..., None]


def area_left(box):
    """The λ that timm, torchvision and Keras correct to: 1 − box area / image area."""
    y0, x0, y1, x1 = np.asarray(box, np.float64).T
    return 1 - (y1 - y0) * (x1 - x0) / (HEIGHT * WIDTH)


def mixed_labels(y, plan, lam):
    """A target whose cross-entropy is λ CE(y_a) + (1 − λ) CE(y_b)."""
    return lam[:, None] * one_hot(y) + (1 - lam[:, None]) * one_hot(y[plan["partner"]])


@row(
    "timm-elem",
    reverse,
    mode="both",
    switch_prob=0.5,
    granularity="record",
    prob=0.7,
    box_placement="clipped",
)
def timm(x, y, plan, target=one_hot):
    """Mixup: the box of x' in x where there is one, else x λ + x' (1 − λ)."""
    other, cut = plan["partner"], area_left(plan["box"]) < 1
    lam = np.where(cut, area_left(plan["box"]), plan["lam"])
    pasted = np.where(in_box(plan["box"]), x[other], x)
    blended = x * wide(lam) + x[other] * (1 - wide(lam))
    label = target(y) * lam[:, None] + target(y)[other] * (1 - lam[:, None])
    return np.where(wide(cut), pasted, blended), label


@row("timm-mixup", reverse, mode="mixup", alpha=1.0)
@row("timm-cutmix", reverse, mode="cutmix", alpha=1.0, box_placement="clipped")
@row("timm-minmax", reverse, mode="cutmix", cutmix_minmax=(0.3, 0.8))
@row("timm-switch", reverse, mode="both", switch_prob=0.5, box_placement="clipped")
@row("timm-collate", reverse, image="bytes", mode="mixup", alpha=1.0)
def timm_batch(x, y, plan, target=one_hot):
    """mode="batch": one λ, one box, and MixUp or CutMix for all."""
    one(plan["lam"])
    one(plan["box"])
    return timm(x, y, plan, target)


@row("timm-pair", None, mode="mixup", alpha=1.0, mix_group_size=2)
def timm_pair(x, y, plan):
    """mode="pair": two rows are mixed with each other, with the same λ."""
    np.testing.assert_array_equal(plan["partner"][plan["partner"]], np.arange(COUNT))
    np.testing.assert_array_equal(plan["lam"], plan["lam"][plan["partner"]])
    assert len(np.unique(plan["lam"])) == COUNT / 2
    return timm(x, y, plan)


@row(
    "timm-smoothing",
    reverse,
    label="classes",
    mode="mixup",
    alpha=1.0,
    num_classes=10,
    label_smoothing=0.1,
)
def timm_smoothing(x, y, plan):
    """Targets have ε / K off the class and 1 − ε + ε / K on it, before they are mixed."""
    return timm_batch(x, y, plan, functools.partial(one_hot, on=0.9 + 0.01, off=0.01))


@row("timm-multi-label", reverse, label="multi-hot", mode="mixup", alpha=1.0)
def timm_multi_label(x, y, plan):
    """multi_label=True without smoothing: rows of several ones are mixed like others."""
    return timm_batch(x, y, plan, multi_hot)


@row("torchvision-mixup", roll, mode="mixup", alpha=1.0)
def torchvision_mixup(x, y, plan):
    """v2.MixUp: x.roll(1) (1 − λ) + x λ, with one λ."""
    lam, other = one(plan["lam"]), plan["partner"]
    return x[other] * (1 - lam) + x * lam, one_hot(y)[other] * (1 - lam) + one_hot(y) * lam


@row("torchvision-cutmix", roll, mode="cutmix", alpha=1.0, box_placement="clipped")
def torchvision_cutmix(x, y, plan):
    """v2.CutMix: one box of the rolled batch, and λ adjusted to it."""
    y0, x0, y1, x1 = one(plan["box"])
    image, other = x.copy(), plan["partner"]
    image[:, y0:y1, x0:x1] = x[other][:, y0:y1, x0:x1]
    lam = 1 - (x1 - x0) * (y1 - y0) / (HEIGHT * WIDTH)
    return image, one_hot(y)[other] * (1 - lam) + one_hot(y) * lam


@row("torchvision-choice", roll, mode="both", switch_prob=0.5, box_placement="clipped")
def torchvision_choice(x, y, plan):
    """v2.RandomChoice([v2.CutMix(...), v2.MixUp(...)]): one of the two for the batch."""
    return (torchvision_cutmix if one(plan["box"]).any() else torchvision_mixup)(x, y, plan)


@row("keras-mixup", permutation, mode="mixup", alpha=0.2, granularity="record")
def keras_mixup(x, y, plan):
    """layers.MixUp: a weight for each record, w x + (1 − w) x[permutation]."""
    weight, order = plan["lam"], plan["partner"]
    image = wide(weight) * x + (1 - wide(weight)) * x[order]
    return image, mixed_labels(y, plan, weight)


@row("keras-cutmix", permutation, mode="cutmix", granularity="record", paste_fields=("mask",))
def keras_cutmix(x, y, plan):
    """layers.CutMix: a box for each record, labels by the area between its corners."""
    image = np.where(in_box(plan["box"]), x[plan["partner"]], x)
    return image, mixed_labels(y, plan, area_left(plan["box"]))


@row("kornia-mixup", permutation, mode="mixup", alpha=1.0, granularity="record")
def kornia_mixup(x, y, plan):
    """RandomMixUpV2: x (1 − λ) + x[pairs] λ, with labels (class, partner's class, λ)."""
    lam, pairs = 1 - plan["lam"], plan["partner"]
    triple = np.stack([y, y[pairs], lam], axis=1)
    loss = (1 - triple[:, 2:]) * one_hot(triple[:, 0]) + triple[:, 2:] * one_hot(triple[:, 1])
    return x * (1 - wide(lam)) + x[pairs] * wide(lam), loss


@row("kornia-cutmix", permutation, mode="cutmix", alpha=1.0, granularity="record")
def kornia_cutmix(x, y, plan):
    """RandomCutMixV2(use_correct_lambda=True): labels (class, partner's class, area left)."""
    pairs = plan["partner"]
    triple = np.stack([y, y[pairs], area_left(plan["box"])], axis=1)
    loss = triple[:, 2:] * one_hot(triple[:, 0]) + (1 - triple[:, 2:]) * one_hot(triple[:, 1])
    return np.where(in_box(plan["box"]), x[pairs], x), loss


@row("openmixup-mixup", permutation, mode="mixup", alpha=1.0)
def openmixup_mixup(x, y, plan):
    """mixup: λ x + (1 − λ) x[index] with one λ, and the loss of (y_a, y_b, λ)."""
    lam = one(plan["lam"])
    return lam * x + (1 - lam) * x[plan["partner"]], mixed_labels(y, plan, plan["lam"])


@row("openmixup-cutmix", permutation, mode="cutmix", alpha=1.0, box_placement="clipped")
def openmixup_cutmix(x, y, plan):
    """cutmix: one box, and the loss of (y_a, y_b, λ) with λ from its clipped area."""
    one(plan["box"])
    image = np.where(in_box(plan["box"]), x[plan["partner"]], x)
    return image, mixed_labels(y, plan, area_left(plan["box"]))


@row("openmixup-resizemix", permutation, mode="cutmix", sampler=ResizeMix(low=0.1, high=0.8))
def openmixup_resizemix(x, y, plan):
    """resizemix, by nearest-exact: the whole partner in one box, λ from the box's area."""
    y0, x0, y1, x1 = one(plan["box"])
    high = np.floor((np.arange(y1 - y0) + 0.5) * HEIGHT / (y1 - y0)).astype(int)
    across = np.floor((np.arange(x1 - x0) + 0.5) * WIDTH / (x1 - x0)).astype(int)
    image = x.copy()
    image[:, y0:y1, x0:x1] = x[plan["partner"]][:, high][:, :, across]
    return image, mixed_labels(y, plan, area_left(plan["box"]))


@row("openmixup-fmix", permutation, mode="cutmix", alpha=1.0, sampler=FMix(decay=3.0))
def openmixup_fmix(x, y, plan):
    """fmix: mask x + (1 − mask) x[index] with one mask, whose mean is λ."""
    mask = 1.0 - one(plan["mask"])
    image = mask[..., None] * x + (1 - mask[..., None]) * x[plan["partner"]]
    return image, mixed_labels(y, plan, np.full(COUNT, mask.mean()))


@pytest.mark.parametrize("name", ROWS)
def test_numbers_are_those_of_the_peers_formula(name):
    """Plans drawn here, also with the peer's pairing, give what the peer's formula gives."""
    formula, pairing, fields, options = ROWS[name]
    op = BatchMixOperator(BatchMixOperatorConfig(**options), rngs=nnx.Rngs(0))
    batch, classes, rng = example(*fields)
    for plan in drawn(**{option: value for option, value in options.items() if option in DRAWING}):
        orders = [plan["partner"]] + ([] if pairing is None else [pairing(rng)])
        for order in orders:
            plan = {**plan, "partner": order.astype(np.int32)}
            out = op.replay(batch, plan)
            plan["lam"] = plan["lam"].astype(np.float64)
            image, label = formula(batch["image"].astype(np.float64), classes, plan)
            if fields[0] == "bytes":
                # Both round to the nearest integer; timm rounds halves to an even one.
                image = np.where(image % 1 == 0.5, np.ceil(image), np.rint(image))
                np.testing.assert_array_equal(out["image"], image)
            else:
                np.testing.assert_allclose(out["image"], image, rtol=1e-6)
            np.testing.assert_allclose(out["label"], label, atol=1e-6)
            for field in options.get("paste_fields", ()):
                pasted, _ = formula(batch[field].astype(np.float64), classes, plan)
                np.testing.assert_array_equal(out[field], pasted)


# The options on which plans depend; the others say which fields there are and what labels become.
DRAWING = ("mode", "alpha", "switch_prob", "granularity", "prob", "cutmix_minmax", "box_placement")
DRAWING += ("sampler", "mix_group_size")


@functools.cache
def drawn(**options):
    """Plans from an operator with these options, λ being fine enough for bytes."""
    config = BatchMixOperatorConfig(**options, label_field=None, mix_info=True)
    op = BatchMixOperator(config, rngs=nnx.Rngs(3))
    batch, _, _ = example("bytes", "classes")
    plans = [op.apply_batch(batch).states["mix_info"] for _ in range(DRAWS)]
    if options["mode"] == "both":
        assert {False, True} == {bool(box.any()) for plan in plans for box in plan["box"]}
    return [{name: np.asarray(value) for name, value in plan.items()} for plan in plans]


def example(image, label):
    """A batch, its classes, and a generator of random numbers."""
    rng = np.random.default_rng(0)
    classes, shape = rng.integers(0, CLASSES, COUNT), (COUNT, HEIGHT, WIDTH, 3)
    pixels = rng.integers(0, 256, shape).astype(np.uint8)
    labels = {"one-hot": one_hot(classes), "multi-hot": multi_hot(classes), "classes": classes}
    data = {
        "image": pixels if image == "bytes" else (pixels / 256).astype(np.float32),
        "label": labels[label].astype(np.int32 if label == "classes" else np.float32),
        "mask": rng.integers(0, 9, (*shape[:3], 1)),
    }
    return Batch.from_arrays(data), classes, rng
