"""`MultiModalOperator`: an operator for each of several fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key, PyTree

from datarax.core.config import OperatorConfig, require_bools
from datarax.core.element_batch import Batch
from datarax.core.fields import field_paths, get_field, put_field
from datarax.core.operator import OperatorModule, require_batch
from datarax.operators._composition import Composition, run_member
from datarax.operators._members import checked_member


@dataclass(frozen=True)
class MultiModalOperatorConfig(OperatorConfig):
    """Configuration of `MultiModalOperator`.

    Args:
      shared_draws: whether all operators of a record draw from one key of the composition's stream.
        Operators of one class then draw the same numbers, so that a flip turns image and depth
        together. The composition is then stochastic.
      stochastic: set by `shared_draws`.
      stream_name: the stream of the shared key.
      cacheable, batch_stats_fn, precomputed_stats, batch_strategy: see `OperatorConfig`.

    Raises:
      TypeError: if `shared_draws` is not True or False.
      ValueError: for `stochastic` without `shared_draws`.

    >>> MultiModalOperatorConfig(shared_draws=True).stochastic
    True
    """

    shared_draws: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        require_bools(self, "shared_draws")
        if self.shared_draws:
            object.__setattr__(self, "stochastic", True)
        elif self.stochastic:
            raise ValueError(
                f"{type(self).__name__}.stochastic=True has no effect with shared_draws=False, "
                "where the operators draw for themselves; leave it out, or set shared_draws=True"
            )
        super().__post_init__()


class MultiModalOperator(Composition[MultiModalOperatorConfig]):
    """Applies to each of several fields its own operator.

    An operator sees its field alone, under the field's own name, and all of the record's state;
    what else it writes must be new to the record. In evaluation mode stochastic operators pass
    their field through. The composition counts a record as applied if it hands it to a member that
    does not pass all records through.

    Args:
      config: whether draws are shared.
      operators: by field (a dotted path), the operator; each keeps its Variables.
      rngs: where a shared key is drawn from; the members have streams of their own.
      name: its name in messages.

    Raises:
      TypeError: if `operators` is not a dict of operators.
      ValueError: if there is none, or one of them twice; if a field is part of another; if an
        operator works on whole batches; or if `rngs` lacks the stream. When called: if an operator
        writes a field that the record has.
      KeyError: when called, if a field is not there, listing those that are.

    >>> import numpy as np
    >>> from datarax.operators import ElementOperator, ElementOperatorConfig
    >>> def noise(name):
    ...     def fn(element, key):
    ...         return element.update_data({name: element.data[name] + jax.random.normal(key)})
    ...
    ...     return ElementOperator(ElementOperatorConfig(stochastic=True), fn=fn, rngs=nnx.Rngs(0))
    >>> config = MultiModalOperatorConfig(shared_draws=True)
    >>> members = {"image": noise("image"), "depth": noise("depth")}
    >>> op = MultiModalOperator(config, operators=members, rngs=nnx.Rngs(1))
    >>> out = op({"image": np.zeros(3, np.float32), "depth": np.zeros(3, np.float32)})
    >>> bool((out["image"] == out["depth"]).all())
    True
    """

    config_class = MultiModalOperatorConfig

    def __init__(
        self,
        config: MultiModalOperatorConfig,
        *,
        operators: Mapping[str, OperatorModule[Any]],
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        self.shares_draws = config.shared_draws
        self.fields, members = checked_fields(self._label(), operators)
        self.hold(members)

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        __tracebackhide__ = True
        require_batch(self, batch)
        if self._draws_itself():
            return super().apply_batch(batch, stats)
        self._count_handed(batch)
        for number, path in enumerate(self.fields):
            with self.turn_of(number) as member:
                out = member(batch.replace(data=alone(batch.data, path)))
            data = merged(self._label(), batch.data, path, out.data)
            batch = batch.replace(data=data, states=out.states)
        return batch

    def run(self, data: PyTree, state: PyTree, draws: PyTree) -> tuple[PyTree, PyTree, Array]:
        marks = [self._own_marks()]
        for number, (path, member) in enumerate(zip(self.fields, self.operators, strict=True)):
            keys = (
                keys_from(member, draws["own"]) if self.shares_draws else draws["operators"][number]
            )
            out, state, more = run_member(member, alone(data, path), state, keys)
            data = merged(self._label(), data, path, out)
            marks.append(more)
        return data, state, jnp.concatenate(marks)

    def pass_through(self, batch: Batch) -> Batch:
        for path, member in zip(self.fields, self.operators, strict=True):
            out = member.pass_through(batch.replace(data=alone(batch.data, path)))
            data = merged(self._label(), batch.data, path, out.data)
            batch = batch.replace(data=data, states=out.states)
        return batch

    def _passes_through(self) -> bool:
        # Operators that are not stochastic do their work in evaluation mode too.
        return False

    def output_spec(self, input_spec: PyTree) -> PyTree:
        """The spec of a record after all operators.

        Raises:
          KeyError: if a field is not there.
          ValueError: if an operator writes a field that the record has.
        """
        for path, member in zip(self.fields, self.operators, strict=True):
            out = member.output_spec(alone(input_spec, path))
            input_spec = merged(self._label(), input_spec, path, out)
        return input_spec


def checked_fields(owner: str, operators: Any) -> tuple[tuple[str, ...], list[OperatorModule[Any]]]:
    """The fields and their operators."""
    if not isinstance(operators, Mapping) or not all(isinstance(name, str) for name in operators):
        raise TypeError(
            f"operators of {owner} must be a dict from fields to operators, got "
            f"{type(operators).__name__}; write operators={{'image': operator}}"
        )
    if not operators:
        raise ValueError(f"operators of {owner} must have at least one operator, got none")
    for path in operators:
        if inside := [other for other in operators if other.startswith(f"{path}.")]:
            raise ValueError(
                f"operators of {owner} must be for different fields, but {inside[0]!r} is part of "
                f"{path!r}; chain them with CompositeOperatorModule"
            )
    members = []
    for path, operator in operators.items():
        label = f"operators[{path!r}]"
        members.append(checked_member(owner, label, operator, members, record_by_record=True))
    return tuple(operators), members


def alone(data: PyTree, path: str) -> dict[str, Any]:
    """The field at a dotted path, with nothing beside it."""
    return put_field({}, path, get_field(data, path))


def merged(owner: str, data: PyTree, path: str, out: PyTree) -> PyTree:
    """The data with what an operator made of the field at a path in place of it.

    Raises:
      TypeError: if the operator did not make a dict.
      ValueError: if it wrote a field that the record has.
    """
    if not isinstance(out, Mapping):
        raise TypeError(
            f"the operator for {path!r} of {owner} must make a dict of fields, got "
            f"{type(out).__name__}"
        )
    data, there = without(data, path), field_paths(data)
    for written in field_paths(out):
        if written in there and written != path and not written.startswith(f"{path}."):
            raise ValueError(
                f"the operator for {path!r} of {owner} writes {written!r}, which the record has; "
                "give its result another name"
            )
        data = put_field(data, written, get_field(out, written))
    return data


def without(data: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The data without the field at a dotted path."""
    head, _, rest = path.partition(".")
    if path in data or not rest:
        return {name: value for name, value in data.items() if name != path}
    return {**data, head: without(data[head], rest)}


def keys_from(member: OperatorModule[Any], key: Key[Array, ""]) -> PyTree:
    """What the member draws a record's numbers from, made of one key."""
    if not isinstance(member, Composition):
        return key
    return jax.tree.map(lambda keys: keys[0], member.generate_random_params(key, (1,)))
