"""How the options of patch dropout apply to a record of one shape."""

from __future__ import annotations

from datarax.operators.modality.image._config import Length, PatchDropoutOperatorConfig
from datarax.operators.modality.image._sampling import Layout


def spatial_axes(config: PatchDropoutOperatorConfig, shape: tuple[int, ...]) -> tuple[int, int]:
    """The height and width axis of a record's field.

    Raises:
      ValueError: if the field has not got them.
    """
    axes = config.spatial_axes or (0, 1)
    if len(shape) <= axes[1]:
        raise ValueError(
            f"field {config.field_key!r} of a record must have the spatial axes {axes}, got shape "
            f"{shape}"
        )
    return axes


def channel_axis(config: PatchDropoutOperatorConfig, shape: tuple[int, ...]) -> int | None:
    """The axis of colours, or None if there is none.

    Raises:
      ValueError: if `config.channel_axis` is spatial or not there.
    """
    axes, rank = config.spatial_axes or (0, 1), len(shape)
    if config.channel_axis is None:
        return rank - 1 if rank - 1 not in axes else None
    axis = config.channel_axis + (rank if config.channel_axis < 0 else 0)
    if not 0 <= axis < rank or axis in axes:
        raise ValueError(
            f"channel_axis {config.channel_axis} must be an axis of field {config.field_key!r} of "
            f"shape {shape} other than the spatial axes {axes}"
        )
    return axis


def layout(config: PatchDropoutOperatorConfig, shape: tuple[int, ...]) -> Layout:
    """What is drawn for a record of this shape.

    Raises:
      ValueError: if a patch does not fit.
    """
    axes = spatial_axes(config, shape)
    sides = shape[axes[0]], shape[axes[1]]
    heights, widths = (
        _bounds(length, side) for length, side in zip(config.patch_size, sides, strict=True)
    )
    if heights[1] > sides[0] or widths[1] > sides[1]:
        raise ValueError(
            f"patch_size {config.patch_size} does not fit {config.field_key!r} of shape {shape}; "
            "use at "
            f"most {sides}"
        )
    count = config.num_patches
    return Layout(
        image=sides,
        count=count if isinstance(count, tuple) else (count, count),
        heights=heights,
        widths=widths,
        prob=config.prob,
        seeded=config.fill in ("noise", "color"),
    )


def _bounds(length: Length, side: int) -> tuple[int, int]:
    low, high = length if isinstance(length, tuple) else (length, length)
    return _pixels(low, side), _pixels(high, side)


def _pixels(length: float, side: int) -> int:
    return length if isinstance(length, int) else max(1, round(length * side))
