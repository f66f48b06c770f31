"""`ModalityOperatorConfig` and the checks of its options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, TypeGuard

import jax.numpy as jnp

from datarax.core import _auxiliary
from datarax.core.config import OperatorConfig, require_bools, require_names
from datarax.core.element_batch import RESERVED_FIELD


class FieldNames(list[str]):
    """A list of field names that refuses changes and can be hashed."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("the field names of a config cannot change; make a new config")

    __setitem__ = __delitem__ = __iadd__ = __imul__ = append = clear = extend = _refuse  # pyright: ignore
    insert = pop = remove = reverse = sort = _refuse  # pyright: ignore

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self),)


@dataclass(frozen=True)
class ModalityOperatorConfig(OperatorConfig):
    """Configuration of operators that transform one field.

    Fields are named by dotted path: `"inputs.image"` is `data["inputs"]["image"]`.

    Args:
      field_key: the field to transform.
      target_key: the field to write, which the data must not have yet; None overwrites
        `field_key`. Missing levels are made.
      auxiliary_fields: fields that are transformed in the same way: masks, and those named in
        `box_fields` and `keypoint_fields`. Copied into a list that cannot change.
      clip_range: (min, max) to clip the result to, in the field's own dtype; numbers are read at
        float32 precision and rounded inwards to narrower dtypes. None does not clip.
      preserve_auxiliary: hold auxiliary fields to their structure, shape and dtype.
      validate_domain_constraints: refuse fields outside the operator's `domain`.
      box_fields: which auxiliary fields are boxes `(boxes, 4)`. A box without a positive area is
        padding and stays as it is.
      box_format: "xyxy", "yxyx" (corners) or "xywh" (corner, width and height) in pixels; with
        `rel_` before it, as in "rel_yxyx", in fractions of the image, floats from 0 to 1.
      keypoint_fields: which auxiliary fields are points `(points, 2)`, or `(points, 3)` with a
        visibility flag. A point with a negative coordinate or flag 0 is padding and stays.
      keypoint_format: "xy" or "yx" in pixels, "rel_xy" or "rel_yx" in fractions of the image.
      stochastic, stream_name, batch_strategy: see `OperatorConfig`.
      cacheable, batch_stats_fn, precomputed_stats: see `DataraxModuleConfig`.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for an empty or repeated name, a field called `valid_mask`, or a `clip_range`
        without min < max.

    >>> config = ModalityOperatorConfig(field_key="image", auxiliary_fields=["mask"])
    >>> config.auxiliary_fields, config.target_key
    (['mask'], None)
    """

    field_key: str = field(kw_only=True)
    target_key: str | None = field(default=None, kw_only=True)
    auxiliary_fields: list[str] | None = field(default=None, kw_only=True)
    clip_range: tuple[float, float] | None = field(default=None, kw_only=True)
    preserve_auxiliary: bool = field(default=True, kw_only=True)
    validate_domain_constraints: bool = field(default=True, kw_only=True)
    box_fields: tuple[str, ...] = field(default=(), kw_only=True)
    box_format: Literal["xyxy", "yxyx", "xywh", "rel_xyxy", "rel_yxyx", "rel_xywh"] = field(
        default="xyxy", kw_only=True
    )
    keypoint_fields: tuple[str, ...] = field(default=(), kw_only=True)
    keypoint_format: Literal["xy", "yx", "rel_xy", "rel_yx"] = field(default="xy", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_names(self, "field_key")
        require_names(self, "target_key", optional=True)
        for name in ("field_key", "target_key"):
            if (getattr(self, name) or "").partition(".")[0] == RESERVED_FIELD:
                raise ValueError(
                    f"{type(self).__name__}.{name} must not be {getattr(self, name)!r}, because "
                    f"{RESERVED_FIELD!r} is the mask of a batch; choose another name"
                )
        require_bools(self, "preserve_auxiliary", "validate_domain_constraints")
        if self.auxiliary_fields is not None:
            names = FieldNames(self._names("auxiliary_fields"))
            object.__setattr__(self, "auxiliary_fields", names)
        for name in ("box_fields", "keypoint_fields"):
            object.__setattr__(self, name, self._names(name))
        self._check_auxiliary()
        if self.clip_range is not None:
            object.__setattr__(self, "clip_range", self._checked_range("clip_range"))

    def _names(self, name: str) -> tuple[str, ...]:
        names = getattr(self, name)
        label = f"{type(self).__name__}.{name}"
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise TypeError(f"{label} must be a list of field names, got {names!r}")
        names = tuple(names)
        for entry in names:
            if not isinstance(entry, str):
                raise TypeError(
                    f"{label} must hold field names, got {type(entry).__name__} {entry!r}"
                )
        if "" in names or len(set(names)) < len(names):
            raise ValueError(f"{label} must hold different non-empty names, got {list(names)}")
        return names

    def _check_auxiliary(self) -> None:
        auxiliary = self.auxiliary_fields or []
        label = type(self).__name__
        for name in ("box_fields", "keypoint_fields"):
            extra = [entry for entry in getattr(self, name) if entry not in auxiliary]
            if extra:
                raise ValueError(
                    f"{label}.{name} names {extra}, which auxiliary_fields {auxiliary} must name "
                    "too"
                )
        both = [name for name in self.box_fields if name in self.keypoint_fields]
        if both:
            raise ValueError(f"{label} names {both} in both box_fields and keypoint_fields")
        for written in (self.field_key, self.target_key):
            if written in auxiliary:
                raise ValueError(
                    f"{label}.auxiliary_fields must not name {written!r}, which the operator "
                    "writes as its field_key or target_key"
                )
        for name, known in (
            ("box_format", _auxiliary.BOX_FORMATS),
            ("keypoint_format", _auxiliary.KEYPOINT_FORMATS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{label}.{name} must be one of {known}, got {getattr(self, name)!r}"
                )

    def _checked_range(self, name: str) -> tuple[float, float]:
        label = f"{type(self).__name__}.{name}"
        pair = require_pair(label, getattr(self, name), "(min, max)")
        low, high = (require_number(label, number, finite=False) for number in pair)
        if not low < high:
            raise ValueError(f"{label} must be (min, max) with min < max, got {pair!r}")
        return low, high


def is_sequence(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether it is a tuple or something that reads like one, such as a list of a config file."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def require_pair(label: str, value: Any, form: str) -> tuple[Any, Any]:
    """Returns a sequence of two as a tuple; TypeError that states the form for anything else."""
    if not is_sequence(value) or len(value) != 2:
        raise TypeError(f"{label} must be {form}, got {value!r}")
    return value[0], value[1]


def require_number(label: str, value: Any, *, finite: bool = True) -> float:
    """Returns an int or float as such, NumPy's included.

    Raises:
      TypeError: for anything else.
      ValueError: for NaN, and for infinity if it must be finite.
    """
    if hasattr(value, "item") and jnp.ndim(value) == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{label} must be a number, got {type(value).__name__} {value!r}")
    if math.isnan(value) or (finite and math.isinf(value)):
        raise ValueError(f"{label} must be a finite number, got {value!r}")
    return value
