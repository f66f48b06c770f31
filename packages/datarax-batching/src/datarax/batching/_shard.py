"""Batches over the devices of a mesh."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from datarax.batching._padding import PadValues, pad_batch
from datarax.batching._transfers import transferring
from datarax.core.element_batch import Batch


@transferring
def shard_batch(
    batch: Batch,
    mesh: Mesh,
    *,
    axis_names: tuple[str, ...] | None = None,
    pad_values: PadValues = 0,
) -> Batch:
    """Spreads the rows of a batch over the devices of a mesh.

    With several processes, each gives its own rows, the same number as every other one, and
    all get the same global batch, made with `jax.make_array_from_process_local_data`: no row
    is sent between hosts. See `equal_steps` for hosts with fewer batches.

    Args:
      batch: this process's rows.
      mesh: the devices.
      axis_names: axes of the mesh to spread rows over; by default all of them. Over the other axes
        the batch is copied.
      pad_values: what the padding holds that fills the rows up to a multiple of this process's
        devices along these axes, see `pad_batch`.

    Returns:
      The global batch of device arrays; `epoch` and `batch_state` are copied to all devices.
      Metadata stays if there is one process only, because others have no access to it.

    Raises:
      TypeError: if `batch` is not a `Batch` or `mesh` is not a `Mesh`.
      ValueError: for an axis that the mesh does not have.

    >>> mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    >>> sharded = shard_batch(Batch.from_arrays({"x": np.arange(4)}), mesh)
    >>> sharded["x"].sharding.spec == PartitionSpec("data")
    True
    """
    if not isinstance(batch, Batch):
        raise TypeError(f"batch must be a Batch, got {type(batch).__name__}")
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}")
    axes = tuple(mesh.axis_names) if axis_names is None else tuple(axis_names)
    unknown = [name for name in axes if name not in mesh.axis_names]
    if unknown or not axes:
        raise ValueError(
            f"axis_names must be some of the mesh's axes {tuple(mesh.axis_names)}, got {axes}"
        )
    # One axis stands without a tuple, as people write it.
    first, *others = axes
    by_row = NamedSharding(mesh, PartitionSpec(axes if others else first))
    everywhere = NamedSharding(mesh, PartitionSpec())
    shards = _local_shards(by_row)
    rows = -(-batch.batch_size // shards) * shards
    batch = pad_batch(batch, rows, pad_values=pad_values)
    alone = jax.process_count() == 1

    def placed(tree: Any, sharding: NamedSharding) -> Any:
        return jax.tree.map(lambda leaf: _global_array(leaf, sharding), tree)

    # Not `batch.replace`, which keeps the number of rows.
    return Batch.from_arrays(
        placed(batch.data, by_row),
        states=placed(batch.states, by_row),
        valid_mask=placed(batch.valid_mask, by_row),
        record_index=placed(batch.record_index, by_row),
        view=placed(batch.view, by_row),
        epoch=placed(batch.epoch, everywhere),
        batch_state=placed(batch.batch_state, everywhere),
        metadata=batch.metadata if alone else None,
        batch_metadata=batch.batch_metadata if alone else None,
    )


def _local_shards(sharding: NamedSharding) -> int:
    """How many different row ranges this process's devices hold."""
    devices = math.prod(sharding.mesh.shape.values())
    indices = sharding.addressable_devices_indices_map((devices,))
    return len({slice_.indices(devices) for (slice_,) in filter(None, indices.values())})


def _global_array(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = _global_array(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    return jax.make_array_from_process_local_data(sharding, np.asarray(leaf))
