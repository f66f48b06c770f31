r"""One pass of batching images, to the host and to a device; memory over a long stream.

    python benchmarks/batching.py --python torch=../torch-env/bin/python \
        --python monolith=../monolith-env/bin/python --python tf.data=../tf-env/bin/python \
        --output batching.json
    python benchmarks/batching.py --memory 10000000 --output batching.json

The second line streams that many records instead, reports how far peak memory grows, and adds that
to the results of the first. To a device, torch and tf.data need JAX in their environments.

A pass takes at least the time to read its records and write as much: 30.7 MB and 150.5 MB each way.
The copies tell what more is due: "copy" is out of one array into one buffer, which stays in the
cache; a loop that keeps its batch while the next one is made has two in turn; and records of their
own are read from wherever they are, by one call of NumPy for a batch or one for each record.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from harness import Call, Case, machine, main

Batches = Callable[[], Iterable[Any]]
SIZES = {"small": (10_000, (32, 32, 3), 128), "large": (1_000, (224, 224, 3), 64)}


def records(size: str) -> tuple[list[np.ndarray], int]:
    count, shape, rows = SIZES[size]
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, shape, np.uint8) for _ in range(count)], rows


def slices(items: list[Any], rows: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), rows):
        yield items[start : start + rows]


def buffers(arrays: list[np.ndarray], rows: int, count: int) -> Iterator[np.ndarray]:
    """This many buffers for a batch, in turn."""
    made = [np.empty((rows, *arrays[0].shape), arrays[0].dtype) for _ in range(count)]
    return itertools.cycle(made)


def copy(arrays: list[np.ndarray], rows: int, count: int = 1) -> Batches:
    """One copy of the same bytes, out of one array."""
    source, outs = np.stack(arrays), buffers(arrays, rows, count)

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, len(source), rows):
            part, out = source[start : start + rows], next(outs)
            np.copyto(out[: len(part)], part)
            yield out

    return batches


def copy_together(arrays: list[np.ndarray], rows: int, count: int) -> Batches:
    """The same from where the records are, one call for a batch."""
    outs = buffers(arrays, rows, count)

    def batches() -> Iterator[np.ndarray]:
        for part in slices(arrays, rows):
            out = next(outs)
            np.concatenate(part, out=out[: len(part)].reshape(-1, *out.shape[2:]))
            yield out

    return batches


def copy_records(arrays: list[np.ndarray], rows: int) -> Batches:
    """The same, one call for each record."""
    outs = buffers(arrays, rows, 1)

    def batches() -> Iterator[np.ndarray]:
        for part in slices(arrays, rows):
            out = next(outs)
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
    "copy, two buffers": partial(copy, count=2),
    "copy, records of a batch": partial(copy_together, count=1),
    "copy, records of a batch, two buffers": partial(copy_together, count=2),
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


def beside_a_busy_thread(contender: Callable[..., Batches], size: str) -> Call:
    """As in a program that decodes records in another thread."""
    batch_all = on_host(contender, size)

    def call() -> None:
        done = threading.Event()

        def spin() -> None:
            while not done.is_set():
                pass

        thread = threading.Thread(target=spin)
        thread.start()
        try:
            batch_all()
        finally:
            done.set()
            thread.join()

    return call


def case(size: str, place: str, put: Callable[..., Call], reference: str, calls: int = 40) -> Case:
    names = dict(CONTENDERS)
    if reference != "copy":
        # Not what is written again while a device may still read it.
        names = {name: c for name, c in names.items() if not name.startswith(("copy", "ours,"))}
    contenders = {name: partial(put, contender, size) for name, contender in names.items()}
    return Case(f"{size} {place}", contenders, reference, calls)


def busy_case() -> Case:
    """Some contenders only: the slower ones would take minutes."""
    names = ("ours", "np.stack", "tree.map(np.stack)", "torch default_collate")
    contenders = {name: partial(beside_a_busy_thread, CONTENDERS[name], "small") for name in names}
    return Case("small to host beside a busy thread", contenders, "np.stack", calls=10)


def cases() -> list[Case]:
    both = [
        case(size, place, put, reference)
        for size in SIZES
        for place, put, reference in (
            ("to host", on_host, "copy"),
            ("to device", on_device, "np.stack, jnp.asarray"),
        )
    ]
    return [*both, busy_case()]


def memory(count: int) -> dict[str, Any]:
    """How far the peak of memory grows after the first batches, in batches."""
    from datarax.batching import DefaultBatcher, DefaultBatcherConfig
    from datarax.core.element_batch import Element

    rows, values, first = 4096, 64, 20
    stream = (Element({"x": np.full(values, i, np.float32)}) for i in range(count))
    batches = DefaultBatcher(DefaultBatcherConfig())(stream, batch_size=rows)
    for _ in itertools.islice(batches, first):
        pass
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    delivered = first + sum(1 for _ in batches)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return {
        "records": count,
        "batches": delivered,
        "seconds": time.perf_counter() - start,
        "batch_bytes": rows * values * 4,
        "peak_growth_bytes": grown,
        "peak_growth_batches": grown / (rows * values * 4),
    }


def memory_main() -> None:
    parser = argparse.ArgumentParser(description="Measures memory over a long stream.")
    parser.add_argument("--memory", type=int, required=True, help="records of the stream")
    parser.add_argument("--output", type=Path, help="JSON to write, or to add the result to")
    options = parser.parse_args()
    result = memory(options.memory)
    print(json.dumps(result, indent=1))
    if options.output:
        there = options.output.exists()
        report = json.loads(options.output.read_text()) if there else {"machine": machine()}
        options.output.write_text(json.dumps({**report, "memory": result}, indent=1) + "\n")


if __name__ == "__main__":
    memory_main() if "--memory" in sys.argv else main(cases())
