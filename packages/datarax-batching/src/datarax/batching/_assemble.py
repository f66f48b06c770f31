"""Records into a batch: data, states, mask and metadata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_map_with_path

from datarax.batching._collate import Leaf, UnlikeError, collate, collate_checked
from datarax.batching._errors import WrongRecordError
from datarax.batching._input import require_element, stopped
from datarax.batching._layout import Column, Layout, all_of_type
from datarax.batching._memory import Memory, RecycledMemory
from datarax.batching._padding import pad_batch, require_pad_value, values_by_leaf
from datarax.core._batch_spec import canonical_dtype
from datarax.core.element_batch import RESERVED_FIELD, Batch, Element
from datarax.core.specs import as_leaf, count_rows, spec_text


class Assembler:
    """Makes batches of records that are all like the first one that it gets.

    Args:
      pad_values: what padding holds, frozen.
      collate_fn: makes the data of a batch in place of stacking, or None.
      memory: called for each leaf.
    """

    def __init__(
        self,
        pad_values: Any = 0,
        collate_fn: Callable[[list[Element]], Any] | None = None,
        memory: Callable[[], Memory] = RecycledMemory,
    ) -> None:
        self._collate_fn = collate_fn
        self._pad_values = pad_values
        self._data = _Stacker("data", pad_values, memory)
        self._states = _Stacker("state", "last" if pad_values == "last" else 0, memory)
        self._collated: Any = None

    def assemble(self, elements: Sequence[Any], numbers: Sequence[int], rows: int) -> Batch:
        """The batch of these records, with `rows` rows.

        Args:
          elements: at least one and at most `rows` records.
          numbers: their numbers in the stream.
          rows: rows of the batch.

        Raises:
          WrongRecordError: if one is not like the first one ever.
          TypeError: if `collate_fn` returns something else than a dict of arrays.
          ValueError: if it returns arrays of other shapes or dtypes than before.
        """
        try:
            data = [element.data for element in elements]
            states = [element.state for element in elements]
            metadata = [element.metadata for element in elements]
        except AttributeError:
            _require_elements(elements, numbers)
            raise
        count = len(elements)
        mask = np.arange(rows) < count
        entries = None
        if metadata.count(None) != count:
            entries = (*metadata, *[None] * (rows - count))
        stacked_states = self._states.stack(states, numbers, rows)
        if self._collate_fn is not None:
            batch = Batch.from_arrays(self._custom(list(elements), numbers))
            batch = pad_batch(batch, rows, pad_values=self._pad_values)
            return batch.replace(states=stacked_states, metadata=entries)
        # Not `Batch.from_arrays`, which would look at every value again.
        return Batch(self._data.stack(data, numbers, rows), stacked_states, mask, metadata=entries)

    def _custom(self, elements: list[Element], numbers: Sequence[int]) -> Any:
        assert self._collate_fn is not None
        name = f"collate_fn {getattr(self._collate_fn, '__name__', '')!r}"
        try:
            data = self._collate_fn(elements)
        except StopIteration as error:
            which = f"records {numbers[0]} to {numbers[-1]}"
            raise stopped(f"{name} for {which}") from error
        name = f"the result of {name}"
        data = tree_map_with_path(lambda path, leaf: _canonical(name + keystr(path), leaf), data)
        if count_rows(name, data) != len(elements):
            raise ValueError(
                f"{name} must have a row for each of the {len(elements)} elements, got "
                f"{spec_text(data)}"
            )
        spec = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), data)
        if self._collated is None:
            self._collated = spec
        if spec != self._collated:
            raise ValueError(
                f"{name} must look the same for every batch: expected rows of "
                f"{spec_text(self._collated)} as in the first batch, got {spec_text(spec)}; pad "
                "to a fixed length"
            )
        return data


class _Stacker:
    """Stacks one part of the records, data or state."""

    def __init__(self, name: str, pad_values: Any, memory: Callable[[], Memory]) -> None:
        self._name, self._pad_values, self._memory = name, pad_values, memory
        self._layout: Layout | None = None
        self._leaves: list[Leaf] = []

    def stack(self, trees: Column, numbers: Sequence[int], rows: int) -> Any:
        if self._layout is None:
            self._begin(trees[0], numbers[0])
        assert self._layout is not None
        if not self._leaves and all_of_type(trees, dict) and not any(trees):
            return {}
        try:
            columns = self._layout.columns(trees)
            if columns is None:
                raise UnlikeError
            return self._joined(collate, columns, rows)
        except UnlikeError:
            columns = self._layout.checked_columns(trees, numbers)
            return self._joined(collate_checked, columns, rows)

    def _begin(self, tree: Any, number: int) -> None:
        try:
            layout = Layout(self._name, tree, number)
            if self._name == "data":
                _require_data(tree, layout, number)
        except (TypeError, ValueError) as error:
            raise WrongRecordError(0, error) from error
        values = values_by_leaf(tree, self._pad_values)
        for path, spec, value in zip(layout.paths, layout.specs, values, strict=True):
            require_pad_value(path, value, spec.dtype)
        self._leaves = [
            Leaf(path, spec, value, self._memory())
            for path, spec, value in zip(layout.paths, layout.specs, values, strict=True)
        ]
        self._layout = layout

    def _joined(self, how: Any, columns: Sequence[Column], rows: int) -> Any:
        assert self._layout is not None
        leaves = [
            how(leaf, column, rows) for leaf, column in zip(self._leaves, columns, strict=True)
        ]
        return jax.tree.unflatten(self._layout.structure, leaves)


def _require_data(tree: Any, layout: Layout, number: int) -> None:
    if not layout.specs:
        raise ValueError(f"data of record {number} must have at least one leaf, got {tree!r}")
    if isinstance(tree, dict) and RESERVED_FIELD in tree:
        raise ValueError(
            f"data of record {number} must not have a field {RESERVED_FIELD!r}, the name under "
            "which batches have their mask; rename the field"
        )


def _require_elements(elements: Sequence[Any], numbers: Sequence[int]) -> None:
    for position, (element, number) in enumerate(zip(elements, numbers, strict=True)):
        try:
            require_element(element, number)
        except TypeError as error:
            raise WrongRecordError(position, error) from None


def _canonical(name: str, leaf: Any) -> Any:
    array = as_leaf(name, leaf)
    return array.astype(canonical_dtype(array.dtype)) if isinstance(array, np.ndarray) else array
