"""`PolicyOperator`: the base of operators that draw operations of a table for each record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree, UInt32

from datarax.core.element_batch import Batch
from datarax.core.schedule import ScalarVariable
from datarax.operators.modality.image._geometric_config import WarpOperatorConfig
from datarax.operators.modality.image._geometric_operator import GeometricOperator
from datarax.operators.modality.image._number import named_words
from datarax.operators.modality.image._operations import Operation
from datarax.operators.modality.image._policy import NONE, Steps, mapped, planned, transformed
from datarax.operators.modality.image._replay import APPLIED
from datarax.operators.modality.image.functional import Affine


@dataclass(frozen=True)
class PolicyOperatorConfig(WarpOperatorConfig):
    """Options of every policy.

    Args:
      prob: the probability that a record is changed at all; the start value of `op.prob`.
      info_key: where in `states` each record's `operation` and `magnitude` are left, `(layers,)`
        each: numbers of lines of the table, -1 for none, and magnitudes, below 0 for the other
        direction.
      method, fill, mask_fill and the others: see `WarpOperatorConfig`.
    """

    def table(self) -> tuple[Operation, ...]:
        """The operations, in the order in which they are numbered."""
        raise NotImplementedError(f"{type(self).__name__} must implement table")

    def largest(self) -> float:
        """The magnitude at which the number of an operation is its `last`."""
        raise NotImplementedError(f"{type(self).__name__} must implement largest")

    def random_because(self) -> str:
        return "the choice of operations"


class Magnitude(ScalarVariable):
    """A float32 scalar of 0 or more."""

    dtype = np.float32

    @classmethod
    def _check_concrete(cls, label: str, value: np.ndarray) -> None:
        if not (jnp.issubdtype(value.dtype, np.number) and value >= 0):
            raise ValueError(f"{label} must be a number of 0 or more, got {value}")


ConfigT = TypeVar("ConfigT", bound=PolicyOperatorConfig)


class PolicyOperator(GeometricOperator[ConfigT]):
    """Base class of policies: implement `words` and `draw`, which say what each layer does."""

    config_class = PolicyOperatorConfig

    def draw(
        self, words: dict[str, UInt32[Array, "rows ..."]], shape: tuple[int, ...]
    ) -> dict[str, Any]:
        """Says what the layers do to each record.

        Args:
          words: what `words` asks for, uint32 `(rows, ...)` by name.
          shape: of a record's image.

        Returns:
          `operation`, int32 `(rows, layers)`, the number of a line or `NONE`, and `magnitude`,
          float32 `(rows, layers)`, below 0 for the other direction.
        """
        raise NotImplementedError(f"{self._label()} must implement draw")

    def share(self) -> Array:
        """The probability that `prob` stands for, as a scalar."""
        assert self.prob is not None
        return jnp.asarray(self.prob.get_value())

    def generate_random_params(self, rng: Key[Array, ""], data_shapes: PyTree) -> PyTree:
        rows, *shape = self._extract_field(data_shapes, self.config.field_key)
        numbers = self.draw(named_words(rng, rows, self.words()), tuple(shape))
        return {**numbers, APPLIED: jnp.any(numbers["operation"] != NONE, axis=1)}

    @contextmanager
    def _random_params(self, batch: Batch) -> Iterator[PyTree]:
        with super()._random_params(batch) as params, self._mapped():
            yield params

    def _mapped(self) -> AbstractContextManager[None]:
        return nullcontext() if self.config.batch_strategy == "scan" else mapped()

    def completed(self, data: PyTree, random_params: PyTree) -> PyTree:
        operation = jnp.where(random_params[APPLIED], random_params["operation"], NONE)
        return {**random_params, "operation": operation}

    def transform_field(
        self, value: Array, random_params: PyTree, stats: dict[str, Any] | None
    ) -> Array:
        # Where nothing applies, all layers have no operation.
        return self.transform_image(jnp.asarray(value), **self.numbers(random_params))

    def transform_image(self, image: Array, operation: Array, magnitude: Array) -> Array:
        config, (height, width) = self.config, image.shape[:2]
        steps = self._steps((height, width), operation, magnitude)
        return transformed(image, steps, config.table(), method=config.method, fill=config.fill)

    def geometry(
        self, size: tuple[int, int], operation: Array, magnitude: Array
    ) -> tuple[Affine, ...]:
        matrices = self._steps(size, operation, magnitude).matrix
        return tuple(
            Affine(matrix=jax.tree.map(lambda part, layer=layer: part[layer], matrices), size=size)
            for layer in range(operation.shape[0])
        )

    def _steps(self, size: tuple[int, int], operation: Array, magnitude: Array) -> Steps:
        config = self.config
        return planned(config.table(), size, operation, magnitude, config.largest())
