"""Patch dropout beside its peers: small and large batches, float32 and uint8, 1 to 32 patches.

Each peer fills the same number of squares of the same size in each image, or as many as it can (the
name says so). Peers are timed as their users run them: on arrays of their own, compiled where they
can be, in place where they work so.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import floors
import numpy as np
from harness import Call, Case, file_of, main


@dataclass(frozen=True)
class Workload:
    """Images and what each of them loses."""

    rows: int
    side: int
    dtype: str
    patches: int
    size: int

    @property
    def name(self) -> str:
        return (
            f"{self.rows} x {self.side} px, {self.dtype}, {self.patches} x {self.size} px patches"
        )

    def images(self) -> np.ndarray:
        shape = (self.rows, self.side, self.side, 3)
        values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return values if self.dtype == "uint8" else values / np.float32(255)

    @property
    def area(self) -> float:
        """A patch's area as a fraction of the image's."""
        return (self.size / self.side) ** 2


def operator(work: Workload, **options):
    from flax import nnx

    from datarax.operators.modality.image.patch_dropout_operator import (
        PatchDropoutOperator,
        PatchDropoutOperatorConfig,
    )

    config = PatchDropoutOperatorConfig(
        field_key="image",
        num_patches=work.patches,
        patch_size=(work.size, work.size),
        stochastic=True,
        stream_name="augment",
        **options,
    )
    return PatchDropoutOperator(config, rngs=nnx.Rngs(augment=0))


def batch(work: Workload, **fields):
    import jax

    from datarax.core.element_batch import Batch

    return jax.device_put(Batch.from_arrays({"image": work.images()}, **fields))


def ours(work: Workload, **options) -> Call:
    import jax

    drop, images = operator(work, **options), batch(work)
    return lambda: jax.block_until_ready(drop(images))


def ours_indexed(work: Workload) -> Call:
    import jax

    drop, images = operator(work), batch(work, record_index=np.arange(work.rows))
    return lambda: jax.block_until_ready(drop(images))


def ours_recycled(work: Workload) -> Call:
    import jax

    drop, images = operator(work), batch(work)
    held = [drop(images)]

    def call() -> None:
        held[0] = jax.block_until_ready(drop.recycle(images, spent=held[0]))

    return call


def ours_donated(work: Workload, **options) -> Call:
    """Over the images themselves, as timm does it."""
    import jax

    drop = operator(work, **options)
    held = [batch(work)]

    def call() -> None:
        held[0] = jax.block_until_ready(drop.recycle(held[0], spent=held[0]))

    return call


def monolith(work: Workload) -> Call:
    """The PyPI package `datarax`, in an environment of its own."""
    from importlib import metadata

    try:
        metadata.distribution("datarax")
    except metadata.PackageNotFoundError as error:
        raise ImportError("the package datarax is not installed") from error
    import jax
    from flax import nnx

    from datarax.core.element_batch import Batch

    drop = operator(work)
    given = Batch.from_parts({"image": jax.device_put(work.images())}, {})
    run = nnx.jit(lambda drop, given: drop(given))
    return lambda: jax.block_until_ready(jax.tree.leaves(run(drop, given)))


def numpy_loop(work: Workload) -> Call:
    images, rng = work.images(), np.random.default_rng(0)

    def call() -> np.ndarray:
        out = images.copy()
        places = rng.integers(0, work.side - work.size + 1, (work.rows, work.patches, 2))
        for image, corners in zip(out, places, strict=True):
            for y, x in corners:
                image[y : y + work.size, x : x + work.size] = 0
        return out

    return call


def keras_jit(work: Workload) -> Call:
    import os

    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    side = (work.size / work.side,) * 2
    layer = keras.layers.RandomErasing(factor=1.0, scale=side, fill_value=0.0)
    images = jax.device_put(work.images())
    layer(images[:1], training=True)

    @jax.jit
    def erase(images, variables):
        return layer.stateless_call([], variables, images, training=True)

    held = [[variable.value for variable in layer.non_trainable_variables]]

    def call() -> None:
        out, held[0] = erase(images, held[0])
        jax.block_until_ready(out)

    return call


def timm_in_place(work: Workload) -> Call:
    import torch

    # Its file alone, because importing timm.data needs torchvision.
    erase = file_of("timm", "data", "random_erasing.py").RandomErasing(
        probability=1.0,
        min_area=work.area * work.patches,
        max_area=work.area * work.patches,
        min_aspect=1.0,
        min_count=work.patches,
        max_count=work.patches,
        device="cpu",
    )
    images = torch.from_numpy(work.images().transpose(0, 3, 1, 2).copy())
    return lambda: erase(images)


def torchvision_loop(work: Workload) -> Call:
    import torch
    from torchvision.transforms import v2

    erase = v2.RandomErasing(p=1.0, scale=(work.area, work.area), ratio=(1.0, 1.0), inplace=True)
    images = torch.from_numpy(work.images().transpose(0, 3, 1, 2).copy())

    def call() -> torch.Tensor:
        out = images.clone()
        for image in out:
            for _ in range(work.patches):
                erase(image)
        return out

    return call


def kornia_one(work: Workload) -> Call:
    import kornia.augmentation as augmentation
    import torch

    erase = augmentation.RandomErasing(scale=(work.area, work.area), ratio=(1.0, 1.0), p=1.0)
    images = torch.from_numpy(work.images().transpose(0, 3, 1, 2).copy())
    if images.dtype == torch.uint8:
        raise ImportError("Kornia takes floats only")
    return lambda: erase(images)


def albumentations_loop(work: Workload) -> Call:
    import albumentations

    drop = albumentations.CoarseDropout(
        num_holes_range=(work.patches, work.patches),
        hole_height_range=(work.size, work.size),
        hole_width_range=(work.size, work.size),
        fill=0,
        p=1.0,
    )
    images = work.images()
    return lambda: [drop(image=image)["image"] for image in images]


def case(work: Workload, calls: int) -> Case:
    contenders = {
        "ours": ours,
        "ours, recycled": ours_recycled,
        "ours, record_index": ours_indexed,
        "ours, donated": ours_donated,
        "ours, donated, in_place": functools.partial(ours_donated, in_place=True),
        "monolith, nnx.jit": monolith,
        "keras, jit (one patch)": keras_jit,
        "timm, in place": timm_in_place,
        "torchvision, image by image": torchvision_loop,
        "kornia (one patch)": kornia_one,
        "albumentations, image by image": albumentations_loop,
        "numpy, loop on a copy": numpy_loop,
    }
    prepared = {name: functools.partial(make, work) for name, make in contenders.items()}
    return Case(work.name, floors.contenders(work.images) | prepared, floors.REFERENCE, calls)


def growth(counts: tuple[int, ...]) -> Case:
    """Fresh output at 224 px with more and more patches: the cost should stay nearly flat."""
    contenders = {}
    for count in counts:
        work = Workload(128, 224, "float32", count, 32)
        contenders[f"ours, {count} patches"] = functools.partial(ours, work)
    name = "128 x 224 px, float32, growing numbers"
    return Case(name, floors.contenders(work.images) | contenders, floors.REFERENCE, 40)


CASES = (
    case(Workload(32, 32, "float32", 4, 8), 400),
    case(Workload(256, 32, "float32", 4, 8), 400),
    case(Workload(128, 224, "float32", 16, 32), 40),
    case(Workload(128, 224, "uint8", 16, 32), 80),
    growth((1, 4, 16, 32)),
)

if __name__ == "__main__":
    main(CASES)
