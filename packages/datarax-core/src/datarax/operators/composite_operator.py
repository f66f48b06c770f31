"""`CompositeOperatorModule`: operators one after the other."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, PyTree

from datarax.core import randomness
from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.fields import get_field
from datarax.core.operator import OperatorModule, require_batch
from datarax.operators._choice import drawn_numbers, run_chosen, spec_through
from datarax.operators._composition import Composition, run_member
from datarax.operators._members import checked_members

ORDERS = ("given", "random")

# By composition: whether fields arrive at a member as they are in a batch of these shapes.
_arrivals: weakref.WeakKeyDictionary[CompositeOperatorModule, dict[Any, bool]]
_arrivals = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class CompositeOperatorConfig(OperatorConfig):
    """Configuration of `CompositeOperatorModule`.

    Args:
      order: "given": every record goes through the operators in the order of the list; "random":
        through all of them in an order of its own. With "random" the operator is stochastic.
      stochastic: set by `order`.
      stream_name: the stream that the order is drawn from.
      batch_strategy: see `OperatorConfig`; records with an order of their own go one by one.
      cacheable, batch_stats_fn, precomputed_stats: see `OperatorConfig`.

    Raises:
      ValueError: for an unknown `order`, or `stochastic` with the given order.

    >>> CompositeOperatorConfig(order="random").stochastic
    True
    """

    order: Literal["given", "random"] = field(default="given", kw_only=True)

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(
                f"{type(self).__name__}.order must be one of {ORDERS}, got {self.order!r}"
            )
        if self.order == "random":
            object.__setattr__(self, "stochastic", True)
        elif self.stochastic:
            raise ValueError(
                f"{type(self).__name__}.stochastic=True has no effect with order='given', in which "
                "the operators draw for themselves; leave it out, or set order='random'"
            )
        super().__post_init__()


class CompositeOperatorModule(Composition[CompositeOperatorConfig]):
    """Applies operators one after the other, as one compiled call.

    In the given order, the result is that of calling them one by one, operators of whole batches
    among them. In evaluation mode those that are stochastic pass records through, and in a random
    order all do. The composition counts a record as applied if it hands it to a member that does
    not pass all records through; the members count for themselves.

    Args:
      config: the order.
      operators: the members, which keep their Variables.
      rngs: where a random order is drawn from; the members have streams of their own.
      name: its name in messages.

    Raises:
      TypeError: if `operators` is not a list of operators.
      ValueError: if there is none, or one of them twice; with a random order, if one of them works
        on whole batches, or if `rngs` lacks the stream.

    >>> import numpy as np
    >>> from datarax.operators import ElementOperator, ElementOperatorConfig
    >>> def plus_one(element, key=None):
    ...     return element.update_data({"x": element.data["x"] + 1})
    >>> def doubled(element, key=None):
    ...     return element.update_data({"x": element.data["x"] * 2})
    >>> members = [ElementOperator(ElementOperatorConfig(), fn=fn) for fn in (plus_one, doubled)]
    >>> op = CompositeOperatorModule(CompositeOperatorConfig(), operators=members)
    >>> op({"x": np.float32([0, 1])})["x"].tolist()
    [2.0, 4.0]
    """

    config_class = CompositeOperatorConfig

    def __init__(
        self,
        config: CompositeOperatorConfig,
        *,
        operators: Sequence[OperatorModule[Any]],
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        self.chooses = config.order == "random"
        self.hold(checked_members(self._label(), operators, record_by_record=self.chooses))

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        __tracebackhide__ = True
        if self.chooses:
            return super().apply_batch(batch, stats)
        require_batch(self, batch)
        self._count_handed(batch)
        for number in range(len(self.operators)):
            with self.turn_of(number) as member:
                batch = member(batch)
        return batch

    def run(self, data: PyTree, state: PyTree, draws: PyTree) -> tuple[PyTree, PyTree, Array]:
        if self.chooses:
            words = randomness.random_words(draws["own"], (len(self.operators),))
            numbers = drawn_numbers(words, (1,) * len(self.operators), replace=False)
            return run_chosen(self, numbers, data, state, draws, replace=False)
        marks = [self._own_marks()]
        for member, keys in zip(self.operators, draws["operators"], strict=True):
            data, state, more = run_member(member, data, state, keys)
            marks.append(more)
        return data, state, jnp.concatenate(marks)

    def _check_values(self, batch: Batch) -> None:
        # Of what an earlier member changes, no host sees the values.
        for number, member in enumerate(in_order(self.operators)):
            if number == 0 or arrive_unchanged(self, number, member._checked_fields(), batch):
                member._check_values(batch)

    def source_rows(self, rows: int) -> np.ndarray | None:
        source = None
        for member in self.operators:
            step = member.source_rows(rows if source is None else len(source))
            if step is not None:
                source = step if source is None else source[step]
        return source

    def output_spec(self, input_spec: PyTree) -> PyTree:
        """The spec of a record after all operators.

        Raises:
          ValueError: if it depends on the order, which is random.
        """
        if self.chooses:
            return spec_through(self, len(self.operators), input_spec)
        for member in self.operators:
            input_spec = member.output_spec(input_spec)
        return input_spec


def in_order(operators: Iterable[OperatorModule[Any]]) -> list[OperatorModule[Any]]:
    """The operators, with the members of those that apply them in the given order in their place.

    Args:
      operators: operators, some of which may be `CompositeOperatorModule`s.
    """
    flat: list[OperatorModule[Any]] = []
    for operator in operators:
        if isinstance(operator, CompositeOperatorModule) and not operator.chooses:
            flat += in_order(operator.operators)
        else:
            flat.append(operator)
    return flat


def arrive_unchanged(
    composition: CompositeOperatorModule, number: int, paths: Sequence[str], batch: Batch
) -> bool:
    """Whether the fields, of which there are some, reach a member as they are in the batch.

    Found out by tracing the members before it, once for each shape.
    """
    leaves, structure = jax.tree.flatten(batch)
    if composition.chooses or not paths or any(isinstance(leaf, Tracer) for leaf in leaves):
        return False
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    known, key = _arrivals.setdefault(composition, {}), (number, structure, shapes)
    if key not in known:
        graphdef, state = nnx.split(composition)

        def trace(state: Any, batch: Batch) -> None:
            out = batch
            for member in in_order(nnx.merge(graphdef, state).operators)[:number]:
                out = member(out)
            same = [get_field(out.data, path) is get_field(batch.data, path) for path in paths]
            known[key] = all(same) and out.valid_mask is batch.valid_mask

        jax.eval_shape(trace, state, dataclasses.replace(batch, metadata=None, batch_metadata=None))
    return known[key]
