"""One host of a job that goes on with saved streams for a while and is then killed.

Run as `python resume_host.py JOB PROCESS`; JOB is a JSON file that `test_resume_schedules` writes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

RECORDS, EPOCHS, DEVICES = 23, 2, 8


def jittered(record: Any, generator: Any) -> Any:
    return {**record, "jitter": generator.integers(0, 2**16, dtype="int32")}


def noisy(element: Any, key: Any) -> Any:
    import jax

    return element.update_data({"noise": jax.random.bits(key, (3,))})


def pipeline(*, batch_size: int, devices: Any = None, **options: Any) -> Any:
    """Shuffled images with host work, a draw of each record's own, and mixing in groups of two.

    Args:
      batch_size: rows of a batch on all hosts together.
      devices: those of the mesh; None: no mesh.
      **options: what must make no difference.
    """
    import jax
    import numpy as np
    from flax import nnx

    from datarax.operators import ElementOperator, ElementOperatorConfig
    from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig
    from datarax.pipeline import Pipeline
    from datarax.sources import MemorySource, MemorySourceConfig

    generator = np.random.default_rng(0)
    data = {
        "image": generator.integers(0, 256, (RECORDS, 4, 4, 3), np.uint8),
        "label": np.arange(RECORDS, dtype=np.int32) % 5,
    }
    mixing = BatchMixOperatorConfig(
        mode="mixup", num_classes=5, mix_group_size=2, granularity="record"
    )
    stages = [
        ElementOperator(ElementOperatorConfig(stochastic=True), fn=noisy, rngs=nnx.Rngs(1)),
        BatchMixOperator(mixing, rngs=nnx.Rngs(2)),
    ]
    sharding = None
    if devices is not None:
        mesh = jax.sharding.Mesh(np.asarray(devices), ("data",))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    return Pipeline(
        source=MemorySource(MemorySourceConfig(shuffle=True, seed=7), data=data),
        transforms=[jittered],
        stages=stages,
        batch_size=batch_size,
        epochs=EPOCHS,
        sharding=sharding,
        **options,
    )


def rows_of(batch: Any) -> list[tuple[int, str]]:
    """This host's valid rows of a batch: where each stands in the whole, and all of its bytes."""
    import numpy as np

    fields = {**batch.data, "number": batch.record_index, "valid": batch.valid_mask}
    columns: dict[str, dict[int, bytes]] = {name: {} for name in fields}
    for name, array in fields.items():
        shards = getattr(array, "addressable_shards", None)
        for shard in shards or [None]:
            values = np.asarray(array if shard is None else shard.data)
            index = shard.index[0].start if shard and shard.index else None
            for row, value in enumerate(values, index or 0):
                columns[name][row] = value.tobytes()
    epoch = int(np.asarray(batch.epoch))
    return [
        (row, f"{epoch} " + " ".join(columns[name][row].hex() for name in sorted(columns)))
        for row, valid in sorted(columns["valid"].items())
        if any(valid)
    ]


def leg(given: dict[str, Any], devices: Any) -> tuple[list[Any], dict[str, Any]]:
    """Goes on for some batches.

    Args:
      given: `state`, how many `batches`, and options of `pipeline`.
      devices: what the mesh is made of; None: no mesh.

    Returns:
      The rows of each batch, and the state after them.
    """
    iterator = iter(pipeline(devices=devices, **given["options"]))
    if given["state"] is not None:
        iterator.set_state(given["state"])
    rows = []
    for _ in range(given["batches"]):
        batch = next(iterator, None)
        if batch is None:
            break
        rows.append(rows_of(batch))
    state = iterator.get_state()
    iterator.close()
    return rows, state


def chosen(devices: list[Any], count: int, hosts: int) -> list[Any]:
    """So many of the devices, equally many of each host."""
    each = [[d for d in devices if d.process_index == host] for host in range(hosts)]
    return [device for own in each for device in own[: count // hosts]]


def main(job_file: str, process: int) -> None:
    job = json.loads(Path(job_file).read_text())
    hosts = job["hosts"]
    # The last one holds; what else the test has must hold here too, for equal arithmetic.
    count = f"--xla_force_host_platform_device_count={DEVICES // hosts}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {count}"
    import jax

    # What floating point gives depends on how it is compiled.
    jax.config.update("jax_disable_most_optimizations", job["quick"])
    if hosts > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(job["address"], hosts, process)
    found = []
    for given in job["legs"]:
        rows, state = leg(given, chosen(jax.devices(), given["devices"], hosts))
        found.append({"rows": rows, "state": state})
    Path(f"{job_file}.{process}").write_text(json.dumps(found))
    if hosts > 1:
        from jax.experimental import multihost_utils

        # None dies while another still needs it.
        multihost_utils.sync_global_devices("done")
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
