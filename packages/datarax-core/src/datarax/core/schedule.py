"""Variables that a training schedule sets: no new value makes anything compile again."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer


class ScalarVariable(nnx.Variable[Any]):
    """A scalar of fixed dtype: what is set is checked and cast; another dtype would retrace.

    Args:
      value: the scalar; an array, a number or another Variable.
      label: what errors call it.
    """

    dtype: Any
    label: str

    def __init__(self, value: Any, *, label: str, **metadata: Any) -> None:
        super().__init__(self.checked(label, value), label=label, **metadata)

    def set_value(self, value: Any, **index: Any) -> None:
        """Sets a new value, which must be one that this Variable can have."""
        self.set_raw_value(self.checked(self.label, value))

    @classmethod
    def checked(cls, label: str, value: Any) -> Any:
        """The value as a scalar of the Variable's dtype; `label` is what errors call it."""
        if isinstance(value, nnx.Variable):
            value = value.get_value()
        if np.shape(value) != ():
            raise ValueError(f"{label} must be a scalar, got shape {np.shape(value)}")
        if isinstance(value, Tracer):
            return value.astype(cls.dtype)
        cls._check_concrete(label, np.asarray(value))
        return np.asarray(value).astype(cls.dtype)[()]

    @classmethod
    def _check_concrete(cls, label: str, value: np.ndarray) -> None:
        raise NotImplementedError


class Probability(ScalarVariable):
    """A float32 scalar from 0 to 1.

    Args:
      value: the scalar.
      label: what errors call it.

    Raises:
      ValueError: if it is not a number from 0 to 1.

    >>> probability = Probability(0.5, label="probability")
    >>> probability.set_value(0.25)
    >>> float(probability.get_value())
    0.25
    """

    dtype = np.float32

    @classmethod
    def _check_concrete(cls, label: str, value: np.ndarray) -> None:
        number = jnp.issubdtype(value.dtype, np.number)
        if not (number and 0 <= value <= 1):
            raise ValueError(f"{label} must be a number from 0 to 1, got {value}")


class Switch(ScalarVariable):
    """A bool scalar.

    Args:
      value: the scalar.
      label: what errors call it.

    Raises:
      TypeError: if it is not True or False.

    >>> bool(Switch(True, label="enabled").get_value())
    True
    """

    dtype = np.bool_

    @classmethod
    def _check_concrete(cls, label: str, value: np.ndarray) -> None:
        if value.dtype != np.bool_:
            raise TypeError(f"{label} must be True or False, got {value.dtype} {value}")
