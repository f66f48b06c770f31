"""The figures of docs/batching.md, written to docs/images/batching-*.png.

    python docs/figures/batching.py

They show what the batchers give; only what other libraries do is written down here.
"""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from datarax.batching import (
    BucketBatcher,
    BucketBatcherConfig,
    DefaultBatcher,
    DefaultBatcherConfig,
    MultiRateBatcher,
    MultiRateBatcherConfig,
    PackingBatcher,
    PackingBatcherConfig,
    masked_mean,
)
from datarax.core.element_batch import Element

IMAGES = Path(__file__).parents[1] / "images"
RECORD, REPEATED, TRUE, FALSE = "#9ecae9", "#f2a65a", "#8cc68c", "#e6e6e6"
EDGE = "#444444"


def cell(axis, x, y, text="", *, width=1.0, height=1.0, color=RECORD, padding=False):
    """A box with a text; padding is white with grey stripes."""
    style = {"facecolor": "white", "hatch": "////"} if padding else {"facecolor": color}
    axis.add_patch(Rectangle((x, y), width, height, edgecolor="#bbbbbb", linewidth=0, **style))
    axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=EDGE, linewidth=0.8))
    if text != "":
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if padding else None
        place = (x + width / 2, y + height / 2)
        axis.text(*place, text, ha="center", va="center", fontsize=9, bbox=box)


def blank_axis(axis, width, height):
    """An axis in units of cells, y downwards, with nothing but what is drawn on it."""
    axis.set(xlim=(-0.05, width + 0.05), ylim=(height + 0.05, -0.05), aspect="equal")
    axis.axis("off")


def label(axis, x, y, text, **style):
    """Text beside or above cells."""
    axis.text(x, y, text, **{"va": "center", "fontsize": 9} | style)


def save(figure, name):
    """Write docs/images/batching-<name>.png."""
    figure.savefig(IMAGES / f"batching-{name}.png", dpi=130, facecolor="white", bbox_inches="tight")
    plt.close(figure)


def draw_mask():
    """Ten records in three batches, their masks, and what three ways to average make of them."""
    records = [Element({"x": np.float32(n)}) for n in range(10)]
    batches = list(DefaultBatcher(DefaultBatcherConfig())(records, batch_size=4))
    figure, axis = plt.subplots(figsize=(9, 3.3))
    blank_axis(axis, 20, 6.9)
    label(axis, 0, 0.5, "records")
    for n in range(10):
        cell(axis, 4 + n, 0, n)
    label(axis, 0, 3.0, 'batch["x"]')
    label(axis, 0, 4.2, "batch.valid_mask")
    for number, batch in enumerate(batches):
        left = 4 + 5 * number
        label(axis, left + 2, 2.1, f"batch {number}", ha="center")
        for row in range(4):
            valid = bool(batch.valid_mask[row])
            cell(axis, left + row, 2.5, f"{batch['x'][row]:.0f}", padding=not valid)
            color = TRUE if valid else FALSE
            cell(axis, left + row, 3.8, "T" if valid else "F", height=0.8, color=color)
    every = np.concatenate([batch["x"] for batch in batches])
    mask = np.concatenate([batch.valid_mask for batch in batches])
    means = [float(masked_mean(batch["x"], batch.valid_mask)) for batch in batches]
    lines = (
        (f"{every.mean():.2f}", "mean of all rows: padding counts as 0", "#b03030"),
        (f"{np.mean(means):.2f}", "mean of the batches' means: 8 and 9 count twice", "#b03030"),
        (f"{float(masked_mean(every, mask)):.2f}", "masked sums / masked counts", "#2d7a2d"),
    )
    for number, (value, text, color) in enumerate(lines):
        label(axis, 5.4, 5.3 + 0.65 * number, value, ha="right", color=color, weight="bold")
        label(axis, 5.8, 5.3 + 0.65 * number, text)
    save(figure, "mask")


# What each policy makes of records 8 and 9; True marks a row that is no record of its own.
REMAINDERS = (
    ("a smaller batch", "tf.data, torch, Grain: default · DALI PARTIAL", "8 9", "", ""),
    ("", 'ours: remainder="partial"', "8 9", "", "TT"),
    ("no batch", "drop_remainder=True · drop_last=True · DALI DROP", "", "", ""),
    ("", 'ours: remainder="drop"', "", "", ""),
    ("records of the next epoch", "DALI FILL · tf.data repeat().batch(4)", "8 9", "0 1", ""),
    ("the last record again", "DALI FILL with pad_last_batch=True", "8 9", "9 9", ""),
    ("padding", "Grain batch_and_pad", "8 9", "p p", ""),
    ("padding, with a mask", 'ours: remainder="pad" · clu pad_dataset', "8 9", "p p", "TTFF"),
    ("", 'ours: pad_values="last"', "8 9", "p9 p9", "TTFF"),
)


def draw_remainder():
    """The last batch of ten records in batches of four, a line for each policy."""
    figure, axis = plt.subplots(figsize=(9, 4.6))
    blank_axis(axis, 31, 15.2)
    label(axis, 17.4, 0.5, "last batch", ha="center", weight="bold")
    label(axis, 22.4, 0.5, "mask", ha="center", weight="bold")
    for number, (title, options, kept, filled, mask) in enumerate(REMAINDERS):
        y = 1.3 + 1.55 * number
        label(axis, 0, y + 0.25, title, weight="bold")
        label(axis, 0.4, y + (0.85 if title else 0.5), options, color="#555555", fontsize=8.5)
        if not kept:
            label(axis, 17.4, y + 0.5, "8 and 9 are left out", ha="center", color="#b03030")
        for column, text in enumerate(kept.split()):
            cell(axis, 15.4 + column, y, text)
        for column, text in enumerate(filled.split()):
            x = 17.4 + column
            if text.startswith("p"):
                cell(axis, x, y, text[1:] or "0", padding=True)
            else:
                cell(axis, x, y, text, color=REPEATED)
        for column, text in enumerate(mask):
            x = 20.4 + column
            cell(axis, x, y + 0.1, text, height=0.8, color=TRUE if text == "T" else FALSE)
    label(axis, 27.3, 1.8, "record")
    cell(axis, 26.0, 1.3)
    cell(axis, 26.0, 2.8, color=REPEATED)
    label(axis, 27.3, 3.3, "counts again")
    cell(axis, 26.0, 4.3, padding=True)
    label(axis, 27.3, 4.8, "padding")
    save(figure, "remainder")


LENGTHS = (2, 12, 4, 7, 3, 1, 8, 5, 2, 16, 4, 3)


def draw_sequences(axis, rows, top, colors):
    """A line for each row: `(number, length)` for each sequence, None for padding."""
    for line, row in enumerate(rows):
        x = 0
        for number, length in row:
            if number is None:
                cell(axis, x, top + line, width=length, height=0.86, padding=True)
            else:
                color = colors[number]
                cell(axis, x, top + line, number, width=length, height=0.86, color=color)
            x += length


def padded_row(number, length, boundary):
    """One sequence, and padding up to a boundary."""
    rest = boundary - length
    return [(number, length)] + ([(None, rest)] if rest else [])


def draw_ragged():
    """The same sequences padded to the longest, in buckets and packed."""
    elements = [Element({"id": np.full(n, i + 1, np.int32)}) for i, n in enumerate(LENGTHS)]
    colors = plt.get_cmap("tab20")(np.arange(len(LENGTHS)) % 20 / 20 + 0.01)
    colors[:, :3] = 0.5 + 0.5 * colors[:, :3]
    colors = dict(enumerate(colors, start=1))
    boundaries = (4, 8, 16)
    config = BucketBatcherConfig(boundaries=boundaries, length_fields=("id",))
    buckets = BucketBatcher(config)
    in_buckets = {boundary: [] for boundary in boundaries}
    for batch in buckets(elements, batch_size=2):
        for ids, mask in zip(batch["id"], batch["id_mask"], strict=True):
            row = padded_row(int(ids[0]), int(mask.sum()), len(ids))
            in_buckets[len(ids)].append(row if mask.any() else [(None, len(ids))])
    packer = PackingBatcher(PackingBatcherConfig(row_length=16))
    packed = []
    for batch in packer(elements, batch_size=5):
        for ids, segments in zip(batch["id"], batch["segment_ids"], strict=True):
            parts = [ids[segments == number] for number in range(1, segments.max() + 1)]
            row = [(int(part[0]), len(part)) for part in parts]
            rest = int((segments == 0).sum())
            packed.append(row + ([(None, rest)] if rest else []))
    longest = [padded_row(i + 1, n, max(LENGTHS)) for i, n in enumerate(LENGTHS)]
    waste = (
        1 - sum(LENGTHS) / (len(LENGTHS) * max(LENGTHS)),
        buckets.padding_report()["waste"],
        1 - packer.packing_report()["efficiency"],
    )
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.9))
    figure.subplots_adjust(wspace=0.08)
    titles = ("padded to the longest", "BucketBatcher, 4 · 8 · 16", "PackingBatcher, rows of 16")
    for axis, title, part in zip(axes, titles, waste, strict=True):
        blank_axis(axis, 16, 15.5)
        axis.set_title(f"{title}\n{part:.0%} padding", fontsize=10)
    draw_sequences(axes[0], longest, 0, colors)
    top = 0.0
    for rows in in_buckets.values():
        draw_sequences(axes[1], rows, top, colors)
        top += len(rows) + 0.6
    draw_sequences(axes[2], packed, 0, colors)
    save(figure, "ragged")


def draw_multirate():
    """Video and audio of seven steps in windows of four with a hop of two."""
    film = [Element({"video": t, "audio": np.arange(4 * t, 4 * t + 4)}) for t in range(7)]
    config = MultiRateBatcherConfig(steps=4, hop=2, rates={"audio": 4})
    batches = list(MultiRateBatcher(config)(film, batch_size=3))
    windows = [
        {name: values[row] for name, values in batch.as_dict().items()}
        for batch in batches
        for row in np.flatnonzero(batch.valid_mask)
    ]
    scale = 3.0
    figure, axis = plt.subplots(figsize=(10, 4.6))
    blank_axis(axis, 32, 15.8)
    left = 6.8

    def strip(y, start, video, audio, video_mask, audio_mask):
        for i, frame in enumerate(video):
            x = left + (start + i) * scale
            cell(axis, x, y, frame if video_mask[i] else "", width=scale, padding=not video_mask[i])
        for i in range(len(audio)):
            x = left + (start + i / 4) * scale
            kind = {"color": "#cfe6b8", "padding": not audio_mask[i]}
            cell(axis, x, y + 1.1, width=scale / 4, height=0.8, **kind)

    label(axis, 0, 0.5, "time, in records")
    for t in range(9):
        label(axis, left + t * scale, 0.5, t, ha="center", color="#555555")
        axis.plot([left + t * scale] * 2, [0.9, 15.5], color="#dddddd", linewidth=0.8, zorder=0)
    label(axis, 0, 1.7, "stream: video")
    label(axis, 0, 2.7, "audio, 4 a step")
    every = np.ones(28, bool)
    strip(1.2, 0, np.arange(7), np.arange(28), every[:7], every)
    label(axis, left + 7 * scale + 0.3, 2.1, "end", color="#b03030")
    for number, window in enumerate(windows):
        y = 4.4 + 2.9 * number
        label(axis, 0, y + 0.5, f"window {number}: video")
        label(axis, 0, y + 1.5, "audio")
        masks = window["rate_1_mask"], window["rate_4_mask"]
        strip(y, 2 * number, window["video"], window["audio"], *masks)
    label(axis, 0, 13.4, "rate_1_mask of the last")
    label(axis, 0, 14.5, "rate_4_mask of the last")
    start = 2 * (len(windows) - 1)
    for i, valid in enumerate(windows[-1]["rate_1_mask"]):
        x, color = left + (start + i) * scale, TRUE if valid else FALSE
        cell(axis, x, 13.0, "T" if valid else "F", width=scale, height=0.8, color=color)
    for i, valid in enumerate(windows[-1]["rate_4_mask"]):
        x, color = left + (start + i / 4) * scale, TRUE if valid else FALSE
        text = "T" if valid else "F"
        cell(axis, x, 14.1, text, width=scale / 4, height=0.8, color=color)
    save(figure, "multirate")


if __name__ == "__main__":
    mpl.rcParams["hatch.linewidth"] = 0.6
    draw_mask()
    draw_remainder()
    draw_ragged()
    draw_multirate()
