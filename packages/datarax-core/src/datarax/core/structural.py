"""`StructuralModule`: modules that rearrange records and have no parameters."""

from __future__ import annotations

from typing import Any, TypeVar

from datarax.core.config import StructuralConfig
from datarax.core.module import DataraxModule

StructuralConfigT = TypeVar("StructuralConfigT", bound=StructuralConfig)


class StructuralModule(DataraxModule[StructuralConfigT]):
    """Base class of batchers and sources: implement `process`; calling the module calls it.

    Args:
      config: what the module does.
      rngs: streams to derive its own from, which advance; needed if `config.stochastic`.
      name: its name in messages.

    >>> class Reverse(StructuralModule):
    ...     def process(self, elements):
    ...         return elements[::-1]
    >>> Reverse(StructuralConfig())([1, 2, 3])
    [3, 2, 1]
    """

    config_class = StructuralConfig

    def process(self, elements: Any, *args: Any, **kwargs: Any) -> Any:
        """Rearranges records."""
        raise NotImplementedError(f"{type(self).__name__} must implement process")

    def __call__(self, elements: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls `process`."""
        return self.process(elements, *args, **kwargs)
