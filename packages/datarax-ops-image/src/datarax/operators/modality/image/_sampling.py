"""Random patches: how many, how large, where. Pure functions of one key or block of random bits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt32

Bounds = tuple[int, int]


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
    """

    image: tuple[int, int]
    count: Bounds
    heights: Bounds
    widths: Bounds
    prob: float = 1.0
    seeded: bool = False

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
        return self.count[0] < self.count[1] or self.prob < 1

    def fixed_sizes(self) -> np.ndarray:
        """int32 `(patches, 2)`, for patches that do not vary in size."""
        size = np.int32([self.heights[0], self.widths[0]])
        return np.broadcast_to(size, (self.patches, 2))


def below(bits: UInt32[Array, "*shape"], bound: Array | np.uint32) -> UInt32[Array, "*shape"]:
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


@partial(jax.jit, static_argnames=("batch", "layout"))
def draw(key: Key[Array, ""], *, batch: int, layout: Layout) -> dict[str, Array]:
    """Draws the patches of a batch from one block of random bits.

    Returns:
      `patch_positions` int32 `(batch, patches, 2)`: (y, x) of the top-left corner, every one that
      leaves the patch inside the image equally likely. `patch_sizes` int32 `(batch, patches, 2)` if
      they vary, `patch_count` int32 `(batch,)` if it varies (0 for a record that `prob` skips),
      `fill_seed` uint32 `(batch, 2)` if the fill is random.
    """
    number = layout.patches
    bits = jax.random.bits(key, (batch, 4 * number + 4), jnp.uint32)
    place = bits[:, : 2 * number].reshape(batch, number, 2)
    size = bits[:, 2 * number : 4 * number].reshape(batch, number, 2)
    count, chance, seed = bits[:, -4], bits[:, -3], bits[:, -2:]
    sizes = jnp.stack(
        [_between(size[..., 0], layout.heights), _between(size[..., 1], layout.widths)], axis=-1
    )
    origins = np.int32(layout.image) - sizes + np.int32(1)
    params = {"patch_positions": below(place, origins.astype(jnp.uint32)).astype(jnp.int32)}
    if layout.varies_in_size:
        params["patch_sizes"] = sizes
    if layout.varies_in_count:
        applied = unit(chance) < np.float32(layout.prob)
        params["patch_count"] = jnp.where(applied, _between(count, layout.count), 0)
    if layout.seeded:
        params["fill_seed"] = seed
    return params
