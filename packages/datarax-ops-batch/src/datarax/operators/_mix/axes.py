"""Which axes of a field are spatial: those on which it has the sizes of the image."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from datarax.operators._mix.notices import logger


@dataclass(frozen=True)
class Spatial:
    """The field that boxes are drawn for.

    Args:
      name: of the field.
      shape: batch axis included.
      axes: where boxes are cut.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes in pixels on the axes."""
        return tuple(self.shape[axis] for axis in self.axes)


def of_image(name: str, shape: Sequence[int], axes: tuple[int, ...]) -> Spatial:
    """The image and its spatial axes.

    Raises:
      ValueError: if the array lacks one of the axes, has no pixel, or more than int32 can count.
    """
    shape = tuple(shape)
    if len(shape) <= axes[-1]:
        raise ValueError(
            f"field {name!r} must have the spatial axes {axes} beside batch axis 0, got shape "
            f"{shape}; set spatial_axes to the axes that a box is cut on"
        )
    _require_countable(name, shape, axes)
    if axes == (1, 2) and len(shape) == 4 and shape[1] in (1, 3) and shape[3] > 4:
        _warn_of_channels_first(name, shape[1:])
    return Spatial(name, shape, axes)


def of_companion(
    name: str, shape: Sequence[int], image: Spatial, given: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """The axes on which an array has the sizes of the image: the image's, the last or the first.

    Args:
      name: of the field.
      shape: batch axis included.
      image: what it lies beside.
      given: the axes that the config says it has, from the end if negative; None to look for them.

    Returns:
      The axes, ascending; None if there are none.

    Raises:
      ValueError: if the given axes are not there, or have other sizes.
    """
    shape, rank, count = tuple(shape), len(shape), len(image.axes)
    if given is not None:
        return _given_axes(name, shape, image, given) if given else None
    places = dict.fromkeys(
        (image.axes, tuple(range(rank - count, rank)), tuple(range(1, 1 + count)))
    )
    fitting = [axes for axes in places if _sizes(shape, axes) == image.sizes]
    if not fitting:
        return None
    if len(fitting) > 1 and fitting[0] != tuple(range(rank - count, rank)):
        _tell_of_choice(name, shape, fitting[0], fitting[1])
    _require_countable(name, shape, fitting[0])
    return fitting[0]


def of_pasted(
    name: str, shape: Sequence[int], image: Spatial, given: tuple[int, ...] | None
) -> tuple[int, ...]:
    """The axes of an array that the image's boxes must fit; ValueError if they do not."""
    axes = of_companion(name, shape, image, given)
    if axes is None:
        raise ValueError(
            f"field {name!r} must be {image.sizes} on the spatial axes {image.axes} like "
            f"{image.name!r}, or on its last or first axes, so that the same box fits, got shape "
            f"{tuple(shape)}; resize it first"
        )
    return axes


def of_mixed(
    name: str, shape: Sequence[int], image: Spatial, given: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """The axes of a companion that is mixed; None for one that has none, and is averaged.

    Raises:
      ValueError: if it looks like an image of other sizes.
    """
    axes = of_companion(name, shape, image, given)
    if axes is None and given is None and len(shape) > image.axes[-1]:
        if len(shape) == len(image.shape):
            raise ValueError(
                f"field {name!r} must be {image.sizes} on the spatial axes {image.axes} like "
                f"{image.name!r}, so that the same box fits, got shape {tuple(shape)}; resize it "
                f"first, or set field_axes={{{name!r}: ()}} if it is no image and is to be averaged"
            )
        _tell_of_average(name, tuple(shape), image.sizes)
    return axes


def _given_axes(
    name: str, shape: tuple[int, ...], image: Spatial, given: tuple[int, ...]
) -> tuple[int, ...]:
    axes = tuple(axis + len(shape) if axis < 0 else axis for axis in given)
    if axes[0] < 1 or list(axes) != sorted(set(axes)) or _sizes(shape, axes) != image.sizes:
        raise ValueError(
            f"field {name!r} must be {image.sizes} like {image.name!r} on the axes {given} of "
            f"field_axes, ascending and after the batch axis 0, got shape {shape}"
        )
    _require_countable(name, shape, axes)
    return axes


def _sizes(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...] | None:
    if axes[0] < 1 or axes[-1] >= len(shape):
        return None
    return tuple(shape[axis] for axis in axes)


def _require_countable(name: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    sizes = tuple(shape[axis] for axis in axes)
    if not (0 < math.prod(sizes) < 2**31 and math.prod(shape[axes[-1] :]) < 2**31):
        raise ValueError(
            f"field {name!r} must have from 1 to 2**31 - 1 pixels on the spatial axes {axes}, got "
            f"shape {shape}"
        )


@functools.lru_cache(64)
def _warn_of_channels_first(name: str, shape: tuple[int, ...]) -> None:
    """Once, because a batch follows the other."""
    logger.warning(
        "field %r of shape %s looks as if its channels came first, but its height is taken to be "
        "%d; if they do, set spatial_axes=(2, 3)",
        name,
        shape,
        shape[0],
    )


@functools.lru_cache(64)
def _tell_of_choice(
    name: str, shape: tuple[int, ...], taken: tuple[int, ...], other: tuple[int, ...]
) -> None:
    logger.info(
        "field %r of shape %s has the sizes of the image on axes %s and on axes %s, of which the "
        "first are taken; say in field_axes which are meant",
        name,
        shape,
        taken,
        other,
    )


@functools.lru_cache(64)
def _tell_of_average(name: str, shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    logger.info(
        "field %r of shape %s has the sizes of the image, %s, on no axes, and is averaged with the "
        "weights of the labels where boxes are pasted; resize it if it is an image",
        name,
        shape,
        sizes,
    )
