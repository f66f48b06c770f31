"""`GrainSource`: Grain's shuffling, sharding and worker processes under our record numbers."""

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.pipeline import Pipeline
from datarax.sources import GrainSource, GrainSourceConfig

INSTALLED = pytest.importorskip("grain", reason="needs the extra [grain]")

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


def test_worker_processes_give_the_same_batches():
    """With a worker process, order and data are as without, and the process ends."""
    import multiprocessing

    dataset = INSTALLED.MapDataset.range(11).map(lambda i: {"x": np.int32(10 * i)})
    config = GrainSourceConfig(shuffle=True, seed=0, num_workers=1)
    assert epochs(GrainSource(config, dataset=dataset), 1) == epochs(source(), 1)
    assert multiprocessing.active_children() == []


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
        (np.zeros(3), TypeError, "got ndarray"),
        ([np.zeros(3)], TypeError, r"dataset\[0\] must be a dict of arrays, got ndarray"),
        (
            INSTALLED.MapDataset.range(3).map(lambda i: {"x": i}).repeat(),
            ValueError,
            "a repeated dataset is endless",
        ),
        (INSTALLED.MapDataset.range(3).to_iter_dataset(), TypeError, "got PrefetchIterDataset"),
    ],
    ids=["empty", "array", "bare records", "endless", "iterator"],
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


@pytest.mark.parametrize("options", [{"num_threads": 0}, {}, {"num_workers": 1}], ids=str)
def test_stop_iteration_of_a_dataset_is_named(options):
    """Grain would take it for the end of what there is to read."""
    # A function of the test, which a worker process gets by value.
    dataset = INSTALLED.MapDataset.range(11).map(
        lambda index: next(iter(())) if index == 7 else {"x": np.float32(index)}
    )
    source = GrainSource(GrainSourceConfig(**options), dataset=dataset)
    pipeline = Pipeline(source=source, batch_size=1, prefetch=0)
    iterator = iter(pipeline)
    iterator.set_state({**iterator.get_state(), "record": np.uint32(6)})
    next(iterator)
    with pytest.raises(RuntimeError, match="record 7 of dataset raised StopIteration"):
        next(iterator)


def test_masked_records_of_a_dataset_are_refused():
    """Grain stacks what lies under the mask."""
    source = GrainSource(GrainSourceConfig(num_threads=0), dataset=Troubled())
    with pytest.raises(ValueError, match=r"record 3\['x'\] is a masked array with masked entries"):
        list(Pipeline(source=source, batch_size=2, prefetch=0))
    with pytest.raises(RuntimeError, match="record 7 of Troubled raised StopIteration"):
        source[7]
