"""The figures of docs/performance.md.

    python docs/figures/performance.py

They show the medians of benchmarks/results/*.json.
"""

import json
import math
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

DOCS = Path(__file__).parents[1]
RESULTS = DOCS.parent / "benchmarks" / "results"
OURS, FLOOR, PEER = "#d1495b", "#8d99ae", "#2e86ab"


def color(name):
    """Ours, floors and what is as good as one, and peers."""
    if name.startswith(("ours", "datarax")):
        return OURS
    return FLOOR if name.startswith(("floor", "plain jit", "nnx.state")) else PEER


def draw_case(axis, name, contenders):
    """Bars of medians, shortest first, on a logarithmic axis."""
    rows = [(row["median_ms"], label) for label, row in contenders.items() if "median_ms" in row]
    rows.sort(reverse=True)
    medians, labels = zip(*rows, strict=True)
    axis.barh(labels, medians, color=[color(label) for label in labels], height=0.7)
    for place, value in enumerate(medians):
        axis.text(value, place, f" {value:.3g}", va="center", fontsize=8)
    axis.set(xscale="log", xlim=(0.7 * min(medians), 2.2 * max(medians)))
    axis.set_title(name, fontsize=10, loc="left")
    axis.tick_params(labelsize=8)
    axis.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def draw(area, report):
    """All cases of one benchmark, in one or two columns."""
    cases = {name: case["contenders"] for name, case in report["cases"].items()}
    columns = 2 if len(cases) > 1 else 1
    lines = math.ceil(len(cases) / columns)
    most = max(map(len, cases.values()))
    size = (5.5 * columns, lines * (0.6 + 0.24 * most))
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(cases) :]:
        axis.remove()
    for axis, (name, contenders) in zip(axes.flat, cases.items(), strict=False):
        draw_case(axis, name, contenders)
    figure.supxlabel("median, milliseconds, logarithmic", fontsize=9)
    figure.savefig(DOCS / "images" / f"performance-{area}.png", dpi=110, facecolor="white")
    plt.close(figure)


for path in sorted(RESULTS.glob("*.json")):
    draw(path.stem, json.loads(path.read_text(encoding="utf-8")))
