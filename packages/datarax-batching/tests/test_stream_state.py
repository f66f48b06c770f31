"""Streams of batches that are saved in the middle and go on elsewhere."""

import itertools

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from datarax.batching import (
    BucketBatcher,
    BucketBatcherConfig,
    DefaultBatcher,
    DefaultBatcherConfig,
    MultiRateBatcher,
    MultiRateBatcherConfig,
    PackingBatcher,
    PackingBatcherConfig,
)
from datarax.core.element_batch import Element


def records():
    rng = np.random.default_rng(3)
    for number in range(23):
        data = {
            "t": rng.integers(0, 99, rng.integers(1, 9)).astype(np.int32),
            "n": {"id": np.int32(number), "key": jax.random.key(number)},
        }
        yield Element(data, {"s": np.float32(number)}, metadata={"name": f"r{number}"})


def fixed():
    return (element.update_data({"t": element.data["t"][:1]}) for element in records())


def default():
    return DefaultBatcher(DefaultBatcherConfig())


def bucket():
    return BucketBatcher(BucketBatcherConfig(boundaries=(2, 4, 8), length_fields=("t",)))


def sequences():
    return (Element({"t": e.data["t"], "u": e.data["t"]}, metadata=e.metadata) for e in records())


def pack():
    return PackingBatcher(PackingBatcherConfig(row_length=8))


def frames():
    for e in records():
        data = {"video": e.data["n"]["id"], "audio": np.arange(3) + e.data["n"]["id"]}
        yield e.replace(data=data)


def windows(hop):
    config = MultiRateBatcherConfig(steps=3, rates={"audio": 3}, hop=hop)
    return MultiRateBatcher(config)


KINDS = {
    "default": (default, fixed),
    "bucket": (bucket, records),
    "pack": (pack, sequences),
    "windows": (lambda: windows(3), frames),
    "windows, overlapping": (lambda: windows(2), frames),
    "windows, with gaps": (lambda: windows(5), frames),
}


def plain(batch):
    leaves = jax.tree.leaves(batch)
    words = [
        jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in leaves
    ]
    return [(x.dtype, x.tolist()) for x in words], batch.metadata


@pytest.mark.parametrize(("make", "source"), KINDS.values(), ids=KINDS)
def test_a_stream_goes_on_exactly_where_it_was_saved(make, source):
    """After any number of batches, the rest is that of the stream which was never interrupted."""
    whole = [plain(batch) for batch in make()(source(), batch_size=4)]
    for taken in range(len(whole) + 1):
        stream = make()(source(), batch_size=4)
        list(itertools.islice(stream, taken))
        state = stream.get_state()
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(state))
        rest = itertools.islice(source(), int(state["pulled"]), None)
        again = make()(rest, batch_size=4)
        again.set_state(state)
        assert again.records_pulled == stream.records_pulled
        assert [plain(batch) for batch in again] == whole[taken:]


@pytest.mark.parametrize("name", ["bucket", "windows, overlapping"])
def test_orbax_saves_the_state_as_it_is(name, tmp_path):
    """A state that went through a checkpoint on disk goes on just the same."""
    make, source = KINDS[name]
    stream = make()(source(), batch_size=2)
    list(itertools.islice(stream, 3))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", stream.get_state())
        checkpointer.wait_until_finished()
        state = checkpointer.restore(tmp_path / "state")
    again = make()(itertools.islice(source(), int(state["pulled"]), None), batch_size=2)
    again.set_state(state)
    assert [plain(batch) for batch in again] == [plain(batch) for batch in stream]


def test_saving_changes_nothing_and_later_batches_do_not_change_what_was_saved():
    """The state is a copy."""
    stream = bucket()(records(), batch_size=4)
    next(stream)
    before, text = stream.get_state(), str(stream.get_state())
    list(stream)
    assert str(before) == text


def test_records_that_cannot_be_saved_are_named():
    """Nodes other than dicts, and metadata without JSON, are refused when saved."""
    for element, message in (
        (Element({"t": np.ones(1), "x": [1]}), r"data of record 0\['x'\], which waits .* got list"),
        (Element({"t": np.ones(1)}, metadata=object()), "metadata of record 0.*cannot be saved"),
    ):
        long = Element({"t": np.ones(9)})
        config = BucketBatcherConfig(boundaries=(2,), length_fields=("t",), remainder="drop")
        stream = BucketBatcher(config)([element, long], batch_size=2)
        with pytest.raises(ValueError, match="length 9"):
            next(stream)
        with pytest.raises(TypeError, match=message):
            stream.get_state()


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (3, TypeError, r"state must be a dict as get_state\(\) returns it, got int"),
        ({"pulled": 1}, ValueError, "state must have the entries"),
    ],
    ids=["no dict", "entries"],
)
def test_what_is_no_state_is_refused(state, error, message):
    """Wrong structures are errors that say what belongs there."""
    with pytest.raises(error, match=message):
        default()([], batch_size=2).set_state(state)


def test_the_state_of_another_batcher_is_refused_and_changes_nothing():
    """Groups that this batcher does not have are named."""
    stream = bucket()(records(), batch_size=4)
    next(stream)
    other = default()(fixed(), batch_size=4)
    with pytest.raises(ValueError, match="state is of another batcher: it has records in"):
        other.set_state(stream.get_state())
    assert other.records_pulled == 0
    assert len(list(other)) == 6
