"""Batches over the devices of a mesh, each host with its own rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from datarax.core.element_batch import Batch


class Placement:
    """Where the rows of batches go.

    Args:
      sharding: spreads axis 0 over axes of a mesh; every array of a batch has its rows there.

    Attributes:
      by_row: the sharding of what has rows.
      whole: that of what has none, on every device.
      shards: in how many parts the rows are cut.
      alone: whether there are no other processes.

    Raises:
      TypeError: for anything but a `NamedSharding`.
      ValueError: if it spreads another axis too.
    """

    def __init__(self, sharding: Any) -> None:
        if not isinstance(sharding, NamedSharding):
            raise TypeError(
                "sharding must be a jax.sharding.NamedSharding or None, got "
                f"{type(sharding).__name__}; write NamedSharding(mesh, PartitionSpec('data'))"
            )
        spec = tuple(sharding.spec)
        if any(axis is not None for axis in spec[1:]):
            raise ValueError(
                f"sharding must spread the rows of a batch, axis 0, and nothing else, got "
                f"{sharding.spec}; shard other axes of single fields in your step"
            )
        rows = spec[:1] if spec and spec[0] is not None else ()
        self.by_row = NamedSharding(sharding.mesh, PartitionSpec(*rows))
        self.whole = NamedSharding(sharding.mesh, PartitionSpec())
        axes = rows[0] if rows and isinstance(rows[0], tuple) else rows
        self._rows: dict[int, range | tuple[int, ...]] = {}
        self.alone = jax.process_count() == 1
        self.shards = int(np.prod([sharding.mesh.shape[axis] for axis in axes], dtype=int))

    def require_rows(self, name: str, rows: int) -> None:
        """Raises a ValueError if so many rows cannot be spread evenly."""
        if rows % self.shards:
            raise ValueError(
                f"{name} must be a multiple of the {self.shards} parts in which the sharding cuts "
                f"the rows, got {rows}; use {-(-rows // self.shards) * self.shards}"
            )

    def rows(self, batch_size: int) -> range | tuple[int, ...]:
        """The rows of a batch that this process reads, ascending."""
        if batch_size not in self._rows:
            parts = self.by_row.addressable_devices_indices_map((batch_size,)).values()
            found = sorted({row for part in parts if part for row in range(batch_size)[part[0]]})
            together = range(found[0], found[-1] + 1)
            self._rows[batch_size] = together if len(together) == len(found) else tuple(found)
        return self._rows[batch_size]

    def place(self, batch: Batch, batch_size: int) -> Batch:
        """The global batch that this process's rows are part of.

        Args:
          batch: these rows, on the host or on one device.
          batch_size: rows of the global batch.
        """
        starts = np.asarray(self.rows(batch_size))

        def placed(leaf: Any) -> jax.Array:
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                words = placed(jax.random.key_data(leaf))
                return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
            array = np.asarray(leaf)
            array = array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)

            def part(index: Any) -> np.ndarray:
                first, stop, _ = index[0].indices(batch_size)
                begin = int(np.searchsorted(starts, first))
                return array[begin : begin + stop - first]

            shape = (batch_size, *array.shape[1:])
            return jax.make_array_from_callback(shape, self.by_row, part)

        def everywhere(leaf: Any) -> jax.Array:
            array = np.asarray(leaf)
            return jax.make_array_from_callback(array.shape, self.whole, lambda index: array[index])

        by_row = (batch.data, batch.states, batch.valid_mask, batch.record_index, batch.view)
        data, states, mask, index, view = jax.tree.map(placed, by_row)
        epoch, batch_state = jax.tree.map(everywhere, (batch.epoch, batch.batch_state))
        return dataclasses.replace(
            batch,
            data=data,
            states=states,
            valid_mask=mask,
            record_index=index,
            view=view,
            epoch=epoch,
            batch_state=batch_state,
            # Other processes have no access to the metadata of these rows.
            metadata=batch.metadata if self.alone else None,
            batch_metadata=batch.batch_metadata if self.alone else None,
        )

    def settled(self, batch: Batch) -> Batch:
        """The batch as it comes out of stages, each array where it belongs."""

        def moved(leaf: Any, sharding: NamedSharding) -> jax.Array:
            if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
                return leaf
            if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
                return jax.jit(lambda array: array, out_shardings=sharding)(leaf)
            return jax.device_put(leaf, sharding)

        rows = (batch.data, batch.states, batch.valid_mask, batch.record_index, batch.view)
        data, states, mask, index, view = jax.tree.map(lambda leaf: moved(leaf, self.by_row), rows)
        epoch, batch_state = jax.tree.map(
            lambda leaf: moved(leaf, self.whole), (batch.epoch, batch.batch_state)
        )
        return dataclasses.replace(
            batch,
            data=data,
            states=states,
            valid_mask=mask,
            record_index=index,
            view=view,
            epoch=epoch,
            batch_state=batch_state,
        )


def on_automatic_axes(records: Batch) -> Batch:
    """Records on the same devices, where JAX decides itself how results are spread."""

    def brought(leaf: Any) -> Any:
        sharding = _explicit(leaf)
        if sharding is None:
            return leaf
        mesh: Any = sharding.mesh
        axis_types = (AxisType.Auto,) * len(mesh.axis_names)
        axes = Mesh(mesh.devices, mesh.axis_names, axis_types=axis_types)
        return jax.device_put(leaf, NamedSharding(axes, sharding.spec))

    return jax.tree.map(brought, records)


def on_explicit_axes(records: Batch | None, batch_size: int) -> Placement | None:
    """Where batches of records go that lie on explicit axes of a mesh; None where they do not."""
    for leaf in jax.tree.leaves(records):
        sharding = _explicit(leaf)
        if sharding is not None:
            placement = Placement(NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:1])))
            if batch_size % placement.shards:
                return Placement(NamedSharding(sharding.mesh, PartitionSpec()))
            return placement
    return None


def _explicit(leaf: Any) -> NamedSharding | None:
    sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
    if isinstance(sharding, NamedSharding) and AxisType.Explicit in sharding.mesh.axis_types:
        return sharding
    return None
