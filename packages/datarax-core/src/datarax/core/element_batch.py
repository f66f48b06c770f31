"""`Element` and `Batch`: records and batches of records, as immutable pytrees."""

from __future__ import annotations

import dataclasses
from collections.abc import ItemsView, KeysView, Mapping, Sequence, ValuesView
from dataclasses import dataclass, field
from typing import Any, Self, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt32

from datarax.core import _batch_checks, _rows, specs
from datarax.core import _sole_owner as _sole_owner
from datarax.core._element import Element as Element
from datarax.core._element import register
from datarax.core._explicit_axes import take
from datarax.core._notebook import batch_html
from datarax.core._summary import summary
from datarax.core._transfers import transferring

__all__ = ["Batch", "Element"]

RESERVED_FIELD = "valid_mask"

_MISSING: Any = object()


@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Records side by side, with a mask that tells records from padding.

    Made by `Batch.from_arrays` or `Batch.from_elements`, which validate. Reads like a mapping of
    its data fields, except that `len` counts rows. A `Batch` of NumPy arrays stays on the host
    until something needs a device. Passes through every JAX transformation; metadata stays on the
    host and is None on the other side of one (operators attach it again).

    Args:
      data: pytree of arrays `(batch, ...)`, usually a dict of fields.
      states: pytree of arrays `(batch, ...)` that goes with the records.
      valid_mask: bool `(batch,)`, False where a row is padding.
      record_index: uint32 `(batch,)`, each record's number in its source, or None.
      epoch: uint32 scalar, or None.
      batch_state: pytree of arrays without a batch axis.
      metadata: one Python object a row, or None.
      batch_metadata: any Python object.
      view: uint32 `(batch,)`, which copy of its record each row is, or None.

    >>> batch = Batch.from_arrays({"image": np.zeros((3, 8, 8), np.float32)})
    >>> batch
    Batch(3 rows, 3 valid, data={image: float32[3,8,8]})
    >>> batch["image"].shape, "label" in batch, len(batch)
    ((3, 8, 8), False, 3)
    """

    data: Any
    states: Any = field(default_factory=dict)
    valid_mask: Bool[np.ndarray | jax.Array, " batch"] = _MISSING
    record_index: UInt32[np.ndarray | jax.Array, " batch"] | None = None
    epoch: UInt32[np.ndarray | jax.Array, ""] | None = None
    batch_state: Any = field(default_factory=dict)
    metadata: tuple[Any, ...] | None = None
    batch_metadata: Any = None
    view: UInt32[np.ndarray | jax.Array, " batch"] | None = None

    def __post_init__(self) -> None:
        # No more than this: JAX makes batches of tracers and placeholders.
        if self.valid_mask is _MISSING:
            raise TypeError(
                f"Batch({type(self.data).__name__}, ...) lacks its valid_mask; make a batch of "
                "records with Batch.from_elements(elements), of arrays (batch, ...) with "
                "Batch.from_arrays(data)"
            )

    @classmethod
    def from_arrays(
        cls,
        data: Any,
        *,
        states: Any = None,
        valid_mask: Any = None,
        record_index: Any = None,
        view: Any = None,
        epoch: Any = None,
        batch_state: Any = None,
        metadata: Sequence[Any] | np.ndarray | None = None,
        batch_metadata: Any = None,
    ) -> Self:
        """Makes a batch from arrays that have the batch as axis 0.

        Args:
          data: pytree of arrays `(batch, ...)`, NumPy or JAX; neither copied nor moved. A list of
            numbers is one column.
          states: pytree of arrays `(batch, ...)`.
          valid_mask: bool `(batch,)`; all rows are valid if left out.
          record_index: integers `(batch,)` from 0 to 2**32 - 1, of any integer type.
          view: integers `(batch,)` of the same kind: which copy of its record each row is.
          epoch: integer from 0 to 2**32 - 1.
          batch_state: pytree of arrays without a batch axis.
          metadata: one Python object a row, in a sequence or an array of any dtype.
          batch_metadata: any Python object.

        Raises:
          TypeError: for leaves that are not numbers, or a mask that is not bool.
          ValueError: if there is no row, if rows differ in number, if a field is called
            `valid_mask`, or if an integer does not fit its type.
        """
        data = specs.as_leaves("data", data)
        if isinstance(data, Mapping) and RESERVED_FIELD in data:
            raise ValueError(
                "data must not have a field 'valid_mask', the name under which as_dict() puts the "
                "mask; rename the field or pass valid_mask=..."
            )
        if valid_mask is not None:
            valid_mask = _batch_checks.as_mask(valid_mask)
        rows = specs.count_rows("data", data)
        if not rows:
            raise ValueError(f"data must have at least one leaf and one row, got {data!r}")
        return cls(
            data=data,
            states={} if states is None else specs.as_leaves("states", states),
            valid_mask=_batch_checks.all_valid(rows) if valid_mask is None else valid_mask,
            record_index=_batch_checks.as_uint32("record_index", record_index),
            view=_batch_checks.as_uint32("view", view),
            epoch=_batch_checks.as_uint32("epoch", epoch),
            batch_state={} if batch_state is None else specs.as_leaves("batch_state", batch_state),
            metadata=_batch_checks.as_entries(metadata),
            batch_metadata=batch_metadata,
        )._checked(rows)

    @classmethod
    def from_elements(cls, elements: Sequence[Element]) -> Self:
        """Makes a batch from records, stacking their data and states along a new axis 0.

        Args:
          elements: at least one `Element`; all of the same structure, shape and dtype.

        Raises:
          TypeError: for something else than `Element`s, or leaves that are not numbers.
          ValueError: if there is none, or if one differs from the first; the record, the path of
            the leaf and both specs are named.
        """
        elements = list(elements)
        _batch_checks.require_elements(elements)
        stacked = {}
        for name in ("data", "state"):
            trees = [specs.as_leaves(name, getattr(element, name)) for element in elements]
            specs.require_same_spec(name, trees, "record")
            stacked[name] = jax.tree.map(lambda *leaves: _rows.stack(leaves), *trees)
        metadata = [element.metadata for element in elements]
        return cls.from_arrays(
            stacked["data"],
            states=stacked["state"],
            metadata=None if all(entry is None for entry in metadata) else metadata,
        )

    @property
    def batch_size(self) -> int:
        """Number of rows, padding included."""
        return self.valid_mask.shape[0]

    def __len__(self) -> int:
        return self.batch_size

    @overload
    def __getitem__(self, name: str) -> Any: ...

    @overload
    def __getitem__(self, name: slice[Any, Any, Any]) -> Self: ...

    def __getitem__(self, name: str | slice[Any, Any, Any]) -> Any:
        """A field by its name, or the rows of a slice as a batch.

        Raises:
          KeyError: if there is no such field, listing those there are.
          TypeError: for anything else than a name or a slice.
        """
        if isinstance(name, slice):
            return self._rows(name)
        if not isinstance(name, str):
            raise TypeError(
                f"a batch is read by field, batch['image'], or by rows, batch[2:5], got {name!r}; "
                "use batch.element(2) for one record"
            )
        fields = self._fields()
        if name not in fields:
            raise KeyError(f"no field {name!r}; there are {sorted(fields)}")
        return fields[name]

    def __contains__(self, name: object) -> bool:
        return name in self._fields()

    # Without this, Python would iterate by calling batch[0], batch[1], ...
    __iter__ = None

    def keys(self) -> KeysView[str]:
        """Names of the data fields."""
        return self._fields().keys()

    def values(self) -> ValuesView[Any]:
        """The data fields."""
        return self._fields().values()

    def items(self) -> ItemsView[str, Any]:
        """Names and values of the data fields."""
        return self._fields().items()

    def as_dict(self) -> dict[str, Any]:
        """The data fields and `valid_mask` in one dict, as in a batcher's `batch_spec`.

        The arrays are those of the batch.
        """
        return {**self._fields(), RESERVED_FIELD: self.valid_mask}

    def _fields(self) -> Mapping[str, Any]:
        if not isinstance(self.data, Mapping):
            raise TypeError(
                f"data must be a dict to be read by field, got {type(self.data).__name__}; "
                "use batch.data"
            )
        return self.data

    def replace(self, **fields: Any) -> Self:
        """Returns a copy with other values for the named fields.

        Raises:
          TypeError: for an unknown field or a mask that is not bool.
          ValueError: if rows differ in number, or if a new `valid_mask` would turn padding into a
            record (of a traced mask, only rows valid before stay valid).
        """
        for name, value in fields.items():
            if name == "valid_mask":
                fields[name] = _batch_checks.narrowed(self.valid_mask, value)
            elif name in ("record_index", "view", "epoch"):
                fields[name] = _batch_checks.as_uint32(name, value)
            elif name in ("data", "states", "batch_state"):
                fields[name] = specs.as_leaves(name, value)
            elif name == "metadata":
                fields[name] = _batch_checks.as_entries(value)
        new = dataclasses.replace(self, **fields)
        # Inside vmap a Batch has lost its batch axis, and there is nothing to count.
        return new._checked(self.batch_size) if jnp.ndim(self.valid_mask) == 1 else new

    def _checked(self, rows: int) -> Self:
        _batch_checks.check_lengths(self, rows)
        return self

    @transferring
    def element(self, index: int) -> Element:
        """Returns one record.

        Raises:
          IndexError: if there is no such row.
          ValueError: if the row is padding.
        """
        rows = self.batch_size
        if not -rows <= index < rows:
            raise IndexError(f"index must be from {-rows} to {rows - 1}, got {index}")
        if not take(self.valid_mask, index):
            raise ValueError(f"row {index} is padding, not a record; see valid_mask or compact()")
        return Element(
            jax.tree.map(lambda leaf: take(leaf, index), self.data),
            jax.tree.map(lambda leaf: take(leaf, index), self.states),
            None if self.metadata is None else self.metadata[index],
        )

    def slice(self, start: int, stop: int) -> Self:
        """Returns the rows from `start` up to, not including, `stop`.

        Raises:
          ValueError: unless `0 <= start <= stop <= len(batch)`.
        """
        if not 0 <= start <= stop <= self.batch_size:
            raise ValueError(
                f"slice must lie in 0 <= start <= stop <= {self.batch_size}, got {start}:{stop}"
            )
        return self._rows(slice(start, stop))

    def compact(self) -> Self:
        """Returns the valid rows alone (on the host: the number of rows depends on values)."""
        return self._rows(np.flatnonzero(np.asarray(self.valid_mask)))

    @transferring
    def select(self, mask: Bool[np.ndarray | jax.Array, " batch"]) -> Self:
        """Returns the batch with rows outside the mask marked as padding; its shape stays.

        Args:
          mask: bool `(batch,)`.
        """
        _batch_checks.require_mask_of(self.batch_size, mask)
        return self.replace(valid_mask=self.valid_mask & mask)

    @transferring
    def _rows(self, rows: Any) -> Self:
        def taken(tree: Any) -> Any:
            return jax.tree.map(lambda leaf: take(leaf, rows), tree)

        metadata = self.metadata
        if metadata is not None:
            metadata = tuple(metadata[row] for row in np.arange(self.batch_size)[rows])
        return dataclasses.replace(
            self,
            data=taken(self.data),
            states=taken(self.states),
            valid_mask=taken(self.valid_mask),
            record_index=taken(self.record_index),
            view=taken(self.view),
            metadata=metadata,
        )

    @classmethod
    @transferring
    def concatenate(cls, batches: Sequence[Self]) -> Self:
        """Returns the rows of all batches, in order, as one batch.

        Raises:
          ValueError: if there is no batch; if they differ in structure, dtype or record shape; if
            only some have `record_index`, `view` or `metadata`; or if what belongs to a whole batch
            (`epoch`, `batch_state`, `batch_metadata`) is not the same in all.
        """
        batches = list(batches)
        _batch_checks.require_joinable(batches)
        first = batches[0]

        def joined(name: str) -> Any:
            return jax.tree.map(
                lambda *leaves: _rows.concatenate(leaves), *(getattr(b, name) for b in batches)
            )

        metadata = None
        if first.metadata is not None:
            metadata = tuple(entry for batch in batches for entry in batch.metadata or ())
        return dataclasses.replace(
            first,
            data=joined("data"),
            states=joined("states"),
            valid_mask=joined("valid_mask"),
            record_index=joined("record_index"),
            view=joined("view"),
            metadata=metadata,
        )

    def __repr__(self) -> str:
        return summary(self, ("data", "states"))

    @transferring
    def _repr_html_(self) -> str:
        return batch_html(self)


register(Batch, host_only=("metadata", "batch_metadata"))
