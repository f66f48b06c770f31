"""Variables that a training schedule sets: no new value makes anything compile again."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer


class _Scalar(nnx.Variable[Any]):
    """A scalar of fixed dtype: what is set is checked and cast; another dtype would retrace."""

    dtype: Any

    def set_value(self, value: Any, **index: Any) -> None:
        self.set_raw_value(self.checked(value))

    @classmethod
    def checked(cls, value: Any) -> Any:
        """The value as a scalar of the Variable's dtype."""
        if isinstance(value, nnx.Variable):
            value = value.get_value()
        if jnp.shape(value) != ():
            raise ValueError(f"{cls.__name__} must be a scalar, got shape {jnp.shape(value)}")
        if isinstance(value, Tracer):
            return value.astype(cls.dtype)
        cls.check_concrete(np.asarray(value))
        return np.asarray(value).astype(cls.dtype)[()]

    @classmethod
    def check_concrete(cls, value: np.ndarray) -> None:
        """Raises for a value that this Variable cannot have."""
        raise NotImplementedError


class Probability(_Scalar):
    """A float32 scalar from 0 to 1."""

    dtype = np.float32

    @classmethod
    def check_concrete(cls, value: np.ndarray) -> None:
        if not (np.issubdtype(value.dtype, np.number) and 0 <= value <= 1):
            raise ValueError(f"prob must be a number from 0 to 1, got {value}")


class Switch(_Scalar):
    """A bool scalar."""

    dtype = np.bool_

    @classmethod
    def check_concrete(cls, value: np.ndarray) -> None:
        if value.dtype != np.bool_:
            raise TypeError(f"enabled must be True or False, got {value.dtype} {value}")
