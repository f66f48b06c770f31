"""`GrainSource`: Grain's shuffling, sharding and worker processes under our record numbers."""

import os
import pickle
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.pipeline import Pipeline
from datarax.pipeline._failures import Failure
from datarax.sources import GrainSource, GrainSourceConfig

INSTALLED = pytest.importorskip("grain", reason="needs the extra [grain]")

import cloudpickle  # noqa: E402
from absl import flags  # noqa: E402
from grain.sharding import ShardOptions  # noqa: E402


class Tens:
    """Record i has x = 10 * i."""

    def __init__(self, length=11):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"x": np.int32(10 * index), "image": np.full((2, 2), index, np.uint8)}


def source(length=11, *, seed=0, **options):
    config = GrainSourceConfig(**({"shuffle": True, "seed": seed} | options))
    return GrainSource(config, dataset=Tens(length))


def epochs(records, count=2, batch_size=4):
    """The valid record numbers of some epochs, after a check that the data is theirs."""
    pipeline = Pipeline(source=records, batch_size=batch_size)
    found = []
    for _ in range(count):
        batches = [batch.compact() for batch in pipeline]
        index = np.concatenate([batch.record_index for batch in batches])
        np.testing.assert_array_equal(np.concatenate([b["x"] for b in batches]), 10 * index)
        found.append(index.tolist())
    return found


@pytest.mark.parametrize("threads", [0, 3])
def test_every_record_comes_once_in_an_order_of_the_seed(threads):
    """Epochs differ, and repeat with the seed, whatever the number of threads."""
    first, second = epochs(source(num_threads=threads))
    assert sorted(first) == sorted(second) == list(range(11))
    assert first != second
    assert [first, second] == epochs(source()) != epochs(source(seed=1))
    assert [source().order(epoch).tolist() for epoch in range(2)] == [first, second]


def test_without_shuffling_records_come_in_order():
    """The order of every epoch is that of the data set."""
    assert epochs(source(shuffle=False)) == [list(range(11))] * 2


def test_epochs_of_one_seed_are_not_those_of_the_next():
    """Grain's shuffling adds the epoch to the seed, so that seeds 0 and 1 would share orders."""
    assert source(50).order(1).tolist() != source(50, seed=1).order(0).tolist()


def test_order_can_come_from_rngs():
    """Without a seed, the rngs of the source or of the pipeline decide."""
    config = GrainSourceConfig(shuffle=True)
    own = GrainSource(config, dataset=Tens(), rngs=nnx.Rngs(3))
    bare = Pipeline(source=GrainSource(config, dataset=Tens()), batch_size=11, rngs=nnx.Rngs(3))
    assert next(iter(bare)).record_index.tolist() == own.order(0).tolist()


@pytest.mark.parametrize(
    ("drop", "sizes"), [(False, [4, 4, 3]), (True, [3, 3, 3])], ids=["all", "even"]
)
def test_shards_are_disjoint_parts_of_the_same_epoch(drop, sizes):
    """Hosts share one order; each record goes to one host, and evenly if asked for."""
    shards = [source(shard=ShardOptions(i, 3, drop_remainder=drop)) for i in range(3)]
    parts = [epochs(shard, 1)[0] for shard in shards]
    assert [len(part) for part in parts] == [len(shard) for shard in shards] == sizes
    everything = [number for part in parts for number in part]
    assert len(set(everything)) == sum(sizes)
    whole = source().order(0)[: sum(sizes)]
    assert sorted(everything) == sorted(whole.tolist())


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_an_epoch_resumes_exactly(done):
    """After any number of batches, a new pipeline goes on with the same ones."""
    old, new = (Pipeline(source=source(seed=seed), batch_size=4) for seed in (1, 2))
    iterator, resumed = iter(old), iter(new)
    for _ in range(done):
        next(iterator)
    resumed.set_state(iterator.get_state())
    for came, expected in zip([*resumed, *new], [*iterator, *old], strict=True):
        jax.tree.map(np.testing.assert_array_equal, came, expected)


def test_worker_processes_give_the_same_batches_over_epochs():
    """Order, draws, metadata and lost records are as without; the processes stay, and end."""
    import multiprocessing

    def decode(index):
        if index == 5:
            raise OSError("broken")
        return {"x": np.full((90, 90), index, np.float32), "name": f"n{index}"}

    def noisy(record, rng):
        return {**record, "noise": rng.integers(2**31, dtype=np.int32)}

    dataset = INSTALLED.MapDataset.range(11).map(decode)
    runs = []
    for workers in (0, 1):
        config = GrainSourceConfig(shuffle=True, seed=0, num_workers=workers, num_threads=0)
        pipeline = Pipeline(
            source=GrainSource(config, dataset=dataset),
            transforms=[noisy],
            metadata_fields=("name",),
            on_error="mask",
            batch_size=4,
        )
        runs.append((list(pipeline), list(pipeline)))
        children = {child.pid for child in multiprocessing.active_children()}
        assert len(children) == workers
        iterator = iter(pipeline)
        runs[-1] += ([next(iterator)],)
        assert {child.pid for child in multiprocessing.active_children()} == children
        iterator.close()
        assert multiprocessing.active_children() == []
        assert pipeline.error_count >= 2
    for expected, came in zip(*runs, strict=True):
        assert [batch.metadata for batch in came] == [batch.metadata for batch in expected]
        jax.tree.map(np.testing.assert_array_equal, came, expected)


def test_an_error_arrives_from_another_process_with_its_traceback():
    """As text under the error, which may be one that cannot be sent."""
    import pickle
    import traceback

    class Unsendable(Exception):  # noqa: N818
        def __init__(self, one, two):
            super().__init__(one)

    def fail(error):
        raise error

    for error, kind in [(OSError("broken"), OSError), (Unsendable("no", 1), RuntimeError)]:
        try:
            fail(error)
        except Exception as caught:
            caught.add_note("while reading record 3")
            came = pickle.loads(pickle.dumps(Failure(3, caught)))
        assert (came.record, type(came.error)) == (3, kind)
        assert came.error.__notes__ == ["while reading record 3"]
        assert "in fail" in "".join(traceback.format_exception(came.error))


def test_array_records_are_read(tmp_path):
    """A file of serialised records, decoded by a map of Grain's."""
    writer_module = pytest.importorskip("array_record.python.array_record_module")
    path = str(tmp_path / "data.array_record")
    writer = writer_module.ArrayRecordWriter(path, "group_size:1")
    for number in range(7):
        writer.write(np.int32([number, number**2]).tobytes())
    writer.close()
    records = INSTALLED.sources.ArrayRecordDataSource(path)
    dataset = INSTALLED.MapDataset.source(records).map(
        lambda record: {"x": np.frombuffer(record, np.int32)}
    )
    source = GrainSource(GrainSourceConfig(shuffle=True, seed=2), dataset=dataset)
    assert source.element_spec() == {"x": jax.ShapeDtypeStruct((2,), np.int32)}
    for batch in Pipeline(source=source, batch_size=3):
        valid = batch.compact()
        np.testing.assert_array_equal(valid["x"][:, 0], valid.record_index)
        np.testing.assert_array_equal(valid["x"][:, 1], valid.record_index**2)


def test_a_record_is_read_by_number():
    """Indexing and gathering use the data set's own numbers, and end where it ends."""
    records = source(shard=ShardOptions(1, 2))
    assert records[3]["x"] == 30
    assert records.gather(np.array([10, 0]))["x"].tolist() == [100, 0]
    with pytest.raises(IndexError, match="index must be from 0 to 10, got 11"):
        records[11]


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (Tens(0), ValueError, "from 1 to .* got 0 records"),
        (np.zeros(3), TypeError, r"a grain.MapDataset, .* or a grain.IterDataset, got ndarray"),
        (3, TypeError, "a length and a dict for each number, or a grain.IterDataset, got int"),
        ([np.zeros(3)], TypeError, r"dataset\[0\] must be a dict of arrays, got ndarray"),
        (
            INSTALLED.MapDataset.range(3).map(lambda i: {"x": i}).repeat(),
            ValueError,
            "a repeated dataset is endless",
        ),
        (
            INSTALLED.MapDataset.range(3).to_iter_dataset(),
            ValueError,
            r"a grain.IterDataset, which has no length; .* GrainSourceConfig\(length=...\)",
        ),
        (
            INSTALLED.MapDataset.range(3).shuffle(seed=0).random_map(lambda i, g: i, seed=0),
            ValueError,
            "shuffled and draws",
        ),
    ],
    ids=["empty", "array", "number", "bare records", "endless", "iterator", "shuffled"],
)
def test_bad_data_sets_are_refused(dataset, error, message):
    """A data set without a fixed number of dicts is refused when the source is made."""
    with pytest.raises(error, match=message):
        GrainSource(GrainSourceConfig(), dataset=dataset)


def test_filtered_records_are_refused():
    """A data set with holes says so at the first one."""
    dataset = INSTALLED.MapDataset.range(4).map(lambda i: {"x": i}).filter(lambda r: r["x"] != 2)
    pipeline = Pipeline(source=GrainSource(GrainSourceConfig(), dataset=dataset), batch_size=4)
    with pytest.raises(ValueError, match="record 2 is None, as filtered records are"):
        next(iter(pipeline))


def test_an_empty_shard_is_refused():
    """A host without a record would never take part in a step."""
    with pytest.raises(ValueError, match="at least one in this shard"):
        source(2, shard=ShardOptions(2, 3))


class Troubled(Tens):
    """Record 7 raises StopIteration, record 3 is masked."""

    def __getitem__(self, index):
        if index == 7:
            return next(iter(()))
        return {"x": np.ma.masked_array(np.float32([1, 2]), mask=[0, index == 3])}


@pytest.mark.parametrize("options", [{"num_threads": 0}, {}], ids=str)
def test_stop_iteration_of_a_dataset_is_named(options):
    """Grain would take it for the end of what there is to read."""
    dataset = INSTALLED.MapDataset.range(11).map(
        lambda index: next(iter(())) if index == 7 else {"x": np.float32(index)}
    )
    source = GrainSource(GrainSourceConfig(**options), dataset=dataset)
    pipeline = Pipeline(source=source, batch_size=1, prefetch=0)
    iterator = iter(pipeline)
    iterator.set_state({**iterator.get_state(), "position": 6})
    next(iterator)
    with pytest.raises(RuntimeError, match=r"record 7 of .* raised StopIteration"):
        next(iterator)


def test_masked_records_of_a_dataset_are_refused():
    """Grain stacks what lies under the mask."""
    source = GrainSource(GrainSourceConfig(num_threads=0), dataset=Troubled())
    with pytest.raises(ValueError, match=r"data\['x'\] .*is a masked array with masked entries"):
        list(Pipeline(source=source, batch_size=2, prefetch=0))
    with pytest.raises(RuntimeError, match="record 7 of Troubled raised StopIteration"):
        source[7]


def test_what_a_data_set_draws_differs_in_every_epoch():
    """And repeats with the epoch, whatever the number of threads."""
    dataset = (
        INSTALLED.MapDataset.range(5)
        .seed(7)
        .map(lambda index: {"x": np.int32(index)})
        .random_map(lambda record, rng: {**record, "noise": rng.integers(2**31, dtype=np.int32)})
    )
    runs = []
    for threads in (0, 2):
        config = GrainSourceConfig(shuffle=True, seed=1, num_threads=threads)
        pipeline = Pipeline(source=GrainSource(config, dataset=dataset), batch_size=5)
        runs.append([])
        for _ in range(3):
            (batch,) = pipeline
            runs[-1].append(np.asarray(batch["noise"])[np.argsort(batch["x"])].tolist())
    assert runs[0] == runs[1]
    assert len({tuple(noise) for noise in runs[0]}) == 3


def sequential(length, count=7, **options):
    """An endless mixture, two of three records from the first of two data sets."""
    first, second = (
        INSTALLED.MapDataset.range(start, start + count)
        .map(lambda index: {"x": np.int32(index), "name": f"n{index}"})
        .to_iter_dataset()
        for start in (0, 100)
    )
    mixed = INSTALLED.IterDataset.mix([first, second], weights=[2, 1])
    config = GrainSourceConfig(length=length, metadata_fields=("name",), **options)
    return GrainSource(config, dataset=mixed)


def test_a_sequential_data_set_goes_on_over_epochs():
    """In its own order; what ends begins again; texts are metadata."""
    expected = [record["x"] for record in sequential(5)._stream.value._dataset] * 3
    pipeline = Pipeline(source=sequential(4), batch_size=3)
    found = [batch.compact() for _ in range(3) for batch in pipeline]
    assert np.concatenate([batch["x"] for batch in found]).tolist() == expected[:12]
    assert found[0].record_index.tolist() == [0, 1, 2]
    assert found[1].metadata == ({"name": f"n{expected[3]}"},)
    assert pipeline.batch_spec()["x"] == jax.ShapeDtypeStruct((3,), np.int32)


@pytest.mark.parametrize("known", [True, False], ids=["state of Grain", "read again"])
def test_a_sequential_data_set_is_picked_up_at_a_record(known, caplog):
    """By Grain's own state, or by reading what comes before once more."""
    source, other = sequential(6), sequential(6)
    read = source.batches(1, 0, 2)
    next(read)
    rest = [batch["x"].tolist() for batch in read]
    stream = other._stream.value
    if known:
        stream.resume(8, source._stream.value.state(8))
    with caplog.at_level("INFO", logger="datarax.pipeline"):
        assert [batch["x"].tolist() for batch in other.batches(1, 2, 2)] == rest
    assert ["8 records of a grain" in entry.message for entry in caplog.records] == (
        [] if known else [True]
    )


def test_a_sequential_data_set_has_no_records_by_number():
    """Nor options that are for one that has."""
    source = sequential(6)
    with pytest.raises(TypeError, match=r"records by number need a grain\.MapDataset"):
        source[0]
    with pytest.raises(TypeError, match="select needs records that can be read by number"):
        source.take(2)
    with pytest.raises(TypeError, match="but GrainSource is read sequentially"):
        Pipeline(source=source, batch_size=2, num_threads=2)
    with pytest.raises(ValueError, match="is read sequentially: it has an order of its own"):
        Pipeline(source=source, batch_size=2, shuffle=True, seed=0)
    with pytest.raises(ValueError, match="shuffle=True, shard=None, num_workers=0"):
        sequential(6, shuffle=True, seed=0)
    with pytest.raises(ValueError, match=r"length=2 is for a grain\.IterDataset"):
        GrainSource(GrainSourceConfig(length=2), dataset=Tens())


@pytest.mark.parametrize("threads", [0, 2])
def test_stop_iteration_of_a_function_is_no_end_of_a_sequential_data_set(threads):
    """It is named where Grain called it; an iterator that stops is the end, and begins again."""

    class Three(INSTALLED.DatasetIterator):
        def __init__(self):
            super().__init__()
            self.place = 0

        def __next__(self):
            if self.place == 3:
                raise StopIteration
            self.place += 1
            return {"x": np.int32(self.place)}

        def get_state(self):
            return {"place": self.place}

        def set_state(self, state):
            self.place = state["place"]

    class Threes(INSTALLED.IterDataset):
        def __iter__(self):
            return Three()

    def stop_at_two(record):
        return next(iter(())) if record["x"] == 2 else record

    options = INSTALLED.ReadOptions(num_threads=threads, prefetch_buffer_size=2)
    numbers = INSTALLED.MapDataset.range(3).map(lambda index: {"x": np.int32(index)})
    for dataset in (
        Threes().map(stop_at_two),
        numbers.map(stop_at_two).to_iter_dataset(options),
        numbers.to_iter_dataset(options).map(stop_at_two),
    ):
        source = GrainSource(GrainSourceConfig(length=3), dataset=dataset)
        with pytest.raises(RuntimeError, match=r"stop_at_two in .* raised StopIteration"):
            list(Pipeline(source=source, batch_size=1))
    several = INSTALLED.MapDataset.range(2).map(lambda _: Threes().map(stop_at_two))
    for dataset in (
        INSTALLED.experimental.WindowShuffleIterDataset(
            Threes().filter(stop_at_two), window_size=3, seed=0
        ),
        INSTALLED.experimental.InterleaveIterDataset(several, cycle_length=2),
    ):
        # Grain takes it for the end inside of these.
        with pytest.raises(RuntimeError, match=r"stop_at_two in .* raised StopIteration"):
            list(GrainSource(GrainSourceConfig(length=3), dataset=dataset).batches(0, 0, 1))
    source = GrainSource(GrainSourceConfig(length=6), dataset=Threes().map(lambda record: record))
    (batch,) = Pipeline(source=source, batch_size=6)
    assert batch["x"].tolist() == [1, 2, 3, 1, 2, 3]


class Numbers:
    """Records of one field; StopIteration for number 3."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return next(iter(())) if index == 3 else {"x": np.int32(index)}


def stop_at_four(record):
    return next(iter(())) if record["x"] == 4 else record


@pytest.mark.parametrize("where", ["source", "function"])
@pytest.mark.parametrize("process", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_stop_iteration_in_a_process_of_grain_is_no_end(where, process):
    """What a process gets to read raises another error; Grain ends the data otherwise."""
    if where == "source":
        dataset = INSTALLED.MapDataset.source(Numbers()).to_iter_dataset()
    else:
        numbers = INSTALLED.MapDataset.range(6).map(lambda number: {"x": np.int32(number)})
        dataset = numbers.to_iter_dataset().map(stop_at_four)
    options = INSTALLED.MultiprocessingOptions(num_workers=1)
    source = GrainSource(GrainSourceConfig(length=6), dataset=dataset.mp_prefetch(options))
    name = "Numbers.__getitem__" if where == "source" else "stop_at_four"
    flags.FLAGS.mark_as_parsed()
    records = source.batches(0, 0, 1) if process else _of_a_process(source._stream.value._dataset)
    with pytest.raises(RuntimeError, match=rf"{name} in .* raised StopIteration"):
        list(records)


def _of_a_process(dataset):
    """The data set that Grain sends to its first process, as it arrives there."""
    while "processprefetch" not in type(dataset).__name__.lower():
        dataset = (dataset.parents or dataset._datasets)[0]
    return pickle.loads(cloudpickle.dumps(dataset.parents[0]))


STUCK = """
import multiprocessing, os, threading
from datarax.pipeline import Pipeline

class Stuck:
    def __init__(self):
        self.parent = os.getpid()

    def __len__(self):
        return 9

    def __getitem__(self, index):
        if os.getpid() != self.parent:
            print("stuck", os.getpid(), flush=True)
            threading.Event().wait()
        return {"x": index}

if __name__ == "__main__":
    iterator = iter(Pipeline(source=Stuck(), batch_size=2, num_workers=1))
    try:
        next(iterator)
    except KeyboardInterrupt:
        print("interrupted", multiprocessing.active_children(), flush=True)
    iterator.start_prefetch()
    input()
"""


def test_a_worker_that_is_stuck_in_its_first_record_holds_nobody(tmp_path):
    """Ctrl-C and the end of the program end the process, and do not wait for it."""
    (tmp_path / "stuck.py").write_text(STUCK)
    command, pipe = [sys.executable, str(tmp_path / "stuck.py")], subprocess.PIPE
    program = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    workers = []
    for step in range(2):
        if step == 1:
            program.send_signal(signal.SIGINT)
            begun = time.monotonic()
            assert program.stdout.readline() == "interrupted []\n"
            assert time.monotonic() - begun < 20
        word, number = program.stdout.readline().split()
        assert word == "stuck"
        workers.append(int(number))
    program.communicate("go on\n", timeout=60)
    assert program.returncode == 0
    for number in workers:
        with pytest.raises(ProcessLookupError, match="No such process"):
            os.kill(number, 0)


def test_parquet_files_are_read(tmp_path):
    """A file of columns, through Grain's reader of Parquet."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    path = str(tmp_path / "data.parquet")
    parquet.write_table(pyarrow.table({"x": list(range(9)), "y": [0.5] * 9}), path)
    dataset = INSTALLED.experimental.ParquetIterDataset(path)
    source = GrainSource(GrainSourceConfig(length=9), dataset=dataset)
    found = [batch.compact() for batch in Pipeline(source=source, batch_size=4)]
    assert np.concatenate([batch["x"] for batch in found]).tolist() == list(range(9))
    assert found[0]["y"].tolist() == [0.5] * 4
