"""From a config and a batch to what `plan` and `apply` need."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Key, PyTree

from datarax.core.element_batch import Batch
from datarax.core.randomness import fold_in, record_keys
from datarax.operators._mix import apply, fields, labels
from datarax.operators._mix.apply import Layout
from datarax.operators._mix.blend import at_least_float32
from datarax.operators._mix.cutmix import CutMix
from datarax.operators._mix.plan import MixPlan, Recipe, draw_plan

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
    num_classes: int | None
    epsilon: float
    multi_hot: bool
    one_by_one: bool

    @property
    def touched(self) -> tuple[str, ...]:
        """Names of the fields that come out changed."""
        return self.images + self.pasted + self.averaged + self.labels


def setup(owner: str, config: BatchMixOperatorConfig, batch: Batch) -> Setup:
    """Checks the fields against the config and sorts them by what is done to them."""
    data, axes, cuts = batch.data, config.spatial_axes, config.mode != "mixup"
    fields.require_fields(owner, data, config.roles())
    specs = {
        name: (jnp.shape(data[name]), data[name].dtype)
        for names in config.roles().values()
        for name in names
    }
    first, *others = config.data_fields()
    sizes = fields.require_sizes(first, specs[first][0], axes) if cuts else (1,) * len(axes)
    averaged = []
    for name in (first, *others, *config.mix_fields):
        shape, dtype = specs[name]
        if config.mode != "cutmix":
            fields.require_mixable(name, dtype)
        if name in config.mix_fields and cuts and len(shape) <= axes[-1]:
            fields.require_mixable(name, dtype)
            averaged.append(name)
        elif cuts:
            fields.require_same_sizes(name, shape, axes, sizes, first)
    for name in config.paste_fields:
        fields.require_same_sizes(name, specs[name][0], axes, sizes, first)
    for name in config.label_fields():
        fields.require_label(name, *specs[name], config.num_classes)
    blended = (first, *others, *config.mix_fields)
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
        ),
        layout=Layout(config.mode, sampler, axes, sizes, config.mix_group_size or len(batch)),
        images=tuple(name for name in blended if name not in averaged),
        pasted=config.paste_fields,
        averaged=tuple(averaged),
        labels=config.label_fields(),
        num_classes=config.num_classes,
        epsilon=config.label_smoothing,
        multi_hot=config.smooth_multi_hot,
        one_by_one=config.batch_strategy == "scan",
    )


def group_keys(
    key: Key[Array, ""], base: Key[Array, ""], batch: Batch, setup: Setup
) -> Key[Array, " groups"]:
    """One key a group: of its first valid record, or of the call and the group's number."""
    group = setup.layout.group
    if batch.record_index is None:
        if len(batch) <= group:
            return key[None]
        numbers = jnp.arange(-(-len(batch) // group), dtype=jnp.uint32)
        return fold_in(key, numbers)
    first = jnp.argmax(in_groups(batch.valid_mask, group), axis=1, keepdims=True)
    index = jnp.take_along_axis(in_groups(batch.record_index, group), first, axis=1)
    epoch = None if batch.epoch is None else jnp.asarray(batch.epoch)
    return record_keys(base, epoch, index[:, 0])


def in_groups(values: Array | np.ndarray, group: int) -> Array:
    """`(groups, group)`, the last group filled up with zeros."""
    rows = jnp.asarray(values)
    missing = -rows.shape[0] % group
    return jnp.pad(rows, (0, missing)).reshape(-1, group)


@functools.partial(jax.jit, static_argnames="setup")
def plan(
    keys: Key[Array, " groups"],
    valid: Bool[Array, " batch"],
    setup: Setup,
    prob: Float32[Array, ""],
    enabled: Bool[Array, ""],
    alpha: Float32[Array, ""] | None = None,
) -> MixPlan:
    """Draws the plan of a batch."""
    groups = in_groups(valid, setup.layout.group)
    drawn = draw_plan(keys, groups, setup.recipe, prob, enabled, alpha)
    return jax.tree.map(lambda leaf: leaf[: valid.shape[0]], drawn)


def mix(
    data: Mapping[str, Any],
    valid: Bool[Array, " batch"],
    plan: MixPlan,
    setup: Setup,
    enabled: Bool[Array, ""],
) -> dict[str, Array]:
    """Carries a plan out and returns the fields that it touches."""
    return _mix({name: data[name] for name in setup.touched}, valid, plan, setup, enabled)


@functools.partial(jax.jit, static_argnames="setup")
def _mix(
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
            array = prepared_labels(array, valid, setup, enabled)
        if setup.one_by_one:
            out[name] = apply.one_by_one(mixed, array, plan, setup.layout)
        else:
            out[name] = mixed(array, plan, setup.layout)
    return out


def prepared_labels(
    array: Array, valid: Bool[Array, " batch"], setup: Setup, enabled: Bool[Array, ""]
) -> Array:
    """Labels as float rows of classes, smoothed where that is wanted."""
    if setup.num_classes is not None and jnp.issubdtype(array.dtype, jnp.integer):
        array = labels.one_hot(array, setup.num_classes, valid)
    array = array.astype(at_least_float32(array.dtype))
    if setup.epsilon:
        array = labels.smooth(array, setup.epsilon, valid & enabled, setup.multi_hot)
    return array


def check_label_values(owner: str, config: BatchMixOperatorConfig, batch: Batch) -> None:
    """Raises a ValueError if labels whose values can be read do not fit the config."""
    if config.num_classes is None and not config.label_smoothing:
        return
    data: Mapping[str, Any] = batch.data if isinstance(batch.data, Mapping) else {}
    for name in config.label_fields():
        array = data.get(name)
        if array is None or not labels.can_be_read(array, batch.valid_mask):
            continue
        label = f"label {name!r} of {owner}"
        if jnp.issubdtype(array.dtype, jnp.integer):
            if config.num_classes is not None:
                labels.check_classes(label, array, batch.valid_mask, config.num_classes)
        elif config.label_smoothing and not config.smooth_multi_hot and jnp.ndim(array) == 2:
            labels.check_distributions(label, array, batch.valid_mask)


def output_spec(owner: str, config: BatchMixOperatorConfig, spec: PyTree) -> PyTree:
    """The spec of a mixed record."""
    fields.require_fields(owner, spec, config.roles())
    out = dict(spec)
    for name in config.label_fields():
        leaf = spec[name]
        fields.require_label(name, (1, *leaf.shape), leaf.dtype, config.num_classes)
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            out[name] = jax.ShapeDtypeStruct((config.num_classes,), jnp.float32)
        else:
            wide = at_least_float32(leaf.dtype)
            out[name] = jax.ShapeDtypeStruct(leaf.shape, wide)
    return out
