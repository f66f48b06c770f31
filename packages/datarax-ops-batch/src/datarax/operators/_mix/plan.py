"""The plan of a mix: ratio, partner and box of each row, drawn before any pixel moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Key

from datarax.operators._mix import bits, pairing, ratio
from datarax.operators._mix.box import (
    box_area,
    exact_fraction,
    make_box,
    sides_between,
    sides_of_ratio,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MixPlan:
    """How to mix each row.

    Args:
      lam: the weight of the row itself, in labels.
      partner: the row that it is mixed with; itself if it is not mixed.
      box: starts and then stops of the box pasted from the partner; all 0 if there is none.
    """

    lam: Float32[Array, " batch"]
    partner: Int32[Array, " batch"]
    box: Int32[Array, "batch bounds"]


@dataclass(frozen=True)
class Recipe:
    """The options that a plan depends on; see `BatchMixOperatorConfig`."""

    mode: str
    alpha: float
    cutmix_alpha: float
    switch_prob: float
    per_record: bool
    minmax: tuple[float, float] | None
    placement: str
    sizes: tuple[int, ...]
    whole_numbers: bool

    def words(self) -> tuple[str, ...]:
        """What each random word is for, besides the one for pairing."""
        axes = range(len(self.sizes))
        names = ["chosen"]
        if self.mode == "mixup" or self.minmax is None or self.mode == "both":
            names += ["radius", "angle"]
        if self.mode == "both":
            names += ["switch"]
        if self.mode != "mixup":
            names += [f"place {axis}" for axis in axes]
            names += [f"side {axis}" for axis in axes if self.minmax is not None]
        return tuple(names)


def draw_plan(
    keys: Key[Array, " groups"],
    valid: Bool[Array, "groups rows"],
    recipe: Recipe,
    prob: Float32[Array, ""],
    enabled: Bool[Array, ""],
) -> MixPlan:
    """Draws the plan of all groups, each from its own key.

    Args:
      keys: one key a group.
      valid: which rows are records.
      recipe: the static options.
      prob: how likely a row (or a group, if there is one draw a group) is mixed.
      enabled: whether anything is mixed.

    Returns:
      The plan of all rows, group by group; partners are numbers in the whole batch.
    """
    groups, rows = valid.shape
    pairing_word, word = _random_words(keys, rows, recipe)
    if recipe.mode == "mixup":
        lam = _ratio(word, recipe, recipe.alpha)
        box = jnp.zeros((*lam.shape, 2 * len(recipe.sizes)), jnp.int32)
    else:
        lam, box = _cutmix(word, recipe)
    if recipe.mode == "both":
        cut = bits.coin(word["switch"], jnp.float32(recipe.switch_prob))
        lam = jnp.where(cut, lam, _ratio(word, recipe, recipe.alpha))
        box = jnp.where(cut[..., None], box, 0)
    mixed = valid & (valid.sum(1, keepdims=True) > 1) & enabled & bits.coin(word["chosen"], prob)
    own = jnp.arange(rows, dtype=jnp.int32)[None]
    partner = jnp.where(mixed, jax.vmap(pairing.partners)(pairing_word, valid), own)
    start = rows * jnp.arange(groups, dtype=jnp.int32)[:, None]
    return MixPlan(
        jnp.where(mixed, lam, 1).reshape(-1),
        (start + partner).reshape(-1),
        jnp.where(mixed[..., None], box, 0).reshape(groups * rows, -1),
    )


def _random_words(
    keys: Key[Array, " groups"], rows: int, recipe: Recipe
) -> tuple[Array, dict[str, Array]]:
    """One block of random bits a group: a word a row for pairing, and the named others.

    The words of a row do not depend on how many rows follow.
    """
    names = recipe.words()
    count = len(names)
    if recipe.per_record:
        block = jax.vmap(lambda key: jax.random.bits(key, (rows, count + 1)))(keys)
        others, pairing_word = block[..., :count], block[..., count]
    else:
        block = jax.vmap(lambda key: jax.random.bits(key, (count + rows,)))(keys)
        others, pairing_word = block[:, None, :count], block[:, count:]
    return pairing_word, {name: others[..., number] for number, name in enumerate(names)}


def _ratio(word: dict[str, Array], recipe: Recipe, alpha: float) -> Array:
    lam = ratio.symmetric_beta(word["radius"], word["angle"], alpha)
    return ratio.to_binary_places(lam) if recipe.whole_numbers else lam


def _cutmix(word: dict[str, Array], recipe: Recipe) -> tuple[Array, Array]:
    axes = range(len(recipe.sizes))
    if recipe.minmax is None:
        area = ratio.symmetric_beta(word["radius"], word["angle"], recipe.cutmix_alpha)
        sides = sides_of_ratio(area, recipe.sizes)
    else:
        words = [word[f"side {axis}"] for axis in axes]
        sides = sides_between(words, recipe.sizes, recipe.minmax)
    places = [word[f"place {axis}"] for axis in axes]
    box = make_box(places, sides, recipe.sizes, recipe.placement)
    return kept_fraction(box, recipe.sizes), box


def kept_fraction(box: Int32[Array, "*shape bounds"], sizes: Sequence[int]) -> Array:
    """The exact fraction of pixels outside the box."""
    whole = 1
    for size in sizes:
        whole *= size
    return exact_fraction(whole - box_area(box), sizes)
