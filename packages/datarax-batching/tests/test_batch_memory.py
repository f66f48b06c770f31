"""Memory of batches: it serves again when nothing refers to it, and never before."""

import copy
import gc
import pickle
import threading
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.batching import DefaultBatcher, DefaultBatcherConfig
from datarax.batching._copying import write_rows
from datarax.core.element_batch import Element

# A batch of four such records is large enough for its memory to be kept.
SHAPE = (128, 64, 2)
ROWS = 4
BATCH_BYTES = ROWS * 4 * 128 * 128


def numbered(count, start=0):
    for number in range(start, start + count):
        yield Element({"x": np.full(SHAPE, number, np.float32)})


def batches(count, batcher=None, start=0):
    batcher = batcher or DefaultBatcher(DefaultBatcherConfig())
    return batcher(numbered(count * ROWS, start), batch_size=ROWS)


def address(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize(
    "make",
    [
        lambda number: np.full(SHAPE, number, np.float32),
        lambda number: np.full((2 * SHAPE[0], *SHAPE[1:]), number, np.float32)[::2],
        lambda number: np.full(SHAPE, number, np.float32, order="F"),
        lambda number: np.full(SHAPE, number, ">f4"),
        lambda number: np.full(SHAPE, number, np.float64),
        lambda number: np.ma.masked_array(np.full(SHAPE, number, np.float32)),
    ],
    ids=["C order", "strided", "Fortran order", "big-endian", "float64", "subclass"],
)
def test_memory_of_a_dropped_batch_serves_for_the_next(make):
    """However long the stream, a loop that keeps one batch at a time gets by with two buffers."""
    batcher = DefaultBatcher(DefaultBatcherConfig())
    records = (Element({"x": make(number)}) for number in range(10 * ROWS))
    seen = set()
    for index, batch in enumerate(batcher(records, batch_size=ROWS)):
        seen.add(address(batch["x"]))
        first = batch["x"].reshape(ROWS, -1)
        assert (first == ROWS * index + np.arange(ROWS)[:, None]).all()
    assert len(seen) == 2


def test_memory_is_kept_from_one_epoch_to_the_next():
    """Calls of one batcher share what is spare."""
    batcher = DefaultBatcher(DefaultBatcherConfig())
    seen = {address(batch["x"]) for _ in range(5) for batch in batches(4, batcher)}
    assert len(seen) == 2


def on_cpu(array):
    aliased = jax.device_put(array, jax.devices("cpu")[0])
    assert aliased.unsafe_buffer_pointer() == address(array)
    return aliased


HOLDERS = {
    "batch": lambda batch: batch["x"],
    "view": lambda batch: batch["x"][1:, ::2],
    "view of views": lambda batch: batch["x"].reshape(-1)[3:].view(np.int32).view(np.float32),
    "slice of the batch": lambda batch: batch.slice(0, 2)["x"],
    "element": lambda batch: batch.element(0).data["x"],
    "memoryview": lambda batch: memoryview(batch["x"]),
    "array interface": lambda batch: np.frombuffer(batch["x"], np.float32),
    "dlpack": lambda batch: np.from_dlpack(batch["x"]),
    "device array": lambda batch: on_cpu(batch["x"]),
    "part of a device array": lambda batch: on_cpu(batch["x"])[1],
    "device array by dlpack": lambda batch: jnp.from_dlpack(batch["x"]),
    "result of jit": lambda batch: jax.jit(lambda x: (x, x + 1))(on_cpu(batch["x"]))[0],
    "result of a donation": lambda batch: jax.jit(lambda x: x * 1, donate_argnums=0)(
        on_cpu(batch["x"])
    ),
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_memory_in_use_is_never_written_again(hold):
    """Whatever refers to a batch, or was made of it, keeps its values for good."""
    stream = batches(24)
    held = []
    for batch, _ in zip(stream, range(6), strict=False):
        held.append(hold(batch))
    expected = [np.array(part) for part in held]
    del batch
    gc.collect()
    for batch in stream:
        batch["x"][...] = -1
    for part, values in zip(held, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(part), values)


def test_a_computation_under_way_keeps_its_batch():
    """Calls return before their work is done; the loop goes on to later batches meanwhile."""

    @jax.jit
    def slow(x):
        return jax.lax.fori_loop(0, 20, lambda _, y: jnp.sin(y) + x, x).mean(axis=(1, 2, 3))

    results = [slow(batch["x"]) for batch in batches(12)]
    alone = [slow(jnp.array(batch["x"])) for batch in batches(12)]
    np.testing.assert_array_equal(np.asarray(results), np.asarray(alone))


def test_streams_and_threads_of_one_batcher_share_no_batch():
    """Several epochs may run at once."""
    batcher = DefaultBatcher(DefaultBatcherConfig())
    wrong = []

    def run(start):
        kept = []
        for batch in batches(30, batcher, start):
            kept = [*kept[-2:], (batch["x"], batch["x"][:, 0, 0, 0].copy())]
            wrong.extend(x for x, first in kept if (x != first[:, None, None, None]).any())

    threads = [threading.Thread(target=run, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_stream_takes_memory_for_two_batches_however_long_it_is():
    """The batch that the loop holds, and the next one."""
    tracemalloc.start()
    try:
        for number, _ in enumerate(batches(40)):
            if number == 3:
                tracemalloc.reset_peak()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The records of a batch are there beside it before it is made.
    assert peak < 3.2 * BATCH_BYTES


def test_only_memory_for_two_batches_stays_spare():
    """Batches that were kept and dropped all at once are freed, as are those of another shape."""
    batcher = DefaultBatcher(DefaultBatcherConfig())
    tracemalloc.start()
    try:
        list(batches(10, batcher))
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 2.1 * BATCH_BYTES
        list(batcher((Element({"y": np.zeros(2**16, np.uint8)}) for _ in range(4)), batch_size=2))
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 1.2 * BATCH_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda batcher: pickle.loads(pickle.dumps(batcher))],
    ids=["deepcopy", "pickle"],
)
def test_copies_of_a_batcher_begin_without_memory(duplicate):
    """A batcher travels to another process without what it keeps for later batches."""
    batcher = DefaultBatcher(DefaultBatcherConfig())
    list(batches(3, batcher))
    again = duplicate(batcher)
    first = address(next(batches(1, again))["x"])
    assert first not in {address(batch["x"]) for batch in batches(3, batcher)}


def test_a_batch_keeps_its_values_when_the_records_change_afterwards():
    """A source may write to its records again once their batch has been delivered."""
    records = list(numbered(8))
    stream = DefaultBatcher(DefaultBatcherConfig())(records, batch_size=ROWS)
    first = next(stream)
    for record in records[:ROWS]:
        record.data["x"][...] = -1
    next(stream)
    assert first["x"][:, 0, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, jnp.bfloat16, bool, np.complex64], ids=str)
@pytest.mark.parametrize("shape", [(0,), (3,), (2, 0, 3), (130, 130, 2)], ids=str)
def test_rows_are_written_where_they_belong_and_nowhere_else(shape, dtype):
    """Rows of any size, contiguous or not, leave alone what lies around them."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 2, shape).astype(dtype) for _ in range(5)]
    rows[1], rows[2] = np.asfortranarray(rows[1]), np.repeat(rows[2], 2, axis=0)[::2]
    around = np.full((9, *shape), 7).astype(dtype)
    write_rows(around[2:8], rows)
    np.testing.assert_array_equal(around[2:7], np.stack(rows))
    assert (around[[0, 1, 7, 8]] == np.asarray(7).astype(dtype)).all()


@pytest.mark.parametrize("width", [3, 20_000], ids=["small", "large"])
def test_rows_that_do_not_fit_are_refused(width):
    """No row is written behind the end of an array."""
    memory = np.zeros((4, width), np.uint8)
    with pytest.raises(ValueError, match="3 rows do not fit an array of shape"):
        write_rows(memory[:2], [np.ones(width, np.uint8)] * 3)
    with pytest.raises(ValueError, match=r"must match|different structures|size|divis"):
        write_rows(memory[:2], [np.ones(width + 1, np.uint8)] * 2)
    assert not memory.any()


def test_reused_buffers_are_not_given_to_anybody_else():
    """With `reuse_buffers` each stream has one buffer for each leaf."""
    batcher = DefaultBatcher(DefaultBatcherConfig(reuse_buffers=True))
    one, other = batches(2, batcher), batches(2, batcher, start=100)
    first, second = next(one)["x"], next(other)["x"]
    assert not np.shares_memory(first, second)
    assert np.shares_memory(first, next(one)["x"])
    assert second[:, 0, 0, 0].tolist() == [100, 101, 102, 103]
