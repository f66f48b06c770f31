"""Checks of a `BatchMixOperatorConfig`: that its options fit each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datarax.operators._mix.checks import (
    require_alpha,
    require_choice,
    require_disjoint,
    require_fractions,
    require_number,
    require_tuple,
    require_whole,
)
from datarax.operators._mix.region import RegionSampler

if TYPE_CHECKING:
    from datarax.operators.batch_mix_operator import BatchMixOperatorConfig


def names(option: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The field names in an option that is one name, several or none."""
    if option is None:
        return ()
    return (option,) if isinstance(option, str) else option


def check_draws(config: BatchMixOperatorConfig, owner: str) -> None:
    """Raises unless the options about λ, boxes, groups and probabilities fit each other."""
    require_choice(owner, "mode", config.mode, ("mixup", "cutmix", "both"))
    require_choice(owner, "granularity", config.granularity, ("batch", "record"))
    require_choice(owner, "box_placement", config.box_placement, ("inside", "clipped"))
    require_alpha(owner, "alpha", config.alpha)
    require_number(owner, "prob", config.prob, 0, 1)
    if config.cutmix_alpha is not None:
        require_alpha(owner, "cutmix_alpha", config.cutmix_alpha)
    if config.switch_prob is not None:
        require_number(owner, "switch_prob", config.switch_prob, 0, 1)
    if config.learn_alpha and config.mode == "cutmix":
        raise ValueError(
            f"{owner}.learn_alpha has no effect in mode 'cutmix', where labels follow whole pixels "
            "and have no derivative in α; use mode 'mixup' or 'both'"
        )
    if config.mix_group_size is not None:
        require_whole(owner, "mix_group_size", config.mix_group_size, 2)
    require_tuple(owner, "spatial_axes", config.spatial_axes, int)
    axes = config.spatial_axes
    if not axes or axes[0] < 1 or list(axes) != sorted(set(axes)):
        raise ValueError(
            f"{owner}.spatial_axes must be ascending axes after the batch axis 0, such as (1, 2), "
            f"got {axes!r}"
        )
    _check_minmax(config, owner)
    _check_sampler(config, owner)
    _refuse_unused(config, owner)


def _check_minmax(config: BatchMixOperatorConfig, owner: str) -> None:
    if config.cutmix_minmax is None:
        return
    require_fractions(owner, "cutmix_minmax", config.cutmix_minmax)
    if config.cutmix_alpha is not None:
        raise ValueError(
            f"{owner}.cutmix_alpha has no effect with cutmix_minmax, which draws the sides of "
            "boxes directly; give one of them"
        )


def _check_sampler(config: BatchMixOperatorConfig, owner: str) -> None:
    if config.sampler is None:
        return
    if not isinstance(config.sampler, RegionSampler):
        raise TypeError(
            f"{owner}.sampler must be a RegionSampler such as ResizeMix() or FMix(), got "
            f"{type(config.sampler).__name__}"
        )
    if config.box_placement != "inside" or config.cutmix_minmax is not None:
        raise ValueError(
            f"{owner} has a sampler, which draws the regions, so box_placement and cutmix_minmax "
            "have no effect; use sampler=CutMix(placement=..., minmax=...)"
        )


def _refuse_unused(config: BatchMixOperatorConfig, owner: str) -> None:
    for name, unset, modes in (
        ("cutmix_alpha", None, ("both",)),
        ("switch_prob", None, ("both",)),
        ("cutmix_minmax", None, ("cutmix", "both")),
        ("box_placement", "inside", ("cutmix", "both")),
        ("paste_fields", (), ("cutmix", "both")),
        ("sampler", None, ("cutmix", "both")),
    ):
        value = getattr(config, name)
        if value != unset and config.mode not in modes:
            advice = "; use alpha" if name == "cutmix_alpha" else "; leave it out"
            raise ValueError(
                f"{owner}.{name}={value!r} has no effect in mode {config.mode!r}, only in "
                f"{' and '.join(map(repr, modes))}{advice}"
            )


def check_roles(config: BatchMixOperatorConfig, owner: str) -> None:
    """Raises unless every named field has one role."""
    for name in ("data_field", "label_field"):
        value = getattr(config, name)
        if isinstance(value, str) or (value is None and name == "label_field"):
            continue
        require_tuple(owner, name, value, str)
    for name in ("mix_fields", "paste_fields"):
        require_tuple(owner, name, getattr(config, name), str)
    if not config.data_fields():
        raise ValueError(f"{owner}.data_field must name at least one field, got ()")
    require_disjoint(owner, config.roles())


def check_labels(config: BatchMixOperatorConfig, owner: str) -> None:
    """Raises unless the options about labels fit each other."""
    require_number(owner, "label_smoothing", config.label_smoothing, 0, 1)
    if config.num_classes is not None:
        require_whole(owner, "num_classes", config.num_classes, 1)
    if config.smooth_multi_hot and not config.label_smoothing:
        raise ValueError(
            f"{owner}.smooth_multi_hot has no effect without label_smoothing; set both or neither"
        )
    for name in ("num_classes", "label_smoothing"):
        if getattr(config, name) and not config.label_fields():
            raise ValueError(
                f"{owner}.{name} has no effect without labels; set label_field or leave {name} out"
            )
