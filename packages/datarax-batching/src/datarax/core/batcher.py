"""`BatcherModule`: modules that group records into batches of one size."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from datarax.core._batch_spec import batched_spec
from datarax.core.element_batch import Batch, Element
from datarax.core.structural import StructuralConfigT, StructuralModule

# Says at INFO, once for each pass over records, how many were left out and how many rows padded.
logger = logging.getLogger(__name__)


class BatcherModule(StructuralModule[StructuralConfigT]):
    """Base class of batchers: implement `process`; calling the batcher calls it.

    Args:
      config: what the batcher does.
      rngs: streams to derive its own from; needed if `config.stochastic`.
      name: its name in messages.

    >>> class Pairs(BatcherModule):
    ...     def process(self, elements, *, batch_size=2, drop_remainder=False):
    ...         return [
    ...             Batch.from_elements(elements[i : i + 2]) for i in range(0, len(elements), 2)
    ...         ]
    >>> import numpy as np
    >>> from datarax.core.config import StructuralConfig
    >>> records = [Element({"x": np.float32(i)}) for i in range(4)]
    >>> [batch["x"].tolist() for batch in Pairs(StructuralConfig())(records)]
    [[0.0, 1.0], [2.0, 3.0]]
    """

    def process(
        self,
        elements: Iterable[Element | Mapping[str, Any]],
        *args: Any,
        batch_size: int,
        drop_remainder: bool = False,
        **kwargs: Any,
    ) -> list[Batch] | Iterator[Batch]:
        """Groups records into batches.

        Args:
          elements: the records, in order; dicts are their data.
          *args: what else the batcher takes.
          batch_size: rows of each batch.
          drop_remainder: whether to leave out records that do not fill a last batch.
          **kwargs: what else the batcher takes.

        Returns:
          The batches, as a list or an iterator.

        Raises:
          ValueError: if `batch_size` is not a positive integer.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement process")

    def __call__(
        self, elements: Iterable[Element | Mapping[str, Any]], *args: Any, **kwargs: Any
    ) -> list[Batch] | Iterator[Batch]:
        """Calls `process`."""
        return self.process(elements, *args, **kwargs)

    def batch_spec(self, element_spec: Any, *, batch_size: int) -> dict[str, Any]:
        """What `batch.as_dict()` of every batch of this size looks like.

        Args:
          element_spec: dict of fields, each a pytree of `jax.ShapeDtypeStruct`s (or arrays) of one
            record.
          batch_size: rows of each batch.

        Returns:
          The same fields with shapes `(batch_size, ...)` and the dtypes to which JAX narrows them,
          and `valid_mask`, bool `(batch_size,)`.

        Raises:
          TypeError: if `element_spec` is not a dict, or a leaf has no shape and dtype.
          ValueError: if `batch_size` is not a positive integer, or for a field called `valid_mask`.
        """
        return batched_spec(element_spec, batch_size)

    def _count_records(self, batched: int, left_out: int) -> None:
        """Adds to the operation counts, on the host: there is no work that a device could share."""
        # Both counts as one integer of four words, the lowest first as in memory.
        words = np.asarray(self._operation_count.get_raw_value())
        total = int.from_bytes(words.tobytes(), "little") + batched + (left_out << 64)
        words = np.ndarray((2, 2), np.uint32, bytearray(total.to_bytes(16, "little")))
        self._operation_count.set_raw_value(words)
