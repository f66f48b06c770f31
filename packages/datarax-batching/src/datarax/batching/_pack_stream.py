"""Sequences in the first row where they fit."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

from datarax.batching import _ragged
from datarax.batching._sorting import SortingStream
from datarax.batching._stream import Group
from datarax.core._batch_spec import canonical_dtype, require_fields
from datarax.core.element_batch import Batch, Element
from datarax.core.specs import as_leaf, spec_text

if TYPE_CHECKING:
    from datarax.batching._pack import PackingBatcher

SEGMENT_IDS, POSITIONS = "segment_ids", "positions"


def require_free(fields: Any, owner: str) -> None:
    """Raises a ValueError if a field has a name that packing needs."""
    for name in (SEGMENT_IDS, POSITIONS):
        if name in fields:
            raise ValueError(
                f"{owner} must not have a field {name!r}, which packing adds; rename it"
            )


class PackingStream(SortingStream):
    """Batches of packed rows."""

    def __init__(
        self, batcher: PackingBatcher, elements: Any, batch_size: int, remainder: str
    ) -> None:
        self._batcher, self._config = batcher, batcher.config
        self._rows = tuple(f"row_{row}" for row in range(batch_size))
        super().__init__(batcher, elements, self._rows, remainder)
        self._first: Any = None
        # Steps of each row that hold data.
        self._used = [0] * batch_size

    def _config_of_waiting(self) -> dict[str, str]:
        return {"row_length": repr(self._config.row_length)}

    def _may_wait_in(self, name: str) -> bool:
        return name == "incoming" or name.startswith("row_")

    def _take_back(self, groups: dict[str, Group]) -> None:
        # Packed anew, in the order in which they came: into the same rows if there are as many.
        waiting = [
            (number, element)
            for group in groups.values()
            for number, element in zip(group.numbers, group.elements, strict=True)
        ]
        waiting.sort(key=itemgetter(0))
        incoming = Group([element for _, element in waiting], [number for number, _ in waiting])
        super()._take_back({"incoming": incoming})
        self._used = [0] * len(self._rows)
        self._due = []

    def _accept(self, element: Element, number: int) -> list[str]:
        owner = f"data of record {number}"
        fields = require_fields(owner, element.data)
        require_free(fields, owner)
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
        if not length:
            # It would be a row's sequence, and its number, without a step that has the number.
            self._leave_out(1)
            return []
        most = self._config.row_length - length
        for row, used in enumerate(self._used):
            if used <= most:
                self._used[row] += length
                self._groups[self._rows[row]].add(element, number)
                return []
        # No room: the batch is due, and the record is looked at again behind it.
        self._groups["incoming"].add_first(element, number)
        return [self._rows[0]]

    def _check(self, arrays: dict[str, np.ndarray], number: int) -> None:
        spec = [(path, array.shape[1:], array.dtype) for path, array in arrays.items()]
        if self._first is None:
            self._first = (spec, number)
        expected, first = self._first
        if spec != expected:
            expected, came = (
                {path: jax.ShapeDtypeStruct((0, *shape), dtype) for path, shape, dtype in each}
                for each in (expected, spec)
            )
            raise ValueError(
                f"data of record {number} must be like that of record {first} in all but length: "
                f"expected {spec_text(expected)}, got {spec_text(came)}"
            )

    def _deliver(self, name: str) -> Batch:
        used = [self._groups[row] for row in self._rows if len(self._groups[row])]
        rows = Group([self._packed(group) for group in used], [group.numbers[0] for group in used])
        # All rows make one batch, which is due under the name of the first.
        batch = self._batch(name, rows, len(self._rows), (SEGMENT_IDS, POSITIONS))
        sequences, steps = sum(map(len, used)), sum(self._used)
        self._batcher.count_packing(sequences, steps, len(batch) * self._config.row_length)
        self._batcher._count_records(sequences, 0)
        for group in used:
            group.clear()
        self._used = [0] * len(self._rows)
        return batch

    def _packed(self, group: Group) -> Element:
        length, values = self._config.row_length, self._config.pad_values
        lengths = [_length_of(element) for element in group.elements]

        def joined(path: Any, *leaves: Any) -> np.ndarray:
            array = np.concatenate([np.asarray(as_leaf(keystr(path), leaf)) for leaf in leaves])
            array = array.astype(canonical_dtype(array.dtype), copy=False)
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
        if self._remainder == "drop" and len(waiting) < len(self._rows):
            self._leave_out_groups(waiting)
            return []
        return [self._rows[0]] if waiting else []


def _row_of(parts: Sequence[np.ndarray], length: int) -> np.ndarray:
    return _ragged.padded(np.concatenate(parts).astype(np.int32), length, np.int32(0))


def _length_of(element: Element) -> int:
    return jax.tree.leaves(element.data)[0].shape[0]
