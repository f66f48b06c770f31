"""A compiled mix that writes into memory the caller no longer needs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
from flax import nnx
from jaxtyping import Array

from datarax.core.element_batch import Batch
from datarax.operators._mix import run

if TYPE_CHECKING:
    from datarax.operators.batch_mix_operator import BatchMixOperator


# Without keep_unused, the memory would be dropped along with the argument that nothing reads.
@functools.partial(nnx.jit, static_argnames="names", donate_argnames="spent", keep_unused=True)
def mix_into(
    operator: BatchMixOperator, batch: Batch, spent: dict[str, Array], *, names: tuple[str, ...]
) -> tuple[dict[str, Array], Any]:
    """The named fields and the states of the mixed batch, in the memory of the spent arrays."""
    out = operator.apply_batch(batch)
    return {name: out.data[name] for name in names}, out.states


def mixed(operator: BatchMixOperator, batch: Batch, spent: Batch) -> Batch:
    """The mixed batch, its images in the memory of those of `spent`."""
    owner = operator._label()
    setup = run.setup(owner, operator.config, batch)
    arrays = spent_arrays(owner, batch, spent, setup.images + setup.pasted)
    plain = batch.replace(metadata=None, batch_metadata=None)
    fields, states = mix_into(operator, plain, arrays, names=setup.touched)
    # What mixing does not change stays the same objects.
    states = states if operator.config.mix_info else batch.states
    return batch.replace(data={**batch.data, **fields}, states=states)


def spent_arrays(owner: str, batch: Batch, spent: Batch, names: Sequence[str]) -> dict[str, Array]:
    """The arrays of `spent` that can be overwritten with the mixed fields of `batch`.

    Raises:
      ValueError: if one is not a JAX array of the same shape and dtype, is needed as input, or is
        gone already.
    """
    arrays = {}
    for name in names:
        old, new = spent.data.get(name), batch.data[name]
        if not isinstance(old, jax.Array) or (old.shape, old.dtype) != (new.shape, new.dtype):
            got = f"{old.dtype}{old.shape}" if hasattr(old, "dtype") else type(old).__name__
            raise ValueError(
                f"spent[{name!r}] for {owner} must be a jax.Array {new.dtype}{new.shape} like the "
                f"batch, got {type(old).__module__.split('.')[0]} {got}; pass an earlier result"
            )
        if old.is_deleted():
            raise ValueError(
                f"spent[{name!r}] for {owner} has been recycled before; pass the latest result"
            )
        if any(old is leaf for leaf in jax.tree.leaves(batch)):
            raise ValueError(
                f"spent[{name!r}] for {owner} is the batch's own array, which mixing has to read; "
                "pass an earlier result"
            )
        arrays[name] = old
    return arrays
