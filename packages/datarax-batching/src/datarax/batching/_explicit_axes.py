"""Batches over a mesh with explicit axes, where JAX cuts no rows that do not divide evenly."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from datarax.core.element_batch import Batch


def explicit_rows(batch: Batch) -> NamedSharding | None:
    """How explicit axes of a mesh spread the rows, or None."""
    for leaf in jax.tree.leaves((batch.data, batch.states)):
        sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
        if isinstance(sharding, NamedSharding) and AxisType.Explicit in sharding.mesh.axis_types:
            return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:1]))
    return None


def on_automatic_axes(batch: Batch, sharding: NamedSharding) -> Batch:
    """The batch on the same devices, whole on each, where its rows can be cut as wanted."""
    mesh: Any = sharding.mesh
    axis_types = (AxisType.Auto,) * len(mesh.axis_names)
    automatic = Mesh(mesh.devices, mesh.axis_names, axis_types=axis_types)
    whole = NamedSharding(automatic, PartitionSpec())
    return jax.tree.map(lambda leaf: _put(leaf, whole), batch)


def on_explicit_axes(batch: Batch, sharding: NamedSharding) -> Batch:
    """The batch back on its axes: its rows spread if they divide evenly, else whole."""
    axes = sharding.spec[0] if sharding.spec else None
    names = axes if isinstance(axes, tuple) else () if axes is None else (axes,)
    parts = math.prod(sharding.mesh.shape[name] for name in names)
    whole = NamedSharding(sharding.mesh, PartitionSpec())
    by_row = sharding if len(batch) % parts == 0 else whole

    def placed(leaf: Any) -> Any:
        return _put(leaf, by_row if leaf.shape[:1] == (len(batch),) else whole)

    return jax.tree.map(placed, batch)


def _put(leaf: Any, sharding: NamedSharding) -> Any:
    return jax.device_put(leaf, sharding) if isinstance(leaf, jax.Array) else leaf
