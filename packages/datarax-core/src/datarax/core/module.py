"""`DataraxModule`: what operators, batchers and sources share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Generic, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool

from datarax.core import _recording, randomness
from datarax.core._construction import ConstructorArguments, ConstructorSignature, description
from datarax.core._notebook import module_html
from datarax.core._statistics_values import frozen_statistics
from datarax.core.config import DataraxModuleConfig
from datarax.core.state import (
    Statistics,
    own_buffers,
    read_state,
    transfer_state,
    write_state,
)

ConfigT = TypeVar("ConfigT", bound=DataraxModuleConfig)


class OperationCount(nnx.Variable[Any]):
    """uint32 `(2, 2)`: the (low, high) words of the applied and of the skipped count."""


def increased(count: Any, applied: Any, skipped: Any = 0) -> Any:
    """Adds to a count, with a carry; on the host if everything is there."""
    if isinstance(count, np.ndarray) and not isinstance(applied, jax.Array):
        new = count.copy()
        for row, more in enumerate((int(applied), int(skipped))):
            total = int(new[row, 0]) + more
            new[row] = total % 2**32, int(new[row, 1]) + total // 2**32
        return new
    count = jnp.asarray(count)
    more = jnp.asarray([applied, skipped], jnp.uint32)
    low = count[:, 0] + more
    return jnp.stack([low, count[:, 1] + (low < more).astype(jnp.uint32)], axis=1)


class DataraxModule(nnx.Module, Generic[ConfigT]):
    """An `nnx.Module` built from a frozen config.

    Holds random streams of its own, statistics and operation counts, all of them part of its
    checkpointable state.

    Args:
      config: what the module does.
      rngs: streams to derive its own from, which advance as for every NNX layer. Needed if it is
        stochastic.
      name: its name in messages.

    Attributes:
      config_class: what `config` must be; set it in a subclass, as in
        `class Mine(OperatorModule[MyConfig]): config_class = MyConfig`.

    Raises:
      TypeError: if `config` or `rngs` is of the wrong type.
      ValueError: if it is stochastic and `rngs` lacks the stream.

    >>> module = DataraxModule(DataraxModuleConfig(precomputed_stats={"mean": 0.5}), name="mine")
    >>> module.get_statistics()["mean"].item()
    0.5
    """

    config_class: ClassVar[type[DataraxModuleConfig]] = DataraxModuleConfig
    __signature__ = ConstructorSignature()
    _constructor: ConstructorArguments

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        object.__setattr__(self, "_constructor", ConstructorArguments(args, kwargs))
        return self

    def __init__(
        self, config: ConfigT, *, rngs: nnx.Rngs | None = None, name: str | None = None
    ) -> None:
        self._require_config(config)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string or None, got {type(name).__name__} {name!r}")
        if rngs is not None and not isinstance(rngs, nnx.Rngs):
            raise TypeError(
                f"rngs must be nnx.Rngs or None, got {type(rngs).__name__}; pass nnx.Rngs(0)"
            )
        self.config: ConfigT = config
        self.name = name
        self.stochastic: bool = getattr(config, "stochastic", False)
        self.stream_name: str | None = None
        if self.stochastic:
            self.stream_name = getattr(config, "stream_name", None) or randomness.DEFAULT_STREAM
        streams = self.requires_rng_streams()
        self.rngs = (
            randomness.own_streams(self._label(), type(self), rngs, streams) if streams else None
        )
        self._operation_count = OperationCount(np.zeros((2, 2), np.uint32))
        statistics = config.precomputed_stats
        self._statistics = Statistics(
            {} if statistics is None else {"precomputed": dict(statistics)}
        )
        if isinstance(config.batch_stats_fn, nnx.Module):
            self._batch_stats_module = config.batch_stats_fn

    @classmethod
    def _require_config(cls, config: object) -> None:
        """Raises a TypeError unless the config is of this class's `config_class`."""
        if not isinstance(config, cls.config_class):
            wanted = cls.config_class.__name__
            article = "an" if wanted[0] in "AEIO" else "a"
            raise TypeError(
                f"config of {cls.__name__} must be {article} {wanted}, got {type(config).__name__}"
            )

    def __repr__(self) -> str:
        return description(self)

    def __str__(self) -> str:
        # NNX prints all Variables, a page of them.
        return repr(self)

    def _repr_html_(self) -> str:
        return module_html(self)

    def _label(self) -> str:
        return type(self).__name__ + (f" {self.name!r}" if self.name else "")

    def requires_rng_streams(self) -> list[str] | None:
        """Names of the random streams that the module draws from, or None."""
        return None if self.stream_name is None else [self.stream_name]

    def ensure_rng_streams(self, stream_names: list[str]) -> None:
        """Checks that the required streams are among the named ones ("default" serves any).

        Raises:
          ValueError: if one is not.
        """
        randomness.require_streams(self._label(), self.requires_rng_streams() or [], stream_names)

    def get_operation_stats(self) -> dict[str, int]:
        """How many valid records were transformed and how many passed through unchanged.

        Returns:
          A dict with `applied_count` and `skipped_count`. Calls inside a `jax.jit` that closes over
          the module are not counted; `nnx.jit` keeps count.
        """
        words = np.asarray(self._operation_count.get_value()).astype(object)
        applied, skipped = (int(low + (high << 32)) for low, high in words)
        return {"applied_count": applied, "skipped_count": skipped}

    def reset_operation_stats(self) -> None:
        """Sets both counts to zero."""
        self._operation_count.set_value(np.zeros((2, 2), np.uint32))

    def count_operations(
        self,
        valid_mask: Bool[np.ndarray | Array, " batch"],
        applied: Bool[np.ndarray | Array, " batch"] | None = None,
    ) -> None:
        """Adds the valid rows to the counts.

        Args:
          valid_mask: which rows are records.
          applied: which rows were transformed; the other valid ones count as skipped. None: all.
        """
        recorder = _recording.active()
        if applied is None and recorder is not None and valid_mask is recorder.valid_mask:
            recorder.counted_all(self._operation_count)
        elif randomness.can_update(self._operation_count):
            rows = jnp.asarray(valid_mask)
            done = rows if applied is None else rows & applied
            count = self._operation_count.get_value()
            new = increased(count, jnp.count_nonzero(done), jnp.count_nonzero(rows & ~done))
            self._operation_count.set_value(new)

    def compute_statistics(self, data: Any) -> dict[str, Any] | None:
        """Calls the config's `batch_stats_fn` with `data` and keeps the result.

        Returns:
          The statistics, or None if there is no `batch_stats_fn`.

        Raises:
          TypeError: if the function returns anything but a dict of numbers and arrays.
        """
        function = getattr(self, "_batch_stats_module", self.config.batch_stats_fn)
        if function is None:
            return None
        return self._keep_statistics("computed", "the result of batch_stats_fn", function(data))

    def get_statistics(self) -> dict[str, Any] | None:
        """The statistics: those set by hand, else precomputed, else computed, else None."""
        kept = self._statistics.get_value()
        for kind in ("given", "precomputed", "computed"):
            if kind in kept:
                return dict(kept[kind])
        return None

    def set_statistics(self, stats: dict[str, Any]) -> None:
        """Sets statistics, which replace all others until the next reset.

        Raises:
          TypeError: if `stats` is not a dict of numbers and arrays.
        """
        self._keep_statistics("given", "stats", stats)

    def reset_statistics(self) -> None:
        """Forgets all statistics, also precomputed ones."""
        self._statistics.set_value({})

    def _keep_statistics(self, kind: str, label: str, stats: dict[str, Any]) -> dict[str, Any]:
        frozen = frozen_statistics(label, stats)
        self._statistics.set_value({**self._statistics.get_value(), kind: frozen})
        return dict(frozen)

    def copy(
        self,
        *,
        config: DataraxModuleConfig | None = None,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> Self:
        """Builds the module again, with the arguments given here in place of the earlier ones.

        Parameters keep their values, and so do statistics and random streams unless the new
        `config` or `rngs` replaces them. Operation counts start at zero. This module stays as it
        is, its random streams too.

        Raises:
          TypeError: if the constructor does not take a replaced argument.
          ValueError: if parameters of this module do not fit the new config.
        """
        new = self._constructor.rebuilt(type(self), config=config, rngs=rngs)
        new.name = self.name if name is None else name
        modes = {path: module.deterministic for path, module in _with_modes(self)}
        for path, module in _with_modes(new):
            module.deterministic = modes.get(path, module.deterministic)
        transfer_state(self, new, self._keeps(config, rngs))
        return new

    def _keeps(
        self, config: DataraxModuleConfig | None, rngs: nnx.Rngs | None
    ) -> Callable[[nnx.Variable[Any]], bool]:
        """Which Variables a copy with this config and these streams takes over."""
        dropped: list[type[nnx.Variable[Any]]] = [OperationCount]
        if rngs is not None:
            dropped += [nnx.RngKey, nnx.RngCount]
        if config is None:
            return lambda variable: not isinstance(variable, tuple(dropped))
        if (
            config.precomputed_stats != self.config.precomputed_stats
            or config.batch_stats_fn is not self.config.batch_stats_fn
        ):
            dropped.append(Statistics)
        # Other Variables hold what the constructor read from the config.
        kept = (nnx.Param, nnx.BatchStat, nnx.RngState, Statistics)
        return lambda variable: (
            isinstance(variable, kept) and not isinstance(variable, tuple(dropped))
        )

    def clone(self) -> Self:
        """An independent module with the same state, in memory of its own."""
        clone = nnx.clone(self)
        own_buffers(clone)
        return clone

    def get_state(self) -> dict[str, Any]:
        """A copy of all state as nested dicts of arrays, as Orbax saves them.

        Random keys are stored as `{implementation: uint32 words}`.
        """
        return read_state(self)

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned, completely or not at all.

        Raises:
          TypeError: if `state` is not a dict.
          ValueError: if structure, shapes, dtypes or key implementations differ, listing every
            difference by its path; the module is then unchanged.
        """
        write_state(self, state)

    def reset_cache(self) -> None:
        """Forgets remembered results; without `cacheable=True` there are none."""


def _with_modes(module: nnx.Module) -> list[tuple[Any, Any]]:
    """The modules in it, with their paths, that have a mode for training and one for evaluation."""
    return [pair for pair in nnx.iter_modules(module) if hasattr(pair[1], "deterministic")]
