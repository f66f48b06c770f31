"""`Composition`: what operators made of operators share.

A composition that takes its members record by record hands each record one key for each member.
The member draws from it when its turn comes, so what is not chosen costs no draw either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key, PyTree

from datarax.core import randomness
from datarax.core._records import apply_record, checked_params
from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.fields import DottedFields, put_field
from datarax.core.module import increased
from datarax.core.operator import OperatorModule, require_batch
from datarax.operators._branches import map_records
from datarax.operators._keys import all_keys, row_keys

CompositionConfigT = TypeVar("CompositionConfigT", bound=OperatorConfig)

Record = tuple[PyTree, PyTree]

# What an explicit key is folded with for the composition itself; members have 1, 2, ...
OWN = np.uint32(0)


class Composition(OperatorModule[CompositionConfigT]):
    """Base class of operators made of operators; a subclass implements `run` for one record.

    Attributes:
      operators: the members.
      chooses: whether a record goes through some of the members only.
      shares_draws: whether all members of a record draw from the composition's own key.
    """

    optional_randomness = True
    chooses: bool = False
    shares_draws: bool = False
    operators: nnx.List[OperatorModule[Any]]

    def hold(self, members: Sequence[OperatorModule[Any]]) -> None:
        """Takes the members, which keep their Variables."""
        self.operators = nnx.List(members)
        kinds = [type(member) for member in members]
        self._same_class = tuple(kinds[:number].count(kind) for number, kind in enumerate(kinds))
        self.ordinals = randomness.ordinals(members)
        if self.config.cacheable and self._draws():
            raise ValueError(
                f"{self._label()} has cacheable=True, but a remembered result would repeat the "
                "randomness of its members; set it to False"
            )

    def __repr__(self) -> str:
        members = ", ".join(member._label() for member in getattr(self, "operators", ()))
        options = super().__repr__().removesuffix(")")
        return f"{options}{'' if options.endswith('(') else ', '}operators=[{members}])"

    @contextmanager
    def turn_of(self, number: int) -> Iterator[OperatorModule[Any]]:
        """The member, which draws numbers of its own as long as the block lasts."""
        with randomness.member(type(self), self._same_class[number], self.ordinals[number]):
            yield self.operators[number]

    def run(self, data: PyTree, state: PyTree, draws: PyTree) -> tuple[PyTree, PyTree, Array]:
        """Transforms one record.

        Args:
          data: the record's fields.
          state: the record's state.
          draws: the record's part of the random parameters.

        Returns:
          Data, state, and how often each module of `family` was applied and skipped.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement run")

    def apply(
        self,
        data: PyTree,
        state: PyTree,
        metadata: Any,
        random_params: PyTree = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[PyTree, PyTree, Any]:
        """Transforms one record.

        Args:
          data: the record's fields, without a batch axis.
          state: the record's state.
          metadata: handed back.
          random_params: this record's part of what `generate_random_params` returned: a key for
            the composition's own draws and one for each member.
          stats: not used; members have statistics of their own.

        Returns:
          `(data, state, metadata)`.
        """
        data, state, _ = self.run(data, state, random_params)
        return data, state, metadata

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        __tracebackhide__ = True
        require_batch(self, batch)
        if self._passes_through():
            return self._passed_through(batch)

        def one(record: tuple[PyTree, PyTree, PyTree]) -> tuple[PyTree, PyTree, Array]:
            __tracebackhide__ = True
            return self.run(*record)

        with self._random_params(batch) as draws:
            records = batch.data, batch.states, draws
            if self.config.batch_strategy == "scan" or chooses(self):
                data, states, marks = map_records(one, records)
            else:
                data, states, marks = jax.vmap(one)(records)
        add_to_counts(self, marks, batch.valid_mask)
        return batch.replace(data=data, states=states)

    def pass_through(self, batch: Batch) -> Batch:
        """The batch as the members pass it through, each in turn."""
        for member in self.operators:
            batch = member.pass_through(batch)
        return batch

    def rest_fields(self, data: PyTree) -> dict[str, Array]:
        fields: dict[str, Array] = {}
        for member in self.operators:
            fields = member.rest_fields(data) | fields
        return fields

    def generate_random_params(self, rng: Key[Array, ""], data_shapes: PyTree) -> PyTree:
        """Makes keys for a batch from one key.

        Args:
          rng: the key.
          data_shapes: like the batch's data, with a shape `(batch, ...)` for each array.

        Returns:
          `{"own": keys, "operators": (keys, ...)}` with keys `(batch,)`, the same nested for a
          member that is a composition, and None where nothing is drawn.
        """
        shapes = jax.tree.leaves(data_shapes, is_leaf=lambda node: isinstance(node, tuple))

        def keys(number: int) -> Key[Array, " batch"]:
            return row_keys(randomness.fold_in(rng, np.uint32(number)), shapes[0][0])

        members = [
            member.generate_random_params(
                randomness.fold_in(rng, np.uint32(1 + number)), data_shapes
            )
            if isinstance(member, Composition)
            else keys(1 + number)
            if member._draws()
            else None
            for number, member in enumerate(self.operators)
        ]
        return {"own": keys(0) if self._draws_itself() else None, "operators": tuple(members)}

    @contextmanager
    def _random_params(self, batch: Batch) -> Iterator[PyTree]:
        with ExitStack() as stack:
            bases = self._bases(stack, batch.record_index is None)
            yield jax.tree.unflatten(jax.tree.structure(bases), all_keys(bases, batch))

    def _bases(self, stack: ExitStack, of_call: bool) -> PyTree:
        """The keys from which a batch's random parameters are made, in the same places.

        Args:
          stack: where streams stay open that advance if nothing raises.
          of_call: whether they are those of this call, or the base keys.
        """

        def base(operator: OperatorModule[Any]) -> Key[Array, ""]:
            return stack.enter_context(operator._call_key()) if of_call else operator._base_key()

        members = []
        for number in range(0 if self.shares_draws else len(self.operators)):
            with self.turn_of(number) as member:
                if isinstance(member, Composition):
                    members.append(member._bases(stack, of_call))
                else:
                    members.append(base(member) if member._draws() else None)
        return {
            "own": base(self) if self._draws_itself() else None,
            "operators": tuple(members),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        for module in family(self):
            if isinstance(module, Composition):
                # Other keys may have come, by which members are told apart.
                module.ordinals = randomness.ordinals(module.operators)

    def _base_key(self) -> Key[Array, ""]:
        key = super()._base_key()
        return key if randomness.given_key(type(self)) is None else randomness.fold_in(key, OWN)

    @contextmanager
    def _call_key(self) -> Iterator[Key[Array, ""]]:
        with super()._call_key() as key:
            given = randomness.given_key(type(self)) is not None
            yield randomness.fold_in(key, OWN) if given else key

    def _draws(self) -> bool:
        return self._draws_itself() or any(member._draws() for member in self.operators)

    def _draws_itself(self) -> bool:
        return super()._draws()

    def _idle(self) -> bool:
        """Whether all members pass records through, as stochastic ones do in evaluation mode."""
        return all(member._passes_through() for member in self.operators)

    def _count_handed(self, batch: Batch) -> None:
        """Counts all records as applied, or as skipped if the members pass them through."""
        applied = jnp.zeros(batch.batch_size, bool) if self._idle() else None
        self.count_operations(batch.valid_mask, applied)

    def _own_marks(self) -> Array:
        """The marks of the composition itself for one record that is handed to its members."""
        return jnp.asarray(np.array([[0, 1] if self._idle() else [1, 0]], np.uint32))


def family(operator: OperatorModule[Any]) -> list[OperatorModule[Any]]:
    """The operator, and after it all those that it is made of, depth first."""
    members = operator.operators if isinstance(operator, Composition) else ()
    return [operator, *(module for member in members for module in family(member))]


def chooses(operator: OperatorModule[Any]) -> bool:
    """Whether a record goes through some of the operators in it only."""
    return any(isinstance(module, Composition) and module.chooses for module in family(operator))


def run_member(
    member: OperatorModule[Any], data: PyTree, state: PyTree, draws: PyTree
) -> tuple[PyTree, PyTree, Array]:
    """Lets a member transform one record.

    Returns:
      Data, state, and uint32 `(family, 2)`, how often each was applied and skipped.
    """
    __tracebackhide__ = True
    if member._passes_through():
        data, state = passed_record(member, data, state)
        return data, state, marks_of(member, applied=False)
    if isinstance(member, Composition):
        return member.run(data, state, draws)
    params, applied = None, True
    if member.stochastic:
        params = member_params(member, data, draws)
        rows = member.applied_records(params)
        applied = True if rows is None else rows[0]
        params = jax.tree.map(lambda leaf: leaf[0], params)
    data, state = apply_record(member, data, state, params, member.get_statistics())
    return data, state, marks_of(member, applied)


def member_params(member: OperatorModule[Any], data: PyTree, key: Any) -> PyTree:
    """The random parameters of a batch of this one record, drawn from its key."""
    if key is None:
        raise ValueError(
            f"{member._label()} is stochastic and needs random_params; pass the entry of a record "
            "from generate_random_params of the composition"
        )
    fields = DottedFields(data) if isinstance(data, Mapping) else data
    shapes = jax.tree.map(lambda leaf: (1, *jnp.shape(leaf)), fields)
    return checked_params(member, member.generate_random_params(key, shapes), 1)


def passed_record(member: OperatorModule[Any], data: PyTree, state: PyTree) -> Record:
    """One record as the member passes it through in evaluation mode, whether it is or not."""
    leaves, structure = jax.tree.flatten((data, state))
    rows = [jnp.asarray(leaf)[None] for leaf in leaves]
    data, state = structure.unflatten(rows)
    batch = member.pass_through(Batch(data, state, jnp.ones(1, bool)))
    # What stays as it is is seen to do so.
    same = dict(zip(map(id, rows), leaves, strict=True))
    return jax.tree.map(
        lambda leaf: same[id(leaf)] if id(leaf) in same else leaf[0], (batch.data, batch.states)
    )


def with_fields(data: PyTree, fields: dict[str, Array]) -> PyTree:
    """A copy of the data with fields more, by dotted path."""
    for path, value in fields.items():
        data = put_field(data, path, value)
    return data


def marks_of(operator: OperatorModule[Any], applied: Any) -> Array:
    """uint32 `(family, 2)` with one record for the operator, and none for those in it."""
    own = jnp.stack([jnp.asarray(applied), ~jnp.asarray(applied)]).astype(jnp.uint32)
    return placed(own[None], 0, len(family(operator)))


def placed(marks: Array, first: int, rows: int) -> Array:
    """The marks as so many rows from the first one, among rows of zeros."""
    return jnp.pad(marks, ((first, rows - first - marks.shape[0]), (0, 0)))


def add_to_counts(operator: OperatorModule[Any], marks: Array, valid_mask: Any) -> None:
    """Adds the marks of the valid rows, `(batch, family, 2)`, to the counts of the family."""
    valid = jnp.asarray(valid_mask)[:, None, None]
    totals = jnp.sum(jnp.where(valid, marks, jnp.uint32(0)), axis=0, dtype=jnp.uint32)
    for module, (applied, skipped) in zip(family(operator), totals, strict=True):
        count = module._operation_count
        if randomness.can_update(count):
            count.set_value(increased(count.get_value(), applied, skipped))
