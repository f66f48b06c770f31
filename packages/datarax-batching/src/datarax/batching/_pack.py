"""`PackingBatcher`: several short sequences in one row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from jax.tree_util import keystr, tree_leaves_with_path

from datarax.batching import _ragged
from datarax.batching._assemble import Assembler
from datarax.batching._padding import PadValues
from datarax.batching._remainder import require_remainder, resolved_remainder
from datarax.batching._stream import Group, SortingStream
from datarax.core._batch_spec import batched_spec, leaf_spec, require_batch_size, require_fields
from datarax.core._rows import spec_text
from datarax.core.batcher import BatcherModule
from datarax.core.config import StructuralConfig
from datarax.core.element_batch import Batch, Element

SEGMENT_IDS, POSITIONS = "segment_ids", "positions"


@dataclass(frozen=True)
class PackingBatcherConfig(StructuralConfig):
    """Configuration of `PackingBatcher`.

    Args:
      cacheable: see `StructuralConfig`.
      batch_stats_fn: see `StructuralConfig`.
      precomputed_stats: see `StructuralConfig`.
      stochastic: see `StructuralConfig`.
      stream_name: see `StructuralConfig`.
      row_length: steps of a row.
      remainder: what becomes of a last batch with empty rows, see `DefaultBatcherConfig`.
      pad_values: the number that padding holds, or a dict of them by dotted path.

    Raises:
      TypeError: for values of the wrong type.
      ValueError: for a `row_length` that is no positive integer, or an unknown `remainder`.

    >>> PackingBatcherConfig(row_length=128).row_length
    128
    """

    row_length: int = field(kw_only=True)
    remainder: Literal["pad", "drop", "partial"] = field(default="pad", kw_only=True)
    pad_values: PadValues = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        length = require_batch_size(self.row_length, f"{name}.row_length")
        object.__setattr__(self, "row_length", length)
        require_remainder(f"{name}.remainder", self.remainder)
        values = _ragged.frozen_numbers(f"{name}.pad_values", self.pad_values)
        object.__setattr__(self, "pad_values", values)


class PackingCount(nnx.Variable[Any]):
    """int64 `(3,)`: sequences, steps that are data, steps in all."""


class PackingBatcher(BatcherModule):
    """Packs sequences into rows of one length: each into the first row where it fits.

    All fields of a record are sequences of its length, `(length, ...)`. A batch has for each of them
    a leaf `(batch, row_length, ...)`, and says which step is whose: `segment_ids`, int32
    `(batch, row_length)`, counts a row's sequences from 1 and is 0 in padding; `positions`, of the
    same shape, counts the steps of each sequence from 0. An attention mask is
    `segment_ids[:, :, None] == segment_ids[:, None, :]`. A row's metadata is the tuple of its
    sequences'.

    Args:
      config: length of rows and padding.
      rngs: not needed; taken for uniformity.
      name: what to call the batcher in messages.

    >>> records = [Element({"t": np.full(n, n)}) for n in (3, 2, 1)]
    >>> (batch,) = PackingBatcher(PackingBatcherConfig(row_length=4))(records, batch_size=2)
    >>> batch["t"].tolist(), batch["segment_ids"].tolist()
    ([[3, 3, 3, 1], [2, 2, 0, 0]], [[1, 1, 1, 2], [1, 1, 0, 0]])
    """

    def __init__(
        self, config: PackingBatcherConfig, *, rngs: nnx.Rngs | None = None, name: str | None = None
    ) -> None:
        if not isinstance(config, PackingBatcherConfig):
            raise TypeError(
                f"config of {type(self).__name__} must be a PackingBatcherConfig, "
                f"got {type(config).__name__}"
            )
        super().__init__(config, rngs=rngs, name=name)
        self.config: PackingBatcherConfig = config
        self._packing_count = PackingCount(np.zeros(3, np.int64))

    def process(
        self, elements: Iterable[Element], *, batch_size: int, drop_remainder: bool = False
    ) -> Iterator[Batch]:
        """Packs sequences, pulling one after the other until one fits in no row of the batch.

        Args:
          elements: the records.
          batch_size: rows of each batch.
          drop_remainder: whether to leave out a last batch with empty rows.

        Returns:
          An iterator over batches. A sequence longer than a row is an error after the sequences
          before it have been delivered; asked again, the iterator goes on behind it.

        Raises:
          TypeError: if `elements` cannot be iterated over.
          ValueError: if `batch_size` is not a positive integer.
        """
        size = require_batch_size(batch_size)
        remainder = resolved_remainder(self.config.remainder, drop_remainder)
        return _PackingStream(self, elements, size, remainder)

    def batch_spec(self, element_spec: Any, *, batch_size: int) -> dict[str, Any]:
        fields = dict(require_fields("element_spec", element_spec))
        _require_free(fields, "element_spec")
        length = self.config.row_length

        def row(leaf: Any) -> jax.ShapeDtypeStruct:
            one = leaf_spec("element_spec", leaf)
            return jax.ShapeDtypeStruct((length, *one.shape[1:]), one.dtype)

        numbers = jax.ShapeDtypeStruct((length,), np.int32)
        spec = {**jax.tree.map(row, fields), SEGMENT_IDS: numbers, POSITIONS: numbers}
        return batched_spec(spec, batch_size)

    def packing_report(self) -> dict[str, Any]:
        """How full the batches so far were.

        Returns:
          `sequences`, the number of them, and `efficiency`, the fraction of steps that were data.
        """
        sequences, used, steps = np.asarray(self._packing_count.get_value()).tolist()
        return {"sequences": sequences, "efficiency": used / steps if steps else 0.0}

    def _count_packing(self, sequences: int, used: int, steps: int) -> None:
        counts = np.asarray(self._packing_count.get_value())
        self._packing_count.set_value(counts + np.array([sequences, used, steps], np.int64))


def _require_free(fields: Any, owner: str) -> None:
    for name in (SEGMENT_IDS, POSITIONS):
        if name in fields:
            raise ValueError(
                f"{owner} must not have a field {name!r}, which packing adds; rename it"
            )


class _PackingStream(SortingStream):
    def __init__(
        self, batcher: PackingBatcher, elements: Any, batch_size: int, remainder: str
    ) -> None:
        self._batcher, self._config = batcher, batcher.config
        self._rows = tuple(f"row_{row}" for row in range(batch_size))
        super().__init__(elements, self._rows, remainder, batcher._count_records)
        self._assembler: Assembler | None = None
        self._first: Any = None

    def _accept(self, element: Element, number: int) -> list[str]:
        owner = f"data of record {number}"
        fields = require_fields(owner, element.data)
        _require_free(fields, owner)
        if jax.tree.leaves(element.state):
            raise ValueError(
                f"record {number} has a state, which a row of several records cannot have; move it "
                "to data, as a sequence"
            )
        paths = [keystr(p, simple=True, separator=".") for p, _ in tree_leaves_with_path(fields)]
        arrays = {path: _ragged.sequence(owner, fields, path) for path in paths}
        self._check(arrays, number)
        length = len(next(iter(arrays.values())))
        for path, array in arrays.items():
            if len(array) != length:
                raise ValueError(
                    f"fields of record {number} must be of one length, got {length} for "
                    f"{paths[0]!r} and {len(array)} for {path!r}"
                )
        if length > self._config.row_length:
            raise ValueError(
                f"record {number} has length {length}, more than row_length="
                f"{self._config.row_length}; raise row_length or cut the record"
            )
        for name in self._rows:
            if _length(self._groups[name]) + length <= self._config.row_length:
                self._groups[name].add(element, number)
                return []
        # No room: the batch is due, and the record is looked at again behind it.
        self._groups["incoming"].add(element, number)
        return [self._rows[0]]

    def _check(self, arrays: dict[str, np.ndarray], number: int) -> None:
        spec = {
            path: jax.ShapeDtypeStruct((0, *array.shape[1:]), array.dtype)
            for path, array in arrays.items()
        }
        if self._first is None:
            self._first = (spec, number)
        expected, first = self._first
        if spec != expected:
            raise ValueError(
                f"data of record {number} must be like that of record {first} in all but length: "
                f"expected {spec_text(expected)}, got {spec_text(spec)}"
            )

    def _deliver(self, name: str) -> Batch:
        del name  # All rows make one batch.
        used = [self._groups[row] for row in self._rows if len(self._groups[row])]
        rows = [self._packed(group) for group in used]
        size = len(rows) if self._remainder == "partial" else len(self._rows)
        if self._assembler is None:
            values = _ragged.row_values(
                rows[0].data, self._config.pad_values, (SEGMENT_IDS, POSITIONS)
            )
            self._assembler = Assembler(values)
        batch = self._assembler.assemble(rows, [group.numbers[0] for group in used], size)
        sequences = sum(map(len, used))
        steps = sum(map(_length, used))
        self._batcher._count_packing(sequences, steps, size * self._config.row_length)
        self._count(sequences, 0)
        for group in used:
            group.clear()
        return batch

    def _packed(self, group: Group) -> Element:
        length, values = self._config.row_length, self._config.pad_values
        lengths = [_length_of(element) for element in group.elements]

        def joined(path: Any, *leaves: Any) -> np.ndarray:
            spec = leaf_spec(keystr(path), leaves[0])
            array = np.concatenate([np.asarray(leaf) for leaf in leaves]).astype(spec.dtype)
            dotted = keystr(path, simple=True, separator=".")
            value = _ragged.step_value(dotted, dotted, values, array.dtype)
            return _ragged.padded(array, length, value)

        trees = [element.data for element in group.elements]
        data = jax.tree_util.tree_map_with_path(joined, *trees)
        data[SEGMENT_IDS] = _row_of([np.full(n, i + 1) for i, n in enumerate(lengths)], length)
        data[POSITIONS] = _row_of([np.arange(n) for n in lengths], length)
        metadata = tuple(element.metadata for element in group.elements)
        return Element(data, {}, None if metadata.count(None) == len(metadata) else metadata)

    def _rest(self) -> list[str]:
        waiting = [name for name in self._rows if len(self._groups[name])]
        if not waiting:
            return []
        if self._remainder == "drop" and len(waiting) < len(self._rows):
            for name in waiting:
                self._count(0, len(self._groups[name]))
                self._groups[name].clear()
            return []
        return [self._rows[0]]


def _row_of(parts: Sequence[np.ndarray], length: int) -> np.ndarray:
    return _ragged.padded(np.concatenate(parts).astype(np.int32), length, np.int32(0))


def _length_of(element: Element) -> int:
    return jax.tree.leaves(element.data)[0].shape[0]


def _length(group: Group) -> int:
    return sum(map(_length_of, group.elements))
