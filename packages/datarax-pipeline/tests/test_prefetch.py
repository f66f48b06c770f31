"""Reading ahead: what comes when, what an error does, and that no thread stays behind."""

import gc
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from datarax.pipeline import Pipeline
from datarax.sources import DataSourceModule, MemorySource, MemorySourceConfig, SourceConfig


class Watched(DataSourceModule):
    """Twenty records; notes what was read, and fails at one record if told so."""

    def __init__(self, fails_at=None):
        super().__init__(SourceConfig())
        self.fails_at = fails_at
        self.log = Log()

    def __len__(self):
        return 20

    def __getitem__(self, index):
        self.log.threads.add(threading.current_thread())
        if index == self.fails_at:
            raise OSError(f"record {index} is unreadable")
        self.log.read.append(index)
        return {"x": np.int32(index)}


class Log:
    """What was read and in which threads; a plain object, opaque to Flax."""

    def __init__(self):
        self.read = []
        self.threads = set()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "datarax-prefetch"]


def settled(log, *, patience=0.3):
    """What was read, once nothing more is being read."""
    while True:
        before = len(log.read)
        time.sleep(patience)
        if len(log.read) == before:
            return before


@pytest.fixture(autouse=True)
def no_thread_stays():
    """Every test ends with as many threads as it began with."""
    yield
    gc.collect()
    assert threads() == []


@pytest.mark.parametrize("size", [0, 1, 3])
def test_batches_are_the_same_for_every_prefetch(size):
    """Reading ahead changes neither records nor order."""
    source = Watched()
    batches = list(Pipeline(source=source, batch_size=4, prefetch=size))
    assert [batch["x"].tolist() for batch in batches] == np.arange(20).reshape(5, 4).tolist()
    assert (threading.main_thread() in source.log.threads) == (size == 0)


@pytest.mark.parametrize("backend", ["cpu", "accelerator"])
@pytest.mark.parametrize("kind", ["memory", "file", "part of a file", "read one by one"])
def test_a_thread_reads_ahead_where_that_is_of_use(monkeypatch, tmp_path, backend, kind):
    """By default only records in memory are read without a thread, and only for a CPU."""
    values = np.arange(20, dtype=np.int32)
    if "file" in kind:
        np.save(tmp_path / "values.npy", values)
        values = np.load(tmp_path / "values.npy", mmap_mode="r")
    if kind == "part of a file":
        values = np.asarray(values).reshape(4, 5)[:].reshape(-1)
    source = MemorySource(MemorySourceConfig(), data={"x": values})
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    iterator = iter(
        Pipeline(source=Watched() if kind == "read one by one" else source, batch_size=4)
    )
    assert next(iterator)["x"].tolist() == [0, 1, 2, 3]
    assert bool(threads()) == ((backend, kind) != ("cpu", "memory"))
    iterator.close()


def test_batches_brought_to_a_device_ahead_are_the_same(monkeypatch):
    """Where the thread transfers too, as it does for accelerators, the batches are the same."""
    expected = list(Pipeline(source=Watched(), batch_size=4, prefetch=0))
    monkeypatch.setattr(jax, "default_backend", lambda: "accelerator")
    batches = list(Pipeline(source=Watched(), batch_size=4, prefetch=2))
    jax.tree.map(np.testing.assert_array_equal, batches, expected)
    for batch in batches:
        assert isinstance(batch["x"], jax.Array)
        assert isinstance(batch.valid_mask, np.ndarray)


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("how", ["device", "platform"])
def test_the_default_device_of_the_consumer_gets_the_batches(prefetch, how):
    """A device set by a context holds for what another thread reads ahead."""
    device = jax.devices()[0 if how == "platform" else 3]
    with jax.default_device("cpu" if how == "platform" else device):
        for batch in Pipeline(source=Watched(), batch_size=4, prefetch=prefetch):
            assert batch["x"].devices() == {device}


@pytest.mark.parametrize(("size", "read"), [(0, 4), (1, 8), (2, 12)])
def test_no_more_is_read_ahead_than_asked_for(size, read):
    """After the first batch, `size` batches wait."""
    source = Watched()
    iterator = iter(Pipeline(source=source, batch_size=4, prefetch=size))
    next(iterator)
    assert settled(source.log) == read
    iterator.close()


def test_nothing_is_read_before_the_first_batch():
    """An iterator that is made and not used reads nothing and starts no thread."""
    source = Watched()
    iter(Pipeline(source=source, batch_size=4, prefetch=2))
    assert settled(source.log) == 0
    assert threads() == []


@pytest.mark.parametrize("size", [0, 1, 3])
def test_an_error_of_the_source_comes_at_its_batch(size):
    """Whole batches before the unreadable record come first; then its error, every time."""
    iterator = iter(Pipeline(source=Watched(fails_at=9), batch_size=4, prefetch=size))
    assert next(iterator)["x"].tolist() == [0, 1, 2, 3]
    assert next(iterator)["x"].tolist() == [4, 5, 6, 7]
    for _ in range(2):
        with pytest.raises(OSError, match="record 9 is unreadable"):
            next(iterator)
        assert threads() == []
    assert int(iterator.get_state()["position"]) == 8


def test_reading_goes_on_when_the_cause_is_gone():
    """After an error, the batch that failed is read again."""
    source = Watched(fails_at=9)
    iterator = iter(Pipeline(source=source, batch_size=4, prefetch=2))
    with pytest.raises(OSError, match="record 9 is unreadable"):
        list(iterator)
    source.fails_at = None
    assert [batch["x"].tolist()[0] for batch in iterator] == [8, 12, 16]


@pytest.mark.parametrize("how", ["break", "delete", "close", "with", "set_state", "error"])
def test_a_consumer_that_stops_early_leaves_no_thread(how):
    """However the consumer leaves, the thread that read ahead has ended."""
    pipeline = Pipeline(source=Watched(), batch_size=2, prefetch=2)
    if how == "break":
        for _ in pipeline:
            break
    elif how == "error":
        with pytest.raises(RuntimeError, match="enough"):
            _fail_after_one(pipeline)
    else:
        iterator = iter(pipeline)
        state = iterator.get_state()
        next(iterator)
        assert len(threads()) == 1
        if how == "delete":
            del iterator
        elif how == "close":
            iterator.close()
        elif how == "set_state":
            iterator.set_state(state)
        else:
            with iterator:
                pass
    gc.collect()
    assert threads() == []


def _fail_after_one(pipeline):
    for _ in pipeline:
        raise RuntimeError("enough")


def test_a_closed_iterator_goes_on_where_it_was():
    """`close` loses no batch: the next one is read when it is asked for."""
    iterator = iter(Pipeline(source=Watched(), batch_size=4, prefetch=2))
    next(iterator)
    iterator.close()
    assert next(iterator)["x"].tolist() == [4, 5, 6, 7]
    iterator.close()


def test_the_source_is_closed_with_the_reader():
    """A generator of a source, and what it holds open, ends with the consumer's interest."""
    closed = []

    class Opened(Watched):
        def batches(self, epoch, start, batch_size):
            try:
                yield from super().batches(epoch, start, batch_size)
            finally:
                closed.append(threading.current_thread().name)

    for size in (0, 2):
        for _ in Pipeline(source=Opened(), batch_size=4, prefetch=size):
            break
        gc.collect()
    assert closed == ["MainThread", "datarax-prefetch"]


BLOCKS = """
import signal, threading, time
from datarax.pipeline import Pipeline

class Blocks:
    def __len__(self):
        return 100
    def __getitem__(self, index):
        if index >= 4:
            threading.Event().wait()
        return {"x": index}

pipeline = Pipeline(source=Blocks(), batch_size=2, prefetch=2)
begun = time.monotonic()
for _ in pipeline:
    break
print("left", time.monotonic() - begun < 5)
iterator = iter(pipeline)
next(iterator), next(iterator)
signal.setitimer(signal.ITIMER_REAL, 0.5)
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    next(iterator)
except KeyboardInterrupt:
    print("interrupted")
iterator = iter(pipeline)
next(iterator), next(iterator)
print("ends")
"""


def test_a_source_that_blocks_holds_nobody():
    """Leaving the loop, Ctrl-C in the middle of a wait, and the end of the program do not wait."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "left True\ninterrupted\nends\n"
    assert "Traceback" not in done.stderr
    assert "Fatal" not in done.stderr
