"""`ImageOperatorConfig`: the options of every image operator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from datarax.core._modality_config import ModalityOperatorConfig
from datarax.core.config import require_names
from datarax.core.element_batch import RESERVED_FIELD
from datarax.operators.modality.image import _option_types as types
from datarax.operators.modality.image._distributions import Distribution
from datarax.operators.modality.image._number import rules_of


@dataclass(frozen=True)
class ImageOperatorConfig(ModalityOperatorConfig):
    """Options of every image operator; a subclass declares its numbers with `number`.

    The operator is stochastic, without an option for it, if one of its numbers is a distribution,
    or if `prob` is below 1.

    Args:
      field_key: the image, `(height, width)` or `(height, width, channel)`.
      prob: the probability that a record is changed at all; the start value of `op.prob`.
      learn: names of numbers that are `nnx.Param`s of the operator, such as `op.factor`; what the
        config says is where they start.
      info_key: where in `states` (of a plain dict: in which field) each record's numbers are
        left, for `op.replay`. None leaves none.
      target_key, clip_range, validate_domain_constraints: see `ModalityOperatorConfig`.
      auxiliary_fields, preserve_auxiliary: see `ModalityOperatorConfig`.
      box_fields, box_format, keypoint_fields, keypoint_format: see `ModalityOperatorConfig`.
      stochastic: draw even if no number is random, so that `op.prob` can be lowered later.
      stream_name, batch_strategy: see `OperatorConfig`.
      cacheable, batch_stats_fn, precomputed_stats: see `DataraxModuleConfig`.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for an empty range, a number that the operator's function does not take, a `prob`
        that is none, or a name in `learn` that is not a fixed number.

    >>> from datarax.operators.modality.image import ImageOperatorConfig
    >>> ImageOperatorConfig(prob=0.5).stochastic
    True
    """

    field_key: str = field(default="image", kw_only=True)
    prob: float = field(default=1.0, kw_only=True)
    learn: tuple[str, ...] = field(default=(), kw_only=True)
    info_key: str | None = field(default=None, kw_only=True)

    # Whether the result has another shape or dtype, so that no record can be left as it is.
    always: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, rule in rules_of(self).items():
            object.__setattr__(self, name, rule.checked(self.label(name), getattr(self, name)))
        label = self.label("prob")
        object.__setattr__(self, "prob", types.fraction(label, self.prob))
        if self.always and self.prob < 1:
            raise ValueError(
                f"{label} must be 1, because a record that is left as it is would have another "
                f"shape or dtype than the others, got {self.prob}"
            )
        self.check()
        if self.random_because():
            object.__setattr__(self, "stochastic", True)
        super().__post_init__()
        require_names(self, "info_key", optional=True)
        if self.info_key == RESERVED_FIELD:
            raise ValueError(
                f"{self.label('info_key')} must not be {RESERVED_FIELD!r}, which is the mask of a "
                "batch; choose another name"
            )
        object.__setattr__(self, "learn", self._names("learn"))
        for name in self.learn:
            if not isinstance(getattr(self, name, None), float | int) or name not in rules_of(self):
                fixed = [key for key in rules_of(self) if key not in self.distributions()]
                raise ValueError(
                    f"{self.label('learn')} names {name!r}, which must be a fixed number to start "
                    f"from; there are {fixed}"
                )

    def check(self) -> None:
        """Raises if options do not go together; a subclass with such options overrides it."""

    def label(self, name: str) -> str:
        """What errors call an option."""
        return f"{type(self).__name__}.{name}"

    def distributions(self) -> dict[str, Distribution]:
        """The numbers that are drawn."""
        numbers = {name: getattr(self, name) for name in rules_of(self)}
        return {name: n for name, n in numbers.items() if isinstance(n, Distribution)}

    def most(self, name: str) -> float:
        """The largest that a number can be."""
        value = getattr(self, name)
        return value.support[1] if isinstance(value, Distribution) else value

    def least(self, name: str) -> float:
        """The smallest that a number can be."""
        value = getattr(self, name)
        return value.support[0] if isinstance(value, Distribution) else value

    def skips(self) -> bool:
        """Whether the operator draws which records it changes, so that it has a `prob`."""
        return self.stochastic and not self.always

    def random_because(self) -> str:
        """Which option makes the operator random; empty if none does."""
        for name, distribution in self.distributions().items():
            return f"{name}={distribution!r}"
        return f"prob={self.prob}" if self.prob < 1 else ""
