"""One pass of batching images, to the host and to a device; memory over a long stream.

    python benchmarks/batching.py --python torch=../torch-env/bin/python --output batching.json

`--memory RECORDS` instead streams that many records and reports how far peak memory grows.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
from harness import Call, Case, main

Batches = Callable[[], Iterable[Any]]
SIZES = {"small": (10_000, (32, 32, 3), 128), "large": (1_000, (224, 224, 3), 64)}


def records(size: str) -> tuple[list[np.ndarray], int]:
    count, shape, rows = SIZES[size]
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, shape, np.uint8) for _ in range(count)], rows


def slices(items: list[Any], rows: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), rows):
        yield items[start : start + rows]


def copy(arrays: list[np.ndarray], rows: int) -> Batches:
    """One copy of the same bytes, out of one array into a buffer that is used again."""
    source = np.stack(arrays)
    out = np.empty((rows, *source.shape[1:]), source.dtype)

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, len(source), rows):
            part = source[start : start + rows]
            np.copyto(out[: len(part)], part)
            yield out

    return batches


def copy_records(arrays: list[np.ndarray], rows: int) -> Batches:
    """The same from where the records are, one after the other."""
    out = np.empty((rows, *arrays[0].shape), arrays[0].dtype)

    def batches() -> Iterator[np.ndarray]:
        for part in slices(arrays, rows):
            for row, array in enumerate(part):
                np.copyto(out[row], array)
            yield out

    return batches


def stack(arrays: list[np.ndarray], rows: int) -> Batches:
    return lambda: (np.stack(part) for part in slices(arrays, rows))


def stack_and_asarray(arrays: list[np.ndarray], rows: int) -> Batches:
    import jax.numpy as jnp

    return lambda: (jnp.asarray(np.stack(part)) for part in slices(arrays, rows))


def tree_stack(arrays: list[np.ndarray], rows: int) -> Batches:
    import jax

    items = [{"image": array} for array in arrays]

    def batches() -> Iterator[np.ndarray]:
        for part in slices(items, rows):
            yield jax.tree.map(lambda *leaves: np.stack(leaves), *part)["image"]

    return batches


def ours(arrays: list[np.ndarray], rows: int, **options: Any) -> Batches:
    from datarax.batching import DefaultBatcher, DefaultBatcherConfig
    from datarax.core.element_batch import Element

    items = [Element({"image": array}) for array in arrays]
    batcher = DefaultBatcher(DefaultBatcherConfig(**options))
    return lambda: (batch["image"] for batch in batcher(items, batch_size=rows))


def torch_collate(arrays: list[np.ndarray], rows: int) -> Batches:
    from torch.utils.data import default_collate

    items = [{"image": array} for array in arrays]
    return lambda: (default_collate(part)["image"].numpy() for part in slices(items, rows))


def torch_loader(arrays: list[np.ndarray], rows: int) -> Batches:
    from torch.utils.data import DataLoader

    items = [{"image": array} for array in arrays]
    return lambda: (batch["image"].numpy() for batch in DataLoader(items, batch_size=rows))


def grain_batch(arrays: list[np.ndarray], rows: int) -> Batches:
    import grain

    data = grain.MapDataset.source([{"image": array} for array in arrays]).batch(rows)
    return lambda: (batch["image"] for batch in data)


def tf_data(arrays: list[np.ndarray], rows: int) -> Batches:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices({"image": np.stack(arrays)}).batch(rows)
    return lambda: (batch["image"] for batch in data.as_numpy_iterator())


def monolith(arrays: list[np.ndarray], rows: int) -> Batches:
    try:
        metadata.version("datarax")
    except metadata.PackageNotFoundError as error:
        raise ImportError("the monolithic datarax is not installed") from error
    from flax import nnx

    from datarax.batching import DefaultBatcher, DefaultBatcherConfig
    from datarax.core.element_batch import Batch, Element

    items = [Element(data={"image": array}, state={}, metadata=None) for array in arrays]
    batcher = DefaultBatcher(DefaultBatcherConfig(stochastic=False), rngs=nnx.Rngs(0))
    # Its batcher gives lists of elements, from which its `Batch` is made, on the device.
    return lambda: (Batch(part).get_data()["image"] for part in batcher(items, batch_size=rows))


CONTENDERS = {
    "copy": copy,
    "copy, record by record": copy_records,
    "ours": ours,
    "ours, reused buffers": partial(ours, reuse_buffers=True),
    "np.stack": stack,
    "np.stack, jnp.asarray": stack_and_asarray,
    "tree.map(np.stack)": tree_stack,
    "torch default_collate": torch_collate,
    "torch DataLoader": torch_loader,
    "grain": grain_batch,
    "tf.data": tf_data,
    "monolith": monolith,
}


def on_host(contender: Callable[..., Batches], size: str) -> Call:
    batches = contender(*records(size))

    def call() -> None:
        for _ in batches():
            pass

    return call


def on_device(contender: Callable[..., Batches], size: str) -> Call:
    """Each batch goes into a compiled call, as a training step would take it."""
    import jax

    batches = contender(*records(size))
    first = jax.jit(lambda image: image[0, 0, 0, 0])

    def call() -> None:
        last = None
        for image in batches():
            last = first(image)
        jax.block_until_ready(last)

    return call


def case(size: str, place: str) -> Case:
    put, names = on_host, dict(CONTENDERS)
    if place == "device":
        put = on_device
        # Not what is written again while a device may still read it, nor what has no JAX beside it.
        names = {n: c for n, c in names.items() if not n.startswith(("copy", "torch", "ours,"))}
    contenders = {name: partial(put, contender, size) for name, contender in names.items()}
    reference = "copy" if place == "host" else "np.stack"
    return Case(f"{size} to {place}", contenders, reference, calls=40)


def memory(count: int) -> dict[str, Any]:
    """How far the peak of memory grows after the first batches, in batches."""
    from datarax.batching import DefaultBatcher, DefaultBatcherConfig
    from datarax.core.element_batch import Element

    rows, values = 4096, 64
    stream = (Element({"x": np.full(values, i, np.float32)}) for i in range(count))
    batches = DefaultBatcher(DefaultBatcherConfig())(stream, batch_size=rows)
    for _ in itertools.islice(batches, 20):
        pass
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    delivered = 20 + sum(1 for _ in batches)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return {
        "records": count,
        "batches": delivered,
        "seconds": time.perf_counter() - start,
        "batch_bytes": rows * values * 4,
        "peak_growth_bytes": grown,
        "peak_growth_batches": grown / (rows * values * 4),
    }


if __name__ == "__main__":
    if "--memory" in sys.argv:
        print(json.dumps(memory(int(sys.argv[sys.argv.index("--memory") + 1])), indent=1))
    else:
        main([case(size, place) for size in SIZES for place in ("host", "device")])
