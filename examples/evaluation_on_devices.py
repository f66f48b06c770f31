# %% [markdown]
# # Evaluation on several devices
#
# The metrics of this evaluation do not depend on the batch size, the devices or the hosts. Every
# device sums over its own rows, padding does not count, and the sums are added up.
#
# ```
# python examples/evaluation_on_devices.py
# ```
#
# takes all devices of this machine. On several hosts, run it on each with its number. To try that,
# two processes on one machine are enough:
#
# ```
# python examples/evaluation_on_devices.py --coordinator localhost:9876 --hosts 2 --host 1 &
# python examples/evaluation_on_devices.py --coordinator localhost:9876 --hosts 2 --host 0
# ```

# %%
import argparse
import json
import math
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from datarax.batching import (
    DefaultBatcher,
    DefaultBatcherConfig,
    equal_steps,
    masked_sum_count,
    shard_batch,
)
from datarax.core.element_batch import Element

RECORDS, FEATURES, CLASSES = 1003, 16, 10

# %% [markdown]
# ## Records
#
# A linear classifier, and records whose number fits no batch size and no number of devices.


# %%
def test_set():
    """The weights of a linear classifier, and 1003 records, most of which it gets right."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(FEATURES, CLASSES)).astype(np.float32)
    x = rng.normal(size=(RECORDS, FEATURES)).astype(np.float32)
    labels = (x @ weights + rng.normal(size=(RECORDS, CLASSES))).argmax(1).astype(np.int32)
    return weights, [Element({"x": x[i], "label": labels[i]}) for i in range(RECORDS)]


# %% [markdown]
# ## The sums of a batch
#
# `jax.lax.psum` adds up what each device found in its own rows.


# %%
def evaluation_step(mesh):
    """A compiled function from weights and a sharded batch to sums over all devices."""

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P())
    def step(weights, data, valid_mask):
        # Each device sees its own rows here.
        logits = jnp.matmul(data["x"], weights, precision="highest")
        chosen = jnp.take_along_axis(logits, data["label"][:, None], axis=1)[:, 0]
        losses = jax.nn.logsumexp(logits, axis=1) - chosen
        loss, count = masked_sum_count(losses, valid_mask)
        right, _ = masked_sum_count(logits.argmax(axis=1) == data["label"], valid_mask)
        return jax.lax.psum({"loss": loss, "right": right, "count": count}, "data")

    return step


# %% [markdown]
# ## The sums of all records
#
# The hosts take the same number of steps, and divide only once, at the end.


# %%
def evaluate(weights, records, mesh, *, batch_size, host=0, hosts=1):
    """Sums over all records: of losses in float64, of right answers and records in integers."""
    batches = DefaultBatcher(DefaultBatcherConfig())(records[host::hosts], batch_size=batch_size)
    # A host with fewer records continues with padding, because all must take every step.
    batches = equal_steps(batches, steps=math.ceil(len(records) / (hosts * batch_size)))
    step = evaluation_step(mesh)
    totals = {"loss": 0.0, "right": 0, "count": 0}
    for batch in batches:
        sharded = shard_batch(batch, mesh)
        sums = step(weights, sharded.data, sharded.valid_mask)
        totals = {name: totals[name] + sums[name].item() for name in totals}
    return totals


# %% [markdown]
# ## All devices of all hosts


# %%
def main():
    """Evaluate on every device of every host, and print the metrics as JSON."""
    parser = argparse.ArgumentParser(description="An evaluation on several devices.")
    parser.add_argument("--batch-size", type=int, default=64, help="rows of each host's batches")
    parser.add_argument("--coordinator", help="address and free port of host 0")
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--host", type=int, default=0)
    options = parser.parse_args([] if "ipykernel" in sys.modules else None)
    if options.hosts > 1:
        jax.distributed.initialize(options.coordinator, options.hosts, options.host)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    shard = {"host": options.host, "hosts": options.hosts}
    totals = evaluate(*test_set(), mesh, batch_size=options.batch_size, **shard)
    accuracy, loss = totals["right"] / totals["count"], totals["loss"] / totals["count"]
    print(json.dumps({"devices": mesh.size, **totals, "accuracy": accuracy, "mean_loss": loss}))


if __name__ == "__main__":
    main()
