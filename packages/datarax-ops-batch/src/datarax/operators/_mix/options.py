"""Checks of options: of a `BatchMixOperatorConfig` and of samplers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from datarax.operators._mix.region import RegionSampler

if TYPE_CHECKING:
    from datarax.operators.batch_mix_operator import BatchMixOperatorConfig


def names(option: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The field names in an option that is one name, several or none."""
    if option is None:
        return ()
    return (option,) if isinstance(option, str) else option


def axes_by_field(owner: str, value: Any) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Pairs of a field's name and its axes, which can be hashed.

    Raises:
      TypeError: unless it is a mapping, or such pairs.
    """
    try:
        pairs = value.items() if isinstance(value, Mapping) else value
        return tuple((name, tuple(axes)) for name, axes in pairs)
    except (TypeError, ValueError):
        raise TypeError(
            f"{owner}.field_axes must be a dict of axes by field, such as "
            f"{{'masks': (-2, -1)}}, got {value!r}"
        ) from None


def classes_by_label(owner: str, value: Any, labels: tuple[str, ...]) -> Any:
    """Numbers of classes, one for all labels, or by name or in their order for each.

    Raises:
      ValueError: if there is one for no label, or one too many or too few.
    """
    if isinstance(value, Mapping):
        if extra := [name for name in value if name not in labels]:
            raise ValueError(
                f"{owner}.num_classes names {extra}, but label_field names {list(labels)}; name "
                "the same fields"
            )
        return tuple(value.get(name) for name in labels)
    if isinstance(value, list | tuple):
        if len(value) != len(labels):
            raise ValueError(
                f"{owner}.num_classes must be one number, or one for each label of "
                f"{list(labels)}, got {value!r}"
            )
        return tuple(value)
    return value


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
    _check_field_axes(config, owner)
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


def _check_field_axes(config: BatchMixOperatorConfig, owner: str) -> None:
    for name, axes in config.field_axes:
        others = (*config.data_fields()[1:], *config.mix_fields, *config.paste_fields)
        if name not in others:
            raise ValueError(
                f"{owner}.field_axes names {name!r}, but must name fields of {list(others)}, which "
                "data_field, mix_fields and paste_fields name beside the first image; the axes of "
                "that are spatial_axes"
            )
        require_tuple(owner, f"field_axes[{name!r}]", axes, int)
        count = len(config.spatial_axes)
        if len(axes) != count and (axes or name not in config.mix_fields):
            raise ValueError(
                f"{owner}.field_axes[{name!r}] must be {count} axes, as many as spatial_axes "
                f"{config.spatial_axes}, or () for one of mix_fields that has none, got {axes!r}"
            )


def _refuse_unused(config: BatchMixOperatorConfig, owner: str) -> None:
    for name, unset, modes in (
        ("cutmix_alpha", None, ("both",)),
        ("switch_prob", None, ("both",)),
        ("cutmix_minmax", None, ("cutmix", "both")),
        ("box_placement", "inside", ("cutmix", "both")),
        ("paste_fields", (), ("cutmix", "both")),
        ("sampler", None, ("cutmix", "both")),
        ("field_axes", (), ("cutmix", "both")),
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
    for count in config.classes():
        if count is not None:
            require_whole(owner, "num_classes", count, 1)
    if config.ignore_index is not None:
        require_integer(owner, "ignore_index", config.ignore_index)
        if config.num_classes is None:
            raise ValueError(
                f"{owner}.ignore_index={config.ignore_index} has no effect without num_classes: "
                "rows of weights say by zeros that there is no class; set num_classes, or leave "
                "ignore_index out"
            )
    if config.smooth_multi_hot and not config.label_smoothing:
        raise ValueError(
            f"{owner}.smooth_multi_hot has no effect without label_smoothing; set both or neither"
        )
    for name in ("num_classes", "label_smoothing"):
        if getattr(config, name) and not config.label_fields():
            raise ValueError(
                f"{owner}.{name} has no effect without labels; set label_field or leave {name} out"
            )


def require_number(owner: str, name: str, value: Any, low: float, high: float) -> None:
    """Raises unless the value is a number from `low` to `high`, ends included."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{owner}.{name} must be a number from {low:g} to {high:g}, got "
            f"{type(value).__name__} {value!r}"
        )
    if not low <= float(value) <= high:
        raise ValueError(f"{owner}.{name} must be from {low:g} to {high:g}, got {value!r}")


def require_alpha(owner: str, name: str, value: Any) -> None:
    """Raises unless the value is a parameter of a Beta distribution."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{owner}.{name} must be a positive number, got {type(value).__name__} {value!r}"
        )
    if not 0 < float(value) <= 1e30:
        raise ValueError(
            f"{owner}.{name} must be positive and finite, as the parameter of Beta(α, α), got "
            f"{value!r}; to switch mixing off set prob=0 or op.enabled"
        )


def require_whole(owner: str, name: str, value: Any, low: int) -> None:
    """Raises unless the value is an integer of at least `low`."""
    require_integer(owner, name, value)
    if value < low:
        raise ValueError(f"{owner}.{name} must be at least {low}, got {value}")


def require_integer(owner: str, name: str, value: Any) -> None:
    """Raises a TypeError unless the value is an integer."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{owner}.{name} must be an integer, got {type(value).__name__} {value!r}")


def require_choice(owner: str, name: str, value: Any, choices: Sequence[str]) -> None:
    """Raises a ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{owner}.{name} must be one of {tuple(choices)}, got {value!r}")


def require_tuple(owner: str, name: str, value: Any, kind: Any) -> None:
    """Raises a TypeError unless the value is a tuple of this type only."""
    if not isinstance(value, tuple) or not all(
        isinstance(item, kind) and not isinstance(item, bool) for item in value
    ):
        wanted = {str: 'names, such as ("depth",)', int: "axes, such as (1, 2)"}
        raise TypeError(
            f"{owner}.{name} must be a tuple of {wanted.get(kind, 'two numbers')}, got "
            f"{type(value).__name__} {value!r}"
        )


def require_disjoint(owner: str, roles: dict[str, tuple[str, ...]]) -> None:
    """Raises a ValueError if a field has two roles or stands twice in one."""
    seen: dict[str, str] = {}
    for role, names in roles.items():
        for name in names:
            if not name:
                raise ValueError(f"{owner}.{role} must hold non-empty names, got {names!r}")
            if name in seen:
                raise ValueError(
                    f"{owner} names the field {name!r} as {seen[name]} and as {role}; name it once"
                )
            seen[name] = role


def require_fractions(owner: str, name: str, value: Any) -> None:
    """Raises unless the value is a tuple of two ascending fractions of the image's sides."""
    require_tuple(owner, name, value, Real)
    if len(value) != 2 or not 0 <= value[0] <= value[1] <= 1:
        raise ValueError(
            f"{owner}.{name} must be two fractions of the image's sides with "
            f"0 <= low <= high <= 1, such as (0.2, 0.8), got {value!r}"
        )
