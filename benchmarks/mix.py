"""MixUp and CutMix beside their peers: small and large batches, float32 and uint8.

Peers are timed as their users run them: compiled where they can be, in place where they work so.
All mix one-hot labels of ten classes too, from class numbers where a peer wants them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import floors
import numpy as np
from harness import Call, Case, file_of, main

CLASSES = 10


@dataclass(frozen=True)
class Workload:
    """A batch and what is done to it."""

    mode: str
    rows: int
    side: int
    dtype: str

    @property
    def name(self) -> str:
        return f"{self.mode}, {self.rows} x {self.side} px, {self.dtype}"

    def images(self) -> np.ndarray:
        shape = (self.rows, self.side, self.side, 3)
        values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return values if self.dtype == "uint8" else values / np.float32(255)

    def classes(self) -> np.ndarray:
        return np.random.default_rng(1).integers(0, CLASSES, self.rows)

    def labels(self) -> np.ndarray:
        return np.eye(CLASSES, dtype=np.float32)[self.classes()]

    @property
    def alphas(self) -> tuple[float, float]:
        """α of MixUp and of CutMix, 0 where it is not wanted."""
        return (1.0, 0.0) if self.mode == "mixup" else (0.0, 1.0)


def operator(work: Workload, **options):
    from flax import nnx

    from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig

    config = BatchMixOperatorConfig(mode=work.mode, alpha=1.0, **options)
    return BatchMixOperator(config, rngs=nnx.Rngs(0))


def batch(work: Workload, **fields):
    import jax

    from datarax.core.element_batch import Batch

    data = {"image": work.images(), "label": work.labels()}
    return jax.device_put(Batch.from_arrays(data, **fields))


def ours(work: Workload, **options) -> Call:
    import jax

    mix, given = operator(work, **options), batch(work)
    return lambda: jax.block_until_ready(mix(given))


def ours_per_record(work: Workload) -> Call:
    return ours(work, granularity="record")


def ours_grouped(work: Workload) -> Call:
    return ours(work, mix_group_size=16)


def ours_inside_jit(work: Workload) -> Call:
    """As a part of the user's own compiled step, where randomness comes from record numbers."""
    import jax

    mix, given = operator(work), batch(work, record_index=np.arange(work.rows), epoch=0)
    step = jax.jit(lambda batch: mix(batch))
    return lambda: jax.block_until_ready(step(given))


def ours_recycled(work: Workload) -> Call:
    import jax

    mix, given = operator(work), batch(work)
    held = [mix(given)]

    def call() -> None:
        held[0] = jax.block_until_ready(mix.recycle(given, spent=held[0]))

    return call


def monolith(work: Workload) -> Call:
    """The distribution `datarax` of the public index, which has the same import paths."""
    from importlib import metadata

    try:
        metadata.version("datarax")
    except metadata.PackageNotFoundError as error:
        raise ImportError("the monolithic datarax is not installed") from error
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from datarax.core.config import BatchMixOperatorConfig
    from datarax.core.element_batch import Batch
    from datarax.operators.batch_mix_operator import BatchMixOperator

    config = BatchMixOperatorConfig(mode=work.mode, alpha=1.0, stochastic=True, stream_name="mix")
    mix = BatchMixOperator(config, rngs=nnx.Rngs(mix=0))
    data = {"image": jnp.asarray(work.images()), "label": jnp.asarray(work.labels())}
    given = Batch.from_parts(data, {})
    run = nnx.jit(lambda mix, batch: mix(batch))
    return lambda: jax.block_until_ready(jax.tree.leaves(run(mix, given)))


def keras_jit(work: Workload) -> Call:
    import os

    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    kind = {"mixup": keras.layers.MixUp, "cutmix": keras.layers.CutMix}[work.mode]
    layer = kind(seed=0)
    data = jax.device_put({"images": work.images(), "labels": work.labels()})
    layer({name: values[:2] for name, values in data.items()}, training=True)
    state = [variable.value for variable in layer.non_trainable_variables]
    mix = jax.jit(lambda state, data: layer.stateless_call([], state, data, training=True))
    return lambda: jax.block_until_ready(mix(state, data))


def torch_images(work: Workload):
    import torch

    return torch.from_numpy(work.images()).permute(0, 3, 1, 2).contiguous()


def timm_in_place(work: Workload) -> Call:
    import torch

    mixup, cutmix = work.alphas
    # Its file alone, because importing timm.data needs torchvision.
    mix = file_of("timm", "data", "mixup.py").Mixup(
        mixup_alpha=mixup, cutmix_alpha=cutmix, num_classes=CLASSES
    )
    images, classes = torch_images(work), torch.from_numpy(work.classes())
    return lambda: mix(images, classes)


def kornia(work: Workload) -> Call:
    import torch
    from kornia.augmentation import RandomCutMixV2, RandomMixUpV2

    kinds = {"mixup": RandomMixUpV2, "cutmix": RandomCutMixV2}
    mix = kinds[work.mode](p=1.0, data_keys=["input", "class"])
    images, classes = torch_images(work), torch.from_numpy(work.classes())
    return lambda: mix(images, classes)


def torchvision(work: Workload) -> Call:
    import torch
    from torchvision.transforms import v2

    kinds = {"mixup": v2.MixUp, "cutmix": v2.CutMix}
    mix = kinds[work.mode](alpha=1.0, num_classes=CLASSES)
    images, classes = torch_images(work), torch.from_numpy(work.classes())
    return lambda: mix(images, classes)


def torch_plain(work: Workload) -> Call:
    """The few lines that people write themselves."""
    import torch

    images, labels = torch_images(work), torch.from_numpy(work.labels())
    beta = torch.distributions.Beta(torch.tensor(1.0), torch.tensor(1.0))

    def mixup():
        lam, order = beta.sample().item(), torch.randperm(len(images))
        mixed = lam * images + (1 - lam) * images[order]
        return mixed.to(images.dtype), lam * labels + (1 - lam) * labels[order]

    def cutmix():
        lam, order = beta.sample().item(), torch.randperm(len(images))
        side = round(work.side * (1 - lam) ** 0.5)
        y, x = torch.randint(work.side - side + 1, (2,)).tolist()
        mixed = images.clone()
        mixed[:, :, y : y + side, x : x + side] = images[order, :, y : y + side, x : x + side]
        kept = 1 - (side / work.side) ** 2
        return mixed, kept * labels + (1 - kept) * labels[order]

    return {"mixup": mixup, "cutmix": cutmix}[work.mode]


def numpy_plain(work: Workload) -> Call:
    """The same lines in NumPy."""
    images, labels, rng = work.images(), work.labels(), np.random.default_rng(0)

    def mixup():
        lam, order = np.float32(rng.beta(1, 1)), rng.permutation(len(images))
        mixed = lam * images + (1 - lam) * images[order]
        return mixed.astype(images.dtype, copy=False), lam * labels + (1 - lam) * labels[order]

    def cutmix():
        lam, order = rng.beta(1, 1), rng.permutation(len(images))
        side = round(work.side * (1 - lam) ** 0.5)
        y, x = rng.integers(work.side - side + 1, size=2)
        mixed = images.copy()
        mixed[:, y : y + side, x : x + side] = images[order, y : y + side, x : x + side]
        kept = np.float32(1 - (side / work.side) ** 2)
        return mixed, kept * labels + (1 - kept) * labels[order]

    return {"mixup": mixup, "cutmix": cutmix}[work.mode]


CONTENDERS: dict[str, Callable[[Workload], Call]] = {
    "ours": ours,
    "ours, inside jax.jit": ours_inside_jit,
    "ours, recycled": ours_recycled,
    "ours, granularity record": ours_per_record,
    "ours, groups of 16": ours_grouped,
    "monolith, nnx.jit": monolith,
    "keras, jit": keras_jit,
    "timm, in place": timm_in_place,
    "kornia": kornia,
    "torchvision": torchvision,
    "torch": torch_plain,
    "numpy": numpy_plain,
}


def case(work: Workload, calls: int) -> Case:
    contenders = floors.contenders(work.images)
    contenders |= {name: lambda make=make: make(work) for name, make in CONTENDERS.items()}
    return Case(work.name, contenders, reference=floors.REFERENCE, calls=calls)


CASES = [
    case(Workload(mode, rows, side, dtype), calls)
    for mode in ("mixup", "cutmix")
    for rows, side, dtype, calls in (
        (32, 32, "float32", 800),
        (256, 32, "float32", 400),
        (128, 224, "float32", 40),
        (128, 224, "uint8", 80),
    )
]

if __name__ == "__main__":
    main(CASES)
