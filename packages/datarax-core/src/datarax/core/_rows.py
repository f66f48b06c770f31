"""Rows of pytrees: their common batch axis, and leaves on the host or on a device."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from datarax.core.specs import Leaf


def concatenate(leaves: Sequence[Leaf]) -> Leaf:
    """Joins along axis 0; the result is on the host if all leaves are."""
    library = np if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp
    return library.concatenate(leaves)


def stack(leaves: Sequence[Leaf]) -> Leaf:
    """Joins along a new axis 0; the result is on the host if all leaves are."""
    library = np if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp
    return library.stack(leaves)
