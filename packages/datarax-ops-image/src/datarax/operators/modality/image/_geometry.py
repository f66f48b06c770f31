"""How the options of patch dropout apply to a record of one shape."""

from __future__ import annotations

from datarax.operators.modality.image._config import Length, PatchDropoutOperatorConfig
from datarax.operators.modality.image._sampling import Grid, Layout, Shape

DEFAULT_ASPECT = (0.3, 1 / 0.3)
DEFAULT_GRID_RATIO = 0.5


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
      ValueError: if a patch, a cell of the grid or the number of patches does not fit.
    """
    axes = spatial_axes(config, shape)
    sides = shape[axes[0]], shape[axes[1]]
    area = None
    if config.patch_area is not None:
        area = Shape(config.patch_area, config.aspect_ratio or DEFAULT_ASPECT)
        heights, widths = (1, sides[0]), (1, sides[1])
    else:
        heights, widths = (
            _bounds(length, side) for length, side in zip(config.patch_size, sides, strict=True)
        )
    if heights[1] > sides[0] or widths[1] > sides[1]:
        raise ValueError(
            f"patch_size {config.patch_size} does not fit {config.field_key!r} of shape {shape}; "
            f"use at most {sides}"
        )
    grid = None
    if config.placement == "grid":
        grid = _grid(config, (heights[0], widths[0]), sides)
    number = config.num_patches
    if number is None:
        number = grid.cells if grid else 0
    return Layout(
        image=sides,
        count=number if isinstance(number, tuple) else (number, number),
        heights=heights,
        widths=widths,
        prob=config.prob,
        seeded=config.fill in ("noise", "color"),
        counted=config.info_key is not None,
        area=area,
        grid=grid,
    )


def _grid(
    config: PatchDropoutOperatorConfig, size: tuple[int, int], sides: tuple[int, int]
) -> Grid:
    ratio = DEFAULT_GRID_RATIO if config.grid_ratio is None else config.grid_ratio
    cell = tuple(round(side / ratio) for side in size)
    rows, columns = (side // length for side, length in zip(sides, cell, strict=True))
    if not rows or not columns:
        raise ValueError(
            f"grid_ratio {ratio} makes cells of {cell} around patches of {size}, which do not fit "
            f"{config.field_key!r} of {sides}; use smaller patches or a larger grid_ratio"
        )
    most = config.num_patches[1] if isinstance(config.num_patches, tuple) else config.num_patches
    if most is not None and most > rows * columns:
        raise ValueError(
            f"num_patches {config.num_patches} are more than the {rows} x {columns} cells of the "
            f"grid on {config.field_key!r} of {sides}; use at most {rows * columns}, or None for "
            "all"
        )
    if config.drop_tokens and (rows * size[0], columns * size[1]) != sides:
        raise ValueError(
            f"drop_tokens needs a patch_size that divides {config.field_key!r} of {sides}, got "
            f"{size}"
        )
    return Grid((rows, columns), (cell[0], cell[1]), config.grid_jitter)


def _bounds(length: Length, side: int) -> tuple[int, int]:
    low, high = length if isinstance(length, tuple) else (length, length)
    return _pixels(low, side), _pixels(high, side)


def _pixels(length: float, side: int) -> int:
    return length if isinstance(length, int) else max(1, round(length * side))
