"""The recipes and tables of docs/batching.md and of the batching package's README hold."""

import importlib.util
import itertools
import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from datarax.batching import (
    BucketBatcher,
    BucketBatcherConfig,
    DefaultBatcher,
    DefaultBatcherConfig,
    MultiRateBatcher,
    MultiRateBatcherConfig,
    PackingBatcher,
    PackingBatcherConfig,
    check_batch,
    equal_steps,
    rebatch,
    record_spec,
    shard_batch,
    unbatch,
)
from datarax.core.element_batch import Element

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples/evaluation_on_devices.py"
PAGE = (ROOT / "docs/batching.md").read_text(encoding="utf-8")
README = (ROOT / "packages/datarax-batching/README.md").read_text(encoding="utf-8")


def example():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exact_metrics(weights, records):
    """The example's sums over all records at once, in float64."""
    x = np.stack([record.data["x"] for record in records]).astype(np.float64)
    labels = np.array([record.data["label"] for record in records])
    logits = x @ weights.astype(np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    return losses.sum(), (logits.argmax(axis=1) == labels).sum(), len(labels)


@pytest.mark.parametrize("devices", [1, 2, 8], ids="{} devices".format)
def test_metrics_do_not_depend_on_devices_or_batch_size(devices):
    """Counts are equal to the last digit, the sum of losses to 1e-6 of that in float64."""
    module = example()
    weights, records = module.test_set()
    loss, *counts = exact_metrics(weights, records)
    mesh = Mesh(np.array(jax.devices("cpu")[:devices]), ("data",))
    for batch_size in (30, 1500):
        totals = module.evaluate(weights, records, mesh, batch_size=batch_size)
        assert [totals["right"], totals["count"]] == counts
        np.testing.assert_allclose(totals["loss"], loss, rtol=1e-6)


def test_two_hosts_print_the_metrics_of_one():
    """Two processes, joined by `jax.distributed`, with two devices and 502 or 501 records each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    # Of a flag that comes twice, XLA reads the last.
    flags = f"{os.environ['XLA_FLAGS']} {flags}"
    command = [sys.executable, str(SCRIPT), "--coordinator", address, "--hosts", "2"]
    hosts = [
        subprocess.Popen(
            # 501 records are three batches and 502 are four, so the second host has to go on.
            [*command, "--batch-size", "167", "--host", str(host)],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(2)
    ]
    try:
        outputs = [host.communicate(timeout=120) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    loss, right, count = exact_metrics(*example().test_set())
    for output, errors in outputs:
        assert '"devices"' in output, errors[-2000:]
        printed = json.loads(output.strip().splitlines()[-1])
        assert [printed[name] for name in ("devices", "right", "count")] == [4, right, count]
        np.testing.assert_allclose(printed["loss"], loss, rtol=1e-6)


def table(text, header):
    """The cells of each row of the table with this header."""
    _, _, rest = text.partition(f"{header}\n")
    rows = itertools.takewhile(lambda line: line.startswith("|"), rest.splitlines())
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows][1:]


def elements(name, arrays):
    """A record for each array."""
    return [Element({name: array}) for array in arrays]


NUMBERS = elements("x", np.arange(10, dtype=np.int32))


def batches(records, batch_size=4, **options):
    """The field "x" of each batch, as lists."""
    stream = DefaultBatcher(DefaultBatcherConfig(**options))(records, batch_size=batch_size)
    return [batch["x"].tolist() for batch in stream]


def peer(name):
    """A library with which ours is compared where it is installed; Grain is, in CI on the CPU."""
    return pytest.importorskip(name, reason=f"{name} is compared with where it is installed")


def last_batch(library, option):
    """The last batch that an option makes of the numbers from 0 to 9."""
    if library == "ours":
        return eval(f"batches(NUMBERS, {option})")[-1]
    if library == "Grain":
        names = {"grain": peer("grain"), "partial": partial}
        return list(eval(f"grain.MapDataset.range(10).{option}", names))[-1].tolist()
    if library == "torch":
        names = vars(peer("torch.utils.data"))
        return list(eval(option.replace("(", "(range(10), ", 1), names))[-1].tolist()
    made = eval(f"tf.data.Dataset.range(10).{option}", {"tf": peer("tensorflow")})
    return list(itertools.islice(made, 3))[-1].numpy().tolist()


REMAINDERS = table(
    PAGE, "| library | option | last batch | shape | records repeated or lost | mask |"
)


@pytest.mark.parametrize(
    "row",
    [row for row in REMAINDERS if row[0] in ("ours", "Grain", "torch", "tf.data")],
    ids=lambda row: f"{row[0]} {row[1]}",
)
def test_the_page_says_what_the_last_batch_is(row):
    """Each option makes, as it stands in the table, the last batch that the table shows."""
    library, option, expected, shape, *_ = row
    made = last_batch(library, option.strip("`"))
    assert " ".join(map(str, made)) == expected.strip("`")
    assert (len(made) == 4) == (shape == "same")


def smaller_batch():
    grain = peer("grain")
    theirs = [batch.tolist() for batch in grain.MapDataset.range(10).batch(4)]
    assert batches(NUMBERS, remainder="partial") == theirs


def dropped_batch():
    grain = peer("grain")
    theirs = [batch.tolist() for batch in grain.MapDataset.range(10).batch(4, drop_remainder=True)]
    assert batches(NUMBERS, remainder="drop") == theirs
    stream = DefaultBatcher(DefaultBatcherConfig())(NUMBERS, batch_size=4, drop_remainder=True)
    assert [batch["x"].tolist() for batch in stream] == theirs


def padded_batch():
    grain = peer("grain")
    pad = partial(grain.experimental.batch_and_pad, batch_size=4, pad_value=7)
    theirs = [batch.tolist() for batch in grain.MapDataset.range(10).batch(4, batch_fn=pad)]
    assert batches(NUMBERS, pad_values=7) == theirs


def own_collation():
    grain = peer("grain")
    data = grain.MapDataset.range(8).batch(4, batch_fn=lambda values: np.array(values)[::-1])
    made = batches(
        NUMBERS[:8],
        collate_fn=lambda part: {"x": np.array([each.data["x"] for each in part])[::-1]},
    )
    assert made == [batch.tolist() for batch in data]


def spec_in_advance():
    batcher = DefaultBatcher(DefaultBatcherConfig())
    spec = batcher.batch_spec(record_spec(NUMBERS[0]), batch_size=4)
    for batch in batcher(NUMBERS, batch_size=4):
        check_batch(batch, spec)


def other_sizes():
    made = list(DefaultBatcher(DefaultBatcherConfig())(NUMBERS, batch_size=4))
    again = rebatch(made, 3, compact=True, remainder="partial")
    assert [batch["x"].tolist() for batch in again] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert [element.data["x"].item() for element in unbatch(made)] == list(range(10))


def buckets():
    # What TensorFlow 2.21 makes of [1], [2, 2, 2], [3, 3], [4, 4, 4, 4], with buckets of two.
    theirs = [[[1, 0], [3, 3]], [[2, 2, 2, 0], [4, 4, 4, 4]]]
    sequences = [np.full(n, i + 1, np.int32) for i, n in enumerate([1, 3, 2, 4])]
    config = BucketBatcherConfig(boundaries=(2, 4), length_fields=("x",))
    stream = BucketBatcher(config)(elements("x", sequences), batch_size=2)
    assert [batch["x"].tolist() for batch in stream] == theirs


def packed_rows():
    grain = peer("grain")
    rng = np.random.default_rng(0)
    sequences = [np.full(n, i + 1, np.int32) for i, n in enumerate(rng.integers(1, 9, 50))]
    data = grain.MapDataset.source([{"x": each} for each in sequences]).to_iter_dataset()
    data = grain.experimental.FirstFitPackIterDataset(
        data, length_struct={"x": 8}, num_packing_bins=4, shuffle_bins=False
    )
    theirs = list(data)
    stream = PackingBatcher(PackingBatcherConfig(row_length=8))(
        elements("x", sequences), batch_size=4
    )
    ours = [
        {name: values[row] for name, values in batch.data.items()}
        for batch in stream
        for row in np.flatnonzero(batch.valid_mask)
    ]
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine["x"], other["x"])
        np.testing.assert_array_equal(mine["segment_ids"], other["x_segment_ids"])
        np.testing.assert_array_equal(mine["positions"], other["x_positions"])


def windows():
    # TensorFlow 2.21 makes one more, of record 6 alone, unless it drops the remainder.
    theirs = [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6]]
    config = MultiRateBatcherConfig(steps=4, hop=2, rates={"x": 1})
    (batch,) = MultiRateBatcher(config)(NUMBERS[:7], batch_size=3)
    rows = zip(batch["x"], batch["rate_1_mask"], strict=True)
    assert [row[mask].tolist() for row, mask in rows] == theirs


def shares():
    batcher = DefaultBatcher(DefaultBatcherConfig())
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    hosts = [
        list(equal_steps(batcher(NUMBERS[host::4], batch_size=2), steps=2)) for host in range(4)
    ]
    assert {len(each) for each in hosts} == {2}
    seen = [
        np.asarray(shard_batch(batch, mesh)["x"])[batch.valid_mask].tolist()
        for each in hosts
        for batch in each
    ]
    assert sorted(itertools.chain(*seen)) == list(range(10))


def resumed_stream():
    batcher = DefaultBatcher(DefaultBatcherConfig())
    stream = batcher(NUMBERS, batch_size=4)
    next(stream)
    state = stream.get_state()
    again = batcher(NUMBERS[int(state["pulled"]) :], batch_size=4)
    again.set_state(state)
    assert [b["x"].tolist() for b in again] == [b["x"].tolist() for b in stream]


README_ROWS = {
    "Grain, tf.data: `batch(4)`; torch: `DataLoader(batch_size=4)`": smaller_batch,
    "`drop_remainder=True`; torch: `drop_last=True`": dropped_batch,
    "Grain: `batch_and_pad`; clu: `pad_dataset`": padded_batch,
    "Grain: `batch_fn`; torch: `collate_fn`": own_collation,
    "tf.data: `element_spec`": spec_in_advance,
    "tf.data: `rebatch(3)`, `unbatch()`": other_sizes,
    "tf.data: `bucket_by_sequence_length` to boundaries 3 and 5": buckets,
    "Grain: `FirstFitPackIterDataset` with 4 bins of 8": packed_rows,
    "tf.data: `window(4, shift=2)`": windows,
    "torch: `DistributedSampler`; Grain: `ShardByJaxProcess`": shares,
    "Grain: `get_state()`, `set_state()`": resumed_stream,
}


@pytest.mark.parametrize("check", README_ROWS.values(), ids=README_ROWS)
def test_what_the_readme_names_replaces_the_other(check):
    """The right side of a row does what the left side does, or what the row says."""
    check()


def test_every_row_of_the_readme_has_a_check():
    """No row is only claimed."""
    assert [row[0] for row in table(README, "| there | here |")] == list(README_ROWS)
