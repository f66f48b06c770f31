"""`ModalityOperator`: the base of operators that transform one field of a record."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, PyTree

from datarax.core import _auxiliary, _field_paths, _value_range
from datarax.core._auxiliary import Kind as Kind
from datarax.core._field_domain import FieldDomain as FieldDomain
from datarax.core.config import OperatorConfig, require_bools, require_names
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule


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
      target_key: the field to write; None overwrites `field_key`. Missing levels are made.
      auxiliary_fields: fields that follow the transformation: masks, and those named in
        `box_fields` and `keypoint_fields`. Copied into a list that cannot change.
      clip_range: (min, max) to clip the result to, in the field's own dtype; numbers are read at
        float32 precision and rounded inwards to narrower dtypes. None does not clip.
      preserve_auxiliary: hold auxiliary fields to their structure, shape and dtype.
      validate_domain_constraints: refuse fields outside the operator's `domain`.
      box_fields: which auxiliary fields are boxes `(boxes, 4)` in pixels. A box without a positive
        area is padding and stays as it is.
      box_format: "xyxy", "yxyx" (corners) or "xywh" (corner, width and height).
      keypoint_fields: which auxiliary fields are points `(points, 2)` in pixels, or `(points, 3)`
        with a visibility flag. A point with a negative coordinate or flag 0 is padding and stays.
      keypoint_format: "xy" or "yx".

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for an empty or repeated name, or a `clip_range` without min < max.

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
    box_format: Literal["xyxy", "yxyx", "xywh"] = field(default="xyxy", kw_only=True)
    keypoint_fields: tuple[str, ...] = field(default=(), kw_only=True)
    keypoint_format: Literal["xy", "yx"] = field(default="xy", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_names(self, "field_key")
        require_names(self, "target_key", optional=True)
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
                    "writes "
                    "as its field_key or target_key"
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
        value = getattr(self, name)
        label = f"{type(self).__name__}.{name}"
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise TypeError(f"{label} must be (min, max), got {value!r}")
        numbers = tuple(require_number(label, number, finite=False) for number in value)
        if not numbers[0] < numbers[1]:
            raise ValueError(f"{label} must be (min, max) with min < max, got {value!r}")
        return numbers[0], numbers[1]


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


class ModalityOperator(OperatorModule):
    """Base class of operators that transform one field and let others follow.

    Implement `transform_field`, and `transform_auxiliary` if geometry changes; `apply` then takes
    the field out, checks it, transforms, clips and writes it, and does the same for the auxiliary
    fields. An operator that needs more overrides `apply` and uses `_extract_field`,
    `_apply_clip_range`, `_remap_field` and `_follow` itself. `nnx.Param` attributes are learned
    with the model.

    Args:
      config: which fields, and what is demanded of them.
      rngs: streams to derive its own from; needed if `config.stochastic`.
      name: what to call it in messages.

    Attributes:
      domain: what the field must be; set it in a subclass.

    Raises:
      TypeError: if `config` is no `ModalityOperatorConfig`.
      ValueError: if `config.stochastic` and `rngs` lacks the stream.

    >>> import numpy as np
    >>> class Brighten(ModalityOperator):
    ...     def transform_field(self, value, random_params, stats):
    ...         return value + 0.5
    >>> brighten = Brighten(ModalityOperatorConfig(field_key="image", clip_range=(0.0, 1.0)))
    >>> brighten(Batch.from_arrays({"image": np.float32([[0.25, 0.75]])}))["image"].tolist()
    [[0.75, 1.0]]
    """

    domain: FieldDomain = FieldDomain()

    def __init__(
        self,
        config: ModalityOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(config, ModalityOperatorConfig):
            raise TypeError(
                f"config of {type(self).__name__} must be a ModalityOperatorConfig, "
                f"got {type(config).__name__}"
            )
        super().__init__(config, rngs=rngs, name=name)
        self.config: ModalityOperatorConfig = config  # pyright: ignore[reportIncompatibleVariableOverride]

    def apply(
        self,
        data: PyTree,
        state: PyTree,
        metadata: Any,
        random_params: PyTree = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[PyTree, PyTree, Any]:
        """Transforms one record's field and its auxiliary fields.

        Raises:
          KeyError: if a field is not there, listing those that are.
          TypeError: for a dtype outside the domain, or an auxiliary field that changed its own.
          ValueError: for a rank outside the domain, a `clip_range` that the dtype cannot satisfy,
            or an auxiliary field that changed structure or shape.
        """
        value = self._extract_field(data, self.config.field_key)
        self._check_domain(value)
        transformed = self._apply_clip_range(self.transform_field(value, random_params, stats))
        result = self._remap_field(data, transformed)
        return self._follow(result, value, random_params, stats), state, metadata

    def transform_field(
        self, value: Array, random_params: PyTree, stats: dict[str, Any] | None
    ) -> Array:
        """Transforms one record's field.

        Args:
          value: the field, without a batch axis.
          random_params: this record's entry of what `generate_random_params` returned.
          stats: the operator's statistics.

        Returns:
          The transformed field.
        """
        raise NotImplementedError(f"{self._label()} must implement transform_field, or apply")

    def transform_auxiliary(
        self,
        kind: Kind,
        value: Array,
        field: Array,
        random_params: PyTree,
        stats: dict[str, Any] | None,
    ) -> Array:
        """Lets one auxiliary field follow the transformation; by default it stays as it is.

        Args:
          kind: "mask", "boxes" or "keypoints".
          value: a mask as it is in the record, boxes `(boxes, 4)` as (y0, x0, y1, x1), or points
            `(points, 2)` as (y, x), with a third column where there is a flag; whatever format the
            config says the record has them in.
          field: the field before it was transformed.
          random_params: what `transform_field` got.
          stats: what `transform_field` got.

        Returns:
          The same kind of array. Rows of padding are put back by the caller.
        """
        return value

    def _extract_field(self, data: PyTree, field_key: str) -> Any:
        """The field at a dotted path, of data or of `data_shapes`; KeyError if it is not there."""
        return _field_paths.get_field(data, field_key)

    def _apply_clip_range(self, value: Array) -> Array:
        """The value within `config.clip_range`, in its own dtype."""
        if self.config.clip_range is None:
            return value
        return _value_range.clip(jnp.asarray(value), self.config.clip_range)

    def _remap_field(self, data: PyTree, value: Any) -> PyTree:
        """A copy of the data with the value at `config.target_key`, else at `field_key`."""
        target = self.config.target_key
        return _field_paths.put_field(
            data, self.config.field_key if target is None else target, value
        )

    def _follow(
        self, data: PyTree, value: Array, random_params: PyTree, stats: dict[str, Any] | None
    ) -> PyTree:
        """A copy of the data in which the auxiliary fields follow the transformation of `value`."""
        for key in self.config.auxiliary_fields or ():
            old = self._extract_field(data, key)
            new = self._follow_one(key, old, value, random_params, stats)
            if self.config.preserve_auxiliary:
                _auxiliary.require_preserved(key, old, new)
            if new is not old:
                data = _field_paths.put_field(data, key, new)
        return data

    def _follow_one(self, key: str, old: Any, value: Array, random_params: Any, stats: Any) -> Any:
        kind = self._auxiliary_kind(key)
        if kind == "mask":
            return self.transform_auxiliary(kind, old, value, random_params, stats)
        _auxiliary.check_coordinates(key, kind, old)
        return _auxiliary.transform_coordinates(
            kind,
            old,
            self.config.box_format if kind == "boxes" else self.config.keypoint_format,
            lambda array: self.transform_auxiliary(kind, array, value, random_params, stats),
        )

    def _auxiliary_kind(self, key: str) -> Kind:
        if key in self.config.box_fields:
            return "boxes"
        return "keypoints" if key in self.config.keypoint_fields else "mask"

    def _check_domain(self, value: Any) -> None:
        """Raises if one record's field is outside the domain, or `clip_range` outside its dtype."""
        if self.config.validate_domain_constraints:
            self.domain.check(self.config.field_key, value)
            if self.config.clip_range is not None:
                _value_range.clip_bounds(self.config.clip_range, value.dtype)

    @contextmanager
    def _random_params(self, batch: Batch) -> Iterator[PyTree]:
        value = self._extract_field(batch.data, self.config.field_key)
        if hasattr(value, "dtype"):
            value = jax.ShapeDtypeStruct(value.shape[1:], value.dtype)
        self._check_domain(value)
        # Authors write data_shapes[self.config.field_key], which may be a dotted path.
        dotted = dataclasses.replace(batch, data=_dotted(batch.data))
        with super()._random_params(dotted) as params:
            yield params

    def _output_record_spec(self, data: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        data, state = super()._output_record_spec(_dotted(data), state)
        return dict(data) if isinstance(data, _field_paths.DottedFields) else data, state

    def output_spec(self, input_spec: PyTree) -> PyTree:
        return self._output_record_spec(input_spec, {})[0]


def _dotted(data: PyTree) -> PyTree:
    return _field_paths.DottedFields(data) if isinstance(data, Mapping) else data
