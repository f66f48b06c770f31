"""Specs of a whole pipeline, worked out and checked without data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path, tree_map_with_path

from datarax.batching._spec import check_batch
from datarax.core._batch_spec import batched_spec, leaf_spec, require_batch_size, require_fields
from datarax.core.batcher import BatcherModule
from datarax.core.element_batch import RESERVED_FIELD, Batch
from datarax.core.operator import OperatorModule


@dataclass(frozen=True, eq=False)
class SpecChain:
    """What records look like after each stage; prints as a table.

    Attributes:
      stages: pairs of a stage's name and the spec after it; the last one is the batch.
    """

    stages: tuple[tuple[str, dict[str, Any]], ...]

    @property
    def batch_spec(self) -> dict[str, Any]:
        """What `batch.as_dict()` looks like at the end."""
        return self.stages[-1][1]

    def __str__(self) -> str:
        lines = [("stage", "field", "dtype", "shape")]
        for name, spec in self.stages:
            for number, (path, leaf) in enumerate(tree_leaves_with_path(spec)):
                field = keystr(path, simple=True, separator=".")
                stage = "" if number else name
                lines.append((stage, field, str(leaf.dtype), str(leaf.shape)))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        cells = (zip(line, widths, strict=True) for line in lines)
        return "\n".join("  ".join(c.ljust(w) for c, w in line).rstrip() for line in cells)


def compose_specs(
    source: Any,
    operators: Iterable[OperatorModule],
    batcher: BatcherModule,
    *,
    batch_size: int,
) -> SpecChain:
    """Follows a record's spec through operators to the batch, and checks each step.

    Every operator is traced on a batch of this size (`jax.eval_shape`; nothing is computed, and no
    random stream advances), and its result compared with what its `output_spec` says.

    Args:
      source: the spec of a record, a dict of pytrees of `jax.ShapeDtypeStruct`s, or a source that
        has it as `element_spec` (an attribute or a method).
      operators: in the order in which they are applied.
      batcher: what makes the batches.
      batch_size: rows of each batch.

    Returns:
      The specs after the source, each operator and the batcher.

    Raises:
      TypeError: if an operator is not an `OperatorModule`, if the batcher is not a
        `BatcherModule`, or if the source has no spec.
      ValueError: if an operator makes something else than its `output_spec` says, listing every
        difference by path; what an operator raises for input that it cannot take, comes through.

    >>> from datarax.batching import DefaultBatcher, DefaultBatcherConfig
    >>> batcher = DefaultBatcher(DefaultBatcherConfig())
    >>> print(compose_specs({"x": np.zeros(3, np.uint8)}, [], batcher, batch_size=8))
    stage           field       dtype  shape
    source          x           uint8  (3,)
    DefaultBatcher  valid_mask  bool   (8,)
                    x           uint8  (8, 3)
    """
    size = require_batch_size(batch_size)
    if not isinstance(batcher, BatcherModule):
        raise TypeError(f"batcher must be a BatcherModule, got {type(batcher).__name__}")
    spec = _record_spec(source)
    stages = [("source", spec)]
    for number, operator in enumerate(operators):
        if not isinstance(operator, OperatorModule):
            raise TypeError(
                f"operators[{number}] must be an OperatorModule, got {type(operator).__name__}"
            )
        name = f"operators[{number}] {operator._label()}"
        spec = _after(name, operator, spec, size)
        stages.append((operator._label(), spec))
    stages.append((batcher._label(), batcher.batch_spec(spec, batch_size=size)))
    return SpecChain(tuple(stages))


def _record_spec(source: Any) -> dict[str, Any]:
    found = getattr(source, "element_spec", source)
    fields = require_fields("the source's element_spec", found() if callable(found) else found)
    return tree_map_with_path(
        lambda path, leaf: leaf_spec(f"element_spec{keystr(path)}", leaf), dict(fields)
    )


def _after(name: str, operator: OperatorModule, spec: dict[str, Any], size: int) -> dict[str, Any]:
    made = batched_spec(spec, size)
    mask = made.pop(RESERVED_FIELD)
    # With indices, a record's randomness needs no stream, which a trace could not advance.
    batch = Batch(
        data=made,
        states={},
        valid_mask=mask,
        record_index=jax.ShapeDtypeStruct((size,), np.uint32),  # pyright: ignore
        epoch=jax.ShapeDtypeStruct((), np.uint32),  # pyright: ignore
    )
    actual = jax.eval_shape(operator.apply_batch, batch).as_dict()
    declared = dict(require_fields(f"output_spec of {name}", operator.output_spec(spec)))
    try:
        check_batch(actual, batched_spec(declared, size))
    except ValueError as error:
        raise ValueError(
            f"output_spec of {name} does not say what apply makes of a batch of {size}; override "
            f"output_spec. Expected is what output_spec says: {error}"
        ) from None
    return tree_map_with_path(lambda path, leaf: leaf_spec(keystr(path), leaf), declared)
