"""Which memory a compiled call can write its result into.

Memory is donated to XLA array by array: an array that passes through unchanged must not be among
them, and one that fits no result would be lost for nothing. Both are known once a call has been
traced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from datarax.core.element_batch import Batch


@dataclass(frozen=True)
class Exchange:
    """What a call makes anew, and which of its inputs have the place of one of these.

    Attributes:
      structure: the result's tree structure.
      fresh: for each new array, its number among the result's leaves, its path and its spec.
      own: numbers of the input's leaves that a new array replaces, of the same shape and dtype.
    """

    structure: Any
    fresh: tuple[tuple[int, str, jax.ShapeDtypeStruct], ...]
    own: tuple[int, ...]


def exchange(run: Callable[..., Any], structure: Any, kinds: tuple[Any, ...]) -> Exchange:
    """Finds out by tracing `run` on arguments of this structure, shapes and dtypes."""
    values, batch, key = structure.unflatten([jax.ShapeDtypeStruct(*kind) for kind in kinds])
    _, made, recipe = jax.eval_shape(run, values, batch, key)
    made = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in made]
    paths = _paths(recipe.structure.unflatten(recipe.sources))
    numbers = [number for number, source in enumerate(recipe.sources) if source < 0]
    fresh = [(number, paths[number], spec) for number, spec in zip(numbers, made, strict=True)]
    wanted = {path: spec for _, path, spec in fresh}
    given = zip(_paths(batch), jax.tree.leaves(batch), strict=True)
    own = [
        number
        for number, (path, spec) in enumerate(given)
        # What the result also holds under another path must stay.
        if wanted.get(path) == spec and number not in recipe.sources
    ]
    return Exchange(recipe.structure, tuple(fresh), tuple(own))


def kinds_of(tree: Any) -> tuple[Any, tuple[Any, ...]]:
    """A tree's structure and its leaves' shapes and dtypes, hashable."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(map(_kind, leaves))


def _kind(leaf: Any) -> tuple[Any, Any]:
    try:
        return leaf.shape, leaf.dtype
    except AttributeError:
        return (), jnp.result_type(leaf)


def _paths(tree: Any) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def spent_arrays(owner: str, plan: Exchange, batch: Batch, spent: Batch) -> list[jax.Array]:
    """The arrays of `spent` that the new ones can overwrite.

    Raises:
      ValueError: if `spent` is not an earlier result for such a batch, or has been spent before.
    """
    leaves, structure = jax.tree.flatten(spent)
    if spent is batch:
        paths = _paths(batch)
        chosen = [(leaves[number], paths[number], None) for number in plan.own]
    elif structure == plan.structure:
        chosen = [(leaves[number], path, spec) for number, path, spec in plan.fresh]
    else:
        raise ValueError(
            f"spent for {owner} must have the structure of its result, {plan.structure}, got "
            f"{structure}; pass an earlier result"
        )
    if not chosen:
        raise ValueError(
            f"{owner} changes no array of spent in shape and dtype as they are, so there is no "
            "memory to recycle; call the operator instead"
        )
    needed = [] if spent is batch else list(map(id, jax.tree.leaves(batch)))
    for leaf, path, spec in chosen:
        _require_free(f"spent{path} for {owner}", leaf, spec, id(leaf) in needed)
    return [leaf for leaf, _, _ in chosen]


def _require_free(label: str, leaf: Any, spec: jax.ShapeDtypeStruct | None, needed: bool) -> None:
    if not isinstance(leaf, jax.Array):
        raise ValueError(
            f"{label} must be a jax.Array, whose memory can be given away, got "
            f"{type(leaf).__module__}.{type(leaf).__name__}; pass an earlier result, or apply "
            "jax.device_put first"
        )
    if spec is not None and (leaf.shape, leaf.dtype) != (spec.shape, spec.dtype):
        raise ValueError(
            f"{label} must be {spec.dtype}{spec.shape} like the new result, got "
            f"{leaf.dtype}{leaf.shape}; pass an earlier result of the same shapes"
        )
    if leaf.is_deleted():
        raise ValueError(f"{label} has been recycled before; pass the latest result")
    if needed:
        raise ValueError(
            f"{label} is the batch's own array, which the call has to read; pass an earlier "
            "result, or the batch itself as spent"
        )
