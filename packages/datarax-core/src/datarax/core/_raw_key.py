"""Keys as the caller gives them, whose words become a typed key only where that costs nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from datarax.core._threefry import THREEFRY


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RawKey:
    """The words of a key, and for which kind of generator; wrapped eagerly, they cost 20 us.

    Args:
      words: two words of a threefry key, or four of an rbg key.
      impl: the kind of generator.
    """

    words: UInt32[np.ndarray | Array, " words"]
    impl: str = field(metadata={"static": True})


def checked(key: Any) -> Any:
    """The typed key that was given, or a `RawKey` of the raw one; see `randomness.as_key`."""
    # Not whatever has a dtype: nnx.Rngs has every attribute, each of them a stream.
    dtype: Any = key.dtype if isinstance(key, jax.Array | np.ndarray) else None
    if dtype is None or not (dtype == np.uint32 or jnp.issubdtype(dtype, jax.dtypes.prng_key)):
        raise TypeError(
            f"key must be a key of jax.random.key(seed) or jax.random.PRNGKey(seed), got "
            f"{type(key).__name__}{'' if dtype is None else f' of {dtype}'}"
        )
    if dtype == np.uint32 and key.shape in ((2,), (4,)):
        raw = THREEFRY if key.shape == (2,) else "rbg"
        standard: str = jax.config.jax_default_prng_impl  # pyright: ignore[reportAttributeAccessIssue]
        return RawKey(key, standard if raw in standard else raw)
    if dtype == np.uint32 or key.ndim:
        raise ValueError(
            f"key must be one key, got shape {key.shape}; pass one of jax.random.split(key), or "
            "map over them with jax.vmap"
        )
    return key


def typed(key: Any) -> Any:
    """The typed key of a `RawKey`; a typed one, or None, as it is."""
    if isinstance(key, RawKey):
        return jax.random.wrap_key_data(jnp.asarray(key.words), impl=key.impl)
    return key
