"""`AutoAugmentOperator`: one of several short policies for each record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, UInt32

from datarax.operators.modality.image import _policy_draws as draws
from datarax.operators.modality.image._auto_augment_policies import (
    LARGEST,
    POLICIES,
    SubPolicy,
    checked_policy,
    tabulated,
)
from datarax.operators.modality.image._operations import Operation
from datarax.operators.modality.image._policy_operator import PolicyOperator, PolicyOperatorConfig
from datarax.operators.modality.image._policy_tables import AUTO_AUGMENT, operations_in


@dataclass(frozen=True)
class AutoAugmentOperatorConfig(PolicyOperatorConfig):
    """Configuration of `AutoAugmentOperator`.

    Args:
      policy: "imagenet", "cifar10" or "svhn" for the 25 sub-policies that the paper found on these;
        or your own sub-policies, each a tuple of layers `(operation, probability, magnitude)`: a
        name of theirs or an `Operation`, the probability of the layer, and a number from 0 to 9,
        None for an operation without one.
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
      ValueError: if there is no sub-policy, or one without a layer or with an unknown
        name; or if a probability or magnitude is out of its range.

    >>> mine = ((("Rotate", 0.5, 3), ("Equalize", 1, None)), (("Invert", 0.2, None),))
    >>> len(AutoAugmentOperatorConfig(policy=mine).policy)
    2
    """

    policy: str | tuple[SubPolicy, ...] = field(default="imagenet", kw_only=True)

    def check(self) -> None:
        super().check()
        if not (isinstance(self.policy, str) and self.policy in POLICIES):
            checked = checked_policy(self.label("policy"), self.policy)
            object.__setattr__(self, "policy", checked)

    def sub_policies(self) -> tuple[SubPolicy, ...]:
        """The sub-policies, in the order in which they are numbered."""
        return POLICIES[self.policy] if isinstance(self.policy, str) else self.policy

    def entries(self) -> tuple[str | Operation, ...]:
        """What the policy names, each once, in the order in which it is numbered."""
        layers = (layer for sub_policy in self.sub_policies() for layer in sub_policy)
        return tuple(dict.fromkeys(entry for entry, _, _ in layers))

    def largest(self) -> float:
        return LARGEST

    def table(self) -> tuple[Operation, ...]:
        return operations_in(self.entries(), {"paper": AUTO_AUGMENT})


class AutoAugmentOperator(PolicyOperator[AutoAugmentOperatorConfig]):
    """Applies to each record one of several sub-policies, drawn for this record.

    Masks, boxes and keypoints follow the operations that move pixels.

    Args:
      config: which policy.
      rngs: streams to derive its own from.
      name: its name in messages.

    References:
      Cubuk et al., "AutoAugment: Learning augmentation policies from data", 2019,
      https://arxiv.org/abs/1805.09501, tables 7 to 9

    >>> import numpy as np
    >>> from flax import nnx
    >>> config = AutoAugmentOperatorConfig(policy=((("Invert", 1, None), ("Brightness", 1, 9)),))
    >>> augment = AutoAugmentOperator(config, rngs=nnx.Rngs(0))
    >>> np.unique(augment({"image": np.full((8, 4, 4, 3), 155, np.uint8)})["image"]).tolist()
    [10, 190]
    """

    config_class = AutoAugmentOperatorConfig

    def words(self) -> dict[str, tuple[int, ...]]:
        layers = (max(map(len, self.config.sub_policies())),)
        return {"policy": (), "record": (1,), "layer": layers, "direction": layers}

    def draw(
        self, words: dict[str, UInt32[Array, "rows ..."]], shape: tuple[int, ...]
    ) -> dict[str, Any]:
        table = tabulated(self.config.sub_policies(), self.config.entries())
        line = draws.numbers(words["policy"], len(table.operation))
        operation, probability, magnitude = (jnp.asarray(each)[line] for each in table)
        operation = draws.kept(words["layer"], operation, probability)
        return {
            "operation": draws.kept(words["record"], operation, self.share()),
            "magnitude": draws.either_way(words["direction"], magnitude),
        }
