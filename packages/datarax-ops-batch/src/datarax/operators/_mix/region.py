"""The protocol of methods that paste parts of images, and what they all share."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32, Shaped, UInt32

from datarax.core.config import Exact
from datarax.operators._mix.box import box_area, clipped_box, exact_fraction

Region = Int32[Array, "*draws bounds"] | Bool[Array, "..."]


class RegionSampler(ABC):
    """A mixing method that pastes a region of the partner: subclass it as a frozen dataclass.

    `sample` draws regions: boxes, as int32 starts and then stops on each axis, half-open, or masks
    of bool, True where the partner shows. What is pasted there is the partner as it is, unless
    `content` changes it first. Pairing, labels by the exact fraction of pixels, padding, groups and
    the operator handles all other fields.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class LeftPart(RegionSampler):
    ...     def word_count(self, sizes):
    ...         return 0
    ...
    ...     def sample(self, words, lam, sizes):
    ...         width = jnp.round((1 - lam) * sizes[1]).astype(jnp.int32)
    ...         zero = jnp.zeros_like(width)
    ...         return jnp.stack([zero, zero, zero + sizes[0], width], axis=-1)
    >>> LeftPart().sample(None, jnp.float32([0.75]), (4, 8)).tolist()
    [[0, 0, 4, 2]]
    """

    @abstractmethod
    def word_count(self, sizes: tuple[int, ...]) -> int:
        """How many random words one draw takes, for an image of these sizes."""

    @abstractmethod
    def sample(
        self,
        words: UInt32[Array, "*draws words"],
        lam: Float32[Array, "*draws"],
        sizes: tuple[int, ...],
    ) -> Region:
        """Draws regions.

        Args:
          words: random bits, independent of each other.
          lam: Beta-distributed λ, the fraction of the image to keep.
          sizes: the image's sizes in pixels on the spatial axes.

        Returns:
          Boxes int32 `(*draws, 2 * axes)` or masks bool `(*draws, *sizes)`. What is beyond the
          image is cut off a box, and one that stops before it starts is empty.
        """

    def content(
        self, partner: Shaped[Array, "batch *rest"], region: Region, axes: tuple[int, ...]
    ) -> Shaped[Array, "batch *rest"]:
        """What is pasted in the region: the partner as it is.

        Args:
          partner: each row's partner.
          region: each row's region, inside the image.
          axes: the spatial axes of `partner`.
        """
        return partner


def drawn_region(
    sampler: RegionSampler,
    words: UInt32[Array, "*draws words"],
    lam: Float32[Array, "*draws"],
    sizes: tuple[int, ...],
) -> Region:
    """What the sampler draws, boxes clipped to the image.

    Raises:
      TypeError: if it is neither boxes nor masks.
    """
    region = sampler.sample(words, lam, sizes)
    boxes, masks = (*lam.shape, 2 * len(sizes)), (*lam.shape, *sizes)
    if (region.shape, region.dtype) not in ((boxes, jnp.int32), (masks, jnp.bool_)):
        raise TypeError(
            f"{type(sampler).__name__}.sample must return boxes int32{boxes} or masks bool{masks}, "
            f"got {region.dtype}{region.shape}"
        )
    return region if region.dtype == jnp.bool_ else clipped_box(region, sizes)


def region_name(sampler: RegionSampler, sizes: tuple[int, ...]) -> str:
    """What the sampler's regions are called in `mix_info`: "box" or "mask"."""
    return _region_name(Exact((sampler, sizes)))


@functools.lru_cache(maxsize=64)
def _region_name(drawn: Exact[tuple[RegionSampler, tuple[int, ...]]]) -> str:
    sampler, sizes = drawn.value
    words = jax.ShapeDtypeStruct((1, sampler.word_count(sizes)), jnp.uint32)
    lam = jax.ShapeDtypeStruct((1,), jnp.float32)
    with jax.numpy_rank_promotion("allow"):
        region = jax.eval_shape(
            lambda words, lam: drawn_region(sampler, words, lam, sizes), words, lam
        )
    return "mask" if region.dtype == jnp.bool_ else "box"


def region_area(region: Region, dims: int) -> Int32[Array, "*draws"]:
    """How many pixels are in each region."""
    if region.dtype == jnp.bool_:
        return region.sum(axis=tuple(range(-dims, 0)), dtype=jnp.int32)
    return box_area(region)


def kept_fraction(region: Region, sizes: Sequence[int], dtype: Any) -> Float[Array, "*draws"]:
    """The exact fraction of pixels outside each region."""
    return exact_fraction(math.prod(sizes) - region_area(region, len(sizes)), sizes, dtype)


def where_region(wanted: Bool[Array, "*draws"], region: Region) -> Region:
    """The region where it is wanted, an empty one elsewhere."""
    wide = wanted.reshape(*wanted.shape, *(1,) * (region.ndim - wanted.ndim))
    return jnp.where(wide, region, jnp.zeros((), region.dtype))
