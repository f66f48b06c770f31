"""The figures of docs/performance.md.

    python docs/figures/performance.py

They show the medians of benchmarks/results/*.json.
"""

import json
import math
import re
import textwrap
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

DOCS = Path(__file__).parents[1]
RESULTS = DOCS.parent / "benchmarks" / "results"
# The benchmarks of the summary, and what stands before the names of their cases.
SUMMARISED = {
    "mix": "",
    "patch_dropout": "patch dropout, ",
    "batching": "batching, ",
    "pipeline": "pipeline, ",
    "folder": "pipeline, ",
    "image": "",
}
# Single functions are in a table, and one thread that is busy is no workload.
NOT_SUMMARISED = re.compile(r"[a-z_]+, \d+ x \d+ px$|.*busy")
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
    axis.set_title(textwrap.fill(name, 56), fontsize=10, loc="left")
    axis.tick_params(labelsize=8)
    axis.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def draw(area, report):
    """All cases of one benchmark, in one or two columns."""
    # What is measured of memory is in the text.
    cases = {
        name: case["contenders"]
        for name, case in report["cases"].items()
        if not name.startswith("memory")
    }
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


def best(contenders, wanted):
    """The fastest contender of a color, and its time."""
    times = {name: row["median_ms"] for name, row in contenders.items() if "median_ms" in row}
    times = {name: time for name, time in times.items() if kind(name) == wanted}
    return min(times.items(), key=lambda item: item[1]) if times else None


def kind(name):
    """The color of a contender, where a copy of the bytes is a floor too."""
    return FLOOR if name.startswith("copy") else color(name)


def summarise(reports):
    """A bar for each workload: our best time as a share of the best peer's, and the floor's."""
    rows = []
    for area in SUMMARISED:
        for name, case in reports[area]["cases"].items():
            found = {which: best(case["contenders"], which) for which in (OURS, PEER, FLOOR)}
            if found[OURS] and found[PEER] and not NOT_SUMMARISED.match(name):
                rows.append((f"{SUMMARISED[area]}{name}", found))
    figure, axis = plt.subplots(figsize=(10.5, 0.36 * len(rows) + 1.1), layout="constrained")
    for place, (_, found) in enumerate(reversed(rows)):
        (_, ours), (peer, theirs) = found[OURS], found[PEER]
        axis.barh(place, ours / theirs, color=OURS, height=0.62)
        if found[FLOOR]:
            floor = found[FLOOR][1] / theirs
            axis.plot([floor, floor], [place - 0.4, place + 0.4], color="#222222", lw=2.5)
        axis.text(2.22, place, f"{ours / theirs:.2f} of {peer}", va="center", fontsize=8.5)
    axis.axvline(1, color=PEER, lw=2)
    axis.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)], fontsize=8.5)
    axis.set(
        xlim=(0, 2.2),
        ylim=(-0.7, len(rows) - 0.3),
        xlabel="time, as a share of the best peer's (blue line); floor: black",
    )
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / "images" / "performance-summary.png", dpi=110, facecolor="white")
    plt.close(figure)


def main():
    """Draws the summary, and each benchmark."""
    reports = {path.stem: json.loads(path.read_text("utf-8")) for path in RESULTS.glob("*.json")}
    # Not all results are times.
    reports = {area: report for area, report in reports.items() if "cases" in report}
    summarise(reports)
    for area, report in reports.items():
        draw(area, report)


if __name__ == "__main__":
    main()
