"""`mix_info`: the plan that a mix leaves in the batch, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from datarax.operators._mix.apply import Layout
from datarax.operators._mix.plan import MixPlan
from datarax.operators._mix.region import region_name

INFO = "mix_info"


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


def plan_of(owner: str, entries: Any, rows: int, layout: Layout) -> MixPlan:
    """The plan from what `with_info` left.

    Raises:
      TypeError: if it is no dict, or an entry has another dtype.
      KeyError: if an entry is missing.
      ValueError: if an entry has another shape.
    """
    if not isinstance(entries, Mapping):
        raise TypeError(
            f"mix_info for {owner} must be a dict such as mixed.states[{INFO!r}], got "
            f"{type(entries).__name__}"
        )
    kinds = {"lam": jnp.float32, "partner": jnp.int32, "box": jnp.int32, "mask": jnp.bool_}
    shapes = {"lam": (), "partner": (), "box": (2 * len(layout.axes),), "mask": layout.sizes}
    values = []
    for name in names(layout):
        if name not in entries:
            raise KeyError(
                f"mix_info for {owner} must have {name!r}, but there are {list(entries)}"
            )
        value = jnp.asarray(entries[name])
        if value.dtype != kinds[name]:
            raise TypeError(
                f"mix_info[{name!r}] must be {jnp.dtype(kinds[name])}, got {value.dtype}"
            )
        if value.shape != (rows, *shapes[name]):
            raise ValueError(
                f"mix_info[{name!r}] must have shape {(rows, *shapes[name])} for this batch, got "
                f"{value.shape}"
            )
        values.append(value)
    return MixPlan(*values)
