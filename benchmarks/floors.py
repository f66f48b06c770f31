"""What no operator on images can do without: reading them once and writing as much.

All are a jitted `x + 1`; they differ in the memory that the result goes to. Bytes moved, with N for
the images: fresh 2 N and the page faults of new memory, recycled 3 N (a processor reads a line
before it writes to it), in place 2 N.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from harness import Call


def fresh(images: np.ndarray) -> Call:
    """Into new memory."""
    import jax

    add, given = jax.jit(lambda x: x + x.dtype.type(1)), jax.device_put(images)
    return lambda: jax.block_until_ready(add(given))


def recycled(images: np.ndarray) -> Call:
    """Into the memory of the last result; the images stay."""
    import jax

    def add(spent, x):
        return x + x.dtype.type(1)

    run = jax.jit(add, donate_argnums=0, keep_unused=True)
    given = jax.device_put(images)
    held = [jax.device_put(images)]

    def call() -> None:
        held[0] = jax.block_until_ready(run(held[0], given))

    return call


def in_place(images: np.ndarray) -> Call:
    """Over the images themselves."""
    import jax

    add = jax.jit(lambda x: x + x.dtype.type(1), donate_argnums=0)
    held = [jax.device_put(images)]

    def call() -> None:
        held[0] = jax.block_until_ready(add(held[0]))

    return call


REFERENCE = "floor: x + 1, fresh"


def contenders(images: Callable[[], np.ndarray]) -> dict[str, Callable[[], Call]]:
    """The floors as contenders of a case on these images."""
    floors = {
        REFERENCE: fresh,
        "floor: x + 1, recycled": recycled,
        "floor: x + 1, in place": in_place,
    }
    return {name: lambda floor=floor: floor(images()) for name, floor in floors.items()}
