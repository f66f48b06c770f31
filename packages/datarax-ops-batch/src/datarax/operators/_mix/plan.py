"""The plan of a mix: ratio, partner and region of each row, drawn before any pixel moves."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32, Key, UInt32

from datarax.core import randomness
from datarax.core.randomness import random_words
from datarax.operators._mix import pairing, ratio
from datarax.operators._mix.region import (
    Region,
    RegionSampler,
    drawn_region,
    kept_fraction,
    where_region,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MixPlan:
    """How to mix each row.

    Args:
      lam: the weight of the row itself, in labels.
      partner: the row that it is mixed with; itself if it is not mixed.
      region: the box or mask pasted from the partner, empty (all 0 or False) if there is none.
    """

    lam: Float[Array, " batch"]
    partner: Int32[Array, " batch"]
    region: Region


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PlanKeys:
    """What the plan of a batch is drawn from.

    Args:
      groups: one key a group: for its pairing, and for all its draws if `records` is None.
      records: one key a row, for the draws that are its record's.
    """

    groups: Key[Array, " groups"]
    records: Key[Array, "groups rows"] | None = None


@dataclass(frozen=True)
class Recipe:
    """The options that a plan depends on; see `BatchMixOperatorConfig`.

    `dtype` is that of λ: float64 if a field has that precision.
    """

    mode: str
    alpha: float
    region_alpha: float
    switch_prob: float
    per_record: bool
    sampler: RegionSampler
    sizes: tuple[int, ...]
    whole_numbers: bool
    dtype: str


def draw_plan(
    keys: PlanKeys,
    valid: Bool[Array, "groups rows"],
    recipe: Recipe,
    prob: Float32[Array, ""],
    enabled: Bool[Array, ""],
    alpha: Float32[Array, ""] | None = None,
) -> MixPlan:
    """Draws the plan of all groups.

    Args:
      keys: what is drawn from.
      valid: which rows are records.
      recipe: the static options.
      prob: the probability that a row (or a group, if there is one draw a group) is mixed.
      enabled: whether anything is mixed.
      alpha: α of MixUp in place of the recipe's.

    Returns:
      The plan of all rows, group by group; partners are numbers in the whole batch.
    """
    groups, rows = valid.shape
    pairing_word, word, region_word = _random_words(keys, rows, recipe)
    mixup_alpha = recipe.alpha if alpha is None else alpha
    if recipe.mode == "mixup":
        lam = _ratio(word, mixup_alpha, recipe)
        region = jnp.zeros((*lam.shape, 2 * len(recipe.sizes)), jnp.int32)
    else:
        lam = _beta(word, recipe.region_alpha, recipe)
        region = drawn_region(recipe.sampler, region_word, lam.astype(jnp.float32), recipe.sizes)
        lam = kept_fraction(region, recipe.sizes, lam.dtype)
    if recipe.mode == "both":
        cut = randomness.coin(word["switch"], jnp.float32(recipe.switch_prob))
        lam = jnp.where(cut, lam, _ratio(word, mixup_alpha, recipe))
        region = where_region(cut, region)
    partner = jax.vmap(pairing.partners)(pairing_word, valid)
    own = jnp.arange(rows, dtype=jnp.int32)[None]
    mixed = (partner != own) & enabled & randomness.coin(word["chosen"], prob)
    partner = jnp.where(mixed, partner, own)
    start = rows * jnp.arange(groups, dtype=jnp.int32)[:, None]
    region = where_region(mixed, region)
    return MixPlan(
        jnp.where(mixed, lam, 1).reshape(-1),
        (start + partner).reshape(-1),
        region.reshape(groups * rows, *region.shape[2:]),
    )


def _random_words(
    keys: PlanKeys, rows: int, recipe: Recipe
) -> tuple[Array, dict[str, Array], UInt32[Array, "groups draws words"]]:
    """Random words: one a row for pairing, the named others, the region's.

    A row's words do not depend on how many rows follow, and with keys of the records all but the
    one for pairing depend on nothing else than its record.
    """
    names = ("chosen", "radius", "angle") + (("switch",) if recipe.mode == "both" else ())
    count = len(names)
    if recipe.mode != "mixup":
        count += recipe.sampler.word_count(recipe.sizes)
    if not recipe.per_record or keys.records is not None:
        block = random_words(keys.groups, (count + rows,))
        others, pairing_word = block[:, None, :count], block[:, count:]
        if keys.records is not None:
            # The group's key is that of a record, whose own words are the first of the block.
            others = random_words(keys.records, (count,))
    else:
        block = random_words(keys.groups, (rows, count + 1))
        others, pairing_word = block[..., :count], block[..., count]
    named = {name: others[..., number] for number, name in enumerate(names)}
    return pairing_word, named, others[..., len(names) :]


def _beta(
    word: dict[str, Array], alpha: Float32[Array, ""] | float, recipe: Recipe
) -> Float[Array, "groups draws"]:
    return ratio.symmetric_beta(word["radius"], word["angle"], jnp.asarray(alpha, recipe.dtype))


def _ratio(
    word: dict[str, Array], alpha: Float32[Array, ""] | float, recipe: Recipe
) -> Float[Array, "groups draws"]:
    lam = _beta(word, alpha, recipe)
    return ratio.to_binary_places(lam) if recipe.whole_numbers else lam
