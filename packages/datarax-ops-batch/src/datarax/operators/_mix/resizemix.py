"""ResizeMix: the whole partner, made small."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Shaped, UInt32

from datarax.core.randomness import open_uniform
from datarax.operators._mix.box import make_box, share
from datarax.operators._mix.options import require_number
from datarax.operators._mix.region import RegionSampler

# Up to here the numerators of pixel numbers are int32.
MOST_PIXELS = 2**15


@dataclass(frozen=True)
class ResizeMix(RegionSampler):
    """The whole partner, scaled down into a box.

    The box's sides are a fraction τ of the image's, uniform between `low` and `high`; `alpha` has
    no part in it. Pixels are the nearest of the partner's, so that dtypes and class ids are kept.

    Args:
      low: the least τ, from 0 to 1.
      high: the greatest τ, from `low` to 1.

    Raises:
      ValueError: unless 0 <= low <= high <= 1; and for an image of more than 32768 pixels on an
        axis when it is mixed.

    References:
      Qin et al. 2020, https://arxiv.org/abs/2012.11101, section 3.2.

    >>> ResizeMix(low=0.1, high=0.8).word_count((32, 32))
    3
    """

    low: float = 0.1
    high: float = 0.8
    kind: str = field(default="ResizeMix", init=False, repr=False)

    def __post_init__(self) -> None:
        require_number("ResizeMix", "low", self.low, 0, 1)
        require_number("ResizeMix", "high", self.high, self.low, 1)

    def word_count(self, sizes: tuple[int, ...]) -> int:
        return 1 + len(sizes)

    def sample(
        self,
        words: UInt32[Array, "*draws words"],
        lam: Float32[Array, "*draws"],
        sizes: tuple[int, ...],
    ) -> Int32[Array, "*draws bounds"]:
        if max(sizes) > MOST_PIXELS:
            raise ValueError(
                f"ResizeMix takes images of at most {MOST_PIXELS} pixels on an axis, got {sizes}; "
                "use CutMix() or FMix()"
            )
        scale = self.low + (self.high - self.low) * open_uniform(words[..., 0])
        sides = [share(scale, size) for size in sizes]
        places = [words[..., 1 + axis] for axis in range(len(sizes))]
        return make_box(places, sides, sizes, "inside")

    def content(
        self,
        partner: Shaped[Array, "batch *rest"],
        region: Int32[Array, "batch bounds"],
        axes: tuple[int, ...],
    ) -> Shaped[Array, "batch *rest"]:
        for number, axis in enumerate(axes):
            size = partner.shape[axis]
            start, stop = (region[:, bound, None] for bound in (number, number + len(axes)))
            side = jnp.maximum(stop - start, 1)
            # The pixel under the middle of each pixel of the box, in whole numbers.
            place = jnp.arange(size, dtype=jnp.int32)[None] - start
            source = jnp.clip((2 * place + 1) * size // (2 * side), 0, size - 1)
            shape = [1] * partner.ndim
            shape[0], shape[axis] = source.shape
            partner = jnp.take_along_axis(partner, source.reshape(shape), axis=axis)
        return partner
