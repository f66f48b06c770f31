"""`RandAugmentOperator`: some operations of a table for each record, with one magnitude."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float32, UInt32

from datarax.core._modality_config import require_number
from datarax.core.randomness import open_uniform
from datarax.operators.modality.image import _option_types as types
from datarax.operators.modality.image import _policy_draws as draws
from datarax.operators.modality.image._distributions import normal
from datarax.operators.modality.image._operations import Entry, Operation
from datarax.operators.modality.image._policy_operator import (
    Magnitude,
    PolicyOperator,
    PolicyOperatorConfig,
)
from datarax.operators.modality.image._policy_tables import (
    RAND_AUGMENT,
    checked_operations,
    operations_in,
)
from datarax.operators.modality.image.functional._exact import product


@dataclass(frozen=True)
class RandAugmentOperatorConfig(PolicyOperatorConfig):
    """Configuration of `RandAugmentOperator`.

    timm's "rand-m9-mstd0.5-inc1" is `(magnitude=9, magnitude_std=0.5, prob=0.5)`; torchvision's
    default is `operations="torchvision"`.

    Args:
      operations: "timm" for its increasing set, "torchvision" for that of the paper, or a tuple of
        their names and of `Operation`s of your own.
      num_layers: how many operations each record goes through; the same one can come again.
      magnitude: how strong they are; the start value of `op.magnitude`.
      magnitude_std: the standard deviation of each layer's magnitude, which is normal with mean
        `magnitude`, then clipped to lie between 0 and `max_magnitude`. With infinity, all from 0 to
        `magnitude` are equally likely instead. The start value of `op.magnitude_std`.
      max_magnitude: the magnitude at which the ranges of the table end. None: 30 for "torchvision",
        else 10.
      prob: the probability that each layer is applied; the start value of `op.prob`.
      method: "nearest", "bilinear" or "bicubic", as in `functional.affine`.
      fill: the value where no pixel came from, a number or one per channel, in the image's own
        unit: 0 to 255 for uint8, 0 to 1 for floats.
      info_key: where in `states` each record's `operation` and `magnitude` are left, `(layers,)`
        each: numbers of lines of the table, -1 for none, and magnitudes, below 0 for the other
        direction. None leaves none.
      mask_fill, learn and the others: see `GeometricOperatorConfig`.

    Raises:
      TypeError: if an option has the wrong type.
      ValueError: if `operations` has a name that there is not, or none; or if a number is out of
        its range.

    >>> RandAugmentOperatorConfig(magnitude_std=0.5, prob=0.5, fill=(124, 116, 104)).num_layers
    2
    """

    operations: str | tuple[Entry, ...] = field(default="timm", kw_only=True)
    num_layers: int = field(default=2, kw_only=True)
    magnitude: float = field(default=9.0, kw_only=True)
    magnitude_std: float = field(default=0.0, kw_only=True)
    max_magnitude: float | None = field(default=None, kw_only=True)

    def check(self) -> None:
        super().check()
        operations = checked_operations(self.label("operations"), self.operations, RAND_AUGMENT)
        object.__setattr__(self, "operations", operations)
        if types.integer(self.label("num_layers"), self.num_layers) < 1:
            raise ValueError(
                f"{self.label('num_layers')} must be at least 1, got {self.num_layers}"
            )
        largest = require_number(self.label("max_magnitude"), self.largest())
        if largest <= 0:
            raise ValueError(f"{self.label('max_magnitude')} must be above 0, got {largest}")
        Magnitude.checked(self.label("magnitude_std"), self.magnitude_std)
        if not 0 <= self.magnitude <= largest:
            raise ValueError(
                f"{self.label('magnitude')} must be from 0 to max_magnitude={largest:g}"
                f", got {self.magnitude!r}"
            )

    def largest(self) -> float:
        if self.max_magnitude is None:
            return 30.0 if self.operations == "torchvision" else 10.0
        return self.max_magnitude

    def table(self) -> tuple[Operation, ...]:
        return operations_in(self.operations, RAND_AUGMENT)


class RandAugmentOperator(PolicyOperator[RandAugmentOperatorConfig]):
    """Sends each record through a few operations of a table, drawn for this record alone.

    Masks, boxes and keypoints follow the operations that move pixels.

    Args:
      config: which operations, how many, how strong.
      rngs: streams to derive its own from.
      name: its name in messages.

    Attributes:
      prob: the probability that each layer is applied, a Variable.
      magnitude, magnitude_std: Variables; new values compile nothing again.

    References:
      Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search
      space", 2020, https://arxiv.org/abs/1909.13719

    >>> import jax
    >>> from flax import nnx
    >>> config = RandAugmentOperatorConfig(magnitude_std=0.5, prob=0.5, fill=(124, 116, 104))
    >>> augment = RandAugmentOperator(config, rngs=nnx.Rngs(0))
    >>> augment.output_spec({"image": jax.ShapeDtypeStruct((32, 32, 3), "uint8")})["image"].shape
    (32, 32, 3)
    """

    config_class = RandAugmentOperatorConfig

    def __init__(
        self,
        config: RandAugmentOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        self.magnitude = Magnitude(config.magnitude, label="magnitude")
        self.magnitude_std = Magnitude(config.magnitude_std, label="magnitude_std")

    def words(self) -> dict[str, tuple[int, ...]]:
        names = "operation", "layer", "magnitude", "direction"
        return dict.fromkeys(names, (self.config.num_layers,))

    def draw(
        self, words: dict[str, UInt32[Array, "rows ..."]], shape: tuple[int, ...]
    ) -> dict[str, Any]:
        operation = draws.numbers(words["operation"], len(self.config.table()))
        magnitude = self._magnitudes(words["magnitude"])
        return {
            "operation": draws.kept(words["layer"], operation, self.share()),
            "magnitude": draws.either_way(words["direction"], magnitude),
        }

    def _magnitudes(self, words: UInt32[Array, "rows layers"]) -> Float32[Array, "rows layers"]:
        mean, std = self.magnitude.get_value(), jnp.asarray(self.magnitude_std.get_value())
        around = mean + product(normal(words), jnp.where(jnp.isinf(std), jnp.float32(0), std))
        clipped = jnp.clip(around, 0, jnp.float32(self.config.largest()))
        return jnp.where(jnp.isinf(std), open_uniform(words) * mean, clipped)
