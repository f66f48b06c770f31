"""Which members a record goes through, drawn in exact integers, and the way through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Key, PyTree, UInt32

from datarax.core import randomness
from datarax.operators._branches import alike, apply_in_turn, choose, require_alike
from datarax.operators._composition import (
    Composition,
    family,
    marks_of,
    placed,
    run_member,
    with_fields,
)

TOTAL = 2**30


def whole_weights(weights: Sequence[float]) -> tuple[int, ...]:
    """Weights as whole numbers that add up to about 2**30; only those of 0 become 0."""
    total = sum(weights)
    return tuple(max(1, round(weight / total * TOTAL)) if weight else 0 for weight in weights)


def drawn_numbers(
    words: UInt32[Array, " k"], weights: tuple[int, ...], replace: bool
) -> Int32[Array, " k"]:
    """Numbers drawn one after the other with these weights, which add up to 2**31 at most.

    Args:
      words: a random word for each.
      weights: whole numbers; without `replace`, at least k of them are not 0.
      replace: whether a number can be drawn again.
    """
    left = jnp.asarray(np.array(weights, np.uint32))
    numbers = jnp.arange(len(weights), dtype=jnp.int32)
    drawn = []
    for word in words:
        until = jnp.cumsum(left, dtype=jnp.uint32)
        point = randomness.below(word, until[-1]).astype(jnp.uint32)
        number = jnp.sum(until <= point, dtype=jnp.int32)
        drawn.append(number)
        if not replace:
            left = jnp.where(numbers == number, jnp.uint32(0), left)
    return jnp.stack(drawn)


def run_chosen(
    composition: Composition[Any],
    numbers: Int32[Array, " k"],
    data: PyTree,
    state: PyTree,
    draws: PyTree,
    *,
    replace: bool,
) -> tuple[PyTree, PyTree, Array]:
    """Sends one record through the members of these numbers, one after the other.

    Args:
      composition: whose members they are.
      numbers: which members, in turn.
      data: the record's fields.
      state: the record's state.
      draws: the record's part of the composition's random parameters.
      replace: whether a member can come again; it then draws other numbers.

    Returns:
      Data, state, and how often each of the composition's family was applied and skipped.

    Raises:
      ValueError: if members make records that are not alike.
    """
    members = list(composition.operators)
    first = np.cumsum([1] + [len(family(member)) for member in members]).tolist()
    before = jnp.tril(numbers[:, None] == numbers[None], -1)

    def branch(at: int) -> Any:
        def run(record: Any, draws: Any, times: Any) -> Any:
            keys = draws["operators"][at]
            if replace:
                keys = jax.tree.map(lambda key: refreshed(key, times), keys)
            data, state, marks = run_member(members[at], record["data"], record["state"], keys)
            data = with_fields(data, composition.rest_fields(data))
            return {"data": data, "state": state}, placed(marks, first[at], first[-1])

        return run

    branches = {name: branch(at) for at, name in enumerate(names_of(composition))}

    def step(carry: Any, turn: Any) -> Any:
        (record, marks), (number, times) = carry, turn
        record, more = choose(composition._label(), number, branches, record, draws, times)
        return record, marks + more

    start = {"data": data, "state": state}, marks_of(composition, applied=True)
    turns = numbers, jnp.sum(before, axis=1, dtype=jnp.uint32)
    record, marks = apply_in_turn(step, start, turns)
    return record["data"], record["state"], marks


def refreshed(key: Key[Array, ""], times: UInt32[Array, ""]) -> Key[Array, ""]:
    """The key for another time that it is used; the first time, the key itself."""
    other = randomness.fold_in(key, times)
    words = [jax.random.key_data(either) for either in (key, other)]
    return jax.random.wrap_key_data(jnp.where(times == 0, *words), impl=jax.random.key_impl(key))


def spec_through(composition: Composition[Any], turns: int, input_spec: PyTree) -> PyTree:
    """The spec of a record after so many of the members, whichever they are.

    Raises:
      ValueError: if it depends on which.
    """
    names = names_of(composition)

    def with_rest(data: PyTree) -> PyTree:
        return with_fields(data, composition.rest_fields(data))

    for _ in range(turns):
        specs = [
            jax.eval_shape(with_rest, member.output_spec(input_spec))
            for member in composition.operators
        ]
        require_alike(composition._label(), names, specs)
        if alike(specs[0], input_spec):
            break
        input_spec = specs[0]
    return input_spec


def names_of(composition: Composition[Any]) -> list[str]:
    """What errors call the members."""
    return [f"operators[{at}] {member._label()}" for at, member in enumerate(composition.operators)]
