"""Batches back into records, and into batches of another size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
from jax.sharding import NamedSharding

from datarax.batching._explicit_axes import explicit_rows, on_automatic_axes, on_explicit_axes
from datarax.batching._input import each
from datarax.batching._options import require_remainder
from datarax.batching._padding import PadValues, frozen_pad_values, pad_batch
from datarax.core._batch_spec import require_batch_size
from datarax.core.element_batch import Batch, Element


def unbatch(batches: Iterable[Batch]) -> Iterator[Element]:
    """The records of batches, one by one, without padding.

    Args:
      batches: the batches, or one `Batch`.

    Returns:
      An iterator over the valid rows, in order, with their states and metadata. Host arrays are
      views of the batch, device arrays are sliced one row at a time.

    Raises:
      TypeError: for something else than batches.

    >>> batch = pad_batch(Batch.from_arrays({"x": np.arange(2)}), 4)
    >>> [element.data["x"].item() for element in unbatch([batch])]
    [0, 1]
    """
    for batch in _batches(batches):
        for row in np.flatnonzero(np.asarray(batch.valid_mask)).tolist():
            yield batch.element(row)


def rebatch(
    batches: Iterable[Batch],
    batch_size: int,
    *,
    remainder: Literal["pad", "drop", "partial"] = "pad",
    pad_values: PadValues = 0,
    compact: bool = False,
) -> Iterator[Batch]:
    """The same rows, in the same order, in batches of another size.

    Args:
      batches: batches that are alike in all but their number of rows, on the host or a device.
      batch_size: rows of each new batch.
      remainder: what happens to rows that do not fill a last batch, see `DefaultBatcherConfig`.
      pad_values: what padding holds, see `pad_batch`.
      compact: leave invalid rows out, instead of keeping them as padding.

    Returns:
      An iterator over batches; no more of `batches` is read than the next one needs. Rows that
      were spread over explicit axes of a mesh are again, if their new number can be.

    Raises:
      TypeError: for something else than batches.
      ValueError: if `batch_size` is not a positive integer or `remainder` unknown; later, if
        batches differ in structure, dtypes, epoch or what else belongs to whole batches.

    >>> batches = [
    ...     Batch.from_arrays({"x": np.arange(3)}),
    ...     Batch.from_arrays({"x": np.arange(3, 6)}),
    ... ]
    >>> [batch["x"].tolist() for batch in rebatch(batches, 4)]
    [[0, 1, 2, 3], [4, 5, 0, 0]]
    """
    size = require_batch_size(batch_size)
    require_remainder("remainder", remainder)
    values = frozen_pad_values("pad_values", pad_values)
    return _rebatched(_batches(batches), size, remainder, values, compact)


def _rebatched(
    batches: Iterator[Batch], size: int, remainder: str, pad_values: Any, compact: bool
) -> Iterator[Batch]:
    waiting: list[Batch] = []
    rows, sharding = 0, None
    for given in batches:
        sharding = explicit_rows(given) if sharding is None else sharding
        batch = given if sharding is None else on_automatic_axes(given, sharding)
        rest = batch.compact() if compact else batch
        while rest.batch_size:
            part = rest.slice(0, min(size - rows, rest.batch_size))
            waiting.append(part)
            rows += part.batch_size
            if rows == size:
                yield _placed(Batch.concatenate(waiting), sharding)
                waiting, rows = [], 0
            if part.batch_size == rest.batch_size:
                break
            rest = rest.slice(part.batch_size, rest.batch_size)
    if not rows or remainder == "drop":
        return
    last = Batch.concatenate(waiting)
    if remainder == "pad":
        last = pad_batch(last, size, pad_values=pad_values)
    yield _placed(last, sharding)


def _placed(batch: Batch, sharding: NamedSharding | None) -> Batch:
    return batch if sharding is None else on_explicit_axes(batch, sharding)


def _batches(batches: Any) -> Iterator[Batch]:
    for number, batch in enumerate(
        each("batches", [batches] if isinstance(batches, Batch) else batches)
    ):
        if not isinstance(batch, Batch):
            raise TypeError(f"batches[{number}] must be a Batch, got {type(batch).__name__}")
        yield batch


def equal_steps(batches: Iterable[Batch], steps: int) -> Iterator[Batch]:
    """Lets a host that has fewer batches than others continue with batches of padding.

    Hosts that train or evaluate together must all take the same number of steps, or those that have
    more wait forever. `steps` is what the host with the most needs, such as
    `ceil(max_records_of_a_host / batch_size)`.

    Args:
      batches: this host's batches, at least one and at most `steps`.
      steps: how many batches every host gives.

    Returns:
      An iterator over exactly `steps` batches. Those after the last one are all padding: its zeros
      in shape and dtype, no valid row, so that no record counts twice.

    Raises:
      ValueError: if `steps` is not a positive integer, or there are more batches, or none.

    >>> batches = equal_steps([Batch.from_arrays({"x": np.arange(2)})], steps=2)
    >>> [batch.valid_mask.tolist() for batch in batches]
    [[True, True], [False, False]]
    """
    return _with_blanks(_batches(batches), require_batch_size(steps, "steps"))


def _with_blanks(batches: Iterator[Batch], steps: int) -> Iterator[Batch]:
    batch, count = None, 0
    for batch in batches:
        count += 1
        if count > steps:
            raise ValueError(f"steps must be at least the number of batches, got {steps}")
        yield batch
    if batch is None:
        raise ValueError("batches must hold at least one Batch to know what padding looks like")
    while count < steps:
        count += 1
        yield _blank(batch)


def _blank(batch: Batch) -> Batch:
    none = batch.slice(0, 0)
    blank = pad_batch(none.replace(metadata=None, batch_metadata=None), batch.batch_size)
    if batch.metadata is None:
        return blank
    return blank.replace(metadata=(None,) * batch.batch_size)
