"""Random patches: how many, how large, where. Pure functions of one key or block of random bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt32

from datarax.core.randomness import THREEFRY, coin, random_words

Bounds = tuple[int, int]


@dataclass(frozen=True)
class Shape:
    """Patches given by area and shape.

    Args:
      area: bounds of the area as a fraction of the image's.
      aspect: bounds of height / width.
    """

    area: tuple[float, float]
    aspect: tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """Cells in the middle of the image, each with room for one patch.

    Args:
      shape: rows and columns of cells.
      cell: height and width of a cell.
      jitter: fraction of the free room of a cell in which its patch moves.
    """

    shape: tuple[int, int]
    cell: tuple[int, int]
    jitter: float

    @property
    def cells(self) -> int:
        """How many there are."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class Layout:
    """What is drawn for an image of one shape; all bounds are inclusive.

    Args:
      image: height and width.
      count: bounds of the number of patches.
      heights: bounds of a patch's height.
      widths: bounds of a patch's width.
      prob: probability that a record gets any patch.
      seeded: whether the fill is random too.
      counted: draw a count even where it is always the same.
      area: draw sizes by area and shape, within the bounds above; None draws each side by itself.
      grid: where patches lie; None for anywhere.
    """

    image: tuple[int, int]
    count: Bounds
    heights: Bounds
    widths: Bounds
    prob: float = 1.0
    seeded: bool = False
    counted: bool = False
    area: Shape | None = None
    grid: Grid | None = None

    @property
    def patches(self) -> int:
        """The largest number of patches."""
        return self.count[1]

    @property
    def varies_in_size(self) -> bool:
        """Whether patches have sizes of their own."""
        return self.heights[0] < self.heights[1] or self.widths[0] < self.widths[1]

    @property
    def varies_in_count(self) -> bool:
        """Whether records have patch counts of their own."""
        return self.counted or self.count[0] < self.count[1] or self.prob < 1

    def fixed_sizes(self) -> np.ndarray:
        """int32 `(patches, 2)`, for patches that do not vary in size."""
        size = np.array([self.heights[0], self.widths[0]], np.int32)
        return np.broadcast_to(size, (self.patches, 2))


def below(
    bits: UInt32[Array, "*shape"], bound: Array | np.ndarray | np.uint32
) -> UInt32[Array, "*shape"]:
    """Integers from 0 to bound - 1, uniform to within bound / 2**32.

    The upper word of bits * bound, from four products of 16-bit halves.
    """
    bound = jnp.asarray(bound, jnp.uint32)
    half, low = np.uint32(16), np.uint32(0xFFFF)
    a, b, c, d = bits >> half, bits & low, bound >> half, bound & low
    middle = ((b * d) >> half) + ((a * d) & low) + ((b * c) & low)
    return a * c + ((a * d) >> half) + ((b * c) >> half) + (middle >> half)


def unit(bits: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Multiples of 2**-24 in [0, 1), uniform and exact in float32."""
    return (bits >> np.uint32(8)).astype(jnp.float32) * np.float32(2**-24)


def _between(bits: Array, bounds: Bounds) -> Array:
    span = np.uint32(bounds[1] - bounds[0] + 1)
    return below(bits, span).astype(jnp.int32) + np.int32(bounds[0])


def _sizes(bits: UInt32[Array, "batch patches 2"], layout: Layout) -> Array:
    """int32 heights and widths."""
    if layout.area is None:
        sides = [_between(bits[..., i], (layout.heights, layout.widths)[i]) for i in range(2)]
        return jnp.stack(sides, axis=-1)
    # Square roots of areas and of shapes come from tables: a product of two table entries is
    # rounded alike in every compiled context, exponentials and sums of products are not.
    steps = (np.arange(4096) + 0.5) / 4096
    low, high = np.multiply(layout.area.area, layout.image[0] * layout.image[1])
    side = np.sqrt(low + steps * (high - low)).astype(np.float32)
    low, high = np.log(layout.area.aspect)
    root = np.exp((low + steps * (high - low)) / 2)
    roots = np.stack([root, 1 / root], axis=1).astype(np.float32)
    area, shape = (jnp.asarray(bits[..., i] >> np.uint32(20), jnp.int32) for i in range(2))
    sides = jnp.round(jnp.asarray(side)[area][..., None] * jnp.asarray(roots)[shape])
    return jnp.clip(sides.astype(jnp.int32), 1, np.array(layout.image, np.int32))


def _on_grid(
    bits: UInt32[Array, "batch patches 2"],
    order: UInt32[Array, "batch cells"],
    layout: Layout,
    grid: Grid,
) -> Array:
    """int32 (y, x) of patches in different cells of the grid, each choice equally likely."""
    chosen = jnp.argsort(order, axis=1)[:, : layout.patches].astype(jnp.int32)
    row_column = jnp.stack(
        [chosen // np.int32(grid.shape[1]), chosen % np.int32(grid.shape[1])], -1
    )
    shape, cell = np.array(grid.shape, np.int32), np.array(grid.cell, np.int32)
    margin = (np.array(layout.image, np.int32) - shape * cell) // np.int32(2)
    free = cell - np.array([layout.heights[0], layout.widths[0]], np.int32)
    reach = np.round(np.float32(grid.jitter) * free).astype(np.int32)
    moved = below(bits, (reach + 1).astype(np.uint32)).astype(jnp.int32)
    return row_column * cell + moved + (margin + (free - reach) // 2)


@partial(jax.jit, static_argnames=("batch", "layout"))
def draw(
    key: Key[Array, ""], prob: Array | None = None, *, batch: int, layout: Layout
) -> dict[str, Array]:
    """Draws the patches of a batch from one block of random bits.

    Args:
      key: the key.
      prob: the probability in place of the layout's.
      batch: how many records.
      layout: what is drawn.

    Returns:
      `patch_positions` int32 `(batch, patches, 2)`: (y, x) of the top-left corner, every one that
      leaves the patch inside the image equally likely. `patch_sizes` int32 `(batch, patches, 2)` if
      they vary, `patch_count` int32 `(batch,)` if it varies (0 for a record that `prob` skips),
      `fill_seed` uint32 `(batch, 2)` if the fill is random.
    """
    number = layout.patches
    shares = {
        "place": 2 * number,
        "size": 2 * number * layout.varies_in_size,
        "cells": layout.grid.cells if layout.grid else 0,
        "count": int(layout.varies_in_count),
        "chance": int(layout.varies_in_count),
        "seed": 2 * layout.seeded,
    }
    ends = np.cumsum(list(shares.values())).tolist()
    bits = random_words(key, (batch, ends[-1]))
    share = dict(zip(shares, jnp.split(bits, ends[:-1], axis=1), strict=True))
    place = share["place"].reshape(batch, number, 2)
    if layout.varies_in_size:
        sizes = _sizes(share["size"].reshape(batch, number, 2), layout)
    else:
        sizes = jnp.asarray(layout.fixed_sizes())
    if layout.grid:
        positions = _on_grid(place, share["cells"], layout, layout.grid)
    else:
        origins = np.array(layout.image, np.int32) - sizes + np.int32(1)
        positions = below(place, origins.astype(jnp.uint32)).astype(jnp.int32)
    params = {"patch_positions": positions}
    if layout.varies_in_size:
        params["patch_sizes"] = sizes
    if layout.varies_in_count:
        applied = coin(share["chance"][:, 0], jnp.float32(layout.prob) if prob is None else prob)
        params["patch_count"] = jnp.where(applied, _between(share["count"][:, 0], layout.count), 0)
    if layout.seeded:
        params["fill_seed"] = share["seed"]
    return params


def fixed(seed: int, layout: Layout) -> dict[str, np.ndarray]:
    """The patches of one record that a seed stands for, drawn at once even inside a trace."""
    with jax.ensure_compile_time_eval():
        drawn = draw(jax.random.key(seed, impl=THREEFRY), batch=1, layout=layout)
        return {name: np.asarray(array)[0] for name, array in drawn.items()}
