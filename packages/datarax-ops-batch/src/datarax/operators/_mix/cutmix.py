"""CutMix: boxes with the image's proportions."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Array, Float32, Int32, UInt32

from datarax.operators._mix.box import PLACEMENTS, make_box, sides_between, sides_of_ratio
from datarax.operators._mix.options import require_choice, require_fractions
from datarax.operators._mix.region import RegionSampler


@dataclass(frozen=True)
class CutMix(RegionSampler):
    """A box of the partner, at the same place.

    The default of `BatchMixOperatorConfig.sampler`, made from `box_placement` and `cutmix_minmax`.

    Args:
      placement: "inside" or "clipped".
      minmax: fractions between which each side is uniform; None for sides of 1 − λ of the area.

    Raises:
      TypeError: if `minmax` is not a tuple of numbers.
      ValueError: for an unknown placement, or unless 0 <= low <= high <= 1 in `minmax`.

    References:
      Yun et al. 2019, https://arxiv.org/abs/1905.04899, equations 1 and 2.

    >>> CutMix(minmax=(0.2, 0.8)).word_count((32, 32))
    4
    """

    placement: str = "inside"
    minmax: tuple[float, float] | None = None
    kind: str = field(default="CutMix", init=False, repr=False)

    def __post_init__(self) -> None:
        require_choice("CutMix", "placement", self.placement, tuple(PLACEMENTS))
        if self.minmax is not None:
            require_fractions("CutMix", "minmax", self.minmax)

    def word_count(self, sizes: tuple[int, ...]) -> int:
        return len(sizes) * (1 if self.minmax is None else 2)

    def sample(
        self,
        words: UInt32[Array, "*draws words"],
        lam: Float32[Array, "*draws"],
        sizes: tuple[int, ...],
    ) -> Int32[Array, "*draws bounds"]:
        dims = len(sizes)
        word = [words[..., number] for number in range(words.shape[-1])]
        if self.minmax is None:
            sides = sides_of_ratio(lam, sizes)
        else:
            sides = sides_between(word[dims:], sizes, self.minmax)
        return make_box(word[:dims], sides, sizes, self.placement)
