"""`TrivialAugmentOperator`: one operation for each record, with its own magnitude."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, UInt32

from datarax.operators.modality.image import _policy_draws as draws
from datarax.operators.modality.image._operations import Entry, Operation
from datarax.operators.modality.image._policy_operator import PolicyOperator, PolicyOperatorConfig
from datarax.operators.modality.image._policy_tables import (
    TRIVIAL_AUGMENT,
    checked_operations,
    operations_in,
)

LARGEST = 30  # magnitudes are whole numbers up to this one


@dataclass(frozen=True)
class TrivialAugmentOperatorConfig(PolicyOperatorConfig):
    """Configuration of `TrivialAugmentOperator`.

    Args:
      operations: "wide" for the table of TrivialAugmentWide, or a tuple of its names and of
        `Operation`s of your own.
      prob: the probability that a record is changed at all; the start value of `op.prob`.
      method: "nearest", "bilinear" or "bicubic", as in `functional.affine`.
      fill: the value where no pixel came from, a number or one per channel, in the image's own
        unit: 0 to 255 for uint8, 0 to 1 for floats.
      info_key: where in `states` each record's `operation` and `magnitude` are left, `(layers,)`
        each: numbers of lines of the table, -1 for none, and magnitudes, below 0 for the other
        direction. None leaves none.
      mask_fill, learn and the others: see `GeometricOperatorConfig`.

    Raises:
      TypeError: if an option has the wrong type.
      ValueError: if `operations` has a name that there is not, or none.

    >>> TrivialAugmentOperatorConfig(fill=128).operations
    'wide'
    """

    operations: str | tuple[Entry, ...] = field(default="wide", kw_only=True)

    def check(self) -> None:
        super().check()
        operations = checked_operations(self.label("operations"), self.operations, TRIVIAL_AUGMENT)
        object.__setattr__(self, "operations", operations)

    def largest(self) -> float:
        return LARGEST

    def table(self) -> tuple[Operation, ...]:
        return operations_in(self.operations, TRIVIAL_AUGMENT)


class TrivialAugmentOperator(PolicyOperator[TrivialAugmentOperatorConfig]):
    """Sends each record through one operation, both it and its magnitude drawn for this record.

    Masks, boxes and keypoints follow the operations that move pixels.

    Args:
      config: which operations.
      rngs: streams to derive its own from.
      name: its name in messages.

    References:
      Müller and Hutter, "TrivialAugment: Tuning-free yet state-of-the-art data augmentation", 2021,
      https://arxiv.org/abs/2103.10158

    >>> import numpy as np
    >>> from flax import nnx
    >>> config = TrivialAugmentOperatorConfig(operations=("Identity", "Posterize"))
    >>> augment = TrivialAugmentOperator(config, rngs=nnx.Rngs(0))
    >>> augment({"image": np.full((8, 4, 4, 3), 255, np.uint8)})["image"].shape
    (8, 4, 4, 3)
    """

    config_class = TrivialAugmentOperatorConfig

    def words(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(("operation", "layer", "magnitude", "direction"), (1,))

    def draw(
        self, words: dict[str, UInt32[Array, "rows ..."]], shape: tuple[int, ...]
    ) -> dict[str, Any]:
        operation = draws.numbers(words["operation"], len(self.config.table()))
        magnitude = draws.numbers(words["magnitude"], LARGEST + 1).astype(jnp.float32)
        return {
            "operation": draws.kept(words["layer"], operation, self.share()),
            "magnitude": draws.either_way(words["direction"], magnitude),
        }
