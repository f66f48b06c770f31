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
from operator import is_
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx import tracers

from datarax.core._cache import IdentityCache
from datarax.core._compiled import Recipe, process, shared_run, value_of, variables_of
from datarax.core.element_batch import Batch
from datarax.core.module import increased

if TYPE_CHECKING:
    from datarax.core.operator import OperatorModule


with jax.ensure_compile_time_eval():
    _EAGER = tracers.TraceState()


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
        self.leaves = variables_of(operator)
        self.run = shared_run(graphdef, state)
        self.cache = IdentityCache()

    def _attributes(self, operator: OperatorModule) -> list[Any]:
        found = list(vars(operator).values())
        for node in self._inner:
            found += _contents(node) or ()
        return found

    def values(self) -> list[Any]:
        """What the Variables hold now, and the arrays that the operator holds as such."""
        return [value_of(leaf) for leaf in self.leaves]

    def is_current(self, operator: OperatorModule) -> bool:
        """Whether every attribute in the operator's graph is still the same object."""
        now, seen = self._attributes(operator), self._seen
        return len(now) == len(seen) and all(map(is_, now, seen))


def _contents(node: Any) -> Any:
    if isinstance(node, nnx.Pytree):
        return vars(node).values()
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else None


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


def call(operator: OperatorModule, batch: Batch) -> Batch:
    """Calls the operator: compiled when run eagerly, inline inside a trace."""
    if not _EAGER.is_valid():
        return _with_metadata(process(operator, batch), batch)
    binding = _binding(operator)
    inputs, structure = jax.tree.flatten(batch)
    if operator.config.cacheable:
        fresh, recipe = _remembered(operator, binding, batch, inputs, structure)
    else:
        values = binding.values()
        fresh, recipe = _settled(binding, batch, values, binding.run.fresh(values, batch))
    return _assembled(batch, inputs, fresh, recipe)


def recycle(operator: OperatorModule, batch: Batch, spent: Batch) -> Batch:
    """Calls the operator with the result in the memory of `spent`."""
    if not _EAGER.is_valid():
        raise ValueError(
            f"{operator._label()}.recycle cannot give memory away inside a trace, where the outer "
            "jit owns it; call the operator, and name the argument in that jit's donate_argnames"
        )
    if operator.config.cacheable:
        raise ValueError(
            f"{operator._label()} remembers results (cacheable=True), whose memory is not to be "
            "recycled; call the operator, or set cacheable=False"
        )
    binding = _binding(operator)
    values, inputs = binding.values(), jax.tree.leaves(batch)
    result = binding.run.recycled(operator._label(), values, batch, spent)
    return _assembled(batch, inputs, *_settled(binding, batch, values, result))


def _assembled(batch: Batch, inputs: list[Any], fresh: list[Any], recipe: Recipe) -> Batch:
    new = iter(fresh)
    leaves = [inputs[source] if source >= 0 else next(new) for source in recipe.sources]
    return _with_metadata(recipe.structure.unflatten(leaves), batch)


def _settled(
    binding: Binding, batch: Batch, values: list[Any], result: tuple[list[Any], list[Any], Recipe]
) -> tuple[list[Any], Recipe]:
    """What the call made, after the Variables have their new values."""
    updates, fresh, recipe = result
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
    held = [value_of(leaf) for leaf in binding.leaves if leaf is not counter]
    fixed = jax.tree.leaves(held)
    result = binding.cache.get(structure, inputs, fixed)
    if result is not None:
        _count(binding, result[1], batch.valid_mask)
        return result
    values = binding.values()
    fresh, recipe = _settled(binding, batch, values, binding.run.fresh(values, batch))
    if not recipe.updated and not recipe.advanced:
        binding.cache.put(structure, inputs, fixed, (fresh, recipe))
    return fresh, recipe


def _with_metadata(out: Batch, batch: Batch) -> Batch:
    if batch.metadata is None and batch.batch_metadata is None:
        return out
    metadata = batch.metadata if len(out) == len(batch) else None
    return dataclasses.replace(out, metadata=metadata, batch_metadata=batch.batch_metadata)
