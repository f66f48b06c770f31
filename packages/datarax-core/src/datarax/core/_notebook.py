"""What batches, operators and configs show in a notebook."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from html import escape
from typing import Any

import jax
import numpy as np
from flax import nnx

from datarax.core._construction import differs, short
from datarax.core._explicit_axes import take
from datarax.core._png import data_uri
from datarax.core._thumbnails import caption, channel_axis, readable, thumbnails

MOST_RECORDS = 12
SHOWN_SIDE = 72
FIGURE = "display:inline-block;margin:2px 6px 2px 0;text-align:center;font-size:11px"
PICTURE = f"min-width:{SHOWN_SIDE}px;image-rendering:pixelated"


def batch_html(batch: Any) -> str:
    """The line about a batch, and images of its first records with their labels.

    Args:
      batch: a `Batch`; of one that is traced, donated or partly on other hosts, only the line.
    """
    return "\n".join([f"<code>{escape(repr(batch))}</code>", *_rows_of_pictures(batch)])


def _rows_of_pictures(batch: Any) -> Iterator[str]:
    leaves = jax.tree_util.tree_leaves_with_path(batch.data)
    named = {_dotted(path): leaf for path, leaf in leaves if readable(leaf)}
    axes = {name: channel_axis(leaf) for name, leaf in named.items()}
    images = {name: axis for name, axis in axes.items() if axis is not None}
    if not images or not readable(batch.valid_mask):
        return
    rows = np.flatnonzero(np.asarray(batch.valid_mask))[:MOST_RECORDS]
    if not rows.size:
        return
    taken = {name: np.asarray(take(leaf, rows)) for name, leaf in named.items()}
    captions = _captions(batch, rows, taken)
    for name, axis in images.items():
        pictures, shown = thumbnails(taken[name], axis)
        scaled = "" if shown is None else f", black to white: {shown[0]:.3g} to {shown[1]:.3g}"
        figures = [
            _figure(name, picture, lines) for picture, lines in zip(pictures, captions, strict=True)
        ]
        yield f"<div>{escape(name)}{scaled}</div><div>{''.join(figures)}</div>"
    if left := int(np.asarray(batch.valid_mask).sum()) - len(rows):
        yield f"<div>and {left} more</div>"


def _figure(name: str, picture: np.ndarray, lines: list[str]) -> str:
    image = f'<img src="{data_uri(picture)}" style="{PICTURE}" alt="{escape(name)}">'
    return f'<div style="{FIGURE}">{"<br>".join([image, *map(escape, lines)])}</div>'


def _captions(batch: Any, rows: np.ndarray, taken: dict[str, np.ndarray]) -> list[list[str]]:
    fields = {name: field for name, field in taken.items() if channel_axis(field) is None}
    if readable(batch.record_index):
        fields = {"record": np.asarray(take(batch.record_index, rows)), **fields}
    lines = [[caption(name, field[i]) for name, field in fields.items()] for i in range(len(rows))]
    return [[line for line in of_record if line] for of_record in lines]


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)


def config_html(config: Any) -> str:
    """The line about a config, and behind it all its options, those that differ in bold."""
    return _details(repr(config), _options(config))


def module_html(module: Any) -> str:
    """The line about a module, and behind it its options and counts, and the modules in it."""
    config = getattr(module, "config", None)
    inside = [_options(config)] if dataclasses.is_dataclass(config) else []
    inside += [f"<p>records: {_counts(module)}</p>"]
    members = [f"<li>{member._repr_html_()}</li>" for member in _members(module)]
    if members:
        inside.append(f"<ol>{''.join(members)}</ol>")
    return _details(repr(module), "".join(inside))


def _counts(module: Any) -> str:
    if not readable(module._operation_count.get_value()):
        return "counted inside a compiled function"
    counts = module.get_operation_stats()
    return ", ".join(f"{count} {name.removesuffix('_count')}" for name, count in counts.items())


def _members(module: Any) -> Iterator[Any]:
    for value in vars(module).values():
        for member in value if isinstance(value, nnx.List) else [value]:
            if isinstance(member, nnx.Module) and hasattr(member, "_repr_html_"):
                yield member


def _options(config: Any) -> str:
    lines = []
    for field in dataclasses.fields(config):
        text = escape(short(getattr(config, field.name)))
        text = f"<b>{text}</b>" if differs(config, field) else text
        lines.append(f"<tr><td>{field.name}</td><td><code>{text}</code></td></tr>")
    return f"<table>{''.join(lines)}</table>"


def _details(line: str, inside: str) -> str:
    return f"<details><summary><code>{escape(line)}</code></summary>{inside}</details>"
