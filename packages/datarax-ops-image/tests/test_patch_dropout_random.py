"""The randomness of patch dropout: uniform, independent, and a record's own."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import stats

from datarax.core.element_batch import Batch
from datarax.operators.modality.image._sampling import below, unit
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")


def operator(rngs=None, **options):
    options = {"field_key": "image", "stochastic": True} | options
    return PatchDropoutOperator(
        PatchDropoutOperatorConfig(**options), rngs=nnx.Rngs(0) if rngs is None else rngs
    )


def drawn(op, shape, *, key=0, batch=4000, impl="threefry2x32"):
    params = op.generate_random_params(jax.random.key(key, impl=impl), {"image": (batch, *shape)})
    return {name: np.asarray(array) for name, array in params.items()}


def ones(rows, *, shape=(16, 16), **fields):
    return Batch.from_arrays({"image": np.ones((rows, *shape), np.float32)}, **fields)


def uniform_p_value(values, number):
    return stats.chisquare(np.bincount(values.ravel(), minlength=number)).pvalue


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_every_legal_origin_is_equally_likely(impl):
    """Chi-square over all (height - h + 1)(width - w + 1) corners, first and last included."""
    positions = drawn(operator(num_patches=3, patch_size=(4, 3)), (10, 8, 3), impl=impl)[
        "patch_positions"
    ]
    assert positions.shape == (4000, 3, 2)
    assert positions.dtype == np.int32
    assert positions.min((0, 1)).tolist() == [0, 0]
    assert positions.max((0, 1)).tolist() == [6, 5]
    assert uniform_p_value(positions[..., 0] * 6 + positions[..., 1], 7 * 6) > 1e-3


def test_a_patch_as_large_as_the_image_has_one_place():
    """The only legal origin is the corner, and the whole image goes."""
    op = operator(num_patches=1, patch_size=(16, 16))
    assert not drawn(op, (16, 16))["patch_positions"].any()
    assert not np.asarray(op(ones(2))["image"]).any()


def test_patches_of_a_record_are_independent_of_each_other():
    """The joint distribution of two patches' rows and columns is the product of their own."""
    positions = drawn(operator(num_patches=2, patch_size=(4, 4)), (8, 8))["patch_positions"]
    for first, second in [
        (positions[:, 0, 0], positions[:, 1, 0]),
        (positions[:, 0, 0], positions[:, 0, 1]),
    ]:
        table = np.histogram2d(first, second, bins=(5, 5))[0]
        assert stats.chi2_contingency(table).pvalue > 1e-3


def test_counts_and_sizes_are_uniform_over_their_ranges():
    """Bounds are inclusive, and origins stay legal and uniform for each size."""
    op = operator(num_patches=(1, 4), patch_size=((2, 5), (0.25, 0.5)))
    params = drawn(op, (10, 8))
    count, sizes, positions = (params[f"patch_{name}"] for name in ("count", "sizes", "positions"))
    assert uniform_p_value(count - 1, 4) > 1e-3
    assert uniform_p_value(sizes[..., 0] - 2, 4) > 1e-3
    assert uniform_p_value(sizes[..., 1] - 2, 3) > 1e-3
    assert ((positions >= 0) & (positions + sizes <= [10, 8])).all()
    for height in range(2, 6):
        rows = positions[..., 0][sizes[..., 0] == height]
        assert uniform_p_value(rows, 10 - height + 1) > 1e-3


def test_prob_skips_whole_records_and_counts_them():
    """Each record is left alone with probability 1 - prob; statistics say how many were."""
    op = operator(num_patches=2, patch_size=(2, 2), prob=0.3)
    count = drawn(op, (16, 16))["patch_count"]
    assert set(np.unique(count)) == {0, 2}
    assert stats.binomtest(int((count > 0).sum()), count.size, 0.3).pvalue > 1e-3
    out = op(ones(200, record_index=np.arange(200)))
    changed = (np.asarray(out["image"]) == 0).any((1, 2)).sum()
    assert op.get_operation_stats() == {"applied_count": changed, "skipped_count": 200 - changed}
    assert 30 < changed < 95


@pytest.mark.parametrize("prob", [0, 1])
def test_prob_zero_and_one_are_certain(prob):
    """No record, or every record."""
    out = np.asarray(operator(patch_size=(2, 2), prob=prob)(ones(64))["image"])
    assert ((out == 0).any((1, 2)) == bool(prob)).all()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_a_record_has_its_own_randomness(impl):
    """Record i is the same in any batch size and order, and differs by record and by epoch."""
    with jax.default_prng_impl(impl):
        op = operator(rngs=nnx.Rngs(0), num_patches=2, patch_size=(3, 3), fill="color")
    whole = np.asarray(op(ones(8, record_index=np.arange(8), epoch=np.uint32(1)))["image"])
    order = [5, 2, 7]
    part = op(ones(3, record_index=order, epoch=np.uint32(1)))
    np.testing.assert_array_equal(part["image"], whole[order])
    assert len({image.tobytes() for image in whole}) == 8
    other = np.asarray(op(ones(8, record_index=np.arange(8), epoch=np.uint32(2)))["image"])
    assert not {image.tobytes() for image in whole} & {image.tobytes() for image in other}


def test_calls_without_indices_differ_and_repeat_from_the_seed():
    """Without record_index each call draws the next key of the stream."""
    first, second = operator(), operator()
    a, b = (np.asarray(first(ones(2))["image"]) for _ in range(2))
    assert (a != b).any()
    np.testing.assert_array_equal(second(ones(2))["image"], a)
    np.testing.assert_array_equal(second(ones(2))["image"], b)
    assert (a[0] != a[1]).any()


def test_stages_of_one_base_key_are_told_apart():
    """Two equal operators differ where a pipeline numbers them."""
    from datarax.core.randomness import member

    op = operator()

    def stage(number):
        with member(PatchDropoutOperator, 0, number):
            return np.asarray(op.apply_batch(ones(2, record_index=[0, 1]))["image"])

    assert (stage(0) != stage(1)).any()
    np.testing.assert_array_equal(stage(1), stage(1))


@pytest.mark.parametrize("axes", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def test_sharded_batches_give_the_same_records(axes):
    """Over eight devices every record comes out as on one."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axes,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    op = operator(num_patches=2, patch_size=(3, 3), fill="mean")
    batch = ones(16, record_index=np.arange(16))
    placed = batch.replace(
        data={"image": jax.device_put(batch["image"], sharding)},
        record_index=jax.device_put(batch.record_index, sharding),
    )
    np.testing.assert_array_equal(jax.jit(op)(placed)["image"], op(batch)["image"])


def test_below_is_the_upper_word_of_the_product():
    """Exact integer arithmetic, for every bound up to 2**32 - 1."""
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 2000, dtype=np.uint64)
    bound = random.integers(1, 2**32, 2000, dtype=np.uint64)
    bits[:3], bound[:3] = 2**32 - 1, [1, 2**16, 2**32 - 1]
    expected = (bits * bound) >> np.uint64(32)
    np.testing.assert_array_equal(below(bits.astype(np.uint32), bound.astype(np.uint32)), expected)
    assert float(unit(np.uint32(2**32 - 1))) == 1 - 2**-24


def test_randomness_continues_after_a_resume():
    """A restored operator draws what the first one would have drawn next."""
    first, second = operator(), operator(rngs=nnx.Rngs(7))
    first(ones(2))
    second.set_state(first.get_state())
    np.testing.assert_array_equal(second(ones(2))["image"], first(ones(2))["image"])
    indexed = ones(2, record_index=[3, 4])
    np.testing.assert_array_equal(second(indexed)["image"], first(indexed)["image"])
