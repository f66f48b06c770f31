"""FMix: masks from smooth noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, UInt32

from datarax.core.randomness import open_uniform
from datarax.operators._mix.box import share
from datarax.operators._mix.options import require_number
from datarax.operators._mix.region import RegionSampler


@dataclass(frozen=True)
class FMix(RegionSampler):
    """Blobs of any shape: where smooth random noise is highest, 1 − λ of the pixels to within one.

    Args:
      decay: the power of the frequency by which noise is damped, from 0 (single pixels) upwards.

    Raises:
      ValueError: if `decay` is negative or not finite.

    References:
      Harris et al. 2020, https://arxiv.org/abs/2002.12047, section 3.

    >>> FMix().word_count((32, 32))
    1024
    """

    decay: float = 3.0
    kind: str = field(default="FMix", init=False, repr=False)

    def __post_init__(self) -> None:
        require_number("FMix", "decay", self.decay, 0, 100)

    def word_count(self, sizes: tuple[int, ...]) -> int:
        return math.prod(sizes)

    def sample(
        self,
        words: UInt32[Array, "*draws words"],
        lam: Float32[Array, "*draws"],
        sizes: tuple[int, ...],
    ) -> Bool[Array, "..."]:
        draws = words.shape[:-1]
        white = jax.scipy.special.ndtri(open_uniform(words)).reshape(*draws, *sizes)
        axes = tuple(range(-len(sizes), 0))
        spectrum = jnp.fft.rfftn(white, axes=axes) * jnp.asarray(damping(sizes, self.decay))
        noise = jnp.fft.irfftn(spectrum, s=sizes, axes=axes).reshape(*draws, -1)
        pixels = noise.shape[-1]
        count = share(1 - lam, pixels)
        # A pixel is in the mask if at least pixels − count others are lower.
        ordered = jnp.sort(noise, axis=-1)
        index = jnp.clip(pixels - count, 0, pixels - 1)[..., None]
        least = jnp.take_along_axis(ordered, index, axis=-1)
        mask = (noise >= least) & (count > 0)[..., None]
        return mask.reshape(*draws, *sizes)


def damping(sizes: Sequence[int], decay: float) -> Float[np.ndarray, "..."]:
    """1 / frequency**decay for each coefficient of a real Fourier transform, 0 for the mean."""
    grids = [np.fft.fftfreq(size) for size in sizes[:-1]] + [np.fft.rfftfreq(sizes[-1])]
    squares = np.meshgrid(*(grid**2 for grid in grids), indexing="ij")
    frequency = np.sqrt(np.sum(squares, axis=0))
    lowest = 1 / max(sizes)
    damped = (np.maximum(frequency, lowest) / lowest) ** -decay
    return (damped * (frequency > 0)).astype(np.complex64)
