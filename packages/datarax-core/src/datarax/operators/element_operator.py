"""`ElementOperator`: applies a function to every record."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Key, PyTree

from datarax.core._code import reads
from datarax.core.config import ElementOperatorConfig
from datarax.core.element_batch import Element
from datarax.core.operator import OperatorModule

ElementFunction = Callable[[Element, Key[Array, ""] | None], Element]


class ElementOperator(OperatorModule[ElementOperatorConfig]):
    """Applies `fn(element, key)` to every record.

    Args:
      config: whether the function is stochastic, its stream and its batch strategy.
      fn: a pure function of an `Element` (without a batch axis) and a random key of its own (None
        unless `config.stochastic`); returns an `Element`.
      rngs: streams to derive its own from; needed if `config.stochastic`.
      name: its name in messages.

    Raises:
      TypeError: if `fn` cannot be called with an element and a key.
      ValueError: if `fn` uses its key but `config.stochastic` is False.

    >>> import numpy as np
    >>> from datarax.core.element_batch import Batch
    >>> def scale(element, key=None):
    ...     return element.update_data({"x": element.data["x"] / 255})
    >>> op = ElementOperator(ElementOperatorConfig(), fn=scale)
    >>> op(Batch.from_arrays({"x": np.float32([0, 255])}))["x"].tolist()
    [0.0, 1.0]
    """

    config_class = ElementOperatorConfig
    optional_randomness = True

    def __init__(
        self,
        config: ElementOperatorConfig,
        *,
        fn: ElementFunction,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"fn must be callable as fn(element, key), got {type(fn).__name__}")
        try:
            inspect.signature(fn).bind(None, None)
        except TypeError as error:
            raise TypeError(
                f"fn must take an element and a key (None if not stochastic), as in "
                f"def fn(element, key=None); {getattr(fn, '__name__', fn)} does not: {error}"
            ) from None
        super().__init__(config, rngs=rngs, name=name)
        if not self.stochastic and uses_its_key(fn):
            raise ValueError(
                f"{getattr(fn, '__name__', fn)} uses its key, but {self._label()} has "
                "stochastic=False and would pass None; write "
                "ElementOperatorConfig(stochastic=True) and pass rngs"
            )
        self.fn = fn

    def generate_random_params(self, rng: Key[Array, ""], data_shapes: PyTree) -> PyTree:
        if not self.stochastic:
            return None
        shapes = jax.tree.leaves(data_shapes, is_leaf=lambda node: isinstance(node, tuple))
        return jax.random.split(rng, shapes[0][0])

    def apply(
        self,
        data: PyTree,
        state: PyTree,
        metadata: Any,
        random_params: PyTree = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[PyTree, PyTree, Any]:
        element = self.fn(Element(data, state, metadata), random_params)
        if not isinstance(element, Element):
            raise TypeError(
                f"fn must return an Element, got {type(element).__name__}; return "
                "element.update_data({...}) or element.replace(...)"
            )
        return element.data, element.state, element.metadata

    def output_spec(self, input_spec: PyTree) -> PyTree:
        return self._output_record_spec(input_spec, {})[0]


def uses_its_key(fn: ElementFunction) -> bool:
    """Whether a Python function reads its second argument and has no default for it."""
    positional = [
        parameter
        for parameter in inspect.signature(fn).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(positional) < 2 or positional[1].default is not inspect.Parameter.empty:
        return False
    return reads(fn, positional[1].name)
