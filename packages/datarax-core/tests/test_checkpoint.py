"""Checkpoints on disk: exact, strict, whole or not at all."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from datarax.core.checkpoint import SCHEMA_VERSION, Checkpointable, Checkpointer
from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.core.statistics import batch_statistics


class Holder:
    """The smallest Checkpointable; strict about structure, shapes and dtypes."""

    def __init__(self, state):
        self.state = state

    def get_state(self):
        return self.state

    def set_state(self, state):
        if spec_of(state) != spec_of(self.state):
            raise ValueError(f"expected {spec_of(self.state)}, got {spec_of(state)}")
        self.state = state


class Noise(OperatorModule):
    """Adds noise to standardised values: has statistics, a stream and counts to save."""

    def apply(self, data, state, metadata, random_params=None, stats=None):
        scaled = (data["x"] - stats["x"]["mean"]) / stats["x"]["std"]
        return {"x": scaled + random_params}, state, metadata

    def generate_random_params(self, rng, data_shapes):
        return jax.random.normal(rng, data_shapes["x"])


def spec_of(state):
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), state)


def assert_same(got, expected):
    assert spec_of(got) == spec_of(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def sharded(values):
    mesh = Mesh(np.array(jax.devices()), ("data",))
    return jax.device_put(values, NamedSharding(mesh, PartitionSpec("data")))


def blank(state):
    return Holder(jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state))


STATES = {
    "threefry key": lambda: {"rngs": {"threefry2x32": jax.random.key_data(jax.random.key(7))}},
    "rbg key": lambda: {"rngs": {"rbg": jax.random.key_data(jax.random.key(7, impl="rbg"))}},
    "empty dict": lambda: {"a": {"b": {}}, "c": np.ones(1, np.float32)},
    "scalars": lambda: {"array": np.asarray(7, np.uint32), "generic": np.uint32(2**32 - 1),
                        "device": jnp.int32(-1)},
    "bool": lambda: {"flag": np.asarray(True), "flags": jnp.array([True, False])},
    "bfloat16": lambda: {"host": np.asarray([1.5, np.nan, -0.0], ml_dtypes.bfloat16),
                         "device": jnp.array([3.25, jnp.inf], jnp.bfloat16)},
    "64 bits": lambda: {"f": np.asarray([1 / 3]), "i": np.asarray(2**40)},
    "sharded": lambda: {"w": sharded(jnp.arange(64.0).reshape(16, 4))},
    "names": lambda: {"layers": {"0": np.ones(1), "10": np.zeros(2)}, "camera.left": np.ones(3)},
}  # fmt: skip


@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_state_comes_back_bit_exact(tmp_path, make):
    """Structure, shapes, dtypes and bits survive, read by a Checkpointer that did not write."""
    state = make()
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(3, Holder(state))
    restored = blank(state)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.restore(restored)
    assert_same(restored.state, state)


def test_sharded_state_is_read_where_there_is_one_device(tmp_path):
    """What eight devices saved can be restored by a process that has a single one."""
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, Holder({"w": sharded(jnp.arange(16.0))}))
    read = run(
        """
        import jax
        assert jax.device_count() == 1
        holder = Holder({})
        Checkpointer(directory).restore(holder)
        print(holder.state["w"].sum())
        """,
        tmp_path,
        environment={"XLA_FLAGS": ""},
    )
    assert float(read.stdout) == 120.0


def test_steps_are_listed_and_restored_by_number(tmp_path):
    """Without a step, restore takes the latest; with one, exactly that."""
    with Checkpointer(tmp_path / "new") as checkpointer:
        assert checkpointer.latest_step() is None
        assert checkpointer.all_steps() == ()
        assert not (tmp_path / "new").exists()
        for step in (0, 2, np.int64(10)):
            checkpointer.save(step, Holder({"x": np.asarray(step, np.int32)}))
        assert checkpointer.all_steps() == (0, 2, 10)
        assert checkpointer.latest_step() == 10
        holder = blank({"x": np.int32(0)})
        checkpointer.restore(holder)
        assert holder.state["x"] == 10
        checkpointer.restore(holder, step=0)
        assert holder.state["x"] == 0


def test_module_with_statistics_and_streams_comes_back(tmp_path):
    """A new module of the same config continues with the statistics and keys of the saved one."""
    config = OperatorConfig(
        batch_stats_fn=partial(batch_statistics, axes=(0,)), stochastic=True, stream_name="noise"
    )
    saved, other, part = (Noise(config, rngs=nnx.Rngs(noise=seed)) for seed in (1, 2, 3))
    batch = Batch.from_arrays({"x": np.arange(6, dtype=np.float32).reshape(3, 2)})
    saved.compute_statistics(batch)
    saved(batch)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, saved)
        checkpointer.restore(other)
        streams = part.get_state()["rngs"]
        checkpointer.restore(part, only=("_statistics",))
    assert_same(other.get_state(), saved.get_state())
    np.testing.assert_array_equal(part.get_statistics()["x"]["mean"], [2, 3])
    assert_same(part.get_state()["rngs"], streams)
    np.testing.assert_array_equal(other(batch)["x"], saved(batch)["x"])


def test_another_checkpointer_sees_new_steps(tmp_path):
    """A reader that was open before a step was saved lists and restores that step."""
    holder = Holder({"x": np.int32(5)})
    with Checkpointer(tmp_path) as writer, Checkpointer(tmp_path) as reader:
        writer.save(1, holder)
        assert reader.latest_step() == 1
        writer.save(2, holder)
        assert reader.latest_step() == 2
        reader.restore(blank(holder.state), step=2)


def test_only_the_latest_checkpoints_are_kept(tmp_path):
    """With max_to_keep=2, a third save removes the first step from the disk."""
    with Checkpointer(tmp_path, max_to_keep=2) as checkpointer:
        for step in range(1, 4):
            checkpointer.save(step, Holder({"x": np.int32(step)}))
        assert checkpointer.all_steps() == (2, 3)
    assert not (tmp_path / "1").exists()


def test_use_after_close_opens_again(tmp_path):
    """close() releases Orbax's manager without ending the Checkpointer's life."""
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, Holder({"x": np.int32(1)}))
    checkpointer.close()
    checkpointer.close()
    assert checkpointer.latest_step() == 1
    checkpointer.close()


SAVED = {
    "rngs": {"key": np.uint32([1, 2]), "count": np.uint32(3)},
    "statistics": {"image": {"mean": np.float32([4.0])}},
    "scale": np.float32(5.0),
}
PARTS = {
    "one leaf": (("scale",), {"scale"}),
    "a subtree": (("rngs",), {"rngs/key", "rngs/count"}),
    "below a subtree": (("rngs/count",), {"rngs/count"}),
    "several": (("scale", "statistics/image"), {"scale", "statistics/image/mean"}),
}


@pytest.mark.parametrize(("only", "restored"), PARTS.values(), ids=PARTS)
def test_partial_restore_sets_just_the_named_paths(tmp_path, only, restored):
    """The named paths come from the checkpoint; every other leaf keeps the module's value."""
    holder = blank(SAVED)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, Holder(SAVED))
        checkpointer.restore(holder, only=only)
    for path, leaf in jax.tree_util.tree_leaves_with_path(holder.state):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert bool(np.all(leaf != 0)) == (name in restored), name


@pytest.mark.parametrize("path", ["rng", "rngs/keys", "scale/x", "", "rngs/"])
def test_unknown_path_lists_what_there_is(tmp_path, path):
    """A path that the checkpoint lacks is a KeyError with all its paths, and nothing changes."""
    holder = blank(SAVED)
    before = holder.state
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, Holder(SAVED))
        with pytest.raises(
            KeyError, match=r"no path .* there are \['rngs/count', 'rngs/key'"
        ) as error:
            checkpointer.restore(holder, only=("scale", path))
    assert "statistics/image/mean" in str(error.value)
    assert holder.state is before


@pytest.mark.parametrize(
    ("only", "error", "match"),
    [("rngs", TypeError, "only must be a tuple"), ((), ValueError, "at least one path")],
    ids=["string", "empty"],
)
def test_bad_only_is_refused(tmp_path, only, error, match):
    """A bare string and an empty tuple, both likely slips, are errors."""
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, Holder(SAVED))
        with pytest.raises(error, match=match):
            checkpointer.restore(blank(SAVED), only=only)


@pytest.mark.parametrize(
    "other",
    [{"x": np.float32([0.0])}, {"x": np.int32([0, 0])}, {"y": np.int32([0])}],
    ids=["dtype", "shape", "name"],
)
@pytest.mark.parametrize("only", [None, ("x",)], ids=["all", "partial"])
def test_restore_into_another_structure_changes_nothing(tmp_path, other, only):
    """The module's own set_state refuses, and the module keeps its state."""
    holder = Holder(other)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, Holder({"x": np.int32([1])}))
        with pytest.raises(ValueError, match="expected"):
            checkpointer.restore(holder, only=only)
    assert holder.state is other


def test_unknown_schema_is_refused(tmp_path):
    """A checkpoint of a later layout is not read, and the error says what to do."""
    holder = blank(SAVED)
    before = holder.state
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, Holder(SAVED))
        (file,) = (tmp_path / "1" / "schema").glob("metadata")
        assert json.loads(file.read_text())["version"] == SCHEMA_VERSION
        file.write_text(json.dumps({"version": SCHEMA_VERSION + 1}))
        with pytest.raises(
            ValueError, match=r"schema version 3,.* reads versions 1 and 2; install"
        ):
            checkpointer.restore(holder)
    assert holder.state is before


def test_foreign_checkpoint_is_refused(tmp_path):
    """A directory that plain Orbax wrote is told apart from one of ours."""
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(1, args=ocp.args.StandardSave({"x": np.ones(2)}))
        manager.wait_until_finished()
    checkpointer = Checkpointer(tmp_path)
    with checkpointer, pytest.raises(ValueError, match="not written by a Checkpointer"):
        checkpointer.restore(Holder({"x": np.ones(2)}))


@pytest.mark.parametrize("step", [3, 4], ids=["lower", "the same"])
def test_steps_only_ascend(tmp_path, step):
    """An existing or lower step is refused, and the checkpoint that is there stays as it was."""
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(4, Holder({"x": np.int32(1)}))
        with pytest.raises(ValueError, match=f"higher than the latest step 4 in .*, got {step}"):
            checkpointer.save(step, Holder({"x": np.int32(2)}))
        holder = blank({"x": np.int32(0)})
        checkpointer.restore(holder)
    assert holder.state["x"] == 1


@pytest.mark.parametrize(
    ("step", "error", "match"),
    [
        (-1, ValueError, "0 or higher, got -1"),
        (1.0, TypeError, "integer, got float"),
        (True, TypeError, "integer, got bool"),
        ("1", TypeError, "integer, got str"),
    ],
    ids=["negative", "float", "bool", "str"],
)
def test_bad_step_is_refused(tmp_path, step, error, match):
    """Steps are non-negative integers, in save and in restore; nothing is written otherwise."""
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(error, match=match):
            checkpointer.save(step, Holder(SAVED))
        assert checkpointer.all_steps() == ()
        checkpointer.save(1, Holder(SAVED))
        with pytest.raises(error, match=match):
            checkpointer.restore(blank(SAVED), step=step)


def test_missing_checkpoint_is_named(tmp_path):
    """No directory, no checkpoint in it, or not that step: each says what there is."""
    with Checkpointer(tmp_path / "none") as checkpointer:
        with pytest.raises(ValueError, match=r"no checkpoint in .*none"):
            checkpointer.restore(blank(SAVED))
        checkpointer.save(1, Holder(SAVED))
        with pytest.raises(ValueError, match=r"no checkpoint of step 2 .* there are \(1,\)"):
            checkpointer.restore(blank(SAVED), step=2)


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({}, "has no arrays"),
        ({"a": {"b": {}}}, "has no arrays"),
        ({"a": {"b": np.zeros((0, 3))}, "c": np.ones(1)}, r"without elements .*\['a/b'\]"),
        ({"a": {"b": np.ones(1)}, "a.b": np.zeros(1)}, "'a/b' and 'a.b' cannot both be saved"),
    ],
    ids=["empty", "only empty dicts", "no elements", "colliding names"],
)
def test_state_that_orbax_would_lose_is_refused(tmp_path, state, match):
    """What Orbax fails on or silently mixes up is a ValueError, and no step appears."""
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(ValueError, match=match):
            checkpointer.save(1, Holder(state))
        assert checkpointer.latest_step() is None


def test_only_checkpointables_are_taken(tmp_path):
    """Something without get_state and set_state is a TypeError before anything is written."""
    assert isinstance(Holder({}), Checkpointable)
    assert not isinstance({}, Checkpointable)
    with Checkpointer(tmp_path) as checkpointer:
        for call in (lambda: checkpointer.save(1, {}), lambda: checkpointer.restore({})):
            with pytest.raises(TypeError, match="get_state and set_state, got dict"):
                call()
    assert list(tmp_path.iterdir()) == []


def test_max_to_keep_is_at_least_one(tmp_path):
    """Keeping none of the checkpoints is refused at construction."""
    with pytest.raises(ValueError, match=r"max_to_keep must be at least 1.*got 0"):
        Checkpointer(tmp_path, max_to_keep=0)


def test_importing_does_not_load_orbax_and_using_prints_nothing(tmp_path):
    """Orbax costs half a second of imports, and its log lines are not for our users."""
    printed = run(
        """
        assert "orbax.checkpoint" not in sys.modules
        with Checkpointer(directory) as checkpointer:
            checkpointer.save(1, Holder({"x": np.ones(2)}))
            checkpointer.restore(Holder({}))
        """,
        tmp_path,
    )
    assert (printed.stdout, printed.stderr) == ("", "")


def script(body):
    lines = [
        "import sys, warnings",
        "warnings.simplefilter('error')",
        "import numpy as np",
        "from datarax.core.checkpoint import Checkpointer",
        "class Holder:",
        "    def __init__(self, state): self.state = state",
        "    def get_state(self): return self.state",
        "    def set_state(self, state): self.state = state",
        "def large(): return np.random.default_rng(2).integers(0, 256, 2**25, dtype=np.uint8)",
        "directory, *options = sys.argv[1:]",
    ]
    indent = len(body) - len(body.lstrip()) - 1
    return "\n".join([*lines, *(line[indent:] for line in body.splitlines())])


def run(body, *arguments, environment=None):
    done = subprocess.run(
        [sys.executable, "-c", script(body), *map(str, arguments)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def start_two_saves(directory, max_to_keep):
    """A process that saves a small step 1 and then a large step 2."""
    body = """
        checkpointer = Checkpointer(directory, max_to_keep=int(options[0]) or None)
        checkpointer.save(1, Holder({"w": large()[:1000]}))
        checkpointer.save(2, Holder({"w": large()}))
        """
    arguments = [sys.executable, "-c", script(body), str(directory), str(max_to_keep or 0)]
    return subprocess.Popen(arguments, env={**os.environ, "JAX_PLATFORMS": "cpu"})


def kill_after_start_of_second_save(process, directory, delay):
    deadline = time.monotonic() + 60
    while not any(directory.glob("2*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killing_a_save_never_loses_the_previous_step(tmp_path):
    """After SIGKILL in the middle of a save, the latest step is whole, and saving goes on."""
    generator = random.Random(0)
    delays = [0.0, generator.uniform(0.0, 0.2)]
    runs = []
    for number, delay in enumerate(delays):
        directory = tmp_path / str(number)
        directory.mkdir()
        process = start_two_saves(directory, max_to_keep=1 if number % 2 else None)
        runs.append(
            threading.Thread(
                target=kill_after_start_of_second_save, args=(process, directory, delay)
            )
        )
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    found = run(
        """
        for each in (directory, *options):
            with Checkpointer(each) as checkpointer:
                latest, holder = checkpointer.latest_step(), Holder({})
                checkpointer.restore(holder)
                expected = {1: large()[:1000], 2: large()}[latest]
                assert holder.state["w"].tobytes() == expected.tobytes()
                checkpointer.save(latest + 1, Holder({"w": np.float32([latest])}))
                checkpointer.restore(holder)
                assert holder.state["w"] == latest
            print(latest)
        """,
        *(tmp_path / str(number) for number in range(len(delays))),
    )
    latest = found.stdout.split()
    assert len(latest) == len(delays)
    assert "1" in latest, "every save had ended before its process died"


def test_only_a_save_removes_what_a_killed_one_left(tmp_path):
    """Reading must not disturb another process's save; the next save cleans up."""
    unfinished = tmp_path / "3.orbax-checkpoint-tmp"
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, Holder(SAVED))
    unfinished.mkdir()
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.all_steps() == (1,)
        checkpointer.restore(blank(SAVED))
        assert unfinished.exists()
        checkpointer.save(2, Holder(SAVED))
    assert not unfinished.exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["1", "2"]


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A directory with steps 1 and 2 of a state with a host and a device array."""
    directory = tmp_path_factory.mktemp("two")
    with Checkpointer(directory) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, Holder(several(step)))
    return directory


def several(number):
    noise = np.random.default_rng(number).normal(size=1000)
    return {"host": noise, "device": jnp.asarray(noise, jnp.bfloat16), "rngs": {"n": number}}


def empty(file):
    file.write_bytes(b"")


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)


# Where one array cannot be read, Orbax forgets the tasks that read the others.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [Path.unlink, empty, cut, flip], ids=lambda each: each.__name__)
@pytest.mark.parametrize(
    ("part", "what"),
    [
        ("schema/metadata", "schema"),
        ("structure/process_0.json", "structure of process 0"),
        ("state/manifest.ocdbt", "state"),
        ("state/ocdbt.process_0/d", "state"),
    ],
    ids=["schema", "structure", "manifest", "data"],
)
def test_damage_is_named(tmp_path, two_steps, part, what, damage):
    """A lost, emptied, cut or altered file: the error says which step and what of it."""
    shutil.copytree(two_steps, tmp_path, dirs_exist_ok=True)
    damaged = tmp_path / "2" / part
    # The largest of several, which has the values.
    files = [damaged] if damaged.is_file() else list(damaged.iterdir())
    damage(max(files, key=lambda file: file.stat().st_size))
    state = several(5)
    holder = Holder(state)
    match = rf"step 2 in .* is damaged: its {what} cannot be read .*other steps there are \[1\]"
    with pytest.raises(ValueError, match=match):
        Checkpointer(tmp_path).restore(holder)
    assert holder.state is state


@pytest.mark.parametrize(
    ("directory", "match"),
    [
        ("s3://bucket/run", "'s3://bucket/run' cannot hold checkpoints; use a local directory"),
        ("az://bucket/run", "'az://bucket/run' cannot hold"),
        ("file:///bucket/run", "'file:///bucket/run' cannot hold"),
        (Path("s3://bucket/run"), "'s3:/bucket/run' cannot hold checkpoints"),
        (Path("gs://bucket/run"), r"gs://bucket/path as a string"),
        ("gs://bucket/run", "'gs://bucket/run' needs gcsfs"),
    ],
    ids=str,
)
def test_urls_that_cannot_be_written_are_refused(tmp_path, monkeypatch, directory, match):
    """No folder called s3: appears anywhere, and the error says what can be done."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ValueError, match=match):
        Checkpointer(directory)
    assert list(tmp_path.iterdir()) == []


def test_a_removal_that_is_killed_leaves_no_listed_step(tmp_path, monkeypatch):
    """Whatever files are gone when the process dies, every step that is listed can be restored."""

    def killed(path, *_, **__):
        next(file for file in Path(path).rglob("*") if file.is_file()).unlink()
        raise KeyboardInterrupt("killed")

    holder = Holder(SAVED)
    checkpointer = Checkpointer(tmp_path, max_to_keep=1)
    checkpointer.save(1, holder)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            checkpointer.save(2, holder)
    assert checkpointer.all_steps() == (2,)
    checkpointer.restore(blank(SAVED))
    checkpointer.save(3, holder)
    assert [entry.name for entry in tmp_path.iterdir()] == ["3"]
