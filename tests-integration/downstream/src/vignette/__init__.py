"""Photographs with dark corners, each as dark as its own draw says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from datarax.core.config import OperatorConfig
from datarax.core.operator import OperatorModule

__all__ = ["Vignette", "VignetteConfig", "darken_corners"]


def darken_corners(
    image: Float[Array, "height width channel"], strength: Float[Array, ""]
) -> Float[Array, "height width channel"]:
    """Multiplies each pixel by one minus `strength` times its squared distance from the center.

    Args:
      image: any floating dtype.
      strength: 0 changes nothing; 1 makes the corners black.
    """
    rows, columns = (jnp.linspace(-1.0, 1.0, size) ** 2 for size in image.shape[:2])
    distance = (rows[:, None] + columns) / 2
    return (image * (1 - strength * distance)[..., None]).astype(image.dtype)


@dataclass(frozen=True)
class VignetteConfig(OperatorConfig):
    """How dark the corners become.

    Args:
      strongest: each record's strength is uniform from 0 to this.
    """

    strongest: float = 0.5
    stochastic: bool = True


class Vignette(OperatorModule[VignetteConfig]):
    """Darkens the corners of the field `image`.

    Args:
      config: how dark.
      rngs: random streams.
      name: a label.
    """

    config_class = VignetteConfig

    def generate_random_params(self, rng: jax.Array, data_shapes: Any) -> Float[Array, " batch"]:
        rows = data_shapes["image"][0]
        return jax.random.uniform(rng, (rows,), maxval=self.config.strongest)

    def apply(
        self, data: Any, state: Any, metadata: Any, random_params: Any = None, stats: Any = None
    ) -> tuple[Any, Any, Any]:
        image = darken_corners(data["image"], random_params)
        return {**data, "image": image}, state, metadata
