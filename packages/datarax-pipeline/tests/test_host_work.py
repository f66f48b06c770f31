"""Transforms of single records, in threads, and what becomes of records that cannot be read."""

import gc
import logging
import signal
import subprocess
import sys
import threading
import time
import traceback

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Element
from datarax.core.operator import OperatorConfig, OperatorModule
from datarax.pipeline import Pipeline
from datarax.pipeline._transforms import record_generator
from datarax.sources import DataSourceModule, MemorySource, MemorySourceConfig, SourceConfig

COUNT = 11
THREADS = pytest.mark.parametrize("threads", [0, 3], ids=["alone", "threads"])

pytestmark = pytest.mark.usefixtures("quick_compiles")


class Squares:
    """Records with a length of their own and a name."""

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return {"x": np.arange(index + 1), "name": f"r{index}"}


def first_two(record):
    return {**record, "x": np.float32([record["x"][-1], len(record["x"])])}


def noisy(record, rng):
    return {**record, "noise": rng.standard_normal(3, np.float32)}


class Jitter:
    def random_map(self, record, rng):
        return {**record, "jitter": rng.integers(0, 2**31, dtype=np.int32)}


class Numbered:
    def map_with_index(self, index, record):
        return {**record, "number": np.int32(index)}


class Upper:
    def map(self, record):
        return {**record, "name": record["name"].upper()}


TRANSFORMS = [first_two, noisy, Upper(), Numbered(), Jitter()]


def squares(**options):
    defaults = {"batch_size": 4, "transforms": TRANSFORMS, "metadata_fields": ("name",), "seed": 3}
    return Pipeline(source=Squares(), **(defaults | options))


def rows(pipeline):
    """All valid rows by epoch and record number, as comparable values."""
    found = {}
    for batch in pipeline:
        for row in np.flatnonzero(batch.valid_mask):
            key = int(batch.epoch), int(batch.record_index[row])
            values = {name: np.asarray(batch[name])[row].tobytes() for name in batch.data}
            found[key] = values | {"metadata": batch.metadata[row]}
    return found


def test_transforms_bring_records_to_one_shape():
    """Functions and Grain's kinds of objects in turn; fields for metadata are split off at last."""
    batches = list(squares())
    whole = np.concatenate([batch["x"] for batch in batches])[:COUNT]
    assert whole.tolist() == [[number, number + 1] for number in range(COUNT)]
    assert batches[2].metadata == ({"name": "R8"}, {"name": "R9"}, {"name": "R10"}, None)
    assert batches[1]["number"].tolist() == [4, 5, 6, 7]
    assert squares().batch_spec()["x"] == jax.ShapeDtypeStruct((4, 2), np.float32)


@THREADS
def test_a_record_draws_the_same_in_any_batch_and_thread(threads):
    """What is random follows from seed, epoch, record and place alone; records differ."""
    expected = squares(num_threads=0)
    expected = rows(expected) | rows(expected)
    shuffled = squares(num_threads=threads, batch_size=3, shuffle=True, prefetch=1)
    assert rows(shuffled) | rows(shuffled) == expected
    assert len({values["noise"] for values in expected.values()}) == 2 * COUNT
    assert len({values["jitter"] for values in expected.values()}) == 2 * COUNT
    assert rows(squares(seed=4))[0, 0] != expected[0, 0]


def test_draws_stay_the_same_in_later_releases():
    """A run of today is resumed by every later version of this package and of NumPy."""
    drawn = record_generator(np.arange(4, dtype=np.uint32), 1, 2, 3).bit_generator.random_raw(2)
    assert drawn.tolist() == [8898319048687676479, 1113655390756622659]


def test_draws_can_come_from_rngs_or_the_order():
    """Where the pipeline has no seed; a state brings the key with it."""
    options = {"transforms": [noisy], "fields": None, "batch_size": 4}
    data = [{"x": number} for number in range(COUNT)]
    by_rngs = [Pipeline(source=data, rngs=nnx.Rngs(seed), **options) for seed in (1, 1, 2)]
    first, second, third = (np.asarray(next(iter(each))["noise"]) for each in by_rngs)
    assert (first == second).all()
    assert (first != third).all()
    config = MemorySourceConfig(shuffle=True, seed=0)
    one, other = (
        Pipeline(
            source=MemorySource(config, data=data), seed=seed, transforms=[noisy], batch_size=4
        )
        for seed in (None, 8)
    )
    iterator, resumed = iter(one), iter(other)
    next(iterator)
    resumed.set_state(iterator.get_state())
    assert (np.asarray(next(iterator)["noise"]) == np.asarray(next(resumed)["noise"])).all()
    with pytest.raises(ValueError, match=r"transforms draw .* pass seed=0"):
        Pipeline(source=data, transforms=[noisy], batch_size=4)


@pytest.mark.parametrize("options", [{}, {"num_threads": 1}, {"on_error": "mask"}], ids=str)
def test_a_list_of_numbers_is_an_array(options):
    """In whatever way records are read, and in the spec; a list of other things is a list."""
    records = [{"x": [i, i + 1], "n": {"y": [[0.5], [i]]}, "l": [np.ones(2)]} for i in range(3)]
    pipeline = Pipeline(source=records, batch_size=3, **options)
    (batch,) = pipeline
    assert np.asarray(batch["x"]).tolist() == [[0, 1], [1, 2], [2, 3]]
    assert batch["n"]["y"].shape == (3, 2, 1)
    assert [leaf.shape for leaf in batch["l"]] == [(3, 2)]
    spec = pipeline.batch_spec()
    assert (spec["x"].shape, spec["n"]["y"].shape) == ((3, 2), (3, 2, 1))


def test_elements_keep_state_and_metadata():
    """Records that are `Element`s reach transforms as such."""

    def marked(element):
        return element.update_data({"y": element.data["x"] + element.state["seen"]})

    data = [Element({"x": i}, {"seen": np.int32(10)}, metadata=i) for i in range(3)]
    (batch,) = Pipeline(source=data, transforms=[marked], batch_size=3, num_threads=2)
    assert batch["y"].tolist() == [10, 11, 12]
    assert (batch.metadata, batch.states["seen"].tolist()) == ((0, 1, 2), [10] * 3)


class Same(OperatorModule):
    def apply(self, data, state, metadata, random_params=None, stats=None):
        return data, state, metadata


class OwnBatches(DataSourceModule):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return {"x": index}

    def batches(self, epoch, start, batch_size):
        yield from super().batches(epoch, start, batch_size)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"transforms": first_two}, TypeError, "transforms must be a list or tuple, got function"),
        ({"transforms": [3]}, TypeError, r"transforms\[0\] must be a function .* got int"),
        ({"transforms": [Jitter]}, TypeError, "got the class Jitter"),
        ({"transforms": [Same(OperatorConfig())]}, TypeError, r"operator Same.* stages=\[...\]"),
        ({"num_threads": -1}, ValueError, "num_threads must be 0 or more, got -1"),
        ({"num_threads": 1.0}, TypeError, "num_threads must be an integer"),
        ({"on_error": "skip"}, ValueError, "on_error must be one of"),
        ({"max_errors": 3}, ValueError, "max_errors=3 counts .* on_error='raise'"),
        ({"on_error": "mask", "max_errors": -1}, ValueError, "max_errors must be 0 or more"),
        ({"metadata_fields": "name"}, TypeError, "metadata_fields must be names"),
        ({"seed": -1}, ValueError, "seed must be 0 or more"),
        (
            {"source": OwnBatches(SourceConfig()), "num_threads": 1},
            TypeError,
            "but OwnBatches makes its batches itself",
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_bad_options_are_refused(options, error, message):
    """When the pipeline is made."""
    with pytest.raises(error, match=message):
        Pipeline(**({"source": Squares(), "batch_size": 2} | options))


class Broken:
    """Records 2 and 7 cannot be read, 5 has another shape; 9 has none of its fields."""

    def __init__(self, broken=(2, 7), unlike=(), count=COUNT):
        self.broken, self.unlike, self.count = broken, unlike, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.broken:
            raise OSError(f"file {index} is broken")
        return {"x": np.full(3 + (index in self.unlike), index, np.float32)}


@THREADS
@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_names_the_record_and_comes_with_its_traceback(threads, prefetch):
    """After all batches before it, and again when asked again."""
    pipeline = Pipeline(source=Broken(), batch_size=3, num_threads=threads, prefetch=prefetch)
    iterator = iter(Pipeline(source=Broken((4,)), batch_size=3, num_threads=threads))
    assert next(iterator)["x"][:, 0].tolist() == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(OSError, match=r"(?s)file 4 is broken.*record 4 of Broken") as caught:
            next(iterator)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "__getitem__" in names
    with pytest.raises(OSError, match="record 2 of Broken"):
        next(iter(pipeline))


def test_an_error_of_a_transform_is_named():
    """With its place; None and StopIteration are errors too."""

    def stop(record):
        raise StopIteration

    for function, error, message in [
        (lambda record: 1 // 0, ZeroDivisionError, r"in transforms\[1\] <lambda>, for record 0"),
        (lambda record: None, TypeError, r"transforms\[1\] <lambda>, for record 0, returned None"),
        (stop, RuntimeError, r"transforms\[1\] stop, for record 0, raised StopIteration"),
    ]:
        transforms = [lambda record: record, function]
        pipeline = Pipeline(source=Broken(), transforms=transforms, batch_size=2, num_threads=1)
        with pytest.raises(error, match=message):
            next(iter(pipeline))


@THREADS
@pytest.mark.parametrize("batch_size", [1, 3])
def test_masked_records_do_not_shift_the_stream(threads, batch_size, caplog):
    """Every other record stands where it would; the lost ones are padding, logged and counted."""
    whole = Pipeline(source=Broken(()), batch_size=batch_size, shuffle=True, seed=1)
    masked = Pipeline(
        source=Broken((0, 2), unlike=(5,)),
        batch_size=batch_size,
        num_threads=threads,
        on_error="mask",
        shuffle=True,
        seed=1,
    )
    with caplog.at_level(logging.WARNING, logger="datarax.pipeline"):
        for expected, came in zip(whole, masked, strict=True):
            lost = np.isin(expected.record_index, [0, 2, 5]) & expected.valid_mask
            np.testing.assert_array_equal(came.record_index, expected.record_index)
            np.testing.assert_array_equal(came.valid_mask, expected.valid_mask & ~lost)
            filled = np.where(lost[:, None], 0, np.asarray(expected["x"]))
            np.testing.assert_array_equal(came["x"], filled)
    assert masked.error_count == 3
    messages = sorted(entry.getMessage() for entry in caplog.records)
    assert "record 0 of Broken cannot be read in epoch 0" in messages[0]
    assert "OSError: file 0 is broken (while reading record 0 of Broken)" in messages[0]
    assert "record 5 of Broken" in messages[2]


def test_a_run_that_lost_too_much_ends():
    """From the error of the record that was one too many."""
    pipeline = Pipeline(source=Broken(), batch_size=2, on_error="mask", max_errors=1)
    iterator = iter(pipeline)
    for _ in range(3):
        next(iterator)
    with pytest.raises(RuntimeError, match=r"2 records of Broken .* max_errors=1.* record 7") as e:
        next(iterator)
    assert isinstance(e.value.__cause__, OSError)
    nothing = Pipeline(source=Broken(range(COUNT)), batch_size=2, on_error="mask")
    with pytest.raises(RuntimeError, match="none of the 11 records of Broken can be read"):
        next(iter(nothing))


def threads_of_ours():
    return [thread for thread in threading.enumerate() if thread.name.startswith("datarax-")]


@pytest.mark.parametrize("end", ["break", "exhausted", "error", "collected"])
def test_no_thread_is_left(end):
    """Whatever ends the epoch."""
    broken = (8,) if end == "error" else ()
    pipeline = Pipeline(source=Broken(broken), batch_size=2, num_threads=3)
    iterator = iter(pipeline)
    next(iterator)
    assert len(threads_of_ours()) == 4
    if end == "error":
        with pytest.raises(OSError, match="file 8"):
            list(iterator)
    elif end == "exhausted":
        list(iterator)
    elif end == "break":
        iterator.close()
    del iterator
    gc.collect()
    assert threads_of_ours() == []


BLOCKED = """
import threading
from datarax.pipeline import Pipeline

class Blocking:
    def __len__(self):
        return 9

    def __getitem__(self, index):
        if index == 4:
            print("blocked", flush=True)
            threading.Event().wait()
        return {"x": index}

iterator = iter(Pipeline(source=Blocking(), batch_size=2, num_threads=2))
next(iterator), next(iterator)
try:
    next(iterator)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_a_read_that_blocks_holds_nobody():
    """Neither Ctrl-C nor the end of the program waits for it."""
    program = subprocess.Popen(
        [sys.executable, "-c", BLOCKED], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert program.stdout.readline() == b"blocked\n"
    time.sleep(1)
    program.send_signal(signal.SIGINT)
    started = time.monotonic()
    output, _ = program.communicate(timeout=60)
    assert (program.returncode, b"interrupted" in output) == (0, True), output
    assert time.monotonic() - started < 20
