"""The drawings of docs/how-it-works.md, written to docs/images/how-*.png.

python docs/figures/how_it_works.py
"""

from pathlib import Path
from textwrap import fill

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

IMAGES = Path(__file__).parents[1] / "images"
BLUE, GREEN, ORANGE, PURPLE, GREY = "#9DC9E8", "#B5DDB0", "#F6CF9B", "#D9C7E8", "#E8E8E8"
ARROW = {"arrowstyle": "-|>", "color": "#444444", "lw": 1.4, "shrinkA": 0, "shrinkB": 0}


def canvas(width, height):
    """An axis in inches, without a frame."""
    figure, axis = plt.subplots(figsize=(width, height))
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.set_axis_off()
    figure.subplots_adjust(left=0, right=1, top=1, bottom=0)
    return figure, axis


def box(axis, x, y, width, height, title, text="", color=BLUE):
    """A box with a title in bold and text under it."""
    style = {"boxstyle": "round,pad=0,rounding_size=0.08", "fc": color, "ec": "#444444"}
    axis.add_patch(mpl.patches.FancyBboxPatch((x, y), width, height, **style))
    place = y + height / 2 if not text else y + height - 0.1
    settings = {"ha": "center", "va": "center" if not text else "top", "fontsize": 10.5}
    axis.text(x + width / 2, place, title, weight="bold", **settings)
    if text:
        axis.text(x + width / 2, y + height - 0.34, text, ha="center", va="top", fontsize=9)


def arrow(axis, start, end, text="", side=0.08):
    """An arrow, and beside its middle a word."""
    axis.annotate("", end, start, arrowprops=ARROW)
    middle = [(a + b) / 2 for a, b in zip(start, end, strict=True)]
    axis.text(middle[0] + side, middle[1], text, fontsize=9, va="center", color="#444444")


def save(figure, name):
    """Writes docs/images/how-<name>.png."""
    figure.savefig(IMAGES / f"how-{name}.png", dpi=110, facecolor="white")
    plt.close(figure)


def packages():
    """Who depends on whom."""
    figure, axis = canvas(8.6, 4.5)
    box(axis, 0.3, 3.7, 8.0, 0.55, "tests-integration · docs · benchmarks · examples", color=GREY)
    box(axis, 5.9, 2.35, 2.4, 0.85, "datarax-pipeline", "sources, order, stages,\nresume", GREEN)
    box(axis, 0.3, 1.3, 2.4, 0.85, "datarax-ops-batch", "MixUp, CutMix", ORANGE)
    box(axis, 3.1, 1.3, 2.4, 0.85, "datarax-ops-image", "image operators", ORANGE)
    box(axis, 5.9, 1.3, 2.4, 0.75, "datarax-batching", "collate, pad, mask", GREEN)
    text = (
        "Batch · configs · operators and compositions · keys and draws · statistics · checkpoints"
    )
    box(axis, 0.3, 0.15, 8.0, 0.75, "datarax-core", text, BLUE)
    for x in (1.5, 4.3):
        arrow(axis, (x, 1.3), (x, 0.9))
        arrow(axis, (x, 3.7), (x, 2.15))
    arrow(axis, (7.1, 1.3), (7.1, 0.9))
    arrow(axis, (7.1, 2.35), (7.1, 2.05))
    arrow(axis, (7.1, 3.7), (7.1, 3.2))
    axis.text(8.3, 1.02, "imports", fontsize=9, color="#444444", ha="right")
    save(figure, "packages")


def steps(name, rows, width=8.6):
    """A column of steps with where each is, and on the right what it is for."""
    figure, axis = canvas(width, 0.83 * len(rows) + 0.1)
    for number, (title, where, why, color) in enumerate(rows):
        y = 0.83 * (len(rows) - 1 - number) + 0.13
        box(axis, 0.15, y, 3.5, 0.6, title, where, color)
        axis.text(3.85, y + 0.3, fill(why, 64), fontsize=9.5, va="center")
        if number:
            arrow(axis, (1.8, y + 0.83), (1.8, y + 0.6))
    save(figure, name)


def call():
    """From `op(batch)` to the author's `apply`, and back."""
    rows = [
        (
            "op(batch, key=…)",
            "core/operator.py, core/_plain.py",
            "a dict becomes a Batch; values and keys are checked if they are known",
            BLUE,
        ),
        (
            "inline, or compiled?",
            "core/_dispatch.py: call",
            "inside a trace or a composition the call is inline, without a jit of its own",
            BLUE,
        ),
        (
            "bind",
            "core/_dispatch.py: Binding",
            "finds the Variables and the jitted function without walking the graph",
            GREEN,
        ),
        (
            "run",
            "core/_compiled.py: shared_run",
            "one jitted function for all operators with the same static part",
            GREEN,
        ),
        (
            "process",
            "core/_compiled.py: process",
            "takes off metadata and explicit axes; compiled and inline calls meet here",
            PURPLE,
        ),
        (
            "transform, or pass through",
            "core/_compiled.py: transformed",
            "apply_batch in training; unchanged records in evaluation",
            PURPLE,
        ),
        (
            "draw",
            "core/operator.py: _random_params",
            "a key for each record, or the next key of the stream",
            PURPLE,
        ),
        (
            "record by record",
            "core/_records.py: map_records",
            "apply(data, state, metadata, random_params, stats): your own code",
            ORANGE,
        ),
        (
            "put together",
            "core/_dispatch.py: _assembled",
            "Variables get new values; the result gets back unchanged arrays and metadata",
            BLUE,
        ),
    ]
    steps("call", rows)


def record():
    """From a file to the mask."""
    rows = [
        (
            "files, arrays, data sets",
            "sources/_source.py",
            "len(source) records, each with its number",
            GREY,
        ),
        (
            "order",
            "sources/_order.py, sources/_permutation.py",
            "the record at a position: a pure function of key, epoch and position",
            GREEN,
        ),
        (
            "read and transform",
            "pipeline/_host.py, pipeline/_transforms.py",
            "each record by itself, in threads, with its own generator; errors name it",
            GREEN,
        ),
        (
            "collate",
            "batching/_collate.py, batching/_copying.py",
            "one array for each field, from the arrays of the records",
            ORANGE,
        ),
        (
            "pad",
            "batching/_padding.py",
            "adds rows up to batch_size; valid_mask says which rows are records",
            ORANGE,
        ),
        (
            "place",
            "pipeline/_reader.py, pipeline/_prefetch.py",
            "a Batch with record_index, epoch and mask, prefetched to the device",
            GREEN,
        ),
        (
            "stages",
            "pipeline/_stages.py",
            "all operators in one compiled call; padding stays unchanged",
            PURPLE,
        ),
        (
            "loss",
            "batching/_masked.py",
            "masked_mean(values, batch.valid_mask): padding does not count",
            ORANGE,
        ),
    ]
    steps("record", rows)


def draw():
    """From a seed to a pixel."""
    rows = [
        (
            "nnx.Rngs(0)",
            "the user's streams",
            "the stream advances, as for every layer of NNX",
            GREY,
        ),
        (
            "base key",
            "core/randomness.py: own_streams",
            "the next key of the stream, folded with the name of the class (class_word)",
            BLUE,
        ),
        (
            "call key",
            "core/randomness.py: call_key",
            "batch without record_index: the next key of the stream, or the key= of the call",
            BLUE,
        ),
        (
            "record key",
            "core/randomness.py: record_keys",
            "batch with record_index: the base key, folded with epoch, record_index and view",
            BLUE,
        ),
        (
            "words",
            "core/randomness.py: random_words",
            "32 random bits each; from record keys always by threefry, the same in any batch",
            BLUE,
        ),
        (
            "numbers",
            "core/_draws.py: below, coin",
            "exact integers made from words, the same on every backend",
            BLUE,
        ),
        (
            "parameters",
            "generate_random_params",
            "the draws as arrays: λ, partner, box; angle, corner, count",
            PURPLE,
        ),
        (
            "pixels",
            "a pure function",
            "computed from the image and the draws alone; uint8 with integers",
            ORANGE,
        ),
    ]
    steps("draw", rows)


if __name__ == "__main__":
    packages()
    call()
    record()
    draw()
