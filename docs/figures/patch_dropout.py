"""Draws the figures of docs/patch-dropout.md: `python docs/figures/patch_dropout.py`."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.patheffects as effects
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from matplotlib.patches import Rectangle
from PIL import Image
from skimage import data as photographs
from skimage import transform

from datarax.core.element_batch import Batch
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)

FOLDER = Path(__file__).parents[1] / "images"
SIDE, GAP = 160, 8
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"


def square(photograph, side=SIDE):
    """Bytes of a square photograph with sides of so many pixels."""
    small = transform.resize(photograph, (side, side), anti_aliasing=True)
    return (255 * small).round().astype(np.uint8)


ASTRONAUT = photographs.astronaut()[:400, 40:440]
PICTURES = np.stack(
    [
        square(ASTRONAUT),
        square(photographs.chelsea()[:, 75:375]),
        square(photographs.coffee()[:, 100:500]),
        square(photographs.rocket()[:, 107:534]),
        square(photographs.stereo_motorcycle()[0][:, 120:620]),
    ]
)


def operator(**options):
    """The operator with the options that all figures share."""
    options = {"field_key": "image", "stochastic": True} | options
    return PatchDropoutOperator(PatchDropoutOperatorConfig(**options), rngs=nnx.Rngs(0))


def drop(images, **options):
    """The images after patch dropout."""
    batch = Batch.from_arrays({"image": images}, record_index=np.arange(len(images)))
    return np.asarray(operator(**options)(batch)["image"])


def panels(columns, heights, side=SIDE, top=18):
    """A figure with rows of panels, one screen pixel to an image's, and room for titles above."""
    width = columns * side + (columns - 1) * GAP
    height = sum(heights) + len(heights) * top + (len(heights) - 1) * GAP
    figure = plt.figure(figsize=(width / 100, height / 100), dpi=100)
    axes = np.empty((len(heights), columns), object)
    bottom = height + GAP
    for row, rise in enumerate(heights):
        bottom -= rise + top + GAP
        for column in range(columns):
            x = column * (side + GAP) / width
            place = (x, bottom / height, side / width, rise / height)
            axes[row, column] = figure.add_axes(place)
            axes[row, column].set_axis_off()
    return figure, axes


def show(axis, image, title="", loc="center"):
    """Draws an image, or bytes in shades of grey, under a title."""
    axis.imshow(image, interpolation="nearest", cmap="gray", vmin=0, vmax=255)
    axis.set_title(title, fontsize=9, pad=4, loc=loc)


def save(figure, name):
    """Writes a PNG of 256 colours, half as large as one of all colours."""
    path = FOLDER / f"patch-{name}.png"
    figure.savefig(path, facecolor="white")
    plt.close(figure)
    colours = Image.open(path).convert("RGB")
    palette = colours.quantize(255)
    indices = np.array(colours.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))
    indices[(np.asarray(colours) == 255).all(-1)] = 255
    small = Image.fromarray(indices)
    small.putpalette([*palette.getpalette()[:765], 255, 255, 255])
    small.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1024} kB")


def draw_row(name, images, titles=()):
    """One row of pictures."""
    top = 18 if titles else 0
    figure, axes = panels(len(images), [SIDE], top=top)
    for axis, image, title in zip(axes[0], images, titles or [""] * len(images), strict=True):
        show(axis, image, title)
    save(figure, name)


def given(images, positions, **options):
    """The images without the patches at given corners."""
    op = operator(**options)
    params = {"patch_positions": np.int32(positions)}
    return [np.asarray(op.apply({"image": x}, {}, None, params)[0]["image"]) for x in images]


PLACEMENTS = {
    "random": {"num_patches": 4, "patch_size": (0.25, 0.25)},
    "ranges": {"num_patches": (1, 4), "patch_size": ((0.1, 0.35), (0.1, 0.35)), "prob": 0.5},
    "area": {"num_patches": 1, "patch_area": (0.02, 0.33), "aspect_ratio": (0.3, 1 / 0.3)},
    "grid": {"placement": "grid", "num_patches": None, "patch_size": (0.125, 0.125)},
    "jitter": {
        "placement": "grid",
        "num_patches": None,
        "patch_size": (0.125, 0.125),
        "grid_jitter": 1.0,
    },
    "cells": {"placement": "grid", "num_patches": 8, "patch_size": (0.2, 0.2), "grid_ratio": 0.8},
    "strips": {"num_patches": 2, "patch_size": (1.0, (0.05, 0.2))},
}


def draw_placements():
    """A row of photographs for each way to say where patches lie and how large they are."""
    for name, options in PLACEMENTS.items():
        draw_row(name, drop(PICTURES, **options))
    corners = [(0, 0), (0, 120), (120, 0), (120, 120)]
    draw_row("given", given(PICTURES, corners, patch_size=(0.25, 0.25)))


def draw_tokens():
    """Above: what is left of the image; below: the sequence of tokens that the model gets."""
    size, number = SIDE // 8, 32
    op = operator(
        placement="grid",
        grid_ratio=1.0,
        patch_size=(0.125, 0.125),
        num_patches=number,
        drop_tokens=True,
        drop_value=255,
    )
    batch = op(Batch.from_arrays({"image": PICTURES}, record_index=np.arange(len(PICTURES))))
    images, indices = (np.asarray(batch[key]) for key in ("image", "image_token_indices"))
    figure, axes = panels(len(PICTURES), [SIDE, SIDE // 2])
    cells = SIDE // size
    for column, (image, kept) in enumerate(zip(images, indices, strict=True)):
        show(axes[0, column], image)
        tokens = PICTURES[column].reshape(cells, size, cells, size, 3).swapaxes(1, 2)
        tokens = tokens.reshape(-1, size, size, 3)[kept]
        # Rows of eight, each token with a white border.
        tokens[:, [0, -1]] = tokens[:, :, [0, -1]] = 255
        sheet = tokens.reshape(-1, cells, size, size, 3).swapaxes(1, 2)
        show(axes[1, column], sheet.reshape(-1, SIDE, 3))
    axes[0, 0].set_title("32 of 64 tokens are left", fontsize=9, pad=4, loc="left")
    axes[1, 0].set_title("image_token_indices picks these", fontsize=9, pad=4, loc="left")
    save(figure, "tokens")


def draw_fills():
    """The same patches with every fill, on two photographs."""
    fills = {
        "constant": {"drop_value": 0},
        "per channel": {"drop_value": (0, 114, 178)},
        "noise": {"fill": "noise"},
        "color": {"fill": "color"},
        "mean": {"fill": "mean"},
        "dataset_mean": {
            "fill": "dataset_mean",
            "precomputed_stats": {"mean": PICTURES.mean((0, 1, 2), dtype=np.float32)},
        },
    }
    figure, axes = panels(len(fills), [SIDE, SIDE])
    for column, (name, options) in enumerate(fills.items()):
        images = drop(PICTURES[[0, 3]], **PLACEMENTS["cells"] | {"num_patches": 4}, **options)
        for row, image in enumerate(images):
            show(axes[row, column], image, name if not row else "")
    save(figure, "fills")


BOXES = np.float32(
    [[100, 58, 166, 132], [220, 50, 272, 190], [62, 240, 120, 280], [164, 235, 204, 266]]
)
POINTS = np.float32([[113, 70], [146, 71], [130, 84], [129, 101], [246, 55], [105, 262]])
CORNERS = [(40, 128), (134, 218), (224, 36), (224, 156), (160, 20)]


def draw_labelled(axis, fields, title):
    """An image with its mask in blue, boxes with their visible fraction, and points."""
    shown = fields["image"].astype(np.float32)
    tint = np.float32([0, 90, 255])
    shown = np.where(fields["mask"][..., None], 0.4 * shown + 0.6 * tint, shown)
    show(axis, shown.round().astype(np.uint8), title)
    outline = [effects.withStroke(linewidth=3, foreground="black")]
    for (x0, y0, x1, y1), visible in zip(fields["boxes"], fields["boxes_visibility"], strict=True):
        colour = "white" if visible == 1 else "#FFD84D" if visible else "#FF7043"
        if x1 > x0:
            frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=colour, lw=1.6)
            frame.set_path_effects(outline)
            axis.add_patch(frame)
        label = axis.text(x0 + 1, y0 - 3, f"{visible:.2f}", color=colour, fontsize=8, weight="bold")
        label.set_path_effects(outline)
    for (x, y), visible in zip(fields["points"], fields["points_visibility"], strict=True):
        marker, colour = ("o", "#7CFC00") if visible else ("X", "#FF7043")
        axis.plot(x, y, marker, color=colour, ms=7, mec="black", mew=0.8)
    axis.set(xlim=(-0.5, 279.5), ylim=(279.5, -0.5))


def draw_auxiliary():
    """A mask, boxes and points before and after five patches."""
    image = square(ASTRONAUT, 280)
    red, green, blue = (image[..., i].astype(int) for i in range(3))
    suit = (red > 153) & (green < 140) & (blue < 115) & (red - blue > 89)
    fields = {"image": image, "mask": suit.astype(np.uint8), "boxes": BOXES, "points": POINTS}
    before = fields | {"boxes_visibility": np.ones(4), "points_visibility": np.ones(6)}
    figure, axes = panels(3, [280], side=280)
    draw_labelled(axes[0, 0], before, "before")
    for axis, title, options in (
        (axes[0, 1], "after: mask and boxes as they were", {}),
        (axes[0, 2], "mask_fill=0, shrink_boxes=True", {"mask_fill": 0, "shrink_boxes": True}),
    ):
        op = operator(
            num_patches=5,
            patch_size=(56, 56),
            auxiliary_fields=["mask", "boxes", "points"],
            box_fields=("boxes",),
            keypoint_fields=("points",),
            **options,
        )
        after = op.apply(fields, {}, None, {"patch_positions": np.int32(CORNERS)})[0]
        draw_labelled(axis, {name: np.asarray(array) for name, array in after.items()}, title)
    save(figure, "auxiliary")


def pan(frames=5):
    """A video: the camera moves over the photograph of a cup."""
    photograph = photographs.coffee()
    return np.stack([square(photograph[:, 40 * i : 40 * i + 400]) for i in range(frames)])


def focus(slices=5):
    """A volume: the section of a tissue, ever more out of focus."""
    section = square(photographs.immunohistochemistry()).astype(np.float32)
    stack = [section]
    for _ in range(slices - 1):
        for _ in range(3):
            section = sum(
                np.roll(section, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
            )
            section = section / 9
        stack.append(section)
    return np.stack(stack).mean(-1).round().astype(np.uint8)


def spectrogram():
    """Loudness by frequency (from the top) and time of a made-up sound, 160 x 160."""
    time = np.arange(160 * 64) / 8000
    glide = np.sin(2 * np.pi * (600 * time + 900 * time**2))
    notes = np.sin(2 * np.pi * np.array([500, 900, 1400, 1000])[(time * 6).astype(int) % 4] * time)
    sound = glide + notes + 0.05 * np.random.default_rng(0).normal(size=len(time))
    frames = np.stack([sound[64 * i : 64 * i + 320] for i in range(155)])
    power = np.abs(np.fft.rfft(frames * np.hanning(320), axis=1))[:, :160].T
    power = np.pad(np.log(power + 1), ((0, 0), (0, 5)), mode="edge")[::-1]
    return (255 * (power - power.min()) / np.ptp(power)).round().astype(np.uint8)


def draw_axes():
    """Video, volume and spectrogram."""
    rows = {
        "video, spatial_axes=(1, 2)": drop(
            pan()[None], num_patches=4, patch_size=(0.25, 0.25), spatial_axes=(1, 2)
        )[0],
        "volume, spatial_axes=(1, 2)": drop(
            focus()[None], num_patches=4, patch_size=(0.25, 0.25), spatial_axes=(1, 2)
        )[0],
    }
    sound = spectrogram()
    mean = {"fill": "mean"}
    rows["spectrogram: whole; time; frequency; both, in turn"] = [
        sound,
        drop(sound[None], num_patches=2, patch_size=(1.0, (0.05, 0.15)), **mean)[0],
        drop(sound[None], num_patches=2, patch_size=((0.05, 0.15), 1.0), **mean)[0],
        drop(
            drop(sound[None], num_patches=2, patch_size=(1.0, (0.05, 0.15)), **mean),
            num_patches=2,
            patch_size=((0.05, 0.15), 1.0),
            **mean,
        )[0],
    ]
    figure, axes = panels(5, [SIDE] * 3)
    for line, (title, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, images, strict=False):
            show(axis, image)
        line[0].set_title(title, fontsize=9, pad=4, loc="left")
    save(figure, "axes")


def draw_deterministic():
    """The same patches for every record."""
    options = {"stochastic": False, "num_patches": 4, "patch_size": (0.25, 0.25)}
    images = np.concatenate(
        [drop(PICTURES[:3], seed=0, **options), drop(PICTURES[:2], seed=1, **options)]
    )
    draw_row("deterministic", images, [f"seed={seed}" for seed in (0, 0, 0, 1, 1)])


if __name__ == "__main__":
    draw_placements()
    draw_tokens()
    draw_fills()
    draw_auxiliary()
    draw_axes()
    draw_deterministic()
