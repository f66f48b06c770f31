"""`ModalityOperator`: the base of operators that transform one field of a record."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from datarax.core import _auxiliary, _value_range, fields
from datarax.core._auxiliary import Kind as Kind
from datarax.core._field_domain import FieldDomain as FieldDomain
from datarax.core._modality_config import ModalityOperatorConfig as ModalityOperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule

__all__ = ["FieldDomain", "ModalityOperator", "ModalityOperatorConfig"]

logger = logging.getLogger(__name__)


ConfigT = TypeVar("ConfigT", bound=ModalityOperatorConfig)


class ModalityOperator(OperatorModule[ConfigT]):
    """Base class of operators that transform one field, and others in the same way.

    Implement `transform_field`, and `transform_auxiliary` if geometry changes; `apply` then takes
    the field out, checks it, transforms, clips and writes it, and does the same for the auxiliary
    fields. An operator that needs more overrides `apply` and uses `_extract_field`,
    `_apply_clip_range`, `_remap_field` and `_follow` itself. `nnx.Param` attributes are learned
    with the model.

    Args:
      config: which fields, and which checks they must pass.
      rngs: streams to derive its own from; needed if `config.stochastic`.
      name: its name in messages.

    Attributes:
      domain: what the field must be; set it in a subclass.

    Raises:
      TypeError: if `config` is not a `ModalityOperatorConfig`.
      ValueError: if `config.stochastic` and `rngs` lacks the stream.

    >>> import numpy as np
    >>> class Brighten(ModalityOperator):
    ...     def transform_field(self, value, random_params, stats):
    ...         return value + 0.5
    >>> brighten = Brighten(ModalityOperatorConfig(field_key="image", clip_range=(0.0, 1.0)))
    >>> brighten(Batch.from_arrays({"image": np.float32([[0.25, 0.75]])}))["image"].tolist()
    [[0.75, 1.0]]
    """

    config_class = ModalityOperatorConfig
    domain: FieldDomain = FieldDomain()

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
          TypeError: for a dtype outside the domain, an auxiliary field that changed its own, or a
            transformation that returns nothing.
          ValueError: for a rank outside the domain, a `clip_range` that the dtype cannot satisfy,
            an auxiliary field that changed structure or shape, or a `target_key` that the data
            has already.
        """
        value = self._extract_field(data, self.config.field_key)
        self._check_domain(value)
        transformed = self.transform_field(value, random_params, stats)
        self._require_result("transform_field", transformed)
        result = self._remap_field(data, self._apply_clip_range(transformed))
        return self._follow(result, value, random_params, stats), state, metadata

    def pass_through(self, batch: Batch) -> Batch:
        """The batch with the field, as it is, at `config.target_key` too."""
        value = self._extract_field(batch.data, self.config.field_key)
        return batch.replace(data=self._remap_field(batch.data, value))

    def transform_field(
        self, value: Array, random_params: PyTree, stats: dict[str, Any] | None
    ) -> Array:
        """Transforms one record's field.

        Args:
          value: the field, without a batch axis.
          random_params: this record's part of what `generate_random_params` returned.
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
        """Transforms one auxiliary field in the same way; by default it stays unchanged.

        Args:
          kind: "mask", "boxes" or "keypoints".
          value: a mask as it is in the record, boxes `(boxes, 4)` as (y0, x0, y1, x1), or points
            `(points, 2)` as (y, x), with a third column where there is a flag; whatever format the
            config says the record has them in, and int32 if it has narrower integers.
          field: the field before it was transformed.
          random_params: what `transform_field` got.
          stats: what `transform_field` got.

        Returns:
          The same kind of array. Rows of padding are put back by the caller, and the record's
          dtype too, with coordinates cut to its range.
        """
        return value

    def _extract_field(self, data: PyTree, field_key: str) -> Any:
        """The field at a dotted path, of data or of `data_shapes`; KeyError if it is not there."""
        return fields.get_field(data, field_key)

    def _apply_clip_range(self, value: Array) -> Array:
        """The value within `config.clip_range`, in its own dtype."""
        if self.config.clip_range is None:
            return value
        return _value_range.clip(jnp.asarray(value), self.config.clip_range)

    def _remap_field(self, data: PyTree, value: Any) -> PyTree:
        """A copy of the data with the value at `config.target_key`, else at `field_key`."""
        target = self.config.target_key
        if target is None or target == self.config.field_key:
            return fields.put_field(data, self.config.field_key, value)
        return self._put_new(data, target, value)

    def _put_new(self, data: PyTree, path: str, value: Any) -> PyTree:
        """A copy of the data with one field more; ValueError if the data has it already."""
        try:
            self._extract_field(data, path)
        except KeyError:
            return fields.put_field(data, path, value)
        raise ValueError(
            f"{self._label()} writes the field {path!r}, which the data has already and would "
            "lose; rename or remove it first, or choose another target_key"
        )

    def _require_result(self, method: str, result: Any, wanted: str = "an array") -> Any:
        if result is None:
            raise TypeError(
                f"{method} of {self._label()} must return {wanted}, got None; is there a return "
                "at its end?"
            )
        return result

    def _follow(
        self, data: PyTree, value: Array, random_params: PyTree, stats: dict[str, Any] | None
    ) -> PyTree:
        """A copy of the data in which the auxiliary fields follow the transformation of `value`."""
        for key in self.config.auxiliary_fields or ():
            old = self._extract_field(data, key)
            new = self._follow_one(key, data, value, random_params, stats)
            self._require_result("transform_auxiliary", new)
            if self.config.preserve_auxiliary:
                _auxiliary.require_preserved(key, old, new)
            if new is not old:
                data = fields.put_field(data, key, new)
        return data

    def _follow_one(
        self, key: str, data: PyTree, value: Array, random_params: PyTree, stats: Any
    ) -> Any:
        old, (kind, text_format) = self._extract_field(data, key), self._auxiliary_kind(key)

        def transform(array: Array) -> Array:
            return self.transform_auxiliary(kind, array, value, random_params, stats)

        if kind == "mask":
            return transform(old)
        _auxiliary.check_coordinates(key, kind, old, text_format)
        sizes = None
        if _auxiliary.split_format(text_format)[0]:
            now = self._extract_field(data, self.config.target_key or self.config.field_key)
            sizes = self._image_size(jnp.shape(value)), self._image_size(jnp.shape(now))
        return _auxiliary.transform_coordinates(kind, old, text_format, transform, sizes)

    def _image_size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Height and width, which coordinates are fractions of, of a field of this shape."""
        if len(shape) < 2:
            raise ValueError(
                f"field {self.config.field_key!r} must have a height and a width for boxes and "
                f"keypoints to lie in, got shape {shape} of a record"
            )
        return shape[0], shape[1]

    def _coordinates(self, data: PyTree, key: str, size: tuple[int, int]) -> tuple[Array, Array]:
        """Boxes as (y0, x0, y1, x1) or keypoints as (y, x) in pixels, and which are not padding."""
        kind, text_format = self._auxiliary_kind(key)
        value = self._extract_field(data, key)
        _auxiliary.check_coordinates(key, kind, value, text_format)
        return _auxiliary.canonical(kind, jnp.asarray(value), text_format, size)

    def _auxiliary_kind(self, key: str) -> tuple[Kind, str]:
        """Which kind of field it is, and its format."""
        if key in self.config.box_fields:
            return "boxes", self.config.box_format
        if key in self.config.keypoint_fields:
            return "keypoints", self.config.keypoint_format
        return "mask", ""

    def _check_values(self, batch: Batch) -> None:
        for key in (*self.config.box_fields, *self.config.keypoint_fields):
            kind, text_format = self._auxiliary_kind(key)
            try:
                value = self._extract_field(batch.data, key)
            except KeyError:
                continue
            if _auxiliary.looks_relative(kind, value, text_format, batch.valid_mask):
                _warn_of_fractions(self._label(), kind, key, text_format)

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
        if self._passes_through():
            return jax.eval_shape(self._passed_record, data), state
        data, state = super()._output_record_spec(_dotted(data), state)
        return dict(data) if isinstance(data, fields.DottedFields) else data, state

    def _passed_record(self, data: PyTree) -> PyTree:
        batch = Batch.from_arrays(jax.tree.map(lambda leaf: leaf[None], data))
        return jax.tree.map(lambda leaf: leaf[0], self.pass_through(batch).data)

    def output_spec(self, input_spec: PyTree) -> PyTree:
        return self._output_record_spec(input_spec, {})[0]


@lru_cache(64)
def _warn_of_fractions(owner: str, kind: Kind, key: str, text_format: str) -> None:
    """Once, because a batch follows the other."""
    logger.warning(
        "%s takes the %s %r for pixels, by the format %r, but all lie between 0 and 1; if they are "
        "fractions of the image, the format is %r",
        owner,
        kind,
        key,
        text_format,
        _auxiliary.RELATIVE + text_format,
    )


def _dotted(data: PyTree) -> PyTree:
    return fields.DottedFields(data) if isinstance(data, Mapping) else data
