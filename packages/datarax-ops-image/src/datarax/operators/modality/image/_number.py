"""The numbers of an operator's config: fixed, or distributions that each record draws from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from zlib import crc32

import numpy as np
from jaxtyping import Array, Key, UInt32

from datarax.core._modality_config import is_sequence, require_number
from datarax.core.randomness import fold_in, random_words
from datarax.operators.modality.image._distributions import Distribution, Uniform

if TYPE_CHECKING:
    Number = float | tuple[float, float] | Distribution
else:
    # Parsers of command lines take a dataclass in a union for options of its own.
    Number = float | Annotated[tuple[float, float], Distribution]

RULE = "number"


@dataclass(frozen=True)
class NumberRule:
    """What a number of a config may be.

    Args:
      low: the smallest number that the operator's function takes.
      high: the largest.
      integer: whether it must be an integer.
      above: whether `low` itself is too small.
      optional: whether it may be None.
    """

    low: float = -math.inf
    high: float = math.inf
    integer: bool = False
    above: bool = False
    optional: bool = False

    def checked(self, label: str, value: Any) -> Any:
        """A number as it is, and (low, high) as `Uniform`.

        Raises:
          TypeError: if it is neither a number, nor a pair of them, nor a distribution.
          ValueError: if the range is empty, or reaches beyond what the function takes.
        """
        if value is None and self.optional:
            return None
        if is_sequence(value):
            if len(value) != 2:
                raise TypeError(
                    f"{label} must be a number, (low, high) or a distribution, got {value!r}; for "
                    "one of several numbers write Choice((...))"
                )
            low, high = (require_number(label, end) for end in value)
            if low > high:
                raise ValueError(
                    f"{label} is the empty range {value!r}; give (low, high) with low <= high"
                )
            value = Uniform(low, high)
        if not isinstance(value, Distribution):
            if type(value).__module__ == "builtins" and not isinstance(value, int | float):
                raise TypeError(
                    f"{label} must be a number, (low, high) or a distribution, got "
                    f"{type(value).__name__} {value!r}"
                )
            value = require_number(label, value)
        self._require_inside(label, value)
        return value

    def _require_inside(self, label: str, value: float | Distribution) -> None:
        drawn = isinstance(value, Distribution)
        low, high = value.support if drawn else (value, value)
        if low < self.low or high > self.high or (self.above and low == self.low):
            came = f"{value!r}, which draws from {low:g} to {high:g}" if drawn else f"{value!r}"
            raise ValueError(f"{label} must be {self._allowed()}, got {came}")
        if self.integer:
            values = [*getattr(value, "values", ()), low, high]
            if any(math.isfinite(end) and end != int(end) for end in values):
                raise ValueError(f"{label} must be an integer or draw integers, got {value!r}")

    def _allowed(self) -> str:
        if math.isinf(self.high):
            return f"{'above' if self.above else 'at least'} {self.low:g}"
        if self.above:
            return f"above {self.low:g} and at most {self.high:g}"
        return f"from {self.low:g} to {self.high:g}"

    def quantile(self, value: Distribution, words: UInt32[Array, "*shape"]) -> Array:
        """The numbers that words stand for: int32 if they must be integers, else float32."""
        return (value.whole_quantile if self.integer else value.quantile)(words)

    def fixed(self, value: float) -> Any:
        """A fixed number in the dtype that drawn ones have."""
        return np.int32(value) if self.integer else np.float32(value)


def number(
    default: Any = dataclasses.MISSING,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float | None = None,
    integer: bool = False,
) -> Any:
    """Declares a field of an `ImageOperatorConfig` as a number that each record can draw.

    In the config a plain number is fixed, `(low, high)` is `Uniform`, and any `Distribution` is
    drawn from.

    Args:
      default: the field's default, of any of these forms; None for a number that may be left out.
        Without one the field must be given.
      low: the smallest number that makes sense.
      high: the largest.
      above: in place of `low`, a bound that is itself too small.
      integer: whether the number must be an integer.

    >>> from dataclasses import dataclass
    >>> from datarax.operators.modality.image import ImageOperatorConfig
    >>> @dataclass(frozen=True)
    ... class FadeConfig(ImageOperatorConfig):
    ...     strength: Number = number((0.5, 1), low=0, high=1)
    >>> FadeConfig().strength, FadeConfig().stochastic, FadeConfig(strength=0.7).stochastic
    (Uniform(low=0.5, high=1), True, False)
    """
    rule = NumberRule(
        low if above is None else above, high, integer, above is not None, default is None
    )
    metadata = {RULE: rule}
    if default is not dataclasses.MISSING:
        # As configs have it, by which `repr` tells what differs.
        metadata["default"] = rule.checked("the default", default)
    return dataclasses.field(default=default, kw_only=True, metadata=metadata)


def rules_of(config: Any) -> dict[str, NumberRule]:
    """The rules of a config's numbers by name, in the order in which they are declared."""
    fields = dataclasses.fields(config)
    return {field.name: field.metadata[RULE] for field in fields if RULE in field.metadata}


def named_words(
    key: Key[Array, ""], rows: int, shares: Mapping[str, tuple[int, ...]]
) -> dict[str, UInt32[Array, "rows ..."]]:
    """Random words by name, which depend on the name and on no other.

    All are made at once, because every kernel that draws takes long to compile.

    Args:
      key: the key.
      rows: how many records.
      shares: the shape of each record's words.
    """
    names = np.array([crc32(name.encode()) for name in shares], np.uint32)
    most = max(math.prod(shape) for shape in shares.values())
    words = random_words(fold_in(key, names), (most, rows))
    return {
        name: words[number, : math.prod(shape)].T.reshape(rows, *shape)
        for number, (name, shape) in enumerate(shares.items())
    }
