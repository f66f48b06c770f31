"""From a config and a batch to what `plan` and `apply` need."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Key, PyTree

from datarax.core.config import Exact
from datarax.core.element_batch import Batch
from datarax.core.fields import get_field, put_field
from datarax.core.randomness import fold_in, record_keys
from datarax.operators._mix import apply, fields, labels
from datarax.operators._mix.apply import Layout
from datarax.operators._mix.axes import of_image, of_mixed, of_pasted
from datarax.operators._mix.blend import at_least_float32
from datarax.operators._mix.cutmix import CutMix
from datarax.operators._mix.labels import holds_classes
from datarax.operators._mix.plan import MixPlan, PlanKeys, Recipe, draw_plan

if TYPE_CHECKING:
    from datarax.operators.batch_mix_operator import BatchMixOperatorConfig


@dataclass(frozen=True)
class Setup:
    """Everything about a config and a batch's shapes that a compiled mix depends on."""

    recipe: Recipe
    layout: Layout
    images: tuple[str, ...]
    pasted: tuple[str, ...]
    averaged: tuple[str, ...]
    labels: tuple[str, ...]
    axes: tuple[tuple[str, tuple[int, ...]], ...]
    num_classes: tuple[int | None, ...]
    ignore_index: int | None
    epsilon: float
    multi_hot: bool
    one_by_one: bool

    @property
    def touched(self) -> tuple[str, ...]:
        """Names of the fields that come out changed."""
        return self.images + self.pasted + self.averaged + self.labels

    def layout_of(self, name: str) -> Layout:
        """The layout with the spatial axes of one of the fields."""
        return replace(self.layout, axes=dict(self.axes).get(name, self.layout.axes))


def setup(owner: str, config: BatchMixOperatorConfig, data: Any, rows: int) -> Setup:
    """Checks the fields, or their specs, and sorts them by what is done to them."""
    found = fields.find_fields(owner, data, config.roles())
    specs = {path: (tuple(leaf.shape), leaf.dtype) for path, leaf in found.items()}
    axes, cuts = config.spatial_axes, config.mode != "mixup"
    first, *others = config.data_fields()
    blended = (first, *others, *config.mix_fields)
    axes_of, sizes = {first: axes}, (1,) * len(axes)
    if cuts:
        image, given = of_image(first, specs[first][0], axes), dict(config.field_axes)
        sizes = image.sizes
        for name in (*others, *config.paste_fields):
            axes_of[name] = of_pasted(name, specs[name][0], image, given.get(name))
        for name in config.mix_fields:
            found_axes = of_mixed(name, specs[name][0], image, given.get(name))
            if found_axes is not None:
                axes_of[name] = found_axes
    averaged = tuple(name for name in config.mix_fields if cuts and name not in axes_of)
    for name in averaged if config.mode == "cutmix" else blended:
        fields.require_mixable(name, specs[name][1])
    classes = config.classes()
    for name, count in zip(config.label_fields(), classes, strict=True):
        fields.require_label(name, *specs[name], count)
    precise = any(specs[name][1] == jnp.float64 for name in (*blended, *config.label_fields()))
    sampler = config.sampler or CutMix(config.box_placement, config.cutmix_minmax)
    return Setup(
        recipe=Recipe(
            mode=config.mode,
            alpha=config.alpha,
            region_alpha=config.alpha if config.mode == "cutmix" else (config.cutmix_alpha or 1.0),
            switch_prob=0.5 if config.switch_prob is None else config.switch_prob,
            per_record=config.granularity == "record",
            sampler=sampler,
            sizes=sizes,
            whole_numbers=any(jnp.issubdtype(specs[name][1], jnp.integer) for name in blended),
            dtype="float64" if precise else "float32",
        ),
        layout=Layout(config.mode, sampler, axes, sizes, config.mix_group_size or rows),
        images=tuple(name for name in blended if name not in averaged),
        pasted=config.paste_fields,
        averaged=averaged,
        labels=config.label_fields(),
        axes=tuple(axes_of.items()),
        num_classes=classes,
        ignore_index=config.ignore_index,
        epsilon=config.label_smoothing,
        multi_hot=config.smooth_multi_hot,
        one_by_one=config.batch_strategy == "scan",
    )


def call_keys(key: Key[Array, ""], rows: int, setup: Setup) -> PlanKeys:
    """What a batch without record numbers draws from: keys of the call and the group's number."""
    groups = -(-rows // setup.layout.group)
    if isinstance(groups, int) and groups == 1:
        return PlanKeys(key[None])
    folded = fold_in(key, jnp.arange(groups, dtype=jnp.uint32))
    if isinstance(groups, int):
        return PlanKeys(folded)
    # Only who calls what was exported knows whether there is one group.
    return PlanKeys(jnp.where(jnp.asarray(groups) == 1, key, folded))


def record_plan_keys(base: Key[Array, ""], batch: Batch, setup: Setup) -> PlanKeys:
    """Keys of the records, and for each group that of its first valid one."""
    group, epoch = setup.layout.group, None if batch.epoch is None else jnp.asarray(batch.epoch)
    first = jnp.argmax(in_groups(batch.valid_mask, group), axis=1, keepdims=True)
    numbers = [
        in_groups(values, group)
        for values in (batch.record_index, batch.view)
        if values is not None
    ]
    of_first = [jnp.take_along_axis(values, first, axis=1)[:, 0] for values in numbers]
    return PlanKeys(
        record_keys(base, epoch, *of_first),
        record_keys(base, epoch, *numbers) if setup.recipe.per_record else None,
    )


def in_groups(values: Array | np.ndarray, group: int) -> Array:
    """`(groups, group)`, the last group filled up with zeros."""
    rows = jnp.asarray(values)
    groups = -(-rows.shape[0] // group)
    return jnp.pad(rows, (0, groups * group - rows.shape[0])).reshape(groups, group)


@functools.partial(jax.jit, static_argnames="setup")
def plan(
    keys: PlanKeys,
    valid: Bool[Array, " batch"],
    setup: Exact[Setup],
    prob: Float32[Array, ""],
    enabled: Bool[Array, ""],
    alpha: Float32[Array, ""] | None = None,
) -> MixPlan:
    """Draws the plan of a batch."""
    groups = in_groups(valid, setup.value.layout.group)
    # Broadcast on purpose, where a caller forbids that to its own arithmetic.
    with jax.numpy_rank_promotion("allow"):
        drawn = draw_plan(keys, groups, setup.value.recipe, prob, enabled, alpha)
    return jax.tree.map(lambda leaf: leaf[: valid.shape[0]], drawn)


def mix(
    data: Mapping[str, Any],
    valid: Bool[Array, " batch"],
    plan: MixPlan,
    setup: Setup,
    enabled: Bool[Array, ""],
) -> dict[str, Any]:
    """Carries a plan out: the data with the fields that it touches replaced."""
    touched = {path: get_field(data, path) for path in setup.touched}
    return put_fields(data, _mix(touched, valid, plan, Exact(setup), enabled))


def put_fields(data: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The data with these fields replaced, by path."""
    out = dict(data)
    for path, value in values.items():
        out = put_field(out, path, value)
    return out


@functools.partial(jax.jit, static_argnames="setup")
def _mix(
    data: dict[str, Array],
    valid: Bool[Array, " batch"],
    plan: MixPlan,
    setup: Exact[Setup],
    enabled: Bool[Array, ""],
) -> dict[str, Array]:
    with jax.numpy_rank_promotion("allow"):
        return _mixed(data, valid, plan, setup.value, enabled)


def _mixed(
    data: dict[str, Array],
    valid: Bool[Array, " batch"],
    plan: MixPlan,
    setup: Setup,
    enabled: Bool[Array, ""],
) -> dict[str, Array]:
    do = dict.fromkeys(setup.images, apply.mix_image)
    do |= dict.fromkeys(setup.pasted, apply.paste_image)
    do |= dict.fromkeys(setup.averaged + setup.labels, apply.mix_by_ratio)
    out = {}
    for name, mixed in do.items():
        array = data[name]
        if name in setup.labels:
            array = prepared_labels(name, array, valid, setup, enabled)
        layout = setup.layout_of(name)
        if setup.one_by_one:
            out[name] = apply.one_by_one(mixed, array, plan, layout)
        else:
            out[name] = mixed(array, plan, layout)
    return out


def plain_labels(
    data: Mapping[str, Any], valid: Bool[Array, " batch"], setup: Setup
) -> dict[str, Any]:
    """The data with labels in the form that mixing gives them, neither mixed nor smoothed."""
    off = jnp.bool_(False)
    return put_fields(
        data,
        {
            path: prepared_labels(path, jnp.asarray(get_field(data, path)), valid, setup, off)
            for path in setup.labels
        },
    )


def prepared_labels(
    name: str, array: Array, valid: Bool[Array, " batch"], setup: Setup, enabled: Bool[Array, ""]
) -> Array:
    """Labels as float rows of classes, smoothed where that is wanted."""
    smoothed = valid & enabled
    if holds_classes(array.shape, array.dtype):
        count = setup.num_classes[setup.labels.index(name)]
        assert count is not None
        array = array.reshape(-1)
        ignored = labels.are_ignored(array, setup.ignore_index)
        array, smoothed = labels.one_hot(array, count, valid, ignored), smoothed & ~ignored
    array = array.astype(at_least_float32(array.dtype))
    if setup.epsilon:
        array = labels.smooth(array, setup.epsilon, smoothed, setup.multi_hot)
    return array


def output_spec(owner: str, config: BatchMixOperatorConfig, spec: PyTree) -> PyTree:
    """The spec of a mixed record."""
    found = fields.find_fields(owner, spec, config.roles())
    rows = {}
    for name, count in zip(config.label_fields(), config.classes(), strict=True):
        shape, dtype = (1, *found[name].shape), found[name].dtype
        fields.require_label(name, shape, dtype, count)
        classes = (count,) if holds_classes(shape, dtype) else shape[1:]
        rows[name] = jax.ShapeDtypeStruct(classes, at_least_float32(dtype))
    return put_fields(spec, rows)
