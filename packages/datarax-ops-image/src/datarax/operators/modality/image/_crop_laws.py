"""Where crops lie: pure functions of random words.

Sides are found by counting, without square roots, so that every backend finds the same ones.

References:
  Szegedy et al. 2015, Going deeper with convolutions, section 6 (the crops of Inception).
  Liu et al. 2016, SSD: Single shot multibox detector, section 2.2 (the crops of detection).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, UInt32

from datarax.core.randomness import below, coin
from datarax.operators.modality.image import _option_types as types
from datarax.operators.modality.image._distributions import LogUniform, Uniform
from datarax.operators.modality.image.functional._exact import product

if TYPE_CHECKING:
    from datarax.operators.modality.image.iou_crop_operator import (
        IoUCropOperator,
        IoUCropOperatorConfig,
    )
    from datarax.operators.modality.image.resized_crop_operator import ResizedCropOperatorConfig

TRIES = 10

Size = tuple[int, int]
Range = tuple[float, float]
Box = Int32[Array, "4"]
Law = Callable[[UInt32[Array, "tries 4"], Size, Range, Range], Box]


def torchvision(words: UInt32[Array, "tries 4"], size: Size, scale: Range, ratio: Range) -> Box:
    """A crop as torchvision's `RandomResizedCrop` draws it.

    The area is uniform and the logarithm of width / height too; the first of the tries that fits is
    taken, each place equally likely; if none does, the largest box in the middle within `ratio`.

    Args:
      words: four for each try.
      size: (height, width) of the image.
      scale: bounds of the area as a fraction of the image's.
      ratio: bounds of width / height.

    Returns:
      (y0, x0, y1, x1) in pixels.
    """
    height, width = size
    area = product(Uniform(*scale).quantile(words[:, 0]), np.float32(height * width))
    wide = LogUniform(*ratio).quantile(words[:, 1])
    # The reciprocal of `wide`, from the same digits.
    high = LogUniform(1 / ratio[1], 1 / ratio[0]).quantile(~words[:, 1])
    heights = _root(area * high, height + 1)
    widths = _root(area * wide, width + 1)
    boxes = _placed(words[:, 2:], size, heights, widths, last=True)
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    return _first(boxes, fits, middle(size, ratio))


def inception(words: UInt32[Array, "tries 4"], size: Size, scale: Range, ratio: Range) -> Box:
    """A crop as TensorFlow's `sample_distorted_bounding_box` draws it.

    Width / height is uniform, and then the height among those that keep the area within `scale`; no
    place is the last one. If no try keeps it there, the whole image.

    Args:
      words: four for each try.
      size: (height, width) of the image.
      scale: bounds of the area as a fraction of the image's.
      ratio: bounds of width / height.

    Returns:
      (y0, x0, y1, x1) in pixels.
    """
    height, width = size
    aspect = Uniform(*ratio).quantile(words[:, 0])
    least, most = (np.float32(bound * height * width) for bound in scale)
    lowest = _root(jnp.full_like(aspect, least), height + 1, aspect)
    highest = _root(jnp.full_like(aspect, most), height + 1, aspect)
    # The heights whose width, rounded, is that of the image at most: (width + 1/2) / aspect.
    steps = np.arange(1, height + 2, dtype=np.float32)
    fitting = jnp.sum(steps * aspect[:, None] < np.float32(width + 0.5), axis=1, dtype=jnp.int32)
    highest = jnp.minimum(jnp.minimum(highest, fitting), height)
    lowest = jnp.minimum(lowest, highest)
    heights = lowest + below(words[:, 1], highest - lowest + 1)
    for step, wrong in ((1, jnp.less), (-1, jnp.greater)):
        bound = least if step == 1 else most
        heights = heights + step * wrong(_area(heights, aspect), bound).astype(jnp.int32)
    widths = _rounded(heights, aspect)
    area = _area(heights, aspect)
    fits = (area >= least) & (area <= most) & (heights > 0) & (heights <= height)
    fits &= (widths > 0) & (widths <= width)
    boxes = _placed(words[:, 2:], size, heights, widths, last=False)
    return _first(boxes, fits, (0, 0, height, width))


LAWS: dict[str, Law] = {"torchvision": torchvision, "inception": inception}


def check(config: ResizedCropOperatorConfig) -> None:
    """Checks the options of a resized crop that draw."""
    if config.sampling not in LAWS:
        raise ValueError(
            f"{config.label('sampling')} must be one of {tuple(LAWS)}, got {config.sampling!r}"
        )
    types.fraction(config.label("flip"), config.flip)


def check_candidates(config: IoUCropOperatorConfig) -> None:
    """Checks the options of an IoU-crop that draw."""
    if types.integer(config.label("candidates"), config.candidates) < 1:
        raise ValueError(
            f"{config.label('candidates')} must be at least 1, got {config.candidates}"
        )
    if not config.box_fields:
        raise ValueError(
            f"{config.label('box_fields')} must name the boxes to overlap with, got none; name "
            "them there and in auxiliary_fields"
        )


def drawn(
    config: ResizedCropOperatorConfig,
    words: UInt32[Array, "rows tries 4"],
    flips: UInt32[Array, " rows"],
    shape: tuple[int, ...],
) -> dict[str, Array]:
    """The boxes of a batch, int32 `(rows, 4)`, and which of them are mirrored."""
    law, size = LAWS[config.sampling], (shape[0], shape[1])
    boxes = jax.vmap(lambda words: law(words, size, config.scale, config.ratio))(words)
    return {"box": boxes, "flip": coin(flips, jnp.float32(config.flip))}


def at_rest(config: ResizedCropOperatorConfig, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The largest box in the middle that has the shape of the canvas."""
    height, width = config.canvas((shape[0], shape[1]))
    return middle((shape[0], shape[1]), (width / height, width / height))


def tried(words: UInt32[Array, "rows candidates 4"]) -> dict[str, Array]:
    """What parts of an image are made of once its boxes are known; `whole` is for evaluation."""
    return {"candidates": words, "whole": jnp.zeros(words.shape[0], bool)}


def overlapping(
    operator: IoUCropOperator, data: Any, numbers: dict[str, Array]
) -> dict[str, Array]:
    """The part of a record that overlaps with one of its boxes.

    Raises:
      KeyError: if a field is missing.
      ValueError: if boxes are not `(boxes, 4)`.
    """
    config = operator.config
    height, width, *_ = jnp.shape(operator._extract_field(data, config.field_key))
    size = height, width
    found = [operator._coordinates(data, key, size) for key in config.box_fields]
    corners = jnp.concatenate([boxes.astype(jnp.float32) for boxes, _ in found])
    there = jnp.concatenate([there for _, there in found])
    least = jnp.where(numbers["whole"], np.float32(1), numbers["min_iou"])
    words = numbers["candidates"]
    return {"box": with_overlap(words, corners, there, least, size, config.scale, config.ratio)}


def middle(size: Size, ratio: Range) -> tuple[int, int, int, int]:
    """The largest box in the middle of an image whose width / height is within bounds."""
    height, width = size
    if width < ratio[0] * height:
        inner = max(1, round(width / ratio[0])), width
    elif width > ratio[1] * height:
        inner = height, max(1, round(height * ratio[1]))
    else:
        inner = size
    y, x = (height - inner[0]) // 2, (width - inner[1]) // 2
    return y, x, y + inner[0], x + inner[1]


def with_overlap(
    words: UInt32[Array, "tries 4"],
    corners: Float32[Array, "boxes 4"],
    there: Bool[Array, " boxes"],
    least: Float32[Array, ""],
    size: Size,
    scale: Range,
    ratio: Range,
) -> Box:
    """The first of several crops that overlaps with a box well enough.

    Args:
      words: four for each crop: for its height, its width and its place.
      corners: boxes (y0, x0, y1, x1).
      there: which of them are boxes.
      least: how large the intersection over union must be with a box whose middle lies in the crop;
        from 1 on, the whole image is taken.
      size: (height, width) of the image.
      scale: bounds of each side as a fraction of the image's.
      ratio: bounds of width / height.

    Returns:
      (y0, x0, y1, x1) in pixels; the whole image if no crop will do.
    """
    heights, widths = (
        jnp.floor(product(Uniform(*scale).quantile(words[:, axis]), np.float32(side)))
        for axis, side in enumerate(size)
    )
    fits = (widths >= np.float32(ratio[0]) * heights) & (widths <= np.float32(ratio[1]) * heights)
    heights, widths = (jnp.maximum(side.astype(jnp.int32), 1) for side in (heights, widths))
    crops = _placed(words[:, 2:], size, heights, widths, last=True)
    boxes = jnp.where(there[:, None], corners, np.float32(0))
    crop, box = crops.astype(jnp.float32)[:, None], boxes[None]
    start = jnp.maximum(crop[..., :2], box[..., :2])
    stop = jnp.minimum(crop[..., 2:], box[..., 2:])
    shared = _of_sides(jnp.maximum(stop - start, 0))
    both = _of_sides(crop[..., 2:] - crop[..., :2]) + _of_sides(box[..., 2:] - box[..., :2])
    centre = (box[..., :2] + box[..., 2:]) * np.float32(0.5)
    inside = jnp.all((centre > crop[..., :2]) & (centre < crop[..., 2:]), axis=-1)
    good = inside & there & (shared >= product(least, both - shared))
    fits &= jnp.any(good, axis=1) & (least < 1)
    return _first(crops, fits, (0, 0, *size))


def _of_sides(sides: Float32[Array, "*shape 2"]) -> Float32[Array, "*shape"]:
    return product(sides[..., 0], sides[..., 1])


def _root(
    square: Float32[Array, " tries"], most: int, factor: Float32[Array, " tries"] | None = None
) -> Int32[Array, " tries"]:
    """The integer nearest to the root of `square / factor`, of those up to `most`."""
    steps = np.square(np.arange(most, dtype=np.float32) + np.float32(0.5))
    each = steps if factor is None else steps * factor[:, None]
    return jnp.sum(each < square[:, None], axis=1, dtype=jnp.int32)


def _rounded(heights: Int32[Array, " tries"], aspect: Float32[Array, " tries"]) -> Array:
    return jnp.round(heights.astype(jnp.float32) * aspect).astype(jnp.int32)


def _area(heights: Int32[Array, " tries"], aspect: Float32[Array, " tries"]) -> Array:
    return (heights * _rounded(heights, aspect)).astype(jnp.float32)


def _placed(
    words: UInt32[Array, "tries 2"], size: Size, heights: Array, widths: Array, *, last: bool
) -> Int32[Array, "tries 4"]:
    """Boxes of these sides anywhere in the image, at the last origin only if `last`."""
    starts = []
    for axis, sides in enumerate((heights, widths)):
        room = jnp.maximum(size[axis] - sides, 0) + int(last)
        starts.append(below(words[:, axis], jnp.maximum(room, 1)))
    return jnp.stack([*starts, starts[0] + heights, starts[1] + widths], axis=1)


def _first(boxes: Int32[Array, "tries 4"], fits: Bool[Array, " tries"], other: Any) -> Box:
    """The first box that fits, or the other one."""
    return jnp.where(jnp.any(fits), boxes[jnp.argmax(fits)], np.array(other, np.int32))
