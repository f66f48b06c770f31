"""The compiled call of an operator.

A call through `nnx.jit` walks the operator's graph each time, which costs more than the work on a
small batch. Here the graph is walked once: while no attribute of the operator changes, a call takes
the values of its Variables and the batch, and a jitted function, shared by operators of equal
static part, returns the leaves that differ from what went in. The caller's objects serve for the
rest.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx import tracers

from datarax.core import _recording
from datarax.core._cache import IdentityCache
from datarax.core.element_batch import Batch
from datarax.core.module import increased

if TYPE_CHECKING:
    from datarax.core.operator import OperatorModule


MAX_SHARED_RUNS = 512

with jax.ensure_compile_time_eval():
    _EAGER = tracers.TraceState()


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


Run = Callable[[Sequence[Any], Batch], tuple[list[Any], list[Any], Recipe]]


class Binding:
    """An operator's Variables and compiled function, as long as its attributes stay as they are.

    Holds no reference to the operator itself, which the binding must not keep alive.
    """

    def __init__(self, operator: OperatorModule) -> None:
        graphdef, state = nnx.split(operator)
        self._inner = [
            node
            for _, node in nnx.iter_graph(operator)
            if node is not operator and _contents(node) is not None
        ]
        self._seen = self._attributes(operator)
        self.leaves = _leaves(operator)
        self.run = _shared_run(graphdef, state)
        self.cache = IdentityCache()

    def _attributes(self, operator: OperatorModule) -> list[Any]:
        found = list(vars(operator).values())
        for node in self._inner:
            found += _contents(node) or ()
        return found

    def values(self) -> list[Any]:
        """What the Variables hold now, and the arrays that the operator holds as such."""
        return [_value(leaf) for leaf in self.leaves]

    def is_current(self, operator: OperatorModule) -> bool:
        """Whether every attribute in the operator's graph is still the same object."""
        now, seen = self._attributes(operator), self._seen
        return len(now) == len(seen) and all(map(is_, now, seen))


def _leaves(operator: nnx.Module) -> list[Any]:
    """The Variables, and the arrays that the operator holds as such, which are constants."""
    return [leaf for _, leaf in nnx.to_flat_state(nnx.state(operator))]


def _value(leaf: Any) -> Any:
    return leaf.get_raw_value() if isinstance(leaf, nnx.Variable) else leaf


def _contents(node: Any) -> Any:
    if isinstance(node, nnx.Pytree):
        return vars(node).values()
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else None


_runs: OrderedDict[Any, Run] = OrderedDict()
_bindings: weakref.WeakKeyDictionary[OperatorModule, Binding] = weakref.WeakKeyDictionary()


def _binding(operator: OperatorModule) -> Binding:
    binding = _bindings.get(operator)
    if binding is None or not binding.is_current(operator):
        binding = _bindings[operator] = Binding(operator)
    return binding


def forget_results(operator: OperatorModule) -> None:
    """Clears the operator's cache of results."""
    if operator in _bindings:
        _bindings[operator].cache.clear()


def _shared_run(graphdef: Any, state: Any) -> Run:
    """The jitted call for this static part: a new one, or that of an equal operator before."""
    try:
        run = _runs.get(graphdef)
    except TypeError:
        # An attribute that cannot be hashed: the operator keeps its compiled call for itself.
        return _compiled(graphdef, state)
    if run is None:
        run = _runs[graphdef] = _compiled(graphdef, state)
    _runs.move_to_end(graphdef)
    while len(_runs) > MAX_SHARED_RUNS:
        _runs.popitem(last=False)
    return run


def _compiled(graphdef: Any, state: Any) -> Run:
    # The Variables' types and metadata; their values come with each call.
    empty = [
        (path, leaf.replace(None) if isinstance(leaf, nnx.Variable) else None)
        for path, leaf in nnx.to_flat_state(state)
    ]

    def run(values: Sequence[Any], batch: Batch) -> tuple[list[Any], list[Any], Recipe]:
        filled = [
            (path, value if variable is None else variable.replace(value))
            for (path, variable), value in zip(empty, values, strict=True)
        ]
        operator = nnx.merge(graphdef, nnx.from_flat_state(filled))
        own = _leaves(operator)
        with _recording.recording(batch.valid_mask) as recorder:
            out = process(operator, batch)
        _require_constants(operator, own)
        updated, advanced, counted = [], [], []
        for number, (leaf, old) in enumerate(zip(own, values, strict=True)):
            new = _value(leaf)
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
        return [_value(own[number]) for number in updated], fresh, recipe

    return jax.jit(run)


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


def process(operator: OperatorModule, batch: Batch) -> Batch:
    """`apply_batch` without metadata in sight, and every valid record counted."""
    counter, recorder = operator._operation_count, _recording.active()
    before = counter.get_raw_value()
    if batch.metadata is not None or batch.batch_metadata is not None:
        batch = dataclasses.replace(batch, metadata=None, batch_metadata=None)
    out = operator.apply_batch(batch)
    noted = recorder is not None and id(counter) in recorder.counted
    if counter.get_raw_value() is before and not noted:
        operator.count_operations(batch.valid_mask)
    return out


def call(operator: OperatorModule, batch: Batch) -> Batch:
    """Calls the operator: compiled when run eagerly, inline inside a trace."""
    if not _EAGER.is_valid():
        return _with_metadata(process(operator, batch), batch)
    binding = _binding(operator)
    inputs, structure = jax.tree.flatten(batch)
    if operator.config.cacheable:
        fresh, recipe = _remembered(operator, binding, batch, inputs, structure)
    else:
        fresh, recipe = _run(binding, batch)
    new = iter(fresh)
    leaves = [inputs[source] if source >= 0 else next(new) for source in recipe.sources]
    return _with_metadata(recipe.structure.unflatten(leaves), batch)


def _run(binding: Binding, batch: Batch) -> tuple[list[Any], Recipe]:
    values = binding.values()
    updates, fresh, recipe = binding.run(values, batch)
    for number, value in zip(recipe.updated, updates, strict=True):
        binding.leaves[number].set_raw_value(value)
    for number, times in recipe.advanced:
        count = values[number]
        binding.leaves[number].set_raw_value(count + count.dtype.type(times))
    if recipe.counted:
        _count(binding, recipe, batch.valid_mask)
    return fresh, recipe


def _count(binding: Binding, recipe: Recipe, valid_mask: Any) -> None:
    # Waiting for an accelerator would stall the calls that follow.
    on_host = isinstance(valid_mask, np.ndarray) or (
        valid_mask.platform() == "cpu" and valid_mask.is_fully_addressable
    )
    rows = (np if on_host else jnp).count_nonzero(valid_mask)
    for number, times in recipe.counted:
        variable = binding.leaves[number]
        variable.set_raw_value(increased(variable.get_raw_value(), rows * times))


def _remembered(
    operator: OperatorModule, binding: Binding, batch: Batch, inputs: list[Any], structure: Any
) -> tuple[list[Any], Recipe]:
    counter = operator._operation_count
    held = [_value(leaf) for leaf in binding.leaves if leaf is not counter]
    fixed = jax.tree.leaves(held)
    result = binding.cache.get(structure, inputs, fixed)
    if result is not None:
        _count(binding, result[1], batch.valid_mask)
        return result
    fresh, recipe = _run(binding, batch)
    if not recipe.updated and not recipe.advanced:
        binding.cache.put(structure, inputs, fixed, (fresh, recipe))
    return fresh, recipe


def _with_metadata(out: Batch, batch: Batch) -> Batch:
    if batch.metadata is None and batch.batch_metadata is None:
        return out
    metadata = batch.metadata if len(out) == len(batch) else None
    return dataclasses.replace(out, metadata=metadata, batch_metadata=batch.batch_metadata)
