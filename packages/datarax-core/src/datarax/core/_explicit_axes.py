"""Batches sharded over a mesh with explicit axes, the default of `jax.make_mesh` since JAX 0.9.

With explicit axes the shardings are part of the types, and every gather or draw would have to say
where its result lies. Operators are written without; so they run with automatic axes, and their
results get back the types that the batch has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.tree_util import tree_leaves_with_path

if TYPE_CHECKING:
    from datarax.core.element_batch import Batch

WITHOUT_ROWS = ("epoch", "batch_state")


def explicit_mesh(batch: Batch) -> Any:
    """The mesh with explicit axes over which the batch is sharded, or None."""
    return next((mesh for leaf in jax.tree.leaves(batch) if (mesh := _mesh(leaf))), None)


def _mesh(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array):
        return None
    mesh = jax.typeof(leaf).sharding.mesh
    return mesh if not mesh.empty and AxisType.Explicit in mesh.axis_types else None


@contextmanager
def automatic_axes(mesh: Any) -> Iterator[Callable[[Any], Any]]:
    """Traces for the mesh with its explicit axes made automatic.

    Yields:
      A function that brings the arrays of a tree there; other leaves stay the same objects.
    """
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    explicit = {name: AxisType.Auto for name, kind in kinds if kind == AxisType.Explicit}
    automatic = mesh.update_axis_types(explicit)
    sharding = NamedSharding(automatic, PartitionSpec())

    def brought(leaf: Any) -> Any:
        return leaf if _mesh(leaf) is None else jax.sharding.reshard(leaf, sharding)

    with jax.sharding.use_abstract_mesh(automatic):
        yield lambda tree: jax.tree.map(brought, tree)


def take(leaf: Any, rows: Any) -> Any:
    """`leaf[rows]`; of an array sharded over explicit axes, whole on every device."""
    mesh = _mesh(leaf)
    return (leaf if mesh is None else replicated(mesh, leaf))[rows]


def replicated(mesh: Any, tree: Any) -> Any:
    """The tree's arrays back on the mesh with explicit axes, whole on every device."""
    return jax.sharding.reshard(tree, NamedSharding(mesh, PartitionSpec()))


def sharded_like(mesh: Any, batch: Batch, leaves: list[tuple[Any, jax.Array]]) -> list[jax.Array]:
    """New leaves of a result back on the mesh with explicit axes.

    Args:
      mesh: the mesh.
      batch: what the result was made from.
      leaves: each with its path; one where the batch has a sharded leaf gets its sharding, others
        with rows get that of the rows.
    """
    specs = {
        path: jax.typeof(leaf).sharding.spec
        for path, leaf in tree_leaves_with_path(batch)
        if _mesh(leaf)
    }
    rows = next((spec[:1] for spec in specs.values() if any(spec)), ())
    out = []
    for path, leaf in leaves:
        spec = () if path[0].name in WITHOUT_ROWS else specs.get(path) or rows
        sharding = NamedSharding(mesh, PartitionSpec(*spec[: leaf.ndim]))
        out.append(jax.sharding.reshard(leaf, sharding))
    return out
