"""`MapOperator`: a function of single fields."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from datarax.core.config import OperatorConfig
from datarax.core.fields import get_field, put_field
from datarax.core.operator import OperatorModule


@dataclass(frozen=True)
class MapOperatorConfig(OperatorConfig):
    """Configuration of `MapOperator`.

    Args:
      fields: dotted paths of the fields that the function is for; one that holds several arrays
        stands for all of them. None: every array of the data.
      stochastic: must be False; a function that draws is one for `ElementOperator`.
      cacheable, batch_stats_fn, precomputed_stats: see `OperatorConfig`.
      stream_name, batch_strategy: see `OperatorConfig`.

    Raises:
      TypeError: if `fields` is not a tuple of strings.
      ValueError: if `fields` is empty or names an array twice, or for `stochastic`.

    >>> MapOperatorConfig(fields=["image"]).fields
    ('image',)
    """

    fields: tuple[str, ...] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        name, fields = type(self).__name__, self.fields
        if self.stochastic:
            raise ValueError(
                f"{name}.stochastic must be False: the function gets no key; use ElementOperator "
                "for one that draws"
            )
        if fields is None:
            return
        if isinstance(fields, str) or not all(isinstance(path, str) for path in fields):
            raise TypeError(
                f"{name}.fields must be a tuple of names or None, got {fields!r}; write "
                "fields=('image',)"
            )
        fields = tuple(fields)
        object.__setattr__(self, "fields", fields)
        overlap = [a for a in fields for b in fields if a.startswith(f"{b}.")]
        if not fields or overlap or len(set(fields)) != len(fields):
            raise ValueError(
                f"{name}.fields must name different fields, at least one and none within another, "
                f"got {fields}"
            )


class MapOperator(OperatorModule[MapOperatorConfig]):
    """Applies a function to fields of each record, one array at a time.

    Args:
      config: which fields.
      fn: a pure function of one array, without a batch axis, that returns an array; it may change
        shape and dtype. An `nnx.Module` is learned with the model.
      rngs: not used.
      name: its name in messages.

    Raises:
      TypeError: if `fn` cannot be called with one array. When called: if it returns no array.
      KeyError: when called, if a field is not there, listing those that are.

    >>> op = MapOperator(MapOperatorConfig(fields=("inputs.image",)), fn=lambda x: x / 255)
    >>> image = np.float32([[0, 255], [255, 0]])
    >>> op({"inputs": {"image": image}, "label": np.int32([1, 2])})["inputs"]["image"].tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """

    config_class = MapOperatorConfig

    def __init__(
        self,
        config: MapOperatorConfig,
        *,
        fn: Callable[[Any], Any],
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"fn must be callable as fn(array), got {type(fn).__name__}")
        require_one_argument(fn)
        super().__init__(config, rngs=rngs, name=name)
        self.fn = fn

    def apply(
        self,
        data: PyTree,
        state: PyTree,
        metadata: Any,
        random_params: PyTree = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[PyTree, PyTree, Any]:
        if self.config.fields is None:
            return self._mapped("", data), state, metadata
        for path in self.config.fields:
            data = put_field(data, path, self._mapped(path, get_field(data, path)))
        return data, state, metadata

    def _mapped(self, path: str, tree: PyTree) -> PyTree:
        def one(at: Any, leaf: Any) -> Any:
            value = self.fn(leaf)
            if isinstance(value, jax.Array):
                return value
            if not isinstance(value, np.ndarray | np.generic | bool | int | float | complex):
                below = jax.tree_util.keystr(at, simple=True, separator=".")
                raise TypeError(
                    f"fn of {self._label()} must return an array, got {type(value).__name__} for "
                    f"the field {'.'.join(filter(None, [path, below]))!r}; return the transformed "
                    "array"
                )
            return jnp.asarray(value)

        return jax.tree_util.tree_map_with_path(one, tree)

    def output_spec(self, input_spec: PyTree) -> PyTree:
        return self._output_record_spec(input_spec, {})[0]


def require_one_argument(fn: Callable[[Any], Any]) -> None:
    """Raises a TypeError if the function cannot be called with one array."""
    try:
        signature = inspect.signature(fn)
    except ValueError:
        # Functions written in C may have none.
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(
            f"fn must take one array, as in def fn(x); {getattr(fn, '__name__', fn)} does not: "
            f"{error}; use ElementOperator for a function of a record and a key"
        ) from None
