"""`StructuralModule`: modules that rearrange records and have no parameters."""

from __future__ import annotations

from typing import Any

from flax import nnx

from datarax.core.config import StructuralConfig
from datarax.core.module import DataraxModule


class StructuralModule(DataraxModule):
    """Base class of batchers and sources: implement `process`; calling the module calls it.

    Args:
      config: what the module shall do.
      rngs: streams to derive its own from; needed if `config.stochastic`.
      name: what to call it in messages.

    >>> class Reverse(StructuralModule):
    ...     def process(self, elements):
    ...         return elements[::-1]
    >>> Reverse(StructuralConfig())([1, 2, 3])
    [3, 2, 1]
    """

    def __init__(
        self, config: StructuralConfig, *, rngs: nnx.Rngs | None = None, name: str | None = None
    ) -> None:
        if not isinstance(config, StructuralConfig):
            raise TypeError(
                f"config of {type(self).__name__} must be a StructuralConfig, "
                f"got {type(config).__name__}"
            )
        super().__init__(config, rngs=rngs, name=name)

    def process(self, elements: Any, *args: Any, **kwargs: Any) -> Any:
        """Rearranges records."""
        raise NotImplementedError(f"{type(self).__name__} must implement process")

    def __call__(self, elements: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls `process`."""
        return self.process(elements, *args, **kwargs)
