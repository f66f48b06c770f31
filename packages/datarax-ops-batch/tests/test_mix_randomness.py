import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from datarax.core.element_batch import Batch
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig


def make_op(impl="threefry2x32", **options):
    config = BatchMixOperatorConfig(mix_info=True, **options)
    return BatchMixOperator(config, rngs=nnx.Rngs(jax.random.key(3, impl=impl)))


def records(numbers, size=(6, 5, 3), dtype=np.float32, valid=None, epoch=0):
    """A batch whose rows depend on their record number alone."""
    numbers = np.asarray(numbers)
    image = np.stack([np.random.default_rng(n).random(size) * 255 for n in numbers]).astype(dtype)
    label = np.eye(7, dtype=np.float32)[numbers % 7]
    return Batch.from_arrays(
        {"image": image, "label": label},
        record_index=numbers,
        epoch=epoch,
        valid_mask=None if valid is None else np.asarray(valid, bool),
    )


def assert_same(one, two, rows=slice(None)):
    for name in ("image", "label"):
        np.testing.assert_array_equal(np.asarray(one[name])[rows], np.asarray(two[name])[rows])


OPTIONS = [
    {"mode": "mixup"},
    {"mode": "both", "granularity": "record"},
    {"mode": "cutmix", "granularity": "record", "mix_group_size": 4},
]
# The first test is compiled as users compile it: what XLA fuses must not change a bit.
quickly = pytest.mark.usefixtures("quick_compiles")


@pytest.mark.parametrize(
    ("options", "impl"),
    [
        pytest.param(OPTIONS[0], "threefry2x32", marks=pytest.mark.thorough),
        (OPTIONS[1], "rbg"),
        pytest.param(OPTIONS[2], "threefry2x32", marks=pytest.mark.thorough),
    ],
    ids=["mixup", "both rbg", "grouped"],
)
def test_compiled_and_uncompiled_calls_agree(options, impl):
    """op(batch), apply_batch, jax.jit, nnx.jit and scan give the same bits for the same records."""
    op, batch = make_op(impl, **options), records(range(8))
    expected = op(batch)
    assert_same(expected, op.apply_batch(batch))
    assert_same(expected, jax.jit(lambda batch: op(batch))(batch))
    assert_same(expected, nnx.jit(lambda op, batch: op(batch))(op, batch))
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), batch)
    _, scanned = jax.lax.scan(lambda carry, batch: (carry, op(batch)), 0, twice)
    for step in range(2):
        assert_same(expected, jax.tree.map(lambda leaf, step=step: leaf[step], scanned))


@quickly
def test_records_decide_what_is_drawn():
    """The same records give the same mix at any call; another epoch or first record another."""
    op = make_op(granularity="record")
    first = op(records(range(6)))
    assert_same(first, op(records(range(6))))
    for other in (records(range(6), epoch=1), records([9, 1, 2, 3, 4, 5])):
        assert not np.array_equal(
            first.states["mix_info"]["lam"], op(other).states["mix_info"]["lam"]
        )


@quickly
@pytest.mark.parametrize("impl", ["threefry2x32", pytest.param("rbg", marks=pytest.mark.thorough)])
def test_calls_without_indices_differ_and_resume_from_a_checkpoint(impl):
    """Without record_index each call draws anew, the same again after set_state."""
    op, batch = make_op(impl), records(range(6)).replace(record_index=None)
    op(batch)
    saved = op.get_state()
    second, third = op(batch), op(batch)
    assert not np.array_equal(second["image"], third["image"])
    op.set_state(saved)
    assert_same(second, op(batch))


@quickly
@pytest.mark.parametrize(
    "granularity", [pytest.param("batch", marks=pytest.mark.thorough), "record"]
)
def test_padding_at_the_end_changes_no_valid_row(granularity):
    """Five records are mixed the same alone and in a batch padded to eight rows."""
    op = make_op(mode="both", granularity=granularity)
    short = op(records(range(5)))
    padded = op(records(range(8), valid=np.arange(8) < 5))
    assert_same(short, padded, slice(5))


@quickly
def test_groups_do_not_depend_on_the_batch_they_are_in():
    """With groups of four, a batch of twelve is batches of four, or of six with a rest."""
    op = make_op(mode="both", granularity="record", mix_group_size=4)
    whole = op(records(range(12)))
    for start, stop in ((0, 4), (8, 12), (4, 10)):
        part = op(records(range(start, stop)))
        full = (stop - start) // 4 * 4
        for name in ("image", "label"):
            np.testing.assert_array_equal(
                np.asarray(whole[name])[start : start + full], np.asarray(part[name])[:full]
            )
        partner = np.asarray(part.states["mix_info"]["partner"])
        np.testing.assert_array_equal(partner // 4, np.arange(stop - start) // 4)


@quickly
def test_every_group_has_its_own_draw():
    """granularity="batch" means one λ for each group."""
    op = make_op(mix_group_size=2)
    lam = np.asarray(op(records(range(8))).states["mix_info"]["lam"]).reshape(4, 2)
    np.testing.assert_array_equal(lam[:, 0], lam[:, 1])
    assert len(np.unique(lam)) == 4


def collectives(op, batch):
    """The collective operations in the program that is compiled for this batch."""
    text = jax.jit(lambda batch: op(batch)).lower(batch).compile().as_text()
    return re.findall(r"(?:all-gather|all-to-all|collective-permute|all-reduce)\(", text)


EACH_KIND_OF_AXES = pytest.mark.parametrize(
    "axes", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"]
)


def rows_over_devices(axes=AxisType.Auto):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axes,))
    return NamedSharding(mesh, PartitionSpec("data"))


@pytest.fixture
def sharding():
    return rows_over_devices()


def sharded(batch, sharding):
    """The batch with its rows spread over the devices."""
    spread = {
        name: jax.tree.map(lambda leaf: jax.device_put(leaf, sharding), getattr(batch, name))
        for name in ("data", "record_index")
    }
    return batch.replace(**spread)


@quickly
@EACH_KIND_OF_AXES
def test_sharded_groups_are_mixed_without_any_collective(axes):
    """The program compiled for eight devices has no communication in it at all."""
    sharding = rows_over_devices(axes)
    op = make_op(mode="both", granularity="record", mix_group_size=4)
    batch = records(range(32), size=(8, 8, 3))
    spread = sharded(batch, sharding)
    expected = op(batch)
    assert not collectives(op, spread)
    out = op(spread)
    assert out["image"].sharding.is_equivalent_to(sharding, 4)
    assert_same(expected, out)


@quickly
@EACH_KIND_OF_AXES
def test_sharded_batches_without_groups_do_move_images(axes):
    """Partners on other devices have to travel: the search for collectives can find some."""
    op, batch = make_op(), records(range(32))
    spread = sharded(batch, rows_over_devices(axes))
    assert collectives(op, spread)
    assert_same(op(batch), op(spread))


@quickly
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(OPTIONS[0], marks=pytest.mark.thorough),
        OPTIONS[1],
        pytest.param(OPTIONS[2], marks=pytest.mark.thorough),
    ],
    ids=["mixup", "both", "grouped"],
)
def test_sharded_batches_are_mixed_like_others(options, sharding):
    """With and without groups, eight devices give the bits of one."""
    op, batch = make_op(**options), records(range(16))
    assert_same(op(batch), op(sharded(batch, sharding)))
