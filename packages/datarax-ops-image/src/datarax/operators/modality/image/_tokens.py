"""Which tokens of a vision transformer patches leave: pure functions of one record."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int

from datarax.operators.modality.image import _patches
from datarax.operators.modality.image._sampling import Layout


def kept_tokens(
    positions: Int[Array, "patches 2"], layout: Layout
) -> tuple[Bool[Array, " tokens"], Int[Array, " kept"]]:
    """The tokens that no patch covers.

    Args:
      positions: (y, x) of the patches, which are tokens.
      layout: an image that tokens tile.

    Returns:
      Which tokens are left, row by row, and their numbers in ascending order.

    Raises:
      ValueError: where positions are concrete, if two are equal or one is not a token's.

    References:
      Liu et al. (2022), PatchDropout: economizing vision transformers using patch dropout.
    """
    size = np.array([layout.heights[0], layout.widths[0]], np.int32)
    rows, columns = (np.array(layout.image) // size).tolist()
    if not isinstance(positions, Tracer):
        _check(np.asarray(positions), size)
    cells = positions.astype(jnp.int32) // size
    dropped = _patches.covered(
        cells, jnp.ones_like(cells), None, height=rows, width=columns
    ).ravel()
    order = jnp.argsort(dropped, stable=True).astype(jnp.int32)
    return ~dropped, order[: rows * columns - positions.shape[0]]


def _check(positions: np.ndarray, size: np.ndarray) -> None:
    if (positions % size).any() or len(np.unique(positions, axis=0)) < len(positions):
        raise ValueError(
            "random_params['patch_positions'] must be different tokens with drop_tokens, that is "
            f"different multiples of {tuple(size.tolist())}, got {positions.tolist()}"
        )
