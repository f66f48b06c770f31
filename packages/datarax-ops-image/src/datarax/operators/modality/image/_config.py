"""`PatchDropoutOperatorConfig` and how its options go together."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from datarax.core._modality_config import require_number
from datarax.core.config import require_bools, require_names
from datarax.operators.modality.image import _option_types as types
from datarax.operators.modality.image._image_config import ImageOperatorConfig
from datarax.operators.modality.image._option_types import Length as Length

FILLS = ("constant", "noise", "color", "mean", "dataset_mean")
DEFAULT_SIZE = (8, 8)


@dataclass(frozen=True)
class PatchDropoutOperatorConfig(ImageOperatorConfig):
    """Configuration of `PatchDropoutOperator`: how many patches, how large, where, of what.

    Args:
      num_patches: how many patches a record loses, or if `stochastic` (min, max), inclusive, to
        draw from. They may overlap, except on a grid, where None stands for all.
      patch_size: height and width of a patch. Each is an int in pixels, a float in (0, 1] as a
        fraction of that side of the image (rounded, at least one pixel), or (min, max) of either,
        inclusive, from which each patch draws its own.
      drop_value: what dropped pixels become with `fill="constant"`: a number, or one per channel.
      patch_area: (min, max) of a patch's area as a fraction of the image's, uniform, in place of
        `patch_size`. Sides are rounded and cut to those of the image.
      aspect_ratio: (min, max) of height / width with `patch_area`, uniform in its logarithm. None:
        (0.3, 1 / 0.3).
      placement: "random", all places inside the image equally likely; "grid", one patch in each
        cell of a regular grid that lies in the middle of the image.
      grid_ratio: side of a patch / side of its cell, in (0, 1]. None: 0.5.
      grid_jitter: how far a patch moves in its cell, from 0 (it lies in the middle) to 1
        (anywhere).
      prob: probability that a record loses any patch; below 1 only if `stochastic`, and then the
        start value of `op.prob`.
      info_key: where in `states` each record's patches are left, for `op.replay`; only if
        `stochastic`. `learn` must be empty.
      fill: "constant"; "noise", a random value for each pixel and channel; "color", one random
        colour for each record; "mean", the record's own mean of each channel; "dataset_mean", the
        statistic `<field_key>.mean` or else `mean`, a number or one per channel, to the nearest
        integer for integers.
      fill_range: smallest and largest value of "noise" and "color" (the largest is reached by
        integers only). None: `clip_range`; without one, (0, 1) for floats and the whole range of
        8-bit and 16-bit integers.
      mask_fill: what dropped pixels of auxiliary masks become; None leaves masks as they are.
      shrink_boxes: cut boxes that a patch touches to the pixels that are left; a box without any
        gets the sides 0.
      drop_tokens: also write which tokens of a vision transformer are left, if tokens are the cells
        of a grid with `grid_ratio=1` and a fixed number is dropped: `<target>_token_mask`, bool
        `(tokens,)`, and `<target>_token_indices`, int32 `(tokens - num_patches,)`, ascending.
      in_place: write patches one after another instead of comparing every pixel, with the same
        result: faster on a CPU if the jitted step around the operator is given the images
        (`donate_argnums`), slower elsewhere. For patches of one size with a constant fill.
      seed: of the patches, and of the fill, if not `stochastic`: then every record of every call
        has the same.
      spatial_axes: height and width axis of a record, for video, volumes and channels-first images.
        None: (0, 1) of (height, width) or (height, width, channel). Patches extend over the others.
      channel_axis: the axis of colours, for values per channel. None: the last axis, if it is not
        spatial.
      field_axes: (height axis, width axis) of masks where they cannot be told from shapes, by
        field, negative ones counted from the end: a dict such as `{"masks": (-2, -1)}`, kept as
        pairs. Masks that are not named have the image's height and width on its axes, else on their
        last, else on their first.
      field_key, target_key, clip_range, validate_domain_constraints: see `ModalityOperatorConfig`.
      auxiliary_fields, preserve_auxiliary: see `ModalityOperatorConfig`.
      box_fields, box_format, keypoint_fields, keypoint_format: see `ModalityOperatorConfig`.
      stochastic, stream_name, batch_strategy: see `OperatorConfig`; training needs
        `stochastic=True`.
      cacheable, batch_stats_fn, precomputed_stats: see `DataraxModuleConfig`.

    Boxes get a field `<name>_visibility`, float32 `(boxes,)`: the fraction of the box's area inside
    the image that no patch covers, 0 for padding. Keypoints get one too, bool `(points,)`; a flag 2
    in a third column becomes 1 where a patch hides the point.

    Raises:
      TypeError: for a value of the wrong type.
      ValueError: for a negative count, a size that is not positive, an unknown fill, a `drop_value`
        that is not finite or outside `clip_range`, or an option without effect beside another.

    >>> config = PatchDropoutOperatorConfig(field_key="image", num_patches=(1, 4), stochastic=True)
    >>> config.patch_size, config.drop_value
    ((8, 8), 0.0)
    """

    field_key: str = field(kw_only=True)
    num_patches: int | tuple[int, int] | None = field(default=4, kw_only=True)
    patch_size: tuple[Length, Length] = field(default=DEFAULT_SIZE, kw_only=True)
    drop_value: float | tuple[float, ...] = field(default=0.0, kw_only=True)
    patch_area: tuple[float, float] | None = field(default=None, kw_only=True)
    aspect_ratio: tuple[float, float] | None = field(default=None, kw_only=True)
    placement: Literal["random", "grid"] = field(default="random", kw_only=True)
    grid_ratio: float | None = field(default=None, kw_only=True)
    grid_jitter: float = field(default=0.0, kw_only=True)
    fill: Literal["constant", "noise", "color", "mean", "dataset_mean"] = field(
        default="constant", kw_only=True
    )
    fill_range: tuple[float, float] | None = field(default=None, kw_only=True)
    mask_fill: float | None = field(default=None, kw_only=True)
    shrink_boxes: bool = field(default=False, kw_only=True)
    drop_tokens: bool = field(default=False, kw_only=True)
    in_place: bool = field(default=False, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    spatial_axes: tuple[int, int] | None = field(default=None, kw_only=True)
    channel_axis: int | None = field(default=None, kw_only=True)
    field_axes: types.FieldAxes = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_bools(self, "shrink_boxes", "drop_tokens", "in_place")
        object.__setattr__(self, "field_axes", types.field_axes(self, self.field_axes))
        self._convert("patch_size", types.size)
        self._convert("drop_value", types.numbers)
        self._convert("grid_jitter", types.fraction)
        self._convert("seed", types.integer)
        for name, convert in {
            "num_patches": types.count,
            "patch_area": partial(types.positive_range, most=1.0),
            "aspect_ratio": partial(types.positive_range, most=1e6),
            "grid_ratio": types.fraction,
            "mask_fill": require_number,
            "spatial_axes": types.axes,
            "channel_axis": types.integer,
        }.items():
            if getattr(self, name) is not None:
                self._convert(name, convert)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"{self.label('seed')} must be from 0 to 2**32 - 1, got {self.seed}")
        self._check_randomness()
        self._check_sizes()
        self._check_grid()
        self._check_tokens()
        self._check_fill()
        self._check_effects()

    def random_because(self) -> str:
        # The documented default, the same patches for all records, is asked for by leaving
        # `stochastic` out.
        return ""

    def skips(self) -> bool:
        return self.stochastic and self.prob < 1

    def _convert(self, name: str, convert: Any) -> None:
        object.__setattr__(self, name, convert(self.label(name), getattr(self, name)))

    def _refuse(self, name: str, because: str) -> None:
        raise ValueError(f"{self.label(name)}={getattr(self, name)!r} {because}")

    def _check_randomness(self) -> None:
        varying = {
            "prob": self.prob < 1,
            "num_patches": isinstance(self.num_patches, tuple),
            "info_key": self.info_key is not None,
        }
        for name, varies in varying.items():
            if varies and not self.stochastic:
                self._refuse(
                    name, "needs stochastic=True: without, all records have the same patches"
                )

    def _check_sizes(self) -> None:
        if self.patch_area is None and self.aspect_ratio is not None:
            self._refuse("aspect_ratio", "has no effect without patch_area; set patch_area")
        if self.patch_area is not None and self.patch_size != DEFAULT_SIZE:
            self._refuse("patch_size", "has no effect with patch_area; leave one of them out")

    def _has_one_size(self) -> bool:
        return self.patch_area is None and not any(isinstance(s, tuple) for s in self.patch_size)

    def _check_grid(self) -> None:
        require_names(self, "placement")
        if self.placement not in ("random", "grid"):
            self._refuse("placement", "must be 'random' or 'grid'")
        if self.placement == "random":
            if self.num_patches is None:
                self._refuse("num_patches", "needs placement='grid', where it stands for all cells")
            for name, default in (("grid_ratio", None), ("grid_jitter", 0)):
                if getattr(self, name) != default:
                    self._refuse(name, "has no effect with placement='random'; set it to 'grid'")
        elif not self._has_one_size():
            name = "patch_size" if self.patch_area is None else "patch_area"
            self._refuse(
                name, "must be one size with placement='grid'; use patch_size=(height, width)"
            )
        if self.grid_ratio == 0:
            self._refuse("grid_ratio", "must be in (0, 1]")

    def _check_tokens(self) -> None:
        if not self.drop_tokens:
            return
        if self.placement != "grid" or self.grid_ratio != 1:
            self._refuse("drop_tokens", "needs placement='grid' with grid_ratio=1.0")
        if not isinstance(self.num_patches, int) or self.prob < 1:
            self._refuse("drop_tokens", "needs one number of patches: num_patches an int, prob=1.0")

    def _check_fill(self) -> None:
        require_names(self, "fill")
        if self.fill not in FILLS:
            raise ValueError(f"{self.label('fill')} must be one of {FILLS}, got {self.fill!r}")
        if self.fill != "constant" and self.drop_value != 0:
            self._refuse(
                "drop_value", f"has no effect with fill={self.fill!r}; set fill='constant'"
            )
        if self.fill_range is not None:
            if self.fill not in ("noise", "color"):
                self._refuse("fill_range", f"has no effect with fill={self.fill!r}; leave it out")
            object.__setattr__(self, "fill_range", self._checked_range("fill_range"))
        if self.fill == "constant" and self.clip_range is not None:
            values = self.drop_value if isinstance(self.drop_value, tuple) else (self.drop_value,)
            low, high = self.clip_range
            if self.validate_domain_constraints and not all(low <= v <= high for v in values):
                self._refuse(
                    "drop_value",
                    f"lies outside clip_range {self.clip_range}, which would change it; widen "
                    "clip_range or set validate_domain_constraints=False",
                )

    def _check_effects(self) -> None:
        others = (*self.box_fields, *self.keypoint_fields)
        masks = [name for name in self.auxiliary_fields or () if name not in others]
        if self.mask_fill is not None and not masks:
            self._refuse(
                "mask_fill",
                f"has no effect, because auxiliary_fields {self.auxiliary_fields} name no mask; "
                "name the masks there or leave mask_fill out",
            )
        if self.in_place and not (self._has_one_size() and self.fill == "constant"):
            self._refuse("in_place", "needs fill='constant' and one patch_size=(height, width)")
        if self.shrink_boxes and not self.box_fields:
            self._refuse("shrink_boxes", "has no effect without box_fields; name the boxes there")
