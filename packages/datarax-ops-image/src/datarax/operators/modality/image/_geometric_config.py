"""Options of operators that move pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from datarax.core._modality_config import is_sequence, require_number, require_pair
from datarax.core.config import require_bools
from datarax.operators.modality.image import _option_types as types
from datarax.operators.modality.image._image_config import ImageOperatorConfig
from datarax.operators.modality.image.functional._arguments import checked_method
from datarax.operators.modality.image.functional._resize import Method

Fill = float | tuple[float, ...]
Size = int | tuple[int, int]
Range = tuple[float, float]


@dataclass(frozen=True)
class GeometricOperatorConfig(ImageOperatorConfig):
    """More options of operators that move pixels.

    Args:
      mask_fill: the value of masks where no pixel came from, such as the class number that a loss
        ignores (255); a number that the masks' dtype has.
      field_axes: (height axis, width axis) of masks where they cannot be told from shapes, by
        field, negative ones counted from the end: a dict such as `{"masks": (-2, -1)}`, kept as
        pairs. Masks that are not named have the image's height and width on their first axes, else
        on their last: `(masks, height, width)`.
      box_fields, box_format, keypoint_fields, keypoint_format: see `ModalityOperatorConfig`.
      prob, learn, info_key and the others: see `ImageOperatorConfig`.

    Boxes get a field `<name>_visibility`, float32 `(boxes,)`, the fraction of the area of a box
    inside the image that is left, and `<name>_outline`, float32 `(boxes, 12, 2)`, the corners
    (y, x) of the convex shape that is left of it, from which later operators go on. Keypoints get
    `<name>_visibility`, bool `(points,)`. Fields that earlier operators have left are taken into
    account: fractions are multiplied, flags must all be true.

    >>> from datarax.operators.modality.image import GeometricOperatorConfig
    >>> GeometricOperatorConfig(mask_fill=255).mask_fill
    255
    """

    mask_fill: float = field(default=0, kw_only=True)
    field_axes: types.FieldAxes = field(default=(), kw_only=True)
    # Which options the image is moved with.
    image_options: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "field_axes", types.field_axes(self, self.field_axes))

    def check(self) -> None:
        require_number(self.label("mask_fill"), self.mask_fill)


@dataclass(frozen=True)
class SizedOperatorConfig(GeometricOperatorConfig):
    """More options of operators that bring images to one size.

    Args:
      size: (height, width) of the result; one number stands for both.
      method: "nearest", "bilinear" or "bicubic".
      antialias: whether every pixel counts where images become smaller, as in
        `functional.resize`.
      mask_fill, info_key and the others: see `GeometricOperatorConfig`; `prob` must be 1.
    """

    size: Size = field(kw_only=True)
    method: Method = field(default="bilinear", kw_only=True)
    antialias: bool = field(default=True, kw_only=True)
    always: ClassVar[bool] = True
    image_options: ClassVar[tuple[str, ...]] = ("method",)

    def check(self) -> None:
        super().check()
        object.__setattr__(self, "size", checked_size(self.label("size"), self.size))
        checked_method(self.method, self.label("method"))
        require_bools(self, "antialias")

    def canvas(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the result for an image of a size."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)


@dataclass(frozen=True)
class PartOperatorConfig(SizedOperatorConfig):
    """Options of operators that bring a random part of an image to one size.

    Args:
      scale: (min, max) of the part's size as a fraction of the image's.
      ratio: (min, max) of width / height.
      size, method, antialias, mask_fill and the others: see `SizedOperatorConfig`.
    """

    scale: Range = field(default=(0.08, 1.0), kw_only=True)
    ratio: Range = field(default=(3 / 4, 4 / 3), kw_only=True)

    def check(self) -> None:
        super().check()
        for name, most in (("scale", 1.0), ("ratio", 1e6)):
            pair = types.positive_range(self.label(name), getattr(self, name), most)
            object.__setattr__(self, name, pair)

    def random_because(self) -> str:
        return f"scale={self.scale}"


@dataclass(frozen=True)
class WarpOperatorConfig(GeometricOperatorConfig):
    """More options of operators that rotate and shear images.

    Args:
      method: "nearest", "bilinear" or "bicubic".
      fill: the value where no pixel came from, a number or one per channel, in the image's own
        unit: 0 to 255 for uint8, 0 to 1 for floats.
      mask_fill, prob, learn, info_key and the others: see `GeometricOperatorConfig`.
    """

    method: Method = field(default="bilinear", kw_only=True)
    fill: Fill = field(default=0, kw_only=True)
    image_options: ClassVar[tuple[str, ...]] = ("method", "fill")

    def check(self) -> None:
        super().check()
        checked_method(self.method, self.label("method"))
        object.__setattr__(self, "fill", types.numbers(self.label("fill"), self.fill))


def checked_size(label: str, value: Any) -> Size:
    """(height, width) in pixels, or one number.

    Raises:
      TypeError: if they are not integers.
      ValueError: if one is below 1.
    """
    pair = (value, value)
    if is_sequence(value):
        pair = require_pair(label, value, "(height, width) or one number")
    height, width = (types.integer(label, side) for side in pair)
    if min(height, width) < 1:
        raise ValueError(f"{label} must be at least 1 pixel, got {value!r}")
    return (height, width) if is_sequence(value) else height
