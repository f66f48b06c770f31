"""`PatchDropoutOperator`: fills random rectangles of images (cutout, random erasing)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Key, PyTree

from datarax.core.element_batch import Batch
from datarax.core.fields import put_field
from datarax.core.modality import FieldDomain, Kind, logger
from datarax.operators.modality.image import (
    _fills,
    _follow,
    _geometry,
    _in_place,
    _masks,
    _patches,
    _sampling,
    _tokens,
    _visibility,
)
from datarax.operators.modality.image._config import (
    PatchDropoutOperatorConfig as PatchDropoutOperatorConfig,
)
from datarax.operators.modality.image._given import NO_PATCHES, Patches, given_patches
from datarax.operators.modality.image._image_operator import IMAGE, ImageOperator

__all__ = ["PatchDropoutOperator", "PatchDropoutOperatorConfig"]

ANY_IMAGE = FieldDomain("image", kinds=("integer", "float"))


class PatchDropoutOperator(ImageOperator[PatchDropoutOperatorConfig]):
    """Fills random rectangles of each image; every other pixel keeps every bit.

    If stochastic, each record has patches of its own; else `config.seed` fixes the same patches for
    every record of every call. Images keep their dtype, whichever it is, and the gradient is 1
    outside the patches and 0 inside. In evaluation mode (`op.eval()`), a stochastic operator drops
    nothing, and its outputs say so.

    Args:
      config: how many patches, how large, filled with what.
      rngs: streams to derive its own from; needed if `config.stochastic`.
      name: its name in messages.

    References:
      DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout",
      2017, https://arxiv.org/abs/1708.04552, section 3 (`patch_size`)

      Zhong et al., "Random erasing data augmentation", 2020, https://arxiv.org/abs/1708.04896,
      algorithm 1 (`patch_area`)

      Chen et al., "GridMask data augmentation", 2020, https://arxiv.org/abs/2001.04086, section 3
      (`placement="grid"`)

      Liu et al., "PatchDropout: Economizing vision transformers using patch dropout", 2022,
      https://arxiv.org/abs/2208.07220 (`drop_tokens`)

    >>> config = PatchDropoutOperatorConfig(
    ...     field_key="image", num_patches=1, patch_size=(2, 2), stochastic=True
    ... )
    >>> op = PatchDropoutOperator(config, rngs=nnx.Rngs(0))
    >>> batch = op(Batch.from_arrays({"image": np.ones((3, 4, 4), np.uint8)}))
    >>> batch["image"].dtype, batch["image"].sum((1, 2)).tolist()
    (dtype('uint8'), [12, 12, 12])
    """

    config_class = PatchDropoutOperatorConfig
    any_integer = True
    _channels_first_advice = "set spatial_axes=(1, 2) and channel_axis=0"

    def __init__(
        self,
        config: PatchDropoutOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        self.domain = IMAGE if config.spatial_axes is None else ANY_IMAGE
        if not config.stochastic:
            logger.info(
                "%s drops the same patches, those of seed=%d, of every record of every call; for "
                "patches of each record's own set stochastic=True",
                self._label(),
                config.seed,
            )

    def generate_random_params(self, rng: Key[Array, ""], data_shapes: PyTree) -> dict[str, Array]:
        """Draws the patches of a batch.

        Args:
          rng: the key.
          data_shapes: like the batch's data, with a shape `(batch, ...)` for each array.

        Returns:
          `patch_positions` int32 `(batch, num_patches, 2)`, the (y, x) of each patch's top-left
          corner, and only where options ask for them: `patch_sizes` int32 `(batch, num_patches,
          2)`, `patch_count` int32 `(batch,)`, of which 0 leaves the record as it is, and
          `fill_seed` uint32 `(batch, 2)`. Here num_patches is the largest number that the config
          allows.

        Raises:
          KeyError: if the field is not in `data_shapes`.
          ValueError: if a patch does not fit.
        """
        batch, *shape = self._extract_field(data_shapes, self.config.field_key)
        layout = _geometry.layout(self.config, tuple(shape))
        prob = None if self.prob is None else jnp.asarray(self.prob.get_value())
        return _sampling.draw(rng, prob, batch=batch, layout=layout)

    def require_numbers(self, random_params: PyTree) -> None:
        """Checks nothing: where patches are read, they are checked."""

    def applied_records(self, random_params: PyTree) -> Bool[Array, "..."] | None:
        if isinstance(random_params, Mapping) and "patch_count" in random_params:
            return random_params["patch_count"] > np.int32(0)
        return jnp.zeros((), bool) if self.config.num_patches in (0, (0, 0)) else None

    def transform_field(
        self, value: Array, random_params: PyTree, stats: dict[str, Any] | None
    ) -> Array:
        value = jnp.asarray(value)
        patches = self._patches(value, random_params)
        axes = _geometry.spatial_axes(self.config, value.shape)
        fill = _fills.fill_of(self.config, value, patches, stats)
        if self.config.in_place:
            layout = _geometry.layout(self.config, value.shape)
            size = layout.heights[0], layout.widths[0]
            return _in_place.drop(
                value, patches.positions, patches.count, fill, size=size, axes=axes
            )
        return _patches.drop(
            value, patches.positions, patches.sizes, patches.count, fill, axes=axes
        )

    def transform_auxiliary(
        self,
        kind: Kind,
        value: Array,
        field: Array,
        random_params: PyTree,
        stats: dict[str, Any] | None,
    ) -> Array:
        patches = self._patches(field, random_params)
        if kind == "boxes" and self.config.shrink_boxes:
            return _visibility.shrunk(value, self._covered(field.shape, patches))
        if kind == "keypoints" and value.shape[-1] == 3:
            return _visibility.with_flags(value, self._covered(field.shape, patches))
        return value

    def _follow_one(
        self, key: str, data: PyTree, value: Array, random_params: PyTree, stats: Any
    ) -> Any:
        if self._auxiliary_kind(key)[0] == "mask":
            return self._drop_mask(key, self._extract_field(data, key), value, random_params)
        return super()._follow_one(key, data, value, random_params, stats)

    def _image_size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        down, across = _geometry.spatial_axes(self.config, shape)
        return shape[down], shape[across]

    def _drop_mask(self, key: str, mask: Array, image: Array, random_params: PyTree) -> Array:
        where, size = (
            _geometry.spatial_axes(self.config, image.shape),
            self._image_size(image.shape),
        )
        axes = _masks.axes_of(key, jnp.shape(mask), size, where, self.config.field_axes)
        if self.config.mask_fill is None:
            return mask
        mask = jnp.asarray(mask)
        fill = jnp.asarray(_fills.exact_constant("mask_fill", self.config.mask_fill, mask.dtype))
        patches = self._patches(image, random_params)
        return _patches.drop(mask, patches.positions, patches.sizes, patches.count, fill, axes=axes)

    def _follow(
        self, data: PyTree, value: Array, random_params: PyTree, stats: dict[str, Any] | None
    ) -> PyTree:
        patches = self._patches(value, random_params)
        written = self._written(data, value.shape, patches)
        data = super()._follow(data, value, random_params, stats)
        if self.config.shrink_boxes:
            data = self._with_new_outlines(data, self._image_size(value.shape))
        return self._with_written(data, written)

    def _with_new_outlines(self, data: PyTree, size: tuple[int, int]) -> PyTree:
        """A copy of the data in which outlines that there are fit the boxes that were cut."""
        for key in self.config.box_fields:
            name = _follow.OUTLINE.format(key)
            if (old := _follow.found(data, name)) is not None:
                boxes = self._extract_field(data, key)
                form = self.config.box_format
                new = _follow.resting_boxes(key, boxes, form, size, None, None).outline
                _, there = self._coordinates(data, key, size)
                data = put_field(data, name, jnp.where(there[:, None, None], new, old))
        return data

    def rest_fields(self, data: PyTree) -> dict[str, Array]:
        keys = (*self.config.box_fields, *self.config.keypoint_fields)
        if any(_follow.found(data, key) is None for key in (self.config.field_key, *keys)):
            # Made by an operator before this one, where the two are one member.
            return {}
        shape = jnp.shape(self._extract_field(data, self.config.field_key))
        written = self._written(data, shape, NO_PATCHES)
        return _follow.added(data, written, [_follow.VISIBILITY.format(key) for key in keys])

    def pass_through(self, batch: Batch) -> Batch:
        """The same fields as in training: all that is not padding is visible, all tokens are left.

        `<target>_token_indices` has all tokens too, int32 `(batch, tokens)`.
        """
        shape = self._extract_field(batch.data, self.config.field_key).shape[1:]
        written = jax.vmap(lambda data: self._written(data, shape, NO_PATCHES))(batch.data)
        batch = super().pass_through(batch)
        return batch.replace(data=self._with_written(batch.data, written))

    def _with_written(self, data: PyTree, written: dict[str, Array]) -> PyTree:
        for path, value in written.items():
            tokens = path.endswith(("_token_mask", "_token_indices"))
            data = self._put_new(data, path, value) if tokens else put_field(data, path, value)
        return data

    def _written(self, data: PyTree, shape: tuple[int, ...], patches: Patches) -> dict[str, Array]:
        """The fields that say what these patches leave of one record of this image shape."""
        config = self.config
        written = {}
        for of, keys in (
            (_visibility.of_boxes, config.box_fields),
            (_visibility.of_points, config.keypoint_fields),
        ):
            for key in keys:
                coordinates, there = self._coordinates(data, key, self._image_size(shape))
                name = _follow.VISIBILITY.format(key)
                seen = of(coordinates, self._covered(shape, patches), there)
                written[name] = _follow.narrowed(name, _follow.found(data, name), seen, there)
        if config.drop_tokens:
            layout = _geometry.layout(config, shape)
            mask, indices = _tokens.kept_tokens(jnp.asarray(patches.positions), layout)
            target = config.target_key or config.field_key
            written |= {f"{target}_token_mask": mask, f"{target}_token_indices": indices}
        return written

    def _covered(self, shape: tuple[int, ...], patches: Patches) -> Bool[Array, "height width"]:
        height, width = self._image_size(shape)
        return _patches.covered(
            patches.positions, patches.sizes, patches.count, height=height, width=width
        )

    def _patches(self, image: Array, random_params: PyTree) -> Patches:
        layout = _geometry.layout(self.config, image.shape)
        if not self.stochastic:
            random_params = _sampling.fixed(self.config.seed, layout)
        return given_patches(self._label(), layout, random_params)
