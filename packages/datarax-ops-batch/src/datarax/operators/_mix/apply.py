"""Carries a plan out on the arrays of a batch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, Shaped

from datarax.operators._mix.blend import at_least_float32, blend
from datarax.operators._mix.box import exact_fraction
from datarax.operators._mix.paste import paste, pasted_lines, pasted_pixels
from datarax.operators._mix.plan import MixPlan
from datarax.operators._mix.region import RegionSampler, kept_fraction, region_area


@dataclass(frozen=True)
class Layout:
    """What is known about a batch when it is traced.

    Args:
      mode: "mixup", "cutmix" or "both": whether rows can be blended, have regions, or either.
      sampler: what drew the regions.
      axes: the spatial axes.
      sizes: the image's size on each of them.
      group: rows in a group, which no partner leaves.
    """

    mode: str
    sampler: RegionSampler
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    group: int


def take_partners(
    array: Shaped[Array, "batch *rest"], partner: Int32[Array, " batch"], group: int
) -> Shaped[Array, "batch *rest"]:
    """Each row's partner, taken inside the group so that sharded groups stay where they are."""
    batch = array.shape[0]
    flat = array.reshape(lines(array.shape))
    if batch == group or not _divides(group, batch):
        taken = _take(flat, partner)
    else:
        groups = batch // group
        local = (partner % group).reshape(groups, group)
        taken = jax.vmap(_take)(flat.reshape(groups, group, *flat.shape[1:]), local)
    return taken.reshape(array.shape)


def _divides(group: int, batch: int) -> bool:
    # The remainder is a symbol where the number of rows is one.
    rest = batch % group
    return isinstance(rest, int) and rest == 0


def _take(rows: Array, numbers: Array) -> Array:
    return jnp.asarray(rows).at[numbers].get(mode="promise_in_bounds")


def mix_image(
    array: Shaped[Array, "batch *rest"], plan: MixPlan, layout: Layout
) -> Shaped[Array, "batch *rest"]:
    """Blends rows without a region with their partners, and pastes the regions of the others."""
    other = take_partners(array, plan.partner, layout.group)
    if layout.mode == "mixup":
        return _blend_rows(array, other, plan.lam, 1 - plan.lam)
    if layout.mode == "cutmix":
        return _paste(array, other, plan, layout)
    pastes = region_area(plan.region, len(layout.axes)) > 0
    content = layout.sampler.content(other, plan.region, layout.axes)
    if content is not other:
        other = jnp.where(pastes.reshape(-1, *(1,) * (array.ndim - 1)), content, other)
    # A weight for each pixel, not a blend and then a selection, of which XLA on a CPU makes slow
    # loops where another operator's arithmetic comes before.
    inside = pasted_pixels(plan.region, layout.axes, array.shape)
    lam = jnp.where(pastes, 1, plan.lam).reshape(-1, *(1,) * (inside.ndim - 1))
    lam = jnp.where(inside, 0, lam)
    flat = pasted_lines(layout.axes, array.shape)
    return blend(array.reshape(flat), other.reshape(flat), lam, 1 - lam).reshape(array.shape)


def paste_image(
    array: Shaped[Array, "batch *rest"], plan: MixPlan, layout: Layout
) -> Shaped[Array, "batch *rest"]:
    """Pastes regions and never blends."""
    return _paste(array, take_partners(array, plan.partner, layout.group), plan, layout)


def _paste(own: Array, other: Array, plan: MixPlan, layout: Layout) -> Array:
    other = layout.sampler.content(other, plan.region, layout.axes)
    return paste(own, other, plan.region, layout.axes)


def mix_by_ratio(
    array: Shaped[Array, "batch *rest"], plan: MixPlan, layout: Layout
) -> Shaped[Array, "batch *rest"]:
    """Averages with the labels' weights: λ, or the exact fractions of pixels kept and pasted."""
    other = take_partners(array, plan.partner, layout.group)
    return _blend_rows(array, other, *weights(plan, layout, at_least_float32(array.dtype)))


def weights(
    plan: MixPlan, layout: Layout, dtype: Any
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """λ and 1 − λ, both correctly rounded from the pixels where there is a region."""
    lam = plan.lam.astype(dtype)
    if layout.mode == "mixup":
        return lam, 1 - lam
    area = region_area(plan.region, len(layout.axes))
    pasted = exact_fraction(area, layout.sizes, dtype)
    if jnp.dtype(dtype) != plan.lam.dtype:
        lam = jnp.where(area > 0, kept_fraction(plan.region, layout.sizes, dtype), lam)
    return lam, jnp.where(area > 0, pasted, 1 - lam)


def _blend_rows(
    own: Array, other: Array, lam: Float[Array, " batch"], rest: Float[Array, " batch"]
) -> Array:
    flat = lines(own.shape)
    lam, rest = (number.reshape(-1, *(1,) * (len(flat) - 1)) for number in (lam, rest))
    mixed = blend(own.reshape(flat), other.reshape(flat), lam, rest)
    return mixed.reshape(own.shape)


def lines(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`(batch, height, width * channel)` of a batch of images, `(batch, size)` of vectors.

    Long lines make fast loops. As `paste` has the same ones, what comes before in a compilation,
    such as a normalisation, is not computed by way of a division for each pixel.
    """
    kept = 2 if len(shape) > 2 else 1
    return *shape[:kept], math.prod(shape[kept:])


def one_by_one(
    mixed: Callable[[Array, MixPlan, Layout], Array],
    array: Shaped[Array, "batch *rest"],
    plan: MixPlan,
    layout: Layout,
) -> Shaped[Array, "batch *rest"]:
    """The same as `mixed(array, plan, layout)`, with working memory for one row."""
    pair = dataclasses.replace(layout, group=2)

    def one(row: tuple[Array, MixPlan]) -> Array:
        number, own = row
        rows = jnp.stack([array[number], array[own.partner]])
        alone = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), own)
        alone = dataclasses.replace(alone, partner=jnp.int32([1, 1]))
        return mixed(rows, alone, pair)[0]

    return jax.lax.map(one, (jnp.arange(array.shape[0]), plan))
