"""Random schedules of kill and resume, on any number of hosts and devices, give the same stream.

Ten by default; as many as the environment variable SCHEDULES says: 200 with `nox -s resume`, where
worker processes vary too, and some legs run in each job, so that progress is seen.
"""

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
import resume_host

pytestmark = pytest.mark.usefixtures("quick_compiles")
SCHEDULES = int(os.environ.get("SCHEDULES", "10"))
FEW = SCHEDULES <= 10
# Of each wave, the numbers of hosts that its jobs have. The last leg of all runs in this process.
WAVES = ((2,),) if FEW else ((1, 2, 4), (1, 2, 4), (2, 4))
# How many legs the processes of a job live for.
LEGS = 20
# Seconds until a job is taken to hang.
PATIENCE = 500 if FEW else 1800


def digest(rows):
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def random_leg(draw, hosts, state):
    """For a while, with options that must make no difference."""
    # Few kinds of batches, each of which is compiled.
    few = [2, 8] if hosts > 1 else [8]
    devices = draw.choice(few if FEW else [count for count in (1, 2, 4, 8) if count >= hosts])
    times = 1 if FEW else draw.randint(1, max(1, 8 // devices))
    return {
        "state": state,
        "batches": draw.randint(1, 3),
        "devices": devices,
        "options": {
            # Groups of two stay on one device.
            "batch_size": 2 * devices * times,
            "prefetch": draw.choice([0, 2]),
            "num_threads": draw.choice([0, 1, 3]),
            # Each of which imports JAX, for seconds.
            "num_workers": 0 if FEW else draw.choice([0] * 30 + [1, 2]),
        },
    }


def batched(entries, count):
    return [entries[first : first + count] for first in range(0, len(entries), count)]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_job(path, hosts, legs):
    """All legs in processes that kill themselves; the rows and the state of each leg."""
    address = f"127.0.0.1:{free_port()}"
    quick = bool(jax.config.read("jax_disable_most_optimizations"))
    job = {"hosts": hosts, "address": address, "legs": legs, "quick": quick}
    path.write_text(json.dumps(job))
    script = str(Path(resume_host.__file__))
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(path), str(process)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(hosts)
    ]
    try:
        errors = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert codes == [-signal.SIGKILL] * hosts, errors
    found = [json.loads(Path(f"{path}.{process}").read_text()) for process in range(hosts)]
    return [merged(leg) for leg in zip(*found, strict=True)]


def merged(parts):
    """The rows of all hosts in the order of the whole batches, and the state that all have."""
    steps = {len(part["rows"]) for part in parts}
    assert len(steps) == 1, "hosts took different numbers of steps"
    assert all(part["state"] == parts[0]["state"] for part in parts)
    rows = []
    for step in zip(*(part["rows"] for part in parts), strict=True):
        # Rows that are on devices of several hosts come once.
        rows += [text for _, text in sorted({tuple(row) for part in step for row in part})]
    return rows, parts[0]["state"]


def test_killed_runs_go_on_with_the_same_stream(tmp_path):
    """Order, host work, draws and mixing are those of one process that is never killed."""
    whole, _ = resume_host.leg(
        {"state": None, "batches": 10**6, "options": {"batch_size": 6}}, None
    )
    expected = [text for batch in whole for _, text in batch]
    assert len(expected) == len(set(expected)) == resume_host.RECORDS * resume_host.EPOCHS
    seed = random.SystemRandom().randrange(2**32)
    draw = random.Random(seed)
    streams, states = {}, {}
    for number, counts in enumerate(WAVES):
        hosts_of = {schedule: draw.choice(counts) for schedule in range(SCHEDULES)}
        for hosts in counts:
            mine = [schedule for schedule, count in hosts_of.items() if count == hosts]
            for part in batched(mine, LEGS):
                legs = [random_leg(draw, hosts, states.get(schedule)) for schedule in part]
                begun = time.monotonic()
                done = run_job(tmp_path / f"job_{number}_{hosts}", hosts, legs)
                seconds = time.monotonic() - begun
                print(
                    f"wave {number}, {hosts} hosts: {len(part)} legs in {seconds:.0f} s", flush=True
                )
                for schedule, (rows, state) in zip(part, done, strict=True):
                    before = streams.get(schedule, [])
                    streams[schedule] = before + rows
                    states[schedule] = state
                    assert streams[schedule] == expected[: len(before + rows)], (seed, schedule)
    for schedule in range(SCHEDULES):
        last = random_leg(draw, 1, states[schedule]) | {"batches": 10**6}
        rows, _ = resume_host.leg(last, jax.devices()[: last["devices"]])
        streams[schedule] += [text for batch in rows for _, text in batch]
        assert digest(streams[schedule]) == digest(expected), (seed, schedule, last)
        if not FEW and schedule % LEGS == LEGS - 1:
            print(f"{schedule + 1} of {SCHEDULES} schedules gave the same stream", flush=True)
