"""Sends each image through the operations that were drawn for it, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float32, Int32

from datarax.operators.modality.image._operations import NO_RANGE, Operation, Size, Warp, number_in
from datarax.operators.modality.image.functional._affine import matrix_of, sampled
from datarax.operators.modality.image.functional._arguments import checked_method, fill_value
from datarax.operators.modality.image.functional._coordinates import Matrix

NONE = -1  # the number of no operation
STAY = np.array([[1, 0, 0], [0, 1, 0]], np.float32)


_mapped = ContextVar("_mapped", default=False)


@contextmanager
def mapped() -> Iterator[None]:
    """For code that maps `transformed` by `jax.vmap`, with no other transformation in between."""
    before = _mapped.set(True)
    try:
        yield
    finally:
        _mapped.reset(before)


class Steps(NamedTuple):
    """What the layers do to one image.

    Attributes:
      number: what the layer's operation gets.
      matrix: where the layer takes its pixels from, with a first axis of layers.
      branch: which of `branches` the layer goes through.
    """

    number: Float32[Array, " layers"]
    matrix: Matrix
    branch: Int32[Array, " layers"]


def planned(
    operations: Sequence[Operation],
    size: Size,
    operation: Int32[Array, " layers"],
    magnitude: Float32[Array, " layers"],
    largest: float,
) -> Steps:
    """The steps of one image.

    Args:
      operations: the table's.
      size: the image's (height, width).
      operation: which one in each layer; `NONE` for none.
      magnitude: of each layer; below 0 for the other direction.
      largest: the largest magnitude.
    """
    # NONE is the last line of a table.
    ranges = jnp.asarray([*(each.range(largest) for each in operations), NO_RANGE], jnp.float32)
    branches = jnp.asarray([*_branch_numbers(operations), 0], jnp.int32)
    warps = {at: each.function for at, each in enumerate(operations) if isinstance(each, Warp)}

    def step(operation: Int32[Array, ""], magnitude: Float32[Array, ""]) -> Steps:
        number = number_in(ranges[operation], magnitude)
        matrices = {at: function(size, number) for at, function in warps.items()}
        return Steps(number, _chosen(operation, matrices), branches[operation])

    return jax.vmap(step)(operation, magnitude)


def _chosen(operation: Int32[Array, ""], matrices: Mapping[int, Matrix | ArrayLike]) -> Matrix:
    """The matrix of an operation; those of numbers become fixed-point numbers together."""
    floating = jnp.asarray(STAY)
    for at, matrix in matrices.items():
        if not isinstance(matrix, Matrix):
            floating = jnp.where(operation == at, jnp.asarray(matrix, jnp.float32), floating)
    chosen = matrix_of(floating)
    for at, matrix in matrices.items():
        if isinstance(matrix, Matrix):
            chosen = jax.tree.map(partial(jnp.where, operation == at), matrix, chosen)
    return chosen


def _branch_numbers(operations: Sequence[Operation]) -> list[int]:
    """For each operation its branch: 1 is one warp for all that move pixels, 0 is for none."""
    others = [each for each in operations if not isinstance(each, Warp)]
    return [1 if isinstance(each, Warp) else 2 + others.index(each) for each in operations]


def transformed(
    image: Array, steps: Steps, operations: Sequence[Operation], *, method: str, fill: Any
) -> Array:
    """One image after the steps.

    Mapped by `jax.vmap`, images go one after the other on a CPU, through their own operations only;
    elsewhere all go through each operation together. The bytes are the same. Images of floats do so
    inside `mapped` only.

    Args:
      image: `(height, width, channel)` or `(height, width)`.
      steps: what to do, one image's.
      operations: those that `planned` got.
      method: how moved pixels are sampled, as in `functional.affine`.
      fill: what comes in from outside, as there.
    """
    size, method, fill = image.shape[:2], checked_method(method), fill_value(fill, image)

    def moved(image: Array, number: Array, matrix: Matrix) -> Array:
        return sampled(image, matrix, size, method, fill)

    branches = [
        lambda image, number, matrix: image,
        moved,
        *(
            lambda image, number, matrix, each=each: each(image, number)
            for each in operations
            if not isinstance(each, Warp)
        ),
    ]

    def layer(image: Array, step: Steps) -> tuple[Array, None]:
        return jax.lax.switch(step.branch, branches, image, step.number, step.matrix), None

    def one(image: Array, steps: Steps) -> Array:
        return jax.lax.scan(layer, image, steps)[0]

    def all_of_them(rows: int, mapped: Any, image: Array, steps: Steps) -> tuple[Array, bool]:
        def in_rows(leaf: Array, is_mapped: bool) -> Array:
            return leaf if is_mapped else jnp.broadcast_to(leaf, (rows, *leaf.shape))

        batch = jax.tree.map(in_rows, (image, steps), tuple(mapped))
        inner = one if jnp.issubdtype(image.dtype, jnp.floating) else layers
        in_turn = partial(jax.lax.map, lambda record: inner(*record))
        together = jax.vmap(lambda record: one(*record))
        return jax.lax.platform_dependent(batch, cpu=in_turn, default=together), True

    if jnp.issubdtype(image.dtype, jnp.floating) and not _mapped.get():
        # Floats have gradients, which a function with a rule of its own for `vmap` has not, until
        # that rule is applied.
        return one(image, steps)
    layers = jax.custom_batching.custom_vmap(one)
    layers.def_vmap(all_of_them)
    return layers(image, steps)
