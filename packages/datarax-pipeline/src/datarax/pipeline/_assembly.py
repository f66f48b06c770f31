"""Batches of records that were read one by one, with padding for those that could not be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from datarax.batching import DefaultBatcher, DefaultBatcherConfig, record_spec
from datarax.core.element_batch import Batch, Element
from datarax.pipeline._failures import Failure
from datarax.sources._metadata import require_numbers

if TYPE_CHECKING:
    from datarax.pipeline._host import HostWork


class Assembly:
    """Makes batches of records that were read or could not be read.

    Args:
      work: which records these are.
    """

    def __init__(self, work: HostWork) -> None:
        self._work = work
        self._batcher = DefaultBatcher(DefaultBatcherConfig(remainder="partial"))
        self._first: tuple[Element, Any] | None = None

    def __call__(
        self, indices: np.ndarray, found: Sequence[Element | Failure]
    ) -> tuple[Batch, tuple[Failure, ...]]:
        """The batch, and what became padding in it.

        Args:
          indices: the numbers of the records.
          found: what was read of each.
        """
        failures = {row: each for row, each in enumerate(found) if isinstance(each, Failure)}
        if not self._work.mask:
            for failure in failures.values():
                raise failure.error
            return self._stacked(indices, list(found), {})
        template, spec = self._template()
        for row, each in enumerate(found):
            if isinstance(each, Element) and (came := _spec_of(each)) != spec:
                error = ValueError(f"expected {spec}, as of the first record, got {came}")
                failures[row] = Failure(int(indices[row]), error)
        blank = jax.tree.map(np.zeros_like, template)
        filled = [blank if row in failures else each for row, each in enumerate(found)]
        return self._stacked(indices, filled, failures)

    def _template(self) -> tuple[Element, Any]:
        """A record that all others must be like, and its spec."""
        if self._first is None:
            template = self._work.template()
            self._first = template, _spec_of(template)
        return self._first

    def _stacked(
        self, indices: np.ndarray, elements: list[Any], failures: dict[int, Failure]
    ) -> tuple[Batch, tuple[Failure, ...]]:
        label = self._work.source._label()
        try:
            batch: Any = next(iter(self._batcher(elements, batch_size=len(elements))))
        except (TypeError, ValueError) as error:
            if isinstance(error, TypeError):
                for index, element in zip(indices, elements, strict=True):
                    require_numbers(element.data, f"record {index} of {label}")
            error.add_note(f"while {label} read the records {np.asarray(indices).tolist()}")
            raise
        valid = np.ones(len(elements), bool)
        valid[list(failures)] = False
        batch = batch.replace(valid_mask=valid, record_index=indices)
        return batch, tuple(failures.values())


def _spec_of(element: Element) -> Any:
    """Shapes and dtypes of a record; a text where it is not a record of arrays."""
    try:
        return record_spec(Element((element.data, element.state)))
    except (TypeError, ValueError) as error:
        return str(error)
