"""The patches of one record, out of its random parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int, UInt32

from datarax.operators.modality.image._sampling import Layout


@dataclass(frozen=True)
class Patches:
    """One record's patches.

    Args:
      positions: int `(patches, 2)`, (y, x) of the top-left corner.
      sizes: int `(patches, 2)`, (height, width).
      count: how many of them exist, or None if all do.
      seed: two words for a random fill, or None.
    """

    positions: Int[np.ndarray | Array, "patches 2"]
    sizes: Int[np.ndarray | Array, "patches 2"]
    count: Int[Array, ""] | None
    seed: UInt32[Array, "2"] | None


NO_PATCHES = Patches(np.zeros((0, 2), np.int32), np.zeros((0, 2), np.int32), None, None)


def given_patches(owner: str, layout: Layout, random_params: Any) -> Patches:
    """Reads and checks one record's random parameters; values are checked where they are concrete.

    Raises:
      KeyError: if a field is missing that the options need.
      TypeError: if positions, sizes or count are not integers.
      ValueError: if there are no parameters, or for a wrong shape or a patch outside the image.
    """
    if not isinstance(random_params, dict):
        raise ValueError(
            f"{owner} is stochastic and apply needs random_params, a dict with 'patch_positions' "
            f"(num_patches, 2), got {type(random_params).__name__}; take a record's entry of "
            "generate_random_params, call the operator with a Batch, or set stochastic=False"
        )
    positions = _integers(owner, random_params, "patch_positions", (None, 2))
    number = positions.shape[0]
    if layout.varies_in_size:
        sizes = _integers(owner, random_params, "patch_sizes", (number, 2))
    else:
        size = np.array([layout.heights[0], layout.widths[0]], np.int32)
        sizes = jnp.asarray(np.broadcast_to(size, (number, 2)))
    count = None
    if "patch_count" in random_params:
        count = _integers(owner, random_params, "patch_count", ())
    _check_inside(positions, sizes, layout)
    seed = _integers(owner, random_params, "fill_seed", (2,)) if layout.seeded else None
    return Patches(positions, sizes, count, seed)


def _integers(owner: str, params: Any, name: str, shape: tuple[int | None, ...]) -> Array:
    if name not in params:
        raise KeyError(
            f"random_params of {owner} lack {name!r}, which its config needs; there are "
            f"{list(params)}"
        )
    array = jnp.asarray(params[name])
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"random_params[{name!r}] must be integers, got {array.dtype}")
    fits = array.ndim == len(shape) and all(
        wanted in (None, side) for wanted, side in zip(shape, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("num_patches" if side is None else str(side) for side in shape)
        raise ValueError(
            f"random_params[{name!r}] of one record must have shape ({wanted}), got {array.shape}"
        )
    return array


def _check_inside(positions: Array, sizes: Array, layout: Layout) -> None:
    if isinstance(positions, Tracer) or isinstance(sizes, Tracer):
        return
    origins, sides = np.asarray(positions), np.asarray(sizes)
    wrong = (origins < 0) | (origins + sides > np.asarray(layout.image)) | (sides < 1)
    for number in np.flatnonzero(wrong.any(1))[:1]:
        most = (np.asarray(layout.image) - sides[number]).tolist()
        raise ValueError(
            f"random_params['patch_positions'][{number}] {origins[number].tolist()} puts a patch "
            f"of {tuple(sides[number].tolist())} outside the image of {layout.image}; (y, x) must "
            f"be from (0, 0) to {tuple(most)}"
        )
