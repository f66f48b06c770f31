"""What a choice of one of fifteen operators for each image costs, beside the operators themselves.

It must cost at most 1.3 times the mean of the operators, which is 0.087 of all fifteen one after
the other. Each call draws other choices. `vmap` of `switch` computes all operators for all records.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from harness import Call, Case, main

ROWS = 32
SIDE = 224


def images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"image": rng.integers(0, 256, (ROWS, SIDE, SIDE, 3), np.uint8)}


def functions() -> list[Callable]:
    """Nine functions of single pixels, four that move pixels, and two of neighbourhoods."""
    import jax.numpy as jnp

    def blended(towards: Callable, factor: float) -> Callable:
        def fn(image):
            x, d = image.astype(jnp.float32), towards(image)
            return jnp.clip(d + factor * (x - d), 0, 255).astype(jnp.uint8)

        return fn

    def grey(image):
        weights = jnp.float32([0.299, 0.587, 0.114])
        return (image.astype(jnp.float32) @ weights)[..., None]

    def smooth(image):
        x = image.astype(jnp.int32)
        padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
        h, w, _ = x.shape
        return sum(padded[i : i + h, j : j + w] for i in range(3) for j in range(3)) // 9

    def equalised(image):
        counts = jnp.zeros((256,), jnp.int32).at[image.astype(jnp.int32).reshape(-1)].add(1)
        table = (jnp.cumsum(counts) * 255 // image.size).astype(jnp.uint8)
        return table[image.astype(jnp.int32)]

    def warped(matrix: list[float]) -> Callable:
        def fn(image):
            h, w, _ = image.shape
            y, x = jnp.mgrid[0:h, 0:w].astype(jnp.float32)
            a, b, c, d, e, f = matrix
            at_y, at_x = a * y + b * x + c, d * y + e * x + f
            y0, x0 = jnp.floor(at_y), jnp.floor(at_x)
            fy, fx = (at_y - y0)[..., None], (at_x - x0)[..., None]

            def pixel(y, x):
                inside = jnp.clip(y, 0, h - 1).astype(int), jnp.clip(x, 0, w - 1).astype(int)
                return image[inside].astype(jnp.float32)

            top = pixel(y0, x0) * (1 - fx) + pixel(y0, x0 + 1) * fx
            bottom = pixel(y0 + 1, x0) * (1 - fx) + pixel(y0 + 1, x0 + 1) * fx
            return (top * (1 - fy) + bottom * fy).astype(jnp.uint8)

        return fn

    return [
        lambda image: 255 - image,
        lambda image: image & jnp.uint8(0xF0),
        lambda image: jnp.where(image < 128, image, 255 - image),
        lambda image: jnp.minimum(image, 235) + jnp.uint8(20),
        blended(lambda image: jnp.float32(0), 1.3),
        blended(lambda image: jnp.mean(grey(image)), 0.7),
        blended(grey, 1.4),
        lambda image: jnp.clip(image * jnp.float32(1.1) - 3, 0, 255).astype(jnp.uint8),
        lambda image: (jnp.sqrt(image / jnp.float32(255)) * 255).astype(jnp.uint8),
        lambda image: image[:, ::-1],
        warped([0.98, -0.17, 20.0, 0.17, 0.98, -18.0]),
        warped([1.0, 0.2, 0.0, 0.0, 1.0, 0.0]),
        warped([1.0, 0.0, 0.0, 0.2, 1.0, 0.0]),
        equalised,
        blended(smooth, 1.8),
    ]


def members():
    from datarax.operators import MapOperator, MapOperatorConfig

    return [MapOperator(MapOperatorConfig(fields=("image",)), fn=fn) for fn in functions()]


def batch():
    import jax

    from datarax.core.element_batch import Batch

    return jax.device_put(Batch.from_arrays(images()))


def selector() -> Call:
    import jax
    from flax import nnx

    from datarax.operators import SelectorOperator, SelectorOperatorConfig

    config = SelectorOperatorConfig(k=1)
    operator, records = SelectorOperator(config, operators=members(), rngs=nnx.Rngs(0)), batch()
    return lambda: jax.block_until_ready(operator(records))


def each_in_turn() -> Call:
    """Fifteen operators on all records, of which one fifteenth is the mean."""
    import jax

    operators, records = members(), batch()
    return lambda: [jax.block_until_ready(operator(records)) for operator in operators]


def all_branches() -> Call:
    import jax

    records = jax.device_put(images()["image"])
    numbers = jax.device_put(np.random.default_rng(1).integers(0, 15, ROWS))
    branches = functions()
    run = jax.jit(jax.vmap(lambda image, number: jax.lax.switch(number, branches, image)))
    return lambda: jax.block_until_ready(run(records, numbers))


CASES = [
    Case(
        f"one of fifteen operators, {ROWS} images of {SIDE} x {SIDE} x 3",
        {
            "each operator on all records (15 x)": each_in_turn,
            "SelectorOperator": selector,
            "vmap of switch": all_branches,
        },
        reference="each operator on all records (15 x)",
        calls=40,
    ),
]

if __name__ == "__main__":
    main(CASES)
