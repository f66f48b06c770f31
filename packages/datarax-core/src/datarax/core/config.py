"""Configurations of modules: frozen dataclasses, validated when they are made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datarax.core import _options
from datarax.core import _sole_owner as _sole_owner
from datarax.core._construction import different_options
from datarax.core._exact import Exact as Exact
from datarax.core._notebook import config_html
from datarax.core._statistics_values import FrozenStatistics, frozen_statistics

if TYPE_CHECKING:
    from datarax.operators.batch_mix_operator import (
        BatchMixOperatorConfig as BatchMixOperatorConfig,
    )

BATCH_STRATEGIES = ("vmap", "scan")


def require_bools(config: object, *fields: str) -> None:
    """Raises a TypeError for the first of the named fields that is not True or False."""
    for field in fields:
        value = getattr(config, field)
        if not isinstance(value, bool):
            raise TypeError(f"{type(config).__name__}.{field} must be True or False, got {value!r}")


def require_names(config: object, *fields: str, optional: bool = False) -> None:
    """Raises for the first of the named fields that is not a non-empty string (or None)."""
    for field in fields:
        value = getattr(config, field)
        if value is None and optional:
            continue
        expected = "a non-empty string" + (" or None" if optional else "")
        if not isinstance(value, str):
            raise TypeError(
                f"{type(config).__name__}.{field} must be {expected}, "
                f"got {type(value).__name__} {value!r}"
            )
        if not value:
            raise ValueError(f"{type(config).__name__}.{field} must be {expected}, got ''")


@dataclass(frozen=True)
class DataraxModuleConfig:
    """Options of every module.

    Options may come from JSON, YAML or OmegaConf: lists are taken as tuples, mappings as dicts, and
    what `dataclasses.asdict` makes of a config makes an equal one again.

    Args:
      cacheable: remember the result for a batch of the very same `jax.Array`s. Only deterministic
        modules can; a batch with a writable NumPy array, which could change, is never looked up.
      batch_stats_fn: a function (or `nnx.Module`) that `compute_statistics` calls with its
        argument; returns a dict of numbers and arrays, which reaches `apply` as `stats`.
      precomputed_stats: a dict of numbers and arrays that reaches `apply` as `stats`.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: if both `batch_stats_fn` and `precomputed_stats` are given.

    >>> DataraxModuleConfig(precomputed_stats={"mean": 0.5}).precomputed_stats["mean"].item()
    0.5
    """

    cacheable: bool = False
    batch_stats_fn: Callable[..., dict[str, Any]] | None = None
    precomputed_stats: dict[str, Any] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Before `@dataclass` gives the class one that lists all fields.
        if "__repr__" not in vars(cls):
            cls.__repr__ = DataraxModuleConfig.__repr__
        if "__post_init__" in vars(cls):
            cls.__post_init__ = _options.read_first(cls.__post_init__)
        _options.resolve_annotations(cls)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(different_options(self))})"

    def _repr_html_(self) -> str:
        return config_html(self)

    def __post_init__(self) -> None:
        _options.read(self)
        require_bools(self, "cacheable")
        if self.batch_stats_fn is not None and not callable(self.batch_stats_fn):
            raise TypeError(
                f"{type(self).__name__}.batch_stats_fn must be callable, "
                f"got {type(self.batch_stats_fn).__name__}"
            )
        if self.precomputed_stats is None:
            return
        if self.batch_stats_fn is not None:
            raise ValueError(
                f"{type(self).__name__} has both batch_stats_fn and precomputed_stats, of which "
                "one would never be read; give one of them"
            )
        statistics = frozen_statistics(
            f"{type(self).__name__}.precomputed_stats", self.precomputed_stats
        )
        object.__setattr__(self, "precomputed_stats", FrozenStatistics(statistics))


@dataclass(frozen=True)
class _RandomnessConfig(DataraxModuleConfig):
    stochastic: bool = False
    stream_name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bools(self, "stochastic")
        require_names(self, "stream_name", optional=True)
        if self.stream_name is not None and not self.stochastic:
            raise ValueError(
                f"{type(self).__name__}.stream_name={self.stream_name!r} has no effect with "
                "stochastic=False; set stochastic=True or leave stream_name out"
            )
        if self.stochastic and self.cacheable:
            raise ValueError(
                f"{type(self).__name__} has cacheable=True and stochastic=True, but a remembered "
                "result would repeat its randomness; set one of them to False"
            )


@dataclass(frozen=True)
class StructuralConfig(_RandomnessConfig):
    """Configuration of modules that rearrange records (batchers, sources) and have no parameters.

    Args:
      stochastic: whether the module draws; then it needs `rngs`.
      stream_name: the random stream it draws from; None means the stream called "default".
      cacheable, batch_stats_fn, precomputed_stats: see `DataraxModuleConfig`.

    Raises:
      ValueError: for a `stream_name` without `stochastic`, or `cacheable` with `stochastic`.

    >>> StructuralConfig(stochastic=True, stream_name="shuffle").stream_name
    'shuffle'
    """


@dataclass(frozen=True)
class OperatorConfig(_RandomnessConfig):
    """Configuration of operators, which transform batches record by record.

    Args:
      stochastic: whether the operator draws; then it needs `rngs`.
      stream_name: the random stream it draws from; None means the stream called "default".
      batch_strategy: "vmap" transforms all records at once; "scan" one after the other, which is
        slower and needs working memory for one record only. Results are the same.
      cacheable, batch_stats_fn, precomputed_stats: see `DataraxModuleConfig`.

    Raises:
      ValueError: for an unknown `batch_strategy`, a `stream_name` without `stochastic`, or
        `cacheable` with `stochastic`.

    >>> OperatorConfig(batch_strategy="scan").batch_strategy
    'scan'
    """

    batch_strategy: str = "vmap"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_strategy not in BATCH_STRATEGIES:
            raise ValueError(
                f"{type(self).__name__}.batch_strategy must be one of {BATCH_STRATEGIES}, "
                f"got {self.batch_strategy!r}"
            )


@dataclass(frozen=True)
class ElementOperatorConfig(OperatorConfig):
    """Configuration of `datarax.operators.ElementOperator`; adds nothing to `OperatorConfig`.

    >>> ElementOperatorConfig(stochastic=False).stochastic
    False
    """


def __getattr__(name: str) -> Any:
    if name == "BatchMixOperatorConfig":
        try:
            from datarax.operators.batch_mix_operator import BatchMixOperatorConfig
        except ModuleNotFoundError as error:
            if error.name != "datarax.operators.batch_mix_operator":
                raise
            raise ImportError(
                "BatchMixOperatorConfig is part of datarax-ops-batch, which is not installed; run "
                "python -m pip install datarax-ops-batch"
            ) from error
        return BatchMixOperatorConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
