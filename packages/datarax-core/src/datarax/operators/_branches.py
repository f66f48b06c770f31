"""One of several functions on a record, and one record after another, copying only what changes.

What a function hands back as it came is not sent through a branch or a loop, where it would be
copied: its place is found by tracing the function once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, jaxpr_as_fun

from datarax.core.specs import spec_text


class Traced:
    """A function of pytrees, traced once.

    Args:
      function: what to trace.
      arguments: pytrees of arrays, or of `jax.ShapeDtypeStruct`s, like those that it will get.

    Attributes:
      result: the result's shapes and dtypes.
      sources: for each leaf of the result, the number of the argument's leaf that it is, or -1.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        closed, self.result = jax.make_jaxpr(function, return_shape=True)(*arguments)
        self.call = jaxpr_as_fun(closed)
        position = {variable: number for number, variable in enumerate(closed.jaxpr.invars)}
        self.sources = [
            -1 if isinstance(variable, Literal) else position.get(variable, -1)
            for variable in closed.jaxpr.outvars
        ]

    def changed(self, leaves: Sequence[Any]) -> list[Any]:
        """The leaves of the result that are none of the arguments' leaves, which are given here."""
        made = self.call(*leaves)
        return [leaf for leaf, source in zip(made, self.sources, strict=True) if source < 0]

    def assembled(self, leaves: Sequence[Any], changed: Sequence[Any]) -> Any:
        """The result, from the arguments' leaves and those that changed."""
        new = iter(changed)
        return jax.tree.structure(self.result).unflatten(
            [leaves[source] if source >= 0 else next(new) for source in self.sources]
        )


def choose(
    owner: str, number: Any, branches: Mapping[str, Callable[..., Any]], *args: Any
) -> tuple[Any, Any]:
    """Calls one of the branches, and only that one unless it is mapped with `jax.vmap`.

    Args:
      owner: whose branches they are, for the error.
      number: int32 scalar, which branch.
      branches: by name, functions of `args` that return a record and something else.
      args: pytrees of arrays.

    Raises:
      ValueError: if the records of two branches differ in structure, shape or dtype.
    """
    traces = [Traced(branch, *args) for branch in branches.values()]
    require_alike(owner, list(branches), [trace.result[0] for trace in traces])
    sources = [
        same[0] if len(set(same)) == 1 else -1
        for same in zip(*(trace.sources for trace in traces), strict=True)
    ]
    for trace in traces:
        trace.sources = sources
    leaves = jax.tree.leaves(args)
    changed = jax.lax.switch(number, [trace.changed for trace in traces], leaves)
    return traces[0].assembled(leaves, changed)


def map_records(function: Callable[..., Any], records: Any) -> Any:
    """Calls the function for one record after another; leaves that it leaves alone stay as is.

    Args:
      function: takes one record.
      records: pytree of arrays `(batch, ...)`.
    """
    leaves = jax.tree.leaves(records)
    trace = Traced(function, jax.tree.map(_row, records))

    def changed(leaves: Sequence[Any]) -> list[Any]:
        return trace.changed(leaves)

    return trace.assembled(leaves, jax.lax.map(changed, list(map(jnp.asarray, leaves))))


def apply_in_turn(function: Callable[[Any, Any], Any], carry: Any, steps: Any) -> Any:
    """`carry = function(carry, step)` for each step, in a loop that is compiled once if it can be.

    It can if the function keeps the structure, shapes and dtypes.

    Args:
      function: takes the carry and one step.
      carry: pytree of arrays.
      steps: pytree of arrays `(steps, ...)`.
    """
    number = jax.tree.leaves(steps)[0].shape[0]
    if number == 1:
        return function(carry, jax.tree.map(lambda leaf: leaf[0], steps))
    trace = Traced(function, carry, jax.tree.map(_row, steps))
    leaves, structure = jax.tree.flatten(carry)
    if not alike(trace.result, carry):
        for step in range(number):
            carry = function(carry, jax.tree.map(lambda leaf, step=step: leaf[step], steps))
        return carry
    moving = [at for at, source in enumerate(trace.sources) if source != at]

    def body(moved: list[Any], step: Any) -> tuple[list[Any], None]:
        now = list(leaves)
        for at, leaf in zip(moving, moved, strict=True):
            now[at] = leaf
        made = trace.call(*now, *jax.tree.leaves(step))
        return [made[at] for at in moving], None

    moved, _ = jax.lax.scan(body, [jnp.asarray(leaves[at]) for at in moving], steps)
    for at, leaf in zip(moving, moved, strict=True):
        leaves[at] = leaf
    return structure.unflatten(leaves)


def alike(left: Any, right: Any) -> bool:
    """Whether two pytrees have the same structure, shapes and dtypes."""
    left_leaves, left_structure = jax.tree.flatten(left)
    right_leaves, right_structure = jax.tree.flatten(right)
    return left_structure == right_structure and all(
        a.shape == b.shape and a.dtype == b.dtype
        for a, b in zip(left_leaves, right_leaves, strict=True)
    )


def require_alike(owner: str, names: Sequence[str], records: Sequence[Any]) -> None:
    """Raises a ValueError for the first record that differs from the first of all."""
    for name, record in zip(names[1:], records[1:], strict=True):
        if not alike(records[0], record):
            raise ValueError(
                f"{owner} needs records that are alike, whatever is chosen, but {names[0]} gives "
                f"{spec_text(records[0])} and {name} gives {spec_text(record)}; bring "
                f"{', '.join(_unlike(records[0], record))} to the same fields, shapes and dtypes"
            )


def _unlike(left: Any, right: Any) -> list[str]:
    """The dotted paths of what two pytrees do not have alike."""
    sides = []
    for tree in (left, right):
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
        named = [(jax.tree_util.keystr(path, simple=True, separator="."), x) for path, x in leaves]
        sides.append({(name, x.shape, x.dtype) for name, x in named})
    return sorted({name for name, *_ in sides[0] ^ sides[1]}) or ["them"]


def _row(leaf: Any) -> jax.ShapeDtypeStruct:
    dtype = jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True)
    return jax.ShapeDtypeStruct(leaf.shape[1:], dtype)
