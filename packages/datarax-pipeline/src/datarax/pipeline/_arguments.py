"""Checks of a pipeline's arguments."""

from __future__ import annotations

from operator import index
from typing import Any, Literal

from flax import nnx

from datarax.batching import BucketBatcher, DefaultBatcher, DefaultBatcherConfig, PackingBatcher
from datarax.core.operator import OperatorModule
from datarax.pipeline._placement import Placement
from datarax.sources import DataSourceModule
from datarax.sources._config import checked_names
from datarax.sources._indexed import Dataset, IndexedSource
from datarax.sources._source import MAX_RECORDS

Batcher = DefaultBatcher | BucketBatcher | PackingBatcher
Remainder = Literal["pad", "drop", "partial"]
OnError = Literal["raise", "mask"]


def checked_source(
    source: Any, rngs: Any, fields: Any = None, shuffle: bool = False, seed: int | None = None
) -> DataSourceModule[Any]:
    """The source as a module that can be read, its order derived from `rngs` if it has no other."""
    if rngs is not None and not isinstance(rngs, nnx.Rngs):
        raise TypeError(
            f"rngs must be nnx.Rngs or None, got {type(rngs).__name__}; pass nnx.Rngs(0)"
        )
    if not isinstance(source, DataSourceModule):
        source = IndexedSource(Dataset(source), checked_fields(fields))
    elif fields is not None:
        raise ValueError(
            f"fields={fields!r} names the parts of records that are tuples, but {source._label()} "
            "gives records of its own; leave fields out"
        )
    if not 0 < len(source) <= MAX_RECORDS:
        raise ValueError(
            f"source must have from 1 to {MAX_RECORDS} records, but len() of {source._label()} "
            f"is {len(source)}"
        )
    if checked_bool("shuffle", shuffle):
        source = source.shuffled(seed)
    if source.config.shuffle and source.shuffle_key is None:
        if rngs is None:
            raise ValueError(
                f"{source._label()} has shuffle=True, but nothing to derive the order from; set "
                "seed=0 beside shuffle=True, or pass rngs=nnx.Rngs(0) to the source or to the "
                "pipeline"
            )
        return source.with_rngs(rngs)
    return source


def checked_fields(fields: Any) -> tuple[str, ...] | None:
    """Different non-empty names in a tuple, or None."""
    if fields is None:
        return None
    names = checked_names("fields", fields)
    if not names:
        raise ValueError("fields must hold different non-empty names, got none")
    return names


def checked_stages(stages: Any) -> tuple[OperatorModule, ...]:
    """The stages as a tuple of operators."""
    if not isinstance(stages, list | tuple):
        raise TypeError(
            f"stages must be a list or tuple of operators, got {type(stages).__name__}; "
            "write stages=[operator]"
        )
    for number, stage in enumerate(stages):
        if not isinstance(stage, OperatorModule):
            came = (
                f"the class {stage.__name__}" if isinstance(stage, type) else type(stage).__name__
            )
            raise TypeError(
                f"stages[{number}] must be an operator, got {came}; wrap a function: "
                "ElementOperator(ElementOperatorConfig(), fn=function)"
            )
    return tuple(stages)


def checked_batch_size(batch_size: Any, batcher: Any) -> int | None:
    """A positive integer, or None for a batcher that has sizes of its own."""
    if isinstance(batcher, BucketBatcher) and batcher.config.batch_sizes is not None:
        if batch_size is not None:
            raise ValueError(
                f"batch_size={batch_size!r} has no effect beside the batcher's batch_sizes="
                f"{batcher.config.batch_sizes}; leave one of them out"
            )
        return None
    return checked_integer("batch_size", batch_size, 1)


def checked_batcher(batcher: Any, remainder: Any, pad_values: Any) -> Batcher | None:
    """A batcher that a pipeline can resume, or None."""
    if batcher is None:
        return None
    if not isinstance(batcher, Batcher):
        raise TypeError(
            "batcher must be a BucketBatcher, a PackingBatcher, a DefaultBatcher or None, got "
            f"{type(batcher).__name__}"
        )
    if remainder == "partial" or pad_values != 0:
        raise ValueError(
            f"remainder={remainder!r} and pad_values={pad_values!r} are for a pipeline without a "
            f"batcher; set them in the config of {type(batcher).__name__}"
        )
    return batcher


def require_numbered(batcher: Any, source: DataSourceModule[Any], work: Any) -> None:
    """Raises a TypeError where records cannot be read for the batcher as they are asked for."""
    if batcher is not None and source._makes_batches:
        raise TypeError(
            f"batcher needs a source that is read by number, but {source._label()} makes its "
            "batches itself"
        )
    if batcher is not None and work is not None and work.workers:
        raise ValueError(
            f"num_workers={work.workers} processes make whole batches, which the batcher does; use "
            "num_threads"
        )


def checked_placement(sharding: Any, batcher: Any, batch_size: int | None, remainder: str) -> Any:
    """Where the rows of batches go, or None."""
    if sharding is None:
        return None
    placement = Placement(sharding)
    if remainder == "partial" or (batcher and batcher.config.remainder == "partial"):
        raise ValueError(
            "remainder='partial' gives a last batch that a sharding cannot spread evenly; use "
            "'pad' or 'drop'"
        )
    if batch_size is not None:
        placement.require_rows("batch_size", batch_size)
    for size in batcher.config.batch_sizes if batch_size is None else ():
        placement.require_rows("batch_sizes of the batcher", size)
    return placement


def checked_pad_values(pad_values: Any, remainder: str) -> Any:
    """What padding holds, by field where it differs."""
    if pad_values == 0:
        return 0
    if remainder != "pad":
        raise ValueError(
            f"pad_values={pad_values!r} has no effect with remainder={remainder!r}; leave it out"
        )
    return DefaultBatcherConfig(pad_values=pad_values).pad_values


def checked_epochs(epochs: Any) -> int | None:
    """An integer, 1 or more, or None."""
    return None if epochs is None else checked_integer("epochs", epochs, 1)


def checked_seed(seed: Any) -> int | None:
    """An integer, 0 or more, or None."""
    return None if seed is None else checked_integer("seed", seed, 0)


def checked_prefetch(prefetch: Any) -> int | None:
    """An integer, 0 or more, or None."""
    return None if prefetch is None else checked_integer("prefetch", prefetch, 0)


def checked_integer(name: str, value: Any, least: int) -> int:
    """An integer, at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    if index(value) < least:
        raise ValueError(f"{name} must be {least} or more, got {index(value)}")
    return index(value)


def checked_max_errors(value: Any, on_error: str) -> int | None:
    """An integer, 0 or more, or None; a number only where errors are counted."""
    if value is None:
        return None
    if on_error != "mask":
        raise ValueError(
            f"max_errors={value!r} counts records that become padding, but on_error={on_error!r} "
            "raises the first error; set on_error='mask' or leave max_errors out"
        )
    return checked_integer("max_errors", value, 0)


def checked_choice(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    """One of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")
    return value


def checked_bool(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def checked_name(name: Any) -> str | None:
    """A string or None."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None, got {type(name).__name__} {name!r}")
    return name
