"""The jitted function behind an operator's call, shared by operators of equal static part."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
from flax import nnx

from datarax.core import _recording, _recycling
from datarax.core._exact import numbers_in
from datarax.core._explicit_axes import (
    automatic_axes,
    explicit_mesh,
    replicated,
    sharded_like,
)
from datarax.core._holding import holds_little
from datarax.core._raw_key import typed
from datarax.core._streams import can_update, lose_alike
from datarax.core.element_batch import Batch
from datarax.core.module import OperationCount
from datarax.core.randomness import explicit_key

if TYPE_CHECKING:
    from datarax.core.operator import OperatorModule


MAX_KEPT_RUNS = 512


@jax.tree_util.register_static
@dataclass(frozen=True)
class Recipe:
    """How to put a call's result together.

    Attributes:
      structure: the resulting batch's tree structure.
      sources: for each of its leaves, the number of the input leaf that it is, or -1 for a new one.
      updated: numbers of the Variables with a new value, in the order of these values.
      advanced: numbers of the streams' counts, and how often each advanced.
      counted: numbers of the operation counts, and how often each counted all valid rows.
    """

    structure: Any
    sources: tuple[int, ...]
    updated: tuple[int, ...]
    advanced: tuple[tuple[int, int], ...]
    counted: tuple[tuple[int, int], ...]


class Run:
    """A compiled call, which writes into fresh memory or into memory that it is given."""

    def __init__(self, function: Callable[..., tuple[list[Any], list[Any], Recipe]]) -> None:
        self.fresh = jax.jit(function)
        self._exchange = functools.lru_cache(64)(functools.partial(_recycling.exchange, function))

        def recycled(
            given: list[Any], values: list[Any], kept: list[Any], key: Any, structure: Any, own: Any
        ) -> tuple[list[Any], list[Any], Recipe]:
            for number, leaf in zip(own, given, strict=False):
                kept.insert(number, leaf)
            return function(values, structure.unflatten(kept), key)

        # Without keep_unused, memory would be dropped along with the argument that nobody reads.
        static = ("structure", "own")
        self._recycled = jax.jit(
            recycled, static_argnames=static, donate_argnames="given", keep_unused=True
        )

    def recycled(
        self, owner: str, values: list[Any], batch: Batch, key: Any, spent: Batch
    ) -> tuple[list[Any], list[Any], Recipe]:
        """The same as `fresh`, in memory of `spent`."""
        plan = self._exchange(*_recycling.kinds_of((values, batch, key)))
        given = _recycling.spent_arrays(owner, plan, batch, spent)
        own = plan.own if spent is batch else ()
        kept, structure = jax.tree.flatten(batch)
        for number in reversed(own):
            del kept[number]
        return self._recycled(given, values, kept, key, structure=structure, own=own)


# Calls live as long as an operator that uses them; those that keep no memory alive but their own
# stay for operators to come.
_runs: weakref.WeakValueDictionary[Any, Run] = weakref.WeakValueDictionary()
_kept: OrderedDict[Run, None] = OrderedDict()


def shared_run(graphdef: Any, attributes: list[Any], state: Any) -> Run:
    """The jitted call for this static part: a new one, or that of an equal operator before.

    Args:
      graphdef: the static part.
      attributes: all that it was made of, whose numbers have types that `graphdef` does not
        compare.
      state: the Variables, of which types and metadata count.
    """
    static = graphdef, numbers_in(attributes)
    try:
        run = _runs.get(static)
    except TypeError:
        # An attribute that cannot be hashed: the operator keeps its compiled call for itself.
        return _compiled(graphdef, state)
    if run is None:
        run = _runs[static] = _compiled(graphdef, state)
    if holds_little(attributes):
        _kept[run] = None
        _kept.move_to_end(run)
        while len(_kept) > MAX_KEPT_RUNS:
            _kept.popitem(last=False)
    return run


def _compiled(graphdef: Any, state: Any) -> Run:
    # The Variables' types and metadata; their values come with each call.
    empty = [
        (path, leaf.replace(None) if isinstance(leaf, nnx.Variable) else None)
        for path, leaf in nnx.to_flat_state(state)
    ]

    def body(values: Sequence[Any], batch: Batch, key: Any) -> tuple[list[Any], list[Any], Recipe]:
        __tracebackhide__ = True
        filled = [
            (path, value if variable is None else variable.replace(value))
            for (path, variable), value in zip(empty, values, strict=True)
        ]
        operator = nnx.merge(graphdef, nnx.from_flat_state(filled))
        own = variables_of(operator)
        with _recording.recording(batch.valid_mask) as recorder:
            out = process(operator, batch, typed(key))
        _require_constants(operator, own)
        updated, advanced, counted = [], [], []
        for number, (leaf, old) in enumerate(zip(own, values, strict=True)):
            new = value_of(leaf)
            times, last = recorder.draws.get(id(leaf), (0, None))
            if times and new is last:
                advanced.append((number, times))
            elif not _same_leaves(new, old):
                updated.append(number)
            if id(leaf) in recorder.counted:
                counted.append((number, recorder.counted[id(leaf)]))
        position = {id(leaf): number for number, leaf in enumerate(jax.tree.leaves(batch))}
        leaves, structure = jax.tree.flatten(out)
        sources = tuple(position.get(id(leaf), -1) for leaf in leaves)
        fresh = [leaf for leaf, source in zip(leaves, sources, strict=True) if source < 0]
        recipe = Recipe(structure, sources, tuple(updated), tuple(advanced), tuple(counted))
        return [value_of(own[number]) for number in updated], fresh, recipe

    def run(
        values: Sequence[Any], batch: Batch, key: Any = None
    ) -> tuple[list[Any], list[Any], Recipe]:
        __tracebackhide__ = True
        mesh = explicit_mesh(batch)
        if mesh is None:
            return body(values, batch, key)
        with automatic_axes(mesh) as brought:
            updates, fresh, recipe = body(*brought((list(values), batch, key)))
        places = jax.tree_util.tree_leaves_with_path(recipe.structure.unflatten(recipe.sources))
        paths = [path for path, source in places if source < 0]
        fresh = sharded_like(mesh, batch, list(zip(paths, fresh, strict=True)))
        return replicated(mesh, updates), fresh, recipe

    return Run(run)


def _require_constants(operator: OperatorModule, before: list[Any]) -> None:
    arrays = {id(leaf) for leaf in before if not isinstance(leaf, nnx.Variable)}
    for path, leaf in nnx.to_flat_state(nnx.state(operator)):
        if not isinstance(leaf, nnx.Variable) and id(leaf) not in arrays:
            raise ValueError(
                f"{operator._label()} changed its array {'.'.join(map(str, path))} during a call, "
                "which would be lost; keep what changes in an nnx.Variable"
            )


def _same_leaves(new: Any, old: Any) -> bool:
    new_leaves, new_structure = jax.tree.flatten(new)
    old_leaves, old_structure = jax.tree.flatten(old)
    return new_structure == old_structure and all(
        a is b for a, b in zip(new_leaves, old_leaves, strict=True)
    )


def process(operator: OperatorModule[Any], batch: Batch, key: Any = None) -> Batch:
    """`apply_batch` without metadata in sight, and every valid record counted."""
    __tracebackhide__ = True
    counter, recorder = operator._operation_count, _recording.active()
    before = counter.get_raw_value()
    if batch.metadata is not None or batch.batch_metadata is not None:
        batch = dataclasses.replace(batch, metadata=None, batch_metadata=None)
    mesh = explicit_mesh(batch)
    # Operators broadcast on purpose, where a caller forbids that to its own arithmetic.
    with jax.numpy_rank_promotion("allow"):
        if mesh is not None:
            out = _on_mesh(operator, mesh, batch, key)
        else:
            with explicit_key(type(operator), key):
                out = transformed(operator, batch)
    noted = recorder is not None and id(counter) in recorder.counted
    if counter.get_raw_value() is before and not noted:
        operator.count_operations(batch.valid_mask)
    return out


def transformed(operator: OperatorModule[Any], batch: Batch) -> Batch:
    """`apply_batch`, or what a stochastic operator does in its place in evaluation mode."""
    __tracebackhide__ = True
    if operator._passes_through():
        return operator._passed_through(batch)
    out = operator.apply_batch(batch)
    if not isinstance(out, Batch):
        raise TypeError(
            f"apply_batch of {operator._label()} must return a Batch, got {type(out).__name__}; "
            "return batch.replace(...)"
        )
    return out


def _on_mesh(operator: OperatorModule, mesh: Any, batch: Batch, key: Any) -> Batch:
    """`apply_batch` on a mesh with explicit axes, where the Variables may have its types too."""
    own = [leaf for leaf in variables_of(operator) if isinstance(leaf, nnx.Variable)]
    with automatic_axes(mesh) as brought:
        graphdef, state = nnx.split(operator)
        inside = nnx.merge(graphdef, brought(state))
        lose_alike(operator, inside)
        copies = [leaf for leaf in variables_of(inside) if isinstance(leaf, nnx.Variable)]
        before = [copy.get_raw_value() for copy in copies]
        inner = brought(batch)
        with explicit_key(type(operator), brought(key)):
            out = transformed(inside, inner)
    for variable, copy, old in zip(own, copies, before, strict=True):
        new = copy.get_raw_value()
        if new is old or (isinstance(variable, OperationCount) and not can_update(variable)):
            continue
        if not can_update(variable):
            raise ValueError(
                f"{operator._label()} cannot set its {type(variable).__name__} inside a jax.jit "
                "that closes over it; use nnx.jit with the operator as an argument"
            )
        variable.set_value(replicated(mesh, new))
    same = dict(zip(map(id, jax.tree.leaves(inner)), jax.tree.leaves(batch), strict=True))
    leaves = jax.tree_util.tree_leaves_with_path(out)
    new = [(path, leaf) for path, leaf in leaves if id(leaf) not in same]
    made = iter(sharded_like(mesh, batch, new))
    return jax.tree.structure(out).unflatten(
        [same[id(leaf)] if id(leaf) in same else next(made) for _, leaf in leaves]
    )


def variables_of(operator: nnx.Module) -> list[Any]:
    """The Variables, and the arrays that the operator holds as such, which are constants."""
    return [leaf for _, leaf in nnx.to_flat_state(nnx.state(operator))]


def value_of(leaf: Any) -> Any:
    return leaf.get_raw_value() if isinstance(leaf, nnx.Variable) else leaf
