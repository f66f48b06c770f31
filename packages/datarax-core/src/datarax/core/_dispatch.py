"""The compiled call of an operator.

A call through `nnx.jit` walks the operator's graph each time, which costs more than the work on a
small batch. Here the graph is walked once: while no attribute of the operator changes, a call takes
the values of its Variables and the batch, and a jitted function, shared by operators of equal
static part, returns the leaves that differ from what went in. The caller's objects serve for the
rest.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from datarax.core._cache import IdentityCache
from datarax.core._compiled import Recipe, process, shared_run, variables_of
from datarax.core._raw_key import typed
from datarax.core._streams import EAGER
from datarax.core.element_batch import Batch
from datarax.core.module import OperationCount, increased
from datarax.core.randomness import is_member

if TYPE_CHECKING:
    from datarax.core.operator import OperatorModule


Result = tuple[list[Any], list[Any], Recipe]


class Binding:
    """An operator's Variables and compiled function, as long as its attributes stay as they are.

    Holds no reference to the operator itself, which the binding must not keep alive.
    """

    def __init__(self, operator: OperatorModule) -> None:
        graphdef, state = nnx.split(operator)
        nodes = [node for _, node in nnx.iter_graph(operator) if node is not operator]
        # Views, in which later changes show.
        self._inner = [view for view in map(_contents, nodes) if view is not None]
        self._seen = self._attributes(operator)
        self._draws = any(
            node._draws() for node in [operator, *nodes] if hasattr(type(node), "_draws")
        )
        self.leaves = variables_of(operator)
        self._readers = [_reader(leaf) for leaf in self.leaves]
        self._placed: dict[int, tuple[np.generic, jax.Array | None]] = {}
        self.run = shared_run(graphdef, self._seen, state)
        self.cache = IdentityCache()

    def _attributes(self, operator: OperatorModule) -> list[Any]:
        found = list(vars(operator).values())
        for view in self._inner:
            found += view
        return found

    def values(self) -> list[Any]:
        """What the Variables hold now, and the arrays that the operator holds as such."""
        return [read() for read in self._readers]

    def key(self, key: Any) -> Any:
        """The explicit key, or None if nothing in the operator draws."""
        return key if self._draws else None

    def arguments(self, values: list[Any]) -> list[Any]:
        """The values as the compiled call is to get them.

        A scalar on the host costs microseconds a call. One that stays the same object, unlike a
        count, is put on the device the second time that it is seen; but none of 64 bits, whose
        precision there depends on JAX's mode.
        """
        arguments = values.copy()
        for number, value in enumerate(values):
            if isinstance(value, np.generic) and value.itemsize <= 4:
                before, array = self._placed.get(number, (None, None))
                if value is not before:
                    self._placed[number] = (value, None)
                    continue
                if array is None:
                    array = jax.device_put(value)
                    self._placed[number] = (value, array)
                arguments[number] = array
        return arguments

    def fetch(self, batch: Batch) -> bool:
        """Fetches counts and keys from other devices than the batch's; False if there are none."""
        arrays = [leaf for leaf in jax.tree.leaves(batch) if isinstance(leaf, jax.Array)]
        if not arrays:
            return False
        fetched = False
        for leaf in self.leaves:
            if isinstance(leaf, OperationCount | nnx.RngState):
                value = leaf.get_raw_value()
                near = _within_reach(value, arrays)
                fetched |= near is not value
                leaf.set_raw_value(near)
        return fetched

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


def _within_reach(value: Any, arrays: Sequence[jax.Array]) -> Any:
    """The count or key, bound to no device if it is on others than the arrays."""
    devices = set().union(*(array.devices() for array in arrays))
    if not isinstance(value, jax.Array) or value.devices() == devices:
        return value
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        words = np.asarray(jax.random.key_data(value))
        return jax.random.wrap_key_data(jnp.asarray(words), impl=jax.random.key_impl(value))
    host = np.asarray(value)
    return host if host.ndim else host[()]


def _reader(leaf: Any) -> Callable[[], Any]:
    return leaf.get_raw_value if isinstance(leaf, nnx.Variable) else lambda: leaf


class Calls:
    """How an operator is called: in turn, with a binding for each of its two modes."""

    def __init__(self) -> None:
        # Two threads would read the same count of a stream, and one would write over the other's.
        self.lock = threading.RLock()
        self.bindings: tuple[Binding, ...] = ()

    def binding(self, operator: OperatorModule) -> Binding:
        """The binding for the operator's present attributes."""
        for binding in self.bindings:
            if binding.is_current(operator):
                return binding
        # Training and evaluation in turn bind nothing again.
        self.bindings = (Binding(operator), *self.bindings[:1])
        return self.bindings[0]


_calls: weakref.WeakKeyDictionary[OperatorModule, Calls] = weakref.WeakKeyDictionary()


def _calls_of(operator: OperatorModule) -> Calls:
    calls = _calls.get(operator)
    # Of two threads that come first, both get the one that was there first.
    return _calls.setdefault(operator, Calls()) if calls is None else calls


def forget_results(operator: OperatorModule) -> None:
    """Clears the operator's cache of results."""
    for binding in _calls_of(operator).bindings:
        binding.cache.clear()


def call(operator: OperatorModule[Any], batch: Batch, key: Any = None) -> Batch:
    """Calls the operator: compiled when run eagerly, inline inside a trace."""
    __tracebackhide__ = True
    if not EAGER.is_valid() or is_member():
        return _with_metadata(operator, process(operator, batch, typed(key)), batch)
    calls = _calls_of(operator)
    with calls.lock:
        binding = calls.binding(operator)
        key = binding.key(key)
        if operator.config.cacheable and key is None:
            fresh, recipe = _remembered(binding, batch)
        else:
            fresh, recipe = _made(binding, batch, key, binding.run.fresh)
    return _assembled(operator, batch, fresh, recipe)


def recycle(operator: OperatorModule[Any], batch: Batch, spent: Batch, key: Any = None) -> Batch:
    """Calls the operator with the result in the memory of `spent`."""
    __tracebackhide__ = True
    if not EAGER.is_valid():
        raise ValueError(
            f"{operator._label()}.recycle cannot give memory away inside a trace, where the outer "
            "jit owns it; call the operator, and name the argument in that jit's donate_argnames"
        )
    if operator.config.cacheable:
        raise ValueError(
            f"{operator._label()} remembers results (cacheable=True), whose memory is not to be "
            "recycled; call the operator, or set cacheable=False"
        )
    calls = _calls_of(operator)
    with calls.lock:
        binding = calls.binding(operator)
        recycled = functools.partial(binding.run.recycled, operator._label(), spent=spent)
        fresh, recipe = _made(binding, batch, binding.key(key), recycled)
    return _assembled(operator, batch, fresh, recipe)


def _made(
    binding: Binding, batch: Batch, key: Any, run: Callable[[list[Any], Batch, Any], Result]
) -> tuple[list[Any], Recipe]:
    """What the compiled call makes, after the Variables have their new values."""
    __tracebackhide__ = True
    values, result = binding.values(), None
    try:
        result = run(binding.arguments(values), batch, key)
    except ValueError:
        # Counts and streams may still be where an earlier batch was.
        if not binding.fetch(batch):
            raise
    if result is None:
        values = binding.values()
        result = run(binding.arguments(values), batch, key)
    updates, fresh, recipe = result
    for number, value in zip(recipe.updated, updates, strict=True):
        binding.leaves[number].set_raw_value(value)
    for number, times in recipe.advanced:
        count = values[number]
        binding.leaves[number].set_raw_value(count + count.dtype.type(times))
    if recipe.counted:
        _count(binding, recipe, batch.valid_mask)
    return fresh, recipe


def _assembled(
    operator: OperatorModule[Any], batch: Batch, fresh: list[Any], recipe: Recipe
) -> Batch:
    inputs, new = jax.tree.leaves(batch), iter(fresh)
    leaves = [inputs[source] if source >= 0 else next(new) for source in recipe.sources]
    return _with_metadata(operator, recipe.structure.unflatten(leaves), batch)


def _count(binding: Binding, recipe: Recipe, valid_mask: Any) -> None:
    # Waiting for an accelerator would stall the calls that follow.
    on_host = isinstance(valid_mask, np.ndarray) or (
        valid_mask.platform() == "cpu" and valid_mask.is_fully_addressable
    )
    rows = (np if on_host else jnp).count_nonzero(valid_mask)
    for number, times in recipe.counted:
        variable = binding.leaves[number]
        count = variable.get_raw_value()
        if isinstance(rows, jax.Array):
            count = _within_reach(count, [rows])
        variable.set_raw_value(increased(count, rows * times))


def _remembered(binding: Binding, batch: Batch) -> tuple[list[Any], Recipe]:
    inputs, structure = jax.tree.flatten(batch)
    values = zip(binding.leaves, binding.values(), strict=True)
    fixed = jax.tree.leaves([v for leaf, v in values if not isinstance(leaf, OperationCount)])
    result = binding.cache.get(structure, inputs, fixed)
    if result is not None:
        _count(binding, result[1], batch.valid_mask)
        return result
    fresh, recipe = _made(binding, batch, None, binding.run.fresh)
    if not recipe.updated and not recipe.advanced:
        binding.cache.put(structure, inputs, fixed, (fresh, recipe))
    return fresh, recipe


def _with_metadata(operator: OperatorModule[Any], out: Batch, batch: Batch) -> Batch:
    metadata = batch.metadata
    if metadata is None and batch.batch_metadata is None:
        return out
    rows = operator.source_rows(len(batch))
    if metadata is not None and rows is not None:
        metadata = tuple(metadata[row] for row in rows)
    if metadata is not None and len(metadata) != len(out):
        metadata = None
    return dataclasses.replace(out, metadata=metadata, batch_metadata=batch.batch_metadata)
