"""`RepeatOperator`: copies of records, and what goes with them."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from datarax.core import randomness
from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.operators import (
    CompositeOperatorConfig,
    CompositeOperatorModule,
    RepeatOperator,
    RepeatOperatorConfig,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")


class Bits(OperatorModule):
    """Writes random bits of each row into `bits`."""

    def generate_random_params(self, rng, data_shapes):
        return randomness.random_words(rng, (data_shapes["x"][0],))

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, "bits": random_params}, state, metadata


def repeat(views):
    return RepeatOperator(RepeatOperatorConfig(num_views=views))


def bits():
    return Bits(OperatorConfig(stochastic=True), rngs=nnx.Rngs(0))


def chain(*members):
    return CompositeOperatorModule(CompositeOperatorConfig(), operators=members)


def records(**fields):
    fields = {"record_index": [4, 9, 2, 7], "epoch": 1, **fields}
    return Batch.from_arrays(
        {"x": np.arange(8, dtype=np.int16).reshape(4, 2)},
        states={"n": np.arange(4)},
        valid_mask=np.array([True, True, False, True]),
        batch_state={"step": np.int32(5)},
        metadata=["a", "b", "c", "d"],
        batch_metadata="all",
        **fields,
    )


@pytest.mark.parametrize("call", ["op", "apply_batch", "jit"])
def test_everything_that_belongs_to_a_record_follows(call):
    """Adjacent rows are copies of one record, in mask, indices, states and metadata."""
    op, batch = repeat(3), records()
    if call == "jit":
        batch = batch.replace(metadata=None)
    run = {"op": op, "apply_batch": op.apply_batch, "jit": jax.jit(lambda b: op(b))}[call]
    out = run(batch)
    source = np.repeat(np.arange(4), 3)
    np.testing.assert_array_equal(out["x"], batch["x"][source])
    np.testing.assert_array_equal(out.states["n"], source)
    np.testing.assert_array_equal(out.valid_mask, batch.valid_mask[source])
    np.testing.assert_array_equal(out.record_index, batch.record_index[source])
    np.testing.assert_array_equal(out.view, np.tile(np.arange(3), 4))
    assert out.view.dtype == np.uint32
    assert out.batch_state["step"] == 5
    assert int(out.epoch) == 1
    if call != "jit":
        assert out.metadata == tuple("aaabbbcccddd")
        assert out.batch_metadata == "all"
        assert op.get_operation_stats() == {"applied_count": 3, "skipped_count": 0}


def test_repeats_of_repeats_are_numbered_on():
    """A view's copies have numbers of their own, and metadata goes through both."""
    out = chain(repeat(2), repeat(3))(records())
    np.testing.assert_array_equal(out.view, np.tile(np.arange(6), 4))
    np.testing.assert_array_equal(out.record_index, np.repeat([4, 9, 2, 7], 6))
    assert out.metadata == tuple(name for name in "abcd" for _ in range(6))


@pytest.mark.parametrize("numbered", [True, False], ids=["record_index", "no index"])
def test_views_draw_differently(numbered):
    """Each copy has draws of its own; with an index, those of view 0 are the record's own."""
    batch = records() if numbered else records(record_index=None)
    drawn = np.asarray(chain(repeat(3), bits())(batch)["bits"])
    assert len(set(drawn.tolist())) == 12
    if numbered:
        np.testing.assert_array_equal(drawn[::3], bits()(batch)["bits"])
        # Of any batch that the copy is in.
        other = chain(repeat(3), bits())(batch.slice(1, 3))
        np.testing.assert_array_equal(other["bits"], drawn[3:9])


def test_copies_stay_on_the_device_of_their_record():
    """A shard holds whole records, and evaluation mode repeats too."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    rows = NamedSharding(mesh, P("data"))
    x = jax.device_put(np.arange(4, dtype=np.float32), rows)
    op = repeat(2)
    op.eval()
    out = op(Batch.from_arrays({"x": x}))
    assert out["x"].sharding.is_equivalent_to(rows, 1)
    np.testing.assert_array_equal(out["x"], np.repeat(np.arange(4), 2))


def test_dicts_are_repeated_with_their_mask():
    """A plain dict comes back with so many times the rows."""
    out = repeat(2)({"x": np.arange(3), "valid_mask": np.array([True, False, True])})
    np.testing.assert_array_equal(out["x"], [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(out["valid_mask"], [True, True, False, False, True, True])


def test_a_record_stays_as_it_is():
    """The spec of a record, and the record that apply gets, do not change."""
    spec = {"x": jax.ShapeDtypeStruct((2,), np.int16)}
    assert repeat(3).output_spec(spec) == spec
    assert repeat(3).apply({"x": 1}, {}, "m") == ({"x": 1}, {}, "m")
