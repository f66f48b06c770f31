"""The figures of docs/batch-mixing.md, written to docs/images/mixing-*.png.

    python docs/figures/batch_mixing.py

They show what the operator gives for photographs in the public domain that come with scikit-image.
"""

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from scipy import stats
from skimage import data

from datarax.core.element_batch import Batch
from datarax.operators.batch_mix_operator import (
    BatchMixOperator,
    BatchMixOperatorConfig,
    FMix,
    RegionSampler,
    ResizeMix,
)

IMAGES = Path(__file__).parents[1] / "images"
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#888888"
SIDE = 40
PHOTOGRAPHS = (
    data.astronaut,
    data.chelsea,
    data.coffee,
    data.rocket,
    data.hubble_deep_field,
    data.immunohistochemistry,
    data.retina,
    lambda: data.stereo_motorcycle()[0],
)


def small(photograph):
    """The middle of a photograph, shrunk to 40 x 40 pixels."""
    factor = min(photograph.shape[:2]) // SIDE
    y, x = ((side - factor * SIDE) // 2 for side in photograph.shape[:2])
    square = photograph[y : y + factor * SIDE, x : x + factor * SIDE]
    return square.reshape(SIDE, factor, SIDE, factor, 3).mean((1, 3)).round().astype(np.uint8)


PIXELS = np.stack([small(load()) for load in PHOTOGRAPHS])


def photographs(**fields):
    """A batch of the eight photographs with one-hot labels."""
    return Batch.from_arrays({"image": PIXELS, "label": np.eye(8, dtype=np.float32), **fields})


def mix(batch, seed=0, **options):
    """The mixed batch and its plan."""
    config = BatchMixOperatorConfig(mix_info=True, **options)
    out = BatchMixOperator(config, rngs=nnx.Rngs(seed))(batch)
    return out, {name: np.asarray(value) for name, value in out.states["mix_info"].items()}


def save(figure, name):
    """Writes docs/images/mixing-<name>.png."""
    figure.savefig(IMAGES / f"mixing-{name}.png", dpi=100, facecolor="white", bbox_inches="tight")
    plt.close(figure)


def plain(axis, title="", xlabel="", ylabel=""):
    """A left-aligned title, labels, and no frame above and to the right."""
    axis.set_title(title, fontsize=10, loc="left")
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.spines[["top", "right"]].set_visible(False)


def plot_rows(rows, name, columns=8):
    """Rows of (name, images, titles, colour map)."""
    lines = sum(1.12 + 0.17 * any(titles) for _, _, titles, _ in rows)
    size = (1.12 * columns + 1.2, lines)
    figure, axes = plt.subplots(
        len(rows), columns, figsize=size, squeeze=False, layout="constrained"
    )
    for line, (row_name, images, titles, colours) in zip(axes, rows, strict=True):
        line[0].set_ylabel(row_name, fontsize=9, rotation=0, ha="right", va="center")
        for axis, image, title in zip(line, images, titles, strict=False):
            limits = {"vmin": 0, "vmax": 4} if colours else {}
            axis.imshow(image, interpolation="nearest", cmap=colours, **limits)
            axis.set_title(title, fontsize=8.5, pad=2)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    save(figure, name)


def weights(plan):
    """Titles that give each row's λ."""
    return [f"λ = {lam:.2f}" for lam in plan["lam"]]


def pictures(name, seed=0, batch=None, **options):
    """A row of mixed photographs, titled by λ."""
    out, plan = mix(photographs() if batch is None else batch, seed, **options)
    return name, np.asarray(out["image"]), weights(plan), None


ORIGINAL = ("original", PIXELS, [""] * 8, None)


def draw_modes():
    """The three modes, with a draw for each photograph."""
    plot_rows(
        [
            ORIGINAL,
            pictures('mode="mixup"', 6, mode="mixup", granularity="record"),
            pictures('mode="cutmix"', 1, mode="cutmix", granularity="record"),
            pictures('mode="both"', 4, mode="both", granularity="record"),
        ],
        "modes",
    )


def draw_draws():
    """What shares a draw, what is left out."""
    padded = photographs().select(np.arange(8) < 6)
    plot_rows(
        [
            pictures('granularity="batch"', 8, mode="both", granularity="batch"),
            pictures('granularity="record"', 2, mode="both", granularity="record"),
            pictures("prob=0.5", 7, mode="both", granularity="record", prob=0.5),
            pictures("mix_group_size=2", 1, mode="mixup", mix_group_size=2),
            pictures("last two: padding", 3, padded, mode="both", granularity="record"),
        ],
        "draws",
    )


PLACEMENTS = {
    'box_placement="inside"': {"box_placement": "inside"},
    'box_placement="clipped"': {"box_placement": "clipped"},
    "cutmix_minmax=(0.2, 0.4)": {"cutmix_minmax": (0.2, 0.4)},
}


def draw_boxes():
    """Examples, how often each pixel is pasted, and the areas."""
    rows = [
        pictures(name, 3, mode="cutmix", granularity="record", **options)
        for name, options in PLACEMENTS.items()
    ]
    plot_rows([ORIGINAL, *rows], "boxes")

    figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained")
    many = Batch.from_arrays({"image": np.zeros((8_000, 64, 96, 1), np.uint8)})
    bins = np.linspace(0, 1, 21)
    for axis, colour, (name, options) in zip(
        axes, (BLUE, ORANGE, GREEN), PLACEMENTS.items(), strict=False
    ):
        _, plan = mix(many, mode="cutmix", granularity="record", label_field=None, **options)
        y0, x0, y1, x1 = (side[:, None] for side in plan["box"].T)
        y, x = np.arange(64), np.arange(96)
        high, across = (y0 <= y) & (y < y1), (x0 <= x) & (x < x1)
        often = np.einsum("ny,nx->yx", high.astype(float), across.astype(float)) / len(y0)
        shown = axis.imshow(often, vmin=0, vmax=0.9, cmap="viridis")
        axis.set(xticks=[], yticks=[])
        axis.set_title(name, fontsize=9, loc="left")
        area = 1 - plan["lam"]
        axes[3].hist(area, bins, density=True, histtype="step", lw=1.8, color=colour, label=name)
    figure.colorbar(shown, ax=axes[2], shrink=0.7, label="share of boxes", aspect=12)
    plain(axes[3], "pasted fraction, α = 1", "fraction", "density")
    axes[3].set_yscale("log")
    axes[3].legend(fontsize=7, frameon=False)
    save(figure, "placement")


@dataclass(frozen=True)
class Stripes(RegionSampler):
    """The sampler of the page."""

    width: int = 4

    def word_count(self, sizes):
        return -(-sizes[1] // self.width)

    def sample(self, words, lam, sizes):
        uniform = (words >> 8).astype(jnp.float32) / 2**24
        stripes = jnp.repeat(uniform < 1 - lam[..., None], self.width, axis=-1)
        return jnp.broadcast_to(stripes[..., None, : sizes[1]], (*lam.shape, *sizes))


def draw_samplers():
    """Regions that are no boxes of CutMix."""
    plot_rows(
        [
            pictures("ResizeMix()", 0, mode="cutmix", granularity="record", sampler=ResizeMix()),
            pictures("FMix()", 1, mode="cutmix", granularity="record", sampler=FMix()),
            pictures("your own", 2, mode="cutmix", granularity="record", sampler=Stripes()),
        ],
        "samplers",
    )


def draw_masks():
    """Masks that are not named, pasted and averaged."""
    grey = PIXELS.mean(axis=3)
    mask = np.digitize(grey, [60, 110, 160, 210]).astype(np.uint8)
    batch = photographs(kept=mask, pasted=mask, averaged=mask.astype(np.float32))
    roles = {"paste_fields": ("pasted",), "mix_fields": ("averaged",)}
    none = [""] * 8
    rows = [ORIGINAL, ("mask", mask, none, "viridis")]
    out, plan = mix(batch, 2, mode="both", granularity="record", **roles)
    rows.append(('mode="both"', np.asarray(out["image"]), weights(plan), None))
    for name, field in (
        ("mask, not named", "kept"),
        ("mask in paste_fields", "pasted"),
        ("mask in mix_fields", "averaged"),
    ):
        rows.append((name, np.asarray(out[field]), none, "viridis"))
    plot_rows(rows, "masks")


def draw_pairs():
    """Who is mixed with whom."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    rows = 16
    for axis, (title, valid, group) in zip(
        axes,
        (
            ("no groups", rows, None),
            ("rows 12 to 15 are padding", 12, None),
            ("mix_group_size=4", rows, 4),
        ),
        strict=True,
    ):
        batch = Batch.from_arrays(
            {"image": np.zeros((rows, 1, 1, 1), np.float32)}, valid_mask=np.arange(rows) < valid
        )
        _, plan = mix(batch, 1, label_field=None, mix_group_size=group)
        own, partner = np.arange(rows), plan["partner"]
        mixed = partner != own
        axis.plot([-0.5, rows - 0.5], [-0.5, rows - 0.5], color="#dddddd", lw=1, zorder=0)
        axis.plot(partner[mixed], own[mixed], "s", color=BLUE, ms=6)
        axis.plot(partner[~mixed], own[~mixed], "s", color=GREY, ms=6, mfc="white")
        for edge in range(group or rows, rows, group or rows):
            axis.axhline(edge - 0.5, color=ORANGE, lw=1, ls="--")
            axis.axvline(edge - 0.5, color=ORANGE, lw=1, ls="--")
        limits = (-0.5, rows - 0.5)
        axis.set(xlim=limits, ylim=limits[::-1], aspect="equal", xlabel="partner", ylabel="row")
        axis.set_xticks(range(0, rows, 4))
        axis.set_yticks(range(0, rows, 4))
        axis.set_title(title, fontsize=10, loc="left")
    save(figure, "pairs")


def draw_ratio():
    """Densities of λ, and what the operator draws."""
    figure, axes = plt.subplots(1, 5, figsize=(11, 2.3), layout="constrained", sharex=True)
    many = Batch.from_arrays({"image": np.zeros((50_000, 1, 1, 1), np.float32)})
    grid = np.linspace(0.002, 0.998, 400)
    for axis, alpha in zip(axes, (0.1, 0.4, 1.0, 2.0, 8.0), strict=True):
        _, plan = mix(many, alpha=alpha, label_field=None, granularity="record")
        axis.hist(plan["lam"], 40, density=True, color="#9ecae9")
        axis.plot(grid, stats.beta.pdf(grid, alpha, alpha), color=BLUE, lw=1.5)
        plain(axis, f"α = {alpha:g}", "λ")
        axis.set_ylim(0, 5)
    save(figure, "ratio")


def draw_rounding():
    """What is left of the exact value when bytes are mixed."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2000, 8, 8, 3)).astype(np.uint8)
    batch = Batch.from_arrays({"image": pixels})
    out, plan = mix(batch, label_field=None, granularity="record")
    lam = plan["lam"].astype(np.float64)[:, None, None, None]
    exact = lam * pixels + (1 - lam) * pixels[plan["partner"]]
    figure, axis = plt.subplots(figsize=(6.5, 2.6), layout="constrained")
    bins = np.linspace(-1, 0.5, 61)
    for name, values, colour in (
        ("here: the nearest integer", np.asarray(out["image"]), BLUE),
        ("cut off: float32, then astype(uint8)", np.floor(exact), ORANGE),
    ):
        error = (values - exact).ravel()
        label = f"{name}, mean {error.mean():+.3f}"
        axis.hist(error, bins, density=True, histtype="step", lw=1.8, color=colour, label=label)
    plain(axis, "Error of mixed bytes", "grey levels", "density")
    axis.set_ylim(0, 2.2)
    axis.legend(frameon=False, fontsize=8.5, loc="upper left")
    save(figure, "rounding")


def draw_labels():
    """A label one-hot, smoothed, mixed, and both."""
    label = np.eye(5, dtype=np.float32)[[1, 3]]
    batch = Batch.from_arrays({"image": np.zeros((2, 1, 1, 1), np.float32), "label": label})
    figure, axes = plt.subplots(1, 4, figsize=(9.5, 2.2), layout="constrained", sharey=True)
    for axis, (title, options) in zip(
        axes,
        (
            ("as it came", {"prob": 0.0}),
            ("smoothed", {"prob": 0.0, "label_smoothing": 0.2}),
            ("mixed, λ = {:.2f}", {}),
            ("smoothed and mixed", {"label_smoothing": 0.2}),
        ),
        strict=True,
    ):
        out, plan = mix(batch, 2, **options)
        axis.bar(np.arange(5), np.asarray(out["label"])[0], 0.7, color=BLUE)
        plain(axis, title.format(plan["lam"][0]), "class")
        axis.set_ylim(0, 1.05)
    axes[0].set_ylabel("weight")
    save(figure, "labels")


def draw_audio():
    """Two sounds, and one made of both by each method."""
    t = np.linspace(0, 1, 400, dtype=np.float32)
    low = np.sin(2 * np.pi * 4 * t) * np.exp(-2 * t)
    high = 0.5 * np.sin(2 * np.pi * 23 * t)
    batch = Batch.from_arrays({"image": np.stack([low, high]), "label": np.eye(2)})
    figure, axes = plt.subplots(1, 4, figsize=(11, 1.9), layout="constrained", sharey=True)
    axes[0].plot(t, low, color=BLUE, lw=1)
    plain(axes[0], "one sound")
    axes[1].plot(t, high, color=ORANGE, lw=1)
    plain(axes[1], "another")
    mixed, plan = mix(batch, 4, mode="mixup", spatial_axes=(1,))
    axes[2].plot(t, np.asarray(mixed["image"])[0], color=GREEN, lw=1)
    plain(axes[2], f"MixUp, λ = {plan['lam'][0]:.2f}")
    cut, plan = mix(batch, 5, mode="cutmix", spatial_axes=(1,))
    start, stop = plan["box"][0]
    axes[3].axvspan(t[start], t[min(stop, 399)], color="#f4e3d7", lw=0)
    axes[3].plot(t, np.asarray(cut["image"])[0], color=GREEN, lw=1)
    plain(axes[3], f"CutMix, λ = {plan['lam'][0]:.2f}")
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    save(figure, "audio")


if __name__ == "__main__":
    draw_modes()
    draw_draws()
    draw_boxes()
    draw_samplers()
    draw_masks()
    draw_pairs()
    draw_ratio()
    draw_rounding()
    draw_labels()
    draw_audio()
