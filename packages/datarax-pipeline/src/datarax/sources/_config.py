"""`SourceConfig`: the options of all sources."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import index
from typing import Any

from datarax.core.config import StructuralConfig, require_bools


@dataclass(frozen=True)
class SourceConfig(StructuralConfig):
    """Configuration of a source.

    Args:
      stochastic: whether the order comes from the stream `stream_name` of the source's `rngs`.
      stream_name: that stream; None means the one called "default".
      shuffle: whether each epoch has a random order of its own.
      seed: from 0; the order of an epoch depends on the seed and the epoch alone. None: the order
        is derived from the stream "shuffle" (or "default") of the source's `rngs`, else of the
        pipeline's. Without effect unless `shuffle`.
      metadata_fields: fields that arrays do not hold, such as names and texts; a batch then has
        them in `metadata`, a dict for each record.
      cacheable, batch_stats_fn, precomputed_stats: see `DataraxModuleConfig`.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for a negative seed, or `stochastic` without `shuffle` or together with a seed.

    >>> SourceConfig(shuffle=True, seed=42).seed
    42
    """

    shuffle: bool = False
    seed: int | None = None
    metadata_fields: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bools(self, "shuffle")
        names = checked_names(f"{type(self).__name__}.metadata_fields", self.metadata_fields)
        object.__setattr__(self, "metadata_fields", names)
        if self.seed is not None:
            if isinstance(self.seed, bool) or not hasattr(self.seed, "__index__"):
                raise TypeError(
                    f"{type(self).__name__}.seed must be an integer or None, "
                    f"got {type(self.seed).__name__} {self.seed!r}"
                )
            if index(self.seed) < 0:
                raise ValueError(f"{type(self).__name__}.seed must be 0 or more, got {self.seed}")
            object.__setattr__(self, "seed", index(self.seed))
        if self.stochastic and (self.seed is not None or not self.shuffle):
            raise ValueError(
                f"{type(self).__name__} has stochastic=True, which means that rngs decide the "
                f"order, but shuffle={self.shuffle} and seed={self.seed}; set shuffle=True and "
                "seed=None, or leave stochastic out"
            )


def checked_names(name: str, value: Any) -> tuple[str, ...]:
    """Different non-empty field names as a tuple.

    Args:
      name: what they are, for messages.
      value: a tuple or list of strings, possibly empty.
    """
    if not isinstance(value, tuple | list) or not all(isinstance(entry, str) for entry in value):
        raise TypeError(f'{name} must be names such as ("image", "label"), got {value!r}')
    if "" in value or len(set(value)) < len(value):
        raise ValueError(f"{name} must hold different non-empty names, got {value!r}")
    return tuple(value)
