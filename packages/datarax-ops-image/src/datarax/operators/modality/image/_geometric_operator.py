"""`GeometricOperator`: the base of operators that move pixels, with masks, boxes and keypoints."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from datarax.core import fields
from datarax.core.element_batch import Batch
from datarax.operators.modality.image import _follow, _masks
from datarax.operators.modality.image._geometric_config import (
    GeometricOperatorConfig as GeometricOperatorConfig,
)
from datarax.operators.modality.image._image_operator import ImageOperator
from datarax.operators.modality.image._placed import Placed
from datarax.operators.modality.image.functional import Geometry

ConfigT = TypeVar("ConfigT", bound=GeometricOperatorConfig)
OneGeometry: TypeAlias = Geometry | Placed
Geometries: TypeAlias = OneGeometry | tuple[OneGeometry, ...]


class GeometricOperator(ImageOperator[ConfigT]):
    """Base class of operators that move pixels: implement `geometry`.

    It says once, for each record, which part of the input each pixel of the output shows. The image
    follows from it, and so do the auxiliary fields: masks (the nearest pixel), boxes (what is left
    of them, and how much) and keypoints. Boxes and points that are padding stay bit-identical. In
    evaluation mode (`op.eval()`) images stay unchanged, or have the numbers of `at_rest` where the
    size changes, and the same fields are written.

    Args:
      config: the numbers.
      rngs: streams to derive its own from; needed if `config.stochastic`.
      name: its name in messages.

    >>> import numpy as np
    >>> from datarax.operators.modality.image import functional
    >>> class UpsideDown(GeometricOperator[GeometricOperatorConfig]):
    ...     def geometry(self, size):
    ...         return functional.Crop(size=size, flip_vertical=True)
    >>> op = UpsideDown(GeometricOperatorConfig(auxiliary_fields=["mask"]))
    >>> records = {"image": np.zeros((1, 2, 2), np.uint8), "mask": np.uint8([[[1, 2], [3, 4]]])}
    >>> op(records)["mask"].tolist()
    [[[3, 4], [1, 2]]]
    """

    config_class = GeometricOperatorConfig

    def geometry(self, size: tuple[int, int], *args: Any, **numbers: Any) -> Geometries:
        """Which part of the input each pixel of the output shows.

        Args:
          size: (height, width) of the input.
          *args: none; a subclass names its numbers instead.
          **numbers: the config's numbers, or what `draw` returned, by name.

        Returns:
          One geometry, or a tuple of them, one after another.
        """
        raise NotImplementedError(f"{self._label()} must implement geometry")

    def move(self, image: Array, geometry: Any) -> Array:
        """The image as the geometry says, with those options of the config that concern it."""
        options = {name: getattr(self.config, name) for name in self.config.image_options}
        return geometry.image(image, **options)

    def transform_image(self, image: Array, *args: Any, **numbers: Any) -> Array:
        for geometry in self._geometries(_size(image), numbers):
            image = self.move(image, geometry)
        return image

    def _follow(
        self, data: PyTree, value: Array, random_params: PyTree, stats: dict[str, Any] | None
    ) -> PyTree:
        if not self.config.auxiliary_fields:
            return data
        geometries = self._geometries(_size(value), self.numbers(random_params))
        return self._followed(data, _size(value), geometries, random_params)

    def _geometries(
        self, size: tuple[int, int], numbers: dict[str, Any]
    ) -> tuple[OneGeometry, ...]:
        result = self._require_result("geometry", self.geometry(size, **numbers), "a geometry")
        return result if isinstance(result, tuple) else (result,)

    def _followed(
        self,
        data: PyTree,
        size: tuple[int, int],
        geometries: tuple[OneGeometry, ...],
        random_params: PyTree,
    ) -> PyTree:
        """A copy of the data in which the auxiliary fields follow; they rest with no geometry."""
        for key in self.config.auxiliary_fields or ():
            field, (kind, form) = self._extract_field(data, key), self._auxiliary_kind(key)
            names = [name.format(key) for name in (_follow.VISIBILITY, _follow.OUTLINE)]
            found = [_follow.found(data, name) for name in names]
            if kind == "mask":
                where = _masks.axes_of(key, jnp.shape(field), size, (0, 1), self.config.field_axes)
                rest, change = (jnp.asarray(field),), partial(self._moved_mask, where=where)
            elif kind == "boxes":
                rest = _follow.resting_boxes(key, field, form, size, *found)
                change = partial(_follow.moved_boxes, form=form, size=size)
            else:
                rest = _follow.resting_points(key, field, form, size, found[0])
                change = partial(_follow.moved_points, form=form, size=size)
            change = partial(change, geometries=geometries)
            moved = self.if_applied(random_params, change, rest) if geometries else rest
            for name, value in zip((key, *names), moved, strict=False):
                data = fields.put_field(data, name, value)
        return data

    def _moved_mask(
        self, rest: tuple[Array], where: tuple[int, int], geometries: tuple[OneGeometry, ...]
    ) -> tuple[Array]:
        return (_masks.moved(rest[0], where, geometries, self.config.mask_fill),)

    def rest_fields(self, data: PyTree) -> dict[str, Array]:
        keys = (self.config.field_key, *(self.config.auxiliary_fields or ()))
        if any(_follow.found(data, key) is None for key in keys):
            # Made by an operator before this one, where the two are one member.
            return {}
        size = jnp.shape(self._extract_field(data, self.config.field_key))[:2]
        rest = self._followed(data, (size[0], size[1]), (), None)
        names = [form.format(key) for key in keys for form in (_follow.VISIBILITY, _follow.OUTLINE)]
        return _follow.added(data, rest, names)

    def pass_through(self, batch: Batch) -> Batch:
        """The unchanged images, with the same fields as in training."""
        batch = super().pass_through(batch)
        if self.config.always or not self.config.auxiliary_fields:
            return batch
        _, height, width, *_ = jnp.shape(self._extract_field(batch.data, self.config.field_key))
        size = height, width
        return batch.replace(
            data=jax.vmap(lambda data: self._followed(data, size, (), None))(batch.data)
        )


def _size(image: Array) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
