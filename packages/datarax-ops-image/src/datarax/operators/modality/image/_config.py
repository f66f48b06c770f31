"""`PatchDropoutOperatorConfig` and the checks of its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from datarax.core.config import require_names
from datarax.core.modality import ModalityOperatorConfig, require_number

FILLS = ("constant", "noise", "color", "mean")

Length = int | float | tuple[int, int] | tuple[float, float]


@dataclass(frozen=True)
class PatchDropoutOperatorConfig(ModalityOperatorConfig):
    """Configuration of `PatchDropoutOperator`.

    The options of `ModalityOperatorConfig` hold as well; these are new:

    Args:
      num_patches: how many patches a record loses, or if `stochastic` (min, max), inclusive, to
        draw from. They may overlap.
      patch_size: height and width of a patch. Each is an int in pixels, a float in (0, 1] as a
        fraction of that side of the image (rounded, at least one pixel), or (min, max) of either,
        inclusive, from which each patch draws its own.
      drop_value: what dropped pixels become with `fill="constant"`: a number, or one per channel.
      prob: probability that a record loses any patch; below 1 only if `stochastic`.
      fill: "constant"; "noise", a random value for each element; "color", one random colour for
        each record; "mean", the record's own mean of each channel.
      fill_range: smallest and largest value of "noise" and "color" (the largest is reached by
        integers only). None: `clip_range`; without one, (0, 1) for floats and the whole range of
        8-bit and 16-bit integers.
      mask_fill: what dropped pixels of auxiliary masks become; None leaves masks as they are.
      seed: of the patches, and of the fill, if not `stochastic`: then every record of every call
        has the same.
      spatial_axes: height and width axis of a record, for video, volumes and channels-first images.
        None: (0, 1) of (height, width) or (height, width, channel). Patches extend over the others.
      channel_axis: the axis of colours, for `drop_value` per channel, "color" and "mean". None: the
        last axis, if it is not spatial.

    Boxes get a field `<name>_visibility`, float32 `(boxes,)`: the fraction of the box's area inside
    the image that no patch covers, 0 for padding. Keypoints get one too, bool `(points,)`; a flag 2
    in a third column becomes 1 where a patch hides the point.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for a negative count, a size that is not positive, an unknown fill, a `drop_value`
        that is not finite or outside `clip_range`, or an option that another makes void.

    >>> config = PatchDropoutOperatorConfig(field_key="image", num_patches=(1, 4), stochastic=True)
    >>> config.patch_size, config.drop_value
    ((8, 8), 0.0)
    """

    num_patches: int | tuple[int, int] = field(default=4, kw_only=True)
    patch_size: tuple[Length, Length] = field(default=(8, 8), kw_only=True)
    drop_value: float | tuple[float, ...] = field(default=0.0, kw_only=True)
    prob: float = field(default=1.0, kw_only=True)
    fill: Literal["constant", "noise", "color", "mean"] = field(default="constant", kw_only=True)
    fill_range: tuple[float, float] | None = field(default=None, kw_only=True)
    mask_fill: float | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    spatial_axes: tuple[int, int] | None = field(default=None, kw_only=True)
    channel_axis: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("num_patches", _count(self._label("num_patches"), self.num_patches))
        self._set("patch_size", _size(self._label("patch_size"), self.patch_size))
        self._set("drop_value", self._checked_drop_value())
        self._check_prob()
        self._check_fill()
        if self.mask_fill is not None:
            self._set("mask_fill", require_number(self._label("mask_fill"), self.mask_fill))
            self._check_masks()
        self._set("seed", _integer(self._label("seed"), self.seed))
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"{self._label('seed')} must be from 0 to 2**32 - 1, got {self.seed}")
        self._check_axes()

    def _label(self, name: str) -> str:
        return f"{type(self).__name__}.{name}"

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _checked_drop_value(self) -> float | tuple[float, ...]:
        label, value = self._label("drop_value"), self.drop_value
        if getattr(value, "ndim", 0) == 1:
            value = value.tolist()  # pyright: ignore
        if isinstance(value, str) or not isinstance(value, Sequence):
            numbers = value = require_number(label, value)
            numbers = (numbers,)
        else:
            numbers = value = tuple(require_number(label, number) for number in value)
            if not value:
                raise ValueError(f"{label} must be a number or one per channel, got none")
        if self.clip_range is not None and self.validate_domain_constraints:
            low, high = self.clip_range
            if self.fill == "constant" and not all(low <= number <= high for number in numbers):
                raise ValueError(
                    f"{label} {value!r} lies outside clip_range {self.clip_range}, which would "
                    "change "
                    "it; widen clip_range or set validate_domain_constraints=False"
                )
        return value

    def _check_prob(self) -> None:
        self._set("prob", require_number(self._label("prob"), self.prob))
        if not 0 <= self.prob <= 1:
            raise ValueError(f"{self._label('prob')} must be from 0 to 1, got {self.prob}")
        if self.prob < 1 and not self.stochastic:
            raise ValueError(
                f"{self._label('prob')}={self.prob} needs stochastic=True: without, every record "
                "has "
                "the same patches"
            )
        if isinstance(self.num_patches, tuple) and not self.stochastic:
            raise ValueError(
                f"{self._label('num_patches')}={self.num_patches} needs stochastic=True: without, "
                "every record has the same patches; pass an int"
            )

    def _check_fill(self) -> None:
        require_names(self, "fill")
        if self.fill not in FILLS:
            raise ValueError(f"{self._label('fill')} must be one of {FILLS}, got {self.fill!r}")
        if self.fill != "constant" and self.drop_value != 0:
            raise ValueError(
                f"{self._label('drop_value')}={self.drop_value!r} has no effect with "
                f"fill={self.fill!r}; set fill='constant' or leave drop_value out"
            )
        if self.fill_range is None:
            return
        if self.fill not in ("noise", "color"):
            raise ValueError(
                f"{self._label('fill_range')} has no effect with fill={self.fill!r}; set fill to "
                "'noise' or 'color' or leave fill_range out"
            )
        low, high = self._checked_range("fill_range")
        self._set(
            "fill_range", (require_number("fill_range", low), require_number("fill_range", high))
        )

    def _check_masks(self) -> None:
        others = (*self.box_fields, *self.keypoint_fields)
        if not any(name not in others for name in self.auxiliary_fields or ()):
            raise ValueError(
                f"{self._label('mask_fill')}={self.mask_fill} has no effect, because "
                "auxiliary_fields "
                f"{self.auxiliary_fields} name no mask; name the masks there or leave mask_fill out"
            )

    def _check_axes(self) -> None:
        if self.channel_axis is not None:
            self._set("channel_axis", _integer(self._label("channel_axis"), self.channel_axis))
        if self.spatial_axes is None:
            return
        label, axes = self._label("spatial_axes"), self.spatial_axes
        if not isinstance(axes, tuple | list) or len(axes) != 2:
            raise TypeError(f"{label} must be (height axis, width axis), got {axes!r}")
        axes = tuple(_integer(label, axis) for axis in axes)
        if not 0 <= axes[0] < axes[1]:
            raise ValueError(
                f"{label} must be two axes of a record, counted from 0, height before width, got "
                f"{axes}"
            )
        self._set("spatial_axes", axes)


def _integer(label: str, value: Any) -> int:
    number = require_number(label, value)
    if not isinstance(number, int):
        raise TypeError(f"{label} must be an int, got {number!r}")
    return number


def _count(label: str, value: Any) -> int | tuple[int, int]:
    if not isinstance(value, tuple | list):
        number = _integer(label, value)
        if number < 0:
            raise ValueError(f"{label} must be at least 0, got {number}")
        return number
    if len(value) != 2:
        raise TypeError(f"{label} must be an int or (min, max), got {value!r}")
    low, high = (_integer(label, number) for number in value)
    if not 0 <= low <= high:
        raise ValueError(f"{label} must be (min, max) with 0 <= min <= max, got {value!r}")
    return low, high


def _size(label: str, value: Any) -> tuple[Length, Length]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{label} must be (height, width), got {value!r}")
    height, width = (_length(label, length) for length in value)
    return height, width


def _length(label: str, value: Any) -> Length:
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise TypeError(f"{label} must hold lengths or (min, max) of lengths, got {value!r}")
        low, high = (_length(label, number) for number in value)
        if isinstance(low, tuple) or isinstance(high, tuple) or type(low) is not type(high):
            raise TypeError(
                f"{label} range must be (min, max), both in pixels (int) or both fractions "
                "(float), "
                f"got {value!r}"
            )
        if low > high:  # pyright: ignore[reportOperatorIssue]
            raise ValueError(f"{label} range must be (min, max) with min <= max, got {value!r}")
        return low, high  # pyright: ignore[reportReturnType]
    number = require_number(label, value)
    if isinstance(number, int) and number < 1:
        raise ValueError(f"{label} must be at least 1 pixel, got {number}")
    if isinstance(number, float) and not 0 < number <= 1:
        raise ValueError(
            f"{label} of type float is a fraction of the image, in (0, 1], got {number}; for "
            "pixels "
            "use an int"
        )
    return number
