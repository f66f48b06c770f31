"""One epoch of small images through normalisation, one-hot labels and MixUp; its state; files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from time import perf_counter
from typing import Any

import numpy as np
from folder import CASES as FOLDER
from harness import Call, Case, Figures, file_of, main

RECORDS, BATCH, CLASSES = 10_000, 128, 10
MEAN = np.float32([0.4914, 0.4822, 0.4465])
STD = np.float32([0.2470, 0.2435, 0.2616])


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (RECORDS, 32, 32, 3), np.uint8),
        "label": rng.integers(0, CLASSES, RECORDS, np.int32),
    }


def preprocess(element, key=None):
    import jax
    import jax.numpy as jnp

    image = (element.data["image"].astype(jnp.float32) / 255 - MEAN) / STD
    return element.update_data(
        {"image": image, "label": jax.nn.one_hot(element.data["label"], CLASSES)}
    )


def pipeline(data: dict[str, Any], **options: Any):
    """The same code runs the monolithic `datarax`, whose names these are."""
    from flax import nnx

    from datarax.operators import ElementOperator, ElementOperatorConfig
    from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig
    from datarax.pipeline import Pipeline
    from datarax.sources import MemorySource, MemorySourceConfig

    mix = BatchMixOperatorConfig(
        mode="mixup",
        alpha=0.4,
        data_field="image",
        label_field="label",
        stochastic=True,
        stream_name="mixup",
    )
    return Pipeline(
        source=MemorySource(MemorySourceConfig(shuffle=True), data=data, rngs=nnx.Rngs(0)),
        stages=[
            ElementOperator(ElementOperatorConfig(stochastic=False), fn=preprocess),
            BatchMixOperator(mix, rngs=nnx.Rngs(mixup=0)),
        ],
        batch_size=BATCH,
        rngs=nnx.Rngs(0),
        **options,
    )


def consumed(batches: Iterable[Any]) -> Figures:
    """Takes every batch, and waits for the first and for the last one."""
    start, image, first = perf_counter(), None, 0.0
    for batch in batches:
        if image is None:
            batch["image"].block_until_ready()
            first = perf_counter() - start
        image = batch["image"]
    image.block_until_ready()
    return Figures(first_batch_ms=1e3 * first)


def epoch_ours(**options: Any) -> Call:
    batches = pipeline(arrays(), **options)
    return lambda: consumed(batches)


def epoch_ours_on_device() -> Call:
    import jax

    batches = pipeline(jax.device_put(arrays()))
    return lambda: consumed(batches)


def epoch_monolith() -> Call:
    try:
        metadata.version("datarax")
    except metadata.PackageNotFoundError as error:
        raise ImportError("the monolithic datarax is not installed") from error
    data = arrays()
    # Its pipelines give one epoch.
    return lambda: consumed(pipeline(data))


def mixed() -> Callable[..., dict[str, Any]]:
    """The whole of the work on one batch as a plain jitted function."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def mix(image, label, epoch, index):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), epoch), index[0])
        x = (image.astype(jnp.float32) / 255 - MEAN) / STD
        y = jax.nn.one_hot(label, CLASSES)
        lam_key, pair_key = jax.random.split(key)
        u, v = jax.random.uniform(lam_key, (2,))
        w, c = u ** (1 / 0.4), jnp.cos(2 * jnp.pi * v)
        lam = 0.5 + 0.5 * c / jnp.sqrt(c**2 + w / (1 - w))
        pair = jnp.argsort(jax.random.bits(pair_key, (BATCH,)))
        return {"image": lam * x + (1 - lam) * x[pair], "label": lam * y + (1 - lam) * y[pair]}

    return mix


def order_of(epoch: int) -> np.ndarray:
    """A shuffled epoch, filled up to whole batches."""
    order = np.random.default_rng(epoch).permutation(RECORDS).astype(np.uint32)
    return np.concatenate([order, order[: -RECORDS % BATCH]])


def epoch_plain_jit() -> Call:
    data, mix = arrays(), mixed()
    epochs = iter(range(10**9))

    def batches() -> Iterator[dict[str, Any]]:
        epoch = np.uint32(next(epochs))
        order = order_of(int(epoch))
        for start in range(0, len(order), BATCH):
            index = order[start : start + BATCH]
            yield mix(data["image"][index], data["label"][index], epoch, index)

    return lambda: consumed(batches())


def epoch_grain(threads: int) -> Call:
    import grain

    data, mix = arrays(), mixed()

    def record(index: int) -> dict[str, Any]:
        return {"index": np.uint32(index), **{name: data[name][index] for name in data}}

    def batches() -> Iterator[dict[str, Any]]:
        numbers = grain.MapDataset.range(RECORDS + -RECORDS % BATCH).shuffle(seed=0)
        read = numbers.map(lambda index: record(index % RECORDS)).batch(BATCH)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        for item in read.to_iter_dataset(options):
            yield mix(item["image"], item["label"], np.uint32(0), item["index"])

    return lambda: consumed(batches())


def timm_mixup() -> Any:
    """Mixup of timm, without the rest of timm, which needs torchvision."""
    module = file_of("timm", "data", "mixup.py")
    return module.Mixup(mixup_alpha=0.4, cutmix_alpha=0.0, num_classes=CLASSES, label_smoothing=0)


def torch_data() -> tuple[Any, Any]:
    import torch

    data = arrays()
    images = torch.from_numpy(data["image"]).permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(data["label"]).long()


def normalised(images: Any) -> Any:
    import torch

    mean, std = torch.from_numpy(MEAN), torch.from_numpy(STD)
    return images.float().div_(255).sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))


def epoch_torch_tensors() -> Call:
    import torch

    images, labels = torch_data()
    mix = timm_mixup()

    def epoch() -> None:
        order = torch.randperm(RECORDS)
        for index in order.split(BATCH):
            mix(normalised(images[index]), labels[index])

    return epoch


def epoch_torch_loader() -> Call:
    import torch

    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*torch_data()), batch_size=BATCH, shuffle=True
    )
    mix = timm_mixup()

    def epoch() -> None:
        for images, labels in loader:
            mix(normalised(images), labels)

    return epoch


def state_ours(what: str) -> Call:
    import jax

    iterator = iter(pipeline(arrays(), prefetch=0))
    jax.block_until_ready(next(iterator).data)
    state = iterator.get_state()
    if what == "get_state":
        return lambda: jax.block_until_ready(iterator.get_state())
    return lambda: iterator.set_state(state)


def state_of_stages() -> Call:
    """What a copy of the same Variables costs with Flax alone."""
    import jax
    from flax import nnx

    stages = nnx.List(pipeline(arrays()).stages)
    return lambda: jax.block_until_ready(nnx.to_pure_dict(nnx.state(stages)))


CASES = [
    Case(
        "epoch of 10,000 x (32, 32, 3) uint8, batch 128",
        {
            "plain jit over host arrays": epoch_plain_jit,
            "datarax": epoch_ours,
            "datarax, prefetch=2": lambda: epoch_ours(prefetch=2),
            "datarax, arrays on the device": epoch_ours_on_device,
            "monolith": epoch_monolith,
            "grain, 4 threads, then jit": lambda: epoch_grain(4),
            "grain, no threads, then jit": lambda: epoch_grain(0),
            "timm on torch tensors": epoch_torch_tensors,
            "timm on a torch DataLoader": epoch_torch_loader,
        },
        reference="plain jit over host arrays",
        calls=40,
    ),
    Case(
        "state of a pipeline's iterator",
        {
            "nnx.state of the stages": state_of_stages,
            "datarax, get_state": lambda: state_ours("get_state"),
            "datarax, set_state": lambda: state_ours("set_state"),
        },
        reference="nnx.state of the stages",
        calls=400,
    ),
]

if __name__ == "__main__":
    main([*CASES, *FOLDER])
