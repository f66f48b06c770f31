"""Which axes of a mask are height and width, and masks that the geometry of their image moves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import jax.numpy as jnp
from jaxtyping import Array

from datarax.core.modality import logger
from datarax.operators.modality.image._fills import exact_constant
from datarax.operators.modality.image._option_types import Axes, FieldAxes
from datarax.operators.modality.image._placed import Placed
from datarax.operators.modality.image.functional import Geometry


def axes_of(
    key: str, shape: Sequence[int], size: Axes, image_axes: Axes, field_axes: FieldAxes
) -> Axes:
    """The height and width axis of a mask: the image's, else its last, else its first.

    Args:
      key: the field, for messages.
      shape: of a record's mask.
      size: (height, width) of the image.
      image_axes: where the image has them.
      field_axes: which axes are meant, by field, where the config says so.

    Raises:
      ValueError: if the mask has that height and width on none of them.
    """
    shape, rank = tuple(shape), len(shape)
    given = dict(field_axes).get(key)
    if given is not None:
        places = [given if given[0] >= 0 else (given[0] + rank, given[1] + rank)]
    else:
        places = list(dict.fromkeys([image_axes, (rank - 2, rank - 1), (0, 1)]))
    fitting = [(y, x) for y, x in places if 0 <= y < x < rank and (shape[y], shape[x]) == size]
    if not fitting:
        raise ValueError(
            f"auxiliary field {key!r} is a mask of shape {shape}, which must have the image's "
            f"{size} on axes {image_axes if given is None else given}"
            f"{', or on its last or first two' if given is None else ' of field_axes'}; name boxes "
            "in box_fields and points in keypoint_fields"
        )
    if len(fitting) > 1 and fitting[0] != (rank - 2, rank - 1):
        _tell_of_choice(key, shape, *fitting[:2])
    return fitting[0]


@lru_cache(64)
def _tell_of_choice(key: str, shape: tuple[int, ...], taken: Axes, other: Axes) -> None:
    logger.info(
        "mask %r of shape %s has the height and width of the image on axes %s and on axes %s, of "
        "which the first are taken; say in field_axes which are meant",
        key,
        shape,
        taken,
        other,
    )


def moved(mask: Array, where: Axes, geometries: Sequence[Geometry | Placed], fill: float) -> Array:
    """A mask after geometries, one after another: the nearest pixels, the fill where are none.

    Args:
      mask: of any dtype and rank.
      where: its height and width axis.
      geometries: what happens to the image.
      fill: a number that the dtype has.
    """
    value = jnp.asarray(exact_constant("mask_fill", fill, mask.dtype))
    pixels = jnp.moveaxis(mask, where, (0, 1))
    for geometry in geometries:
        pixels = geometry.mask(pixels, value)
    return jnp.moveaxis(pixels, (0, 1), where)
