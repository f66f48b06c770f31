"""Messages at INFO about what would be hard to find otherwise."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING

import numpy as np

from datarax.core.element_batch import Batch
from datarax.operators._mix.labels import can_be_read

if TYPE_CHECKING:
    from datarax.operators.batch_mix_operator import BatchMixOperator

logger = logging.getLogger("datarax.operators.batch_mix_operator")

# Batch sizes for which an operator has spoken already.
_told: weakref.WeakKeyDictionary[BatchMixOperator, set[int]] = weakref.WeakKeyDictionary()


def tell_lone_rows(operator: BatchMixOperator, batch: Batch) -> None:
    """Logs which rows are alone in their group, once for each batch size."""
    group, rows = operator.config.mix_group_size, batch.batch_size
    if group is None or not logger.isEnabledFor(logging.INFO):
        return
    told = _told.setdefault(operator, set())
    if rows in told:
        return
    readable = can_be_read(batch.valid_mask)
    alone = lone_rows(np.asarray(batch.valid_mask) if readable else np.ones(rows, bool), group)
    if alone.size:
        told.add(rows)
        logger.info(
            "%s mixes groups of %d rows, in which rows %s of a batch of %d have no partner and "
            "stay as they are; use a mix_group_size that divides the batch size",
            operator._label(),
            group,
            alone.tolist(),
            rows,
        )


def lone_rows(valid: np.ndarray, group: int) -> np.ndarray:
    """Numbers of the valid rows that are alone in their group."""
    groups = np.pad(valid, (0, -len(valid) % group)).reshape(-1, group)
    return np.flatnonzero(groups & (groups.sum(1, keepdims=True) == 1))
