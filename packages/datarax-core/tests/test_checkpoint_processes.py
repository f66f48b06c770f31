"""Checkpoints of a job of two processes, each with a state of its own beside what they share."""

import os
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from flax import nnx

from datarax.core.checkpoint import Checkpointer

JOB = """
    import sys, time, warnings
    from pathlib import Path

    warnings.simplefilter("error")
    import jax
    process, port, directory = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process)
    import numpy as np
    from flax import nnx
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from datarax.core.checkpoint import Checkpointer

    over_all = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))

    def spread(values):
        return jax.make_array_from_callback(values.shape, over_all, lambda index: values[index])

    class Own:
        def __init__(self, state): self.state = state
        def get_state(self): return self.state
        def set_state(self, state): self.state = state

    class Failing(Own):
        def set_state(self, state): raise RuntimeError("will not")

    def parts(number, kind=Own):
        # The second process has more records waiting than the first.
        waiting = {str(n): np.full(n + 1, number + process) for n in range(2 * process + 1)}
        return {
            "model": nnx.Dict({
                "kernel": nnx.Param(spread(np.arange(8, dtype=np.float32) * number)),
                "local": nnx.Param(jax.device_put(np.full(2, number + process, np.float32))),
                "rngs": nnx.Rngs(number + process, noise=jax.random.key(number, impl="rbg")),
            }),
            "reader": kind({"waiting": waiting, "file": f"{process} of {number}"}),
            "position": Own({"epoch": np.uint32(number)}),
        }

    def as_seen_late(path, see=Path.is_dir):
        # A file system that has not shown the directory to this process yet.
        return see(path) and not (late and path == directory)

    def failure(call):
        try:
            call()
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    # What one process saved goes over two.
    kernel = nnx.Param(spread(np.zeros(8, np.float32)))
    position = Own({"epoch": np.uint32(0)})
    with Checkpointer(directory.parent / "single") as checkpointer:
        checkpointer.restore({"model": nnx.Dict({"kernel": kernel}), "position": position})
    for shard in kernel.get_raw_value().addressable_shards:
        assert shard.data.tolist() == np.arange(8.0)[shard.index].tolist()
    assert position.state == {"epoch": 4}

    late = process == 1
    if process == 0:
        directory.mkdir()
    else:
        Path.is_dir = as_seen_late
        time.sleep(0.5)
    with Checkpointer(directory, max_to_keep=1) as checkpointer:
        checkpointer.save(1, parts(1))
        late = False
        checkpointer.save(2, parts(2))
        fresh = parts(9)
        checkpointer.restore(fresh)
        expected = parts(2)
        assert fresh["reader"].state["file"] == f"{process} of 2", fresh["reader"].state
        waiting = fresh["reader"].state["waiting"]
        assert waiting.keys() == expected["reader"].state["waiting"].keys()
        assert all((array == 2 + process).all() for array in waiting.values())
        model, other = fresh["model"], expected["model"]
        assert model["local"].get_raw_value().tolist() == [2 + process] * 2
        for name in ("default", "noise"):
            keys = [each["rngs"][name].key.get_raw_value() for each in (model, other)]
            assert keys[0] == keys[1] and keys[0].dtype == keys[1].dtype
        kernel = model["kernel"].get_raw_value()
        assert kernel.sharding == over_all and not kernel.is_fully_addressable
        for shard in kernel.addressable_shards:
            assert shard.data.tolist() == (np.arange(8.0) * 2)[shard.index].tolist()

        # What fails in one process fails in all, and changes nothing in any.
        kept = parts(9, Failing if process else Own)
        said = failure(lambda: checkpointer.restore(kept))
        expected = "RuntimeError: will not" if process else "ValueError: process 1 failed"
        assert said.startswith(expected), said
        assert kept["reader"].state["file"] == f"{process} of 9"
        assert kept["model"]["local"].get_raw_value().tolist() == [9 + process] * 2
        wrong = {**parts(3), "reader": Own({"a": object() if process == 0 else 1})}
        said = failure(lambda: checkpointer.save(3, wrong))
        assert said.startswith("ValueError" if process else "TypeError"), said
        assert "'a' is a object of dtype object, which cannot be saved" in said, said
        said = failure(lambda: checkpointer.save(3 + process, parts(3)))
        assert "same step, got process 0: 3; process 1: 4" in said, said
        uneven = {**parts(3), **({"more": Own({"x": 1})} if process else {})}
        said = failure(lambda: checkpointer.save(3, uneven))
        assert "same parts, got" in said, said
        assert checkpointer.all_steps() == (2,)
"""


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The directory in which a job of two processes left step 2."""
    directory, port = tmp_path_factory.mktemp("job") / "checkpoints", free_port()
    kernel = nnx.Param(np.arange(8, dtype=np.float32))
    with Checkpointer(directory.parent / "single") as checkpointer:
        position = Own({"epoch": np.uint32(4)})
        checkpointer.save(0, {"model": nnx.Dict({"kernel": kernel}), "position": position})
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    job = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(JOB), str(process), str(port), str(directory)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in job]
    finally:
        for process in job:
            process.kill()
    for process in job:
        assert process.returncode == 0, "\n".join(said)
    return directory


class Own:
    """The smallest part."""

    def __init__(self, state=None):
        self.state = state

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state


def test_each_process_gets_back_what_it_saved(saved):
    """Uneven local states, one logical array, late sight of the directory, failures on one side."""
    assert [entry.name for entry in saved.iterdir()] == ["2"]


def test_what_is_the_same_in_all_processes_is_restored_by_any_number(saved):
    """One process alone gets the shared array and the common position."""
    kernel = nnx.Param(np.zeros(8, np.float32))
    model, position = nnx.Dict({"kernel": kernel}), Own()
    parts = {"model": model, "position": position}
    with Checkpointer(saved) as checkpointer:
        checkpointer.restore(parts, only=("model/kernel", "position"))
    np.testing.assert_array_equal(kernel.get_raw_value(), np.arange(8) * 2)
    assert position.state == {"epoch": 2}


def test_what_differs_between_processes_is_not_restored_by_another_number(saved):
    """Nobody gets the state of one process in place of two, and the error names what differs."""
    parts = {"model": nnx.Dict({}), "position": Own(), "reader": Own("before")}
    with pytest.raises(ValueError, match=r"2 processes saved .* there are 1 now") as error:
        Checkpointer(saved).restore(parts)
    assert "model/local, model/rngs/default/key" in str(error.value)
    assert "reader/file" in str(error.value)
    assert "position" not in str(error.value)
    assert parts["reader"].state == "before"
