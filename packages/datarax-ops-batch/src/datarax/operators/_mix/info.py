"""`mix_info`: the plan that a mix leaves in the batch, and the way back."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from datarax.core.config import Exact
from datarax.operators._mix.apply import Layout, take_partners
from datarax.operators._mix.box import clipped_box
from datarax.operators._mix.labels import can_be_read
from datarax.operators._mix.plan import MixPlan
from datarax.operators._mix.region import kept_fraction, region_area, region_name, where_region

if TYPE_CHECKING:
    from datarax.operators._mix.run import Setup

INFO = "mix_info"
LAM_TOLERANCE = 1e-6


def names(layout: Layout) -> tuple[str, str, str]:
    """Names of the entries."""
    region = "box" if layout.mode == "mixup" else region_name(layout.sampler, layout.sizes)
    return "lam", "partner", region


def with_info(owner: str, states: Any, plan: MixPlan, layout: Layout) -> dict[str, Any]:
    """The states with the plan in them."""
    if not isinstance(states, Mapping):
        raise TypeError(
            f"{owner} has mix_info=True and needs batch.states to be a dict, got "
            f"{type(states).__name__}"
        )
    if INFO in states:
        raise ValueError(
            f"{owner} has mix_info=True, but batch.states has {INFO!r} from another mix already; "
            "set mix_info in one of the operators only, or take it out of the states in between"
        )
    entries = dict(zip(names(layout), (plan.lam, plan.partner, plan.region), strict=True))
    return {**states, INFO: entries}


def unmixed(rows: int, setup: Setup) -> MixPlan:
    """The plan that leaves every row as it is."""
    layout = setup.layout
    mask = names(layout)[2] == "mask"
    return MixPlan(
        jnp.ones(rows, setup.recipe.dtype),
        jnp.arange(rows, dtype=jnp.int32),
        jnp.zeros((rows, *layout.sizes), jnp.bool_)
        if mask
        else jnp.zeros((rows, 2 * len(layout.axes)), jnp.int32),
    )


def plan_of(owner: str, entries: Any, valid: Bool[Any, " batch"], setup: Setup) -> MixPlan:
    """The plan from what `with_info` left, or from entries of the caller's own.

    What can be read is checked. What cannot is made legal: boxes are clipped, λ is that of the
    pixels, and a row whose partner is outside its group, or padding, stays as it is.

    Raises:
      TypeError: if it is not a dict, or an entry has another dtype.
      KeyError: if an entry is missing.
      ValueError: if an entry has another shape, or values that no plan for this batch has.
    """
    if not isinstance(entries, Mapping):
        raise TypeError(
            f"mix_info for {owner} must be a dict such as mixed.states[{INFO!r}], got "
            f"{type(entries).__name__}"
        )
    layout, rows = setup.layout, len(valid)
    kinds: dict[str, tuple[Any, ...]] = {
        "lam": (jnp.float32, jnp.float64),
        "partner": (jnp.int32,),
        "box": (jnp.int32,),
        "mask": (jnp.bool_,),
    }
    shapes = {"lam": (), "partner": (), "box": (2 * len(layout.axes),), "mask": layout.sizes}
    values = []
    for name in names(layout):
        if name not in entries:
            raise KeyError(
                f"mix_info for {owner} must have {name!r}, but there are {list(entries)}"
            )
        value = jnp.asarray(entries[name])
        if value.dtype not in map(jnp.dtype, kinds[name]):
            raise TypeError(
                f"mix_info[{name!r}] must be {jnp.dtype(kinds[name][0])}, got {value.dtype}"
            )
        if value.shape != (rows, *shapes[name]):
            raise ValueError(
                f"mix_info[{name!r}] must have shape {(rows, *shapes[name])} for this batch, got "
                f"{value.shape}"
            )
        values.append(value)
    plan = MixPlan(*values)
    if can_be_read(valid, *values):
        _require_legal(owner, jax.tree.map(np.asarray, plan), np.asarray(valid), layout)
    return legal(plan, jnp.asarray(valid), Exact(layout))


def _require_legal(owner: str, plan: MixPlan, valid: np.ndarray, layout: Layout) -> None:
    """Raises a ValueError for the first row that no plan for this batch has."""
    lam, partner, region = (np.asarray(x) for x in (plan.lam, plan.partner, plan.region))
    own, group, sizes = np.arange(len(valid)), layout.group, np.array(layout.sizes)
    there = (partner >= 0) & (partner < len(valid)) & (partner // group == own // group)
    wrong = [
        (~((lam >= 0) & (lam <= 1)), "lam", "be from 0 to 1"),
        (~there, "partner", f"be a row of the same group of {group} rows"),
        (
            there & (partner != own) & ~(valid & valid[np.where(there, partner, 0)]),
            "partner",
            "neither mix padding into a record nor mix padding",
        ),
    ]
    if region.dtype == np.int32:
        start, stop = region[:, : len(sizes)], region[:, len(sizes) :]
        fits = ((start >= 0) & (start <= stop) & (stop <= sizes)).all(1)
        if layout.mode != "mixup":
            wrong.append((~fits, "box", f"lie inside the image of {layout.sizes} pixels"))
        area = (stop - start).astype(np.int64).prod(1)
    else:
        area = region.reshape(len(valid), -1).sum(1)
    if layout.mode == "mixup":
        wrong.append((area != 0, "box", "be empty in mode 'mixup', which pastes nothing"))
    else:
        off = np.abs(lam - (1 - area / sizes.prod(dtype=np.int64))) > LAM_TOLERANCE
        off &= (area != 0) | (layout.mode == "cutmix")
        wrong.append((off, "lam", "be the fraction of pixels outside the region"))
    for rows, name, rule in wrong:
        if rows.any():
            row = int(rows.argmax())
            value = {"lam": lam, "partner": partner, "box": region}[name][row]
            raise ValueError(
                f"mix_info[{name!r}] for {owner} must {rule}, got {value.tolist()} in row {row}; "
                "pass the mix_info of a mix of this batch"
            )


@functools.partial(jax.jit, static_argnames="layout")
def legal(plan: MixPlan, valid: Bool[Array, " batch"], layout: Exact[Layout]) -> MixPlan:
    """The plan with its boxes and partners where they may be; a legal one stays as it is."""
    return _legal(plan, valid, layout.value)


def _legal(plan: MixPlan, valid: Bool[Array, " batch"], layout: Layout) -> MixPlan:
    group, own = layout.group, jnp.arange(len(valid), dtype=jnp.int32)
    there = (plan.partner >= 0) & (plan.partner < len(valid))
    there &= plan.partner // group == own // group
    partner = jnp.where(there, plan.partner, own)
    mixed = there & valid & take_partners(valid, partner, group)
    lam = jnp.where(plan.lam > 1, 1, jnp.where(plan.lam < 0, 0, plan.lam))
    region = plan.region
    if layout.mode != "mixup":
        if region.dtype != jnp.bool_:
            region = clipped_box(region, layout.sizes)
        kept = kept_fraction(region, layout.sizes, lam.dtype)
        pasted = region_area(region, len(layout.axes)) > 0
        lam = kept if layout.mode == "cutmix" else jnp.where(pasted, kept, lam)
    return MixPlan(
        jnp.where(mixed, lam, 1),
        jnp.where(mixed, partner, own),
        where_region(mixed, region),
    )
