"""Batches over the devices of a mesh, in one process and in two."""

import os
import socket
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from datarax.batching import masked_sum_count, shard_batch
from datarax.core.element_batch import Batch


def batch(rows):
    return Batch.from_arrays(
        {"x": np.arange(rows, dtype=np.float32), "k": jax.random.split(jax.random.key(0), rows)},
        states={"s": np.arange(rows)},
        record_index=np.arange(rows),
        epoch=1,
        batch_state={"b": np.float32(2)},
        metadata=tuple(range(rows)),
    )


@pytest.mark.parametrize("devices", [1, 2, 8], ids="{} devices".format)
@pytest.mark.parametrize("rows", [5, 8, 16], ids="{} rows".format)
def test_rows_are_spread_and_padded_to_the_devices(devices, rows):
    """Each device has as many rows; values, keys and mask are those of the batch."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    made = shard_batch(batch(rows), mesh)
    padded = -(-rows // devices) * devices
    assert made.batch_size == padded
    assert {shard.data.shape for shard in made["x"].addressable_shards} == {(padded // devices,)}
    assert np.asarray(made.valid_mask).tolist() == [True] * rows + [False] * (padded - rows)
    assert np.asarray(made["x"])[:rows].tolist() == list(range(rows))
    keys = jax.random.key_data(made["k"])[:rows]
    assert np.array_equal(keys, jax.random.key_data(batch(rows)["k"]))
    assert made["k"].sharding.spec == made.record_index.sharding.spec == P("data")
    assert made.epoch.sharding.spec == made.batch_state["b"].sharding.spec == P()
    assert made.metadata[:rows] == tuple(range(rows))


@pytest.mark.parametrize(
    ("axis_names", "shards"), [(None, 8), (("data",), 4), (("model",), 2)], ids=str
)
def test_rows_are_spread_over_the_named_axes(axis_names, shards):
    """Over the other axes of the mesh the batch is copied."""
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "model"))
    made = shard_batch(batch(6), mesh, axis_names=axis_names)
    assert made.batch_size == 8 if shards > 2 else 6
    assert {shard.data.shape[0] for shard in made["x"].addressable_shards} == {
        made.batch_size // shards
    }


def test_a_sharded_metric_is_that_of_the_records():
    """Padding that the devices needed does not count."""
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    made = shard_batch(batch(11), mesh, pad_values={"x": np.nan})
    total, count = jax.jit(masked_sum_count)(made["x"], made.valid_mask)
    assert (float(total), int(count)) == (55, 11)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (({"x": 1}, None), TypeError, "batch must be a Batch, got dict"),
        ((batch(2), jax.devices()), TypeError, "mesh must be a jax.sharding.Mesh, got list"),
    ],
    ids=["batch", "mesh"],
)
def test_wrong_kinds_are_refused(arguments, error, message):
    """Batch and mesh are checked."""
    with pytest.raises(error, match=message):
        shard_batch(*arguments)


def test_an_axis_that_the_mesh_lacks_is_refused():
    """The message lists the axes that there are."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    with pytest.raises(ValueError, match=r"some of the mesh's axes \('data',\), got \('rows',\)"):
        shard_batch(batch(2), mesh, axis_names=("rows",))


WORKER = """
    import sys
    import jax
    import numpy as np
    process, port = int(sys.argv[1]), sys.argv[2]
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    from jax.sharding import Mesh
    from datarax.batching import (
        DefaultBatcher, DefaultBatcherConfig, equal_steps, masked_sum_count, shard_batch,
    )
    from datarax.core.element_batch import Element

    mesh = Mesh(np.array(jax.devices()), ("data",))
    assert mesh.size == 4, mesh
    mine = range(0, 13) if process == 0 else range(13, 18)
    records = [Element({"x": np.int32(i)}) for i in mine]
    local = DefaultBatcher(DefaultBatcherConfig())(records, batch_size=3)
    step = jax.jit(masked_sum_count)
    total = count = steps = 0
    for batch in equal_steps(local, steps=5):
        whole = shard_batch(batch, mesh)
        assert whole.batch_size == 8, whole
        part, seen = step(whole["x"], whole.valid_mask)
        total, count, steps = total + int(part), count + int(seen), steps + 1
    print("RESULT", total, count, steps)
"""


def test_two_processes_count_every_record_once(tmp_path):
    """Hosts with 13 and 5 records take the same steps and agree on the sum over all 18."""
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(process), port],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        outputs = [worker.communicate(timeout=120) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for output, errors in outputs:
        assert f"RESULT {sum(range(18))} 18 5" in output, errors[-2000:]
