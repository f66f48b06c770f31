"""Regions and plans that lie, long axes, double precision: what comes out still agrees."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.core.randomness import below
from datarax.operators._mix.box import place_clipped, place_inside, share
from datarax.operators.batch_mix_operator import (
    BatchMixOperator,
    BatchMixOperatorConfig,
    FMix,
    RegionSampler,
    ResizeMix,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")


def make_op(**options):
    options = {"mode": "cutmix", "granularity": "record", "mix_info": True, **options}
    return BatchMixOperator(BatchMixOperatorConfig(**options), rngs=nnx.Rngs(5))


def make_batch(rows=4, size=(8, 6, 1), valid=None):
    """Images whose pixels are the row's number, so that a mean is a weight of labels."""
    image = np.arange(rows, dtype=np.float32).reshape(-1, *(1,) * len(size)) * np.ones(size)
    return Batch.from_arrays(
        {"image": image.astype(np.float32), "label": np.eye(rows, dtype=np.float32)},
        valid_mask=None if valid is None else np.array(valid, bool),
    )


def assert_labels_are_pixels(out, rows=slice(None)):
    """Each label is the fraction of pixels that show its record."""
    image, label = np.asarray(out["image"]), np.asarray(out["label"])
    shown = np.stack([(image == row).mean((1, 2, 3)) for row in range(len(image))], axis=1)
    np.testing.assert_allclose(label[rows], shown[rows], atol=1e-6)


@dataclass(frozen=True)
class Fixed(RegionSampler):
    """Always the same box."""

    box: tuple[int, ...]

    def word_count(self, sizes):
        return 0

    def sample(self, words, lam, sizes):
        return jnp.broadcast_to(jnp.int32(self.box), (*lam.shape, 2 * len(sizes)))


BOXES = [
    ((-3, -2, 5, 4), (0, 0, 5, 4)),
    ((2, 1, 50, 2**31 - 1), (2, 1, 8, 6)),
    ((5, 1, 2, 4), (5, 1, 5, 4)),
    ((5, 4, 2, 1), (5, 4, 5, 4)),
    ((-9, 0, -2, 6), (0, 0, 0, 6)),
    ((-(2**31), 9, 2**31 - 1, 12), (0, 6, 8, 6)),
]


@pytest.mark.parametrize(
    ("box", "inside"), BOXES, ids=["before", "after", "inverted", "twice", "above", "beside"]
)
def test_labels_weigh_the_pixels_that_were_pasted_whatever_the_sampler_says(box, inside):
    """A box that sticks out is cut off, one that is inverted is empty, in image and label."""
    out = make_op(sampler=Fixed(box))(make_batch())
    assert_labels_are_pixels(out)
    np.testing.assert_array_equal(out.states["mix_info"]["box"], [inside] * 4)


def entries(batch, **changed):
    """A plan that pastes a box of 12 of 48 pixels of the row after."""
    rows = len(batch)
    plan = {
        "lam": np.full(rows, 0.75, np.float32),
        "partner": np.roll(np.arange(rows, dtype=np.int32), -1),
        "box": np.tile(np.int32([1, 1, 5, 4]), (rows, 1)),
    }
    for name, (row, value) in changed.items():
        plan[name][row] = value
    return plan


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lam": (2, 1.5)}, r"lam.* must be from 0 to 1, got 1.5 in row 2"),
        ({"lam": (2, np.nan)}, r"lam.* must be from 0 to 1, got nan in row 2"),
        ({"lam": (1, 0.5)}, r"lam.* fraction of pixels outside the region, got 0.5 in row 1"),
        ({"box": (0, 0)}, r"lam.* fraction of pixels outside the region, got 0.75 in row 0"),
        ({"partner": (3, 6)}, r"partner.* same group of 4 rows, got 6 in row 3"),
        ({"partner": (0, -1)}, r"partner.* same group of 4 rows, got -1 in row 0"),
        ({"partner": (3, 4)}, r"partner.* same group of 4 rows, got 4 in row 3"),
        ({"partner": (4, 5)}, r"partner.* mix padding, got 5 in row 4"),
        ({"box": (2, [1, 1, 9, 4])}, r"box.* inside the image of \(8, 6\) pixels, got \[1, 1, 9"),
        ({"box": (2, [5, 1, 1, 4])}, r"box.* inside the image of \(8, 6\) pixels, got \[5, 1, 1"),
    ],
)
def test_replay_refuses_what_can_be_read_and_cannot_be(changed, message):
    """Row, entry and rule are named, eagerly; inside a trace the same plan is made legal."""
    batch = make_batch(6, valid=[1, 1, 1, 1, 1, 0])
    op = make_op(mix_group_size=4)
    plan = entries(batch)
    plan["partner"][:] = [1, 2, 3, 0, 4, 5]
    for name, (row, value) in changed.items():
        plan[name][row] = value
    with pytest.raises(ValueError, match=rf"mix_info\['{message}.*; pass the mix_info"):
        op.replay(batch, plan)
    out = jax.jit(op.replay)(batch, plan)
    assert_labels_are_pixels(out, slice(5))
    np.testing.assert_array_equal(out["image"][5], batch["image"][5])
    np.testing.assert_array_equal(out["label"][5], batch["label"][5])
    # Nothing comes from another group, nor from padding.
    assert set(np.unique(out["image"][:4])) <= {0, 1, 2, 3}
    assert set(np.unique(out["image"][4])) == {4}


def test_replay_of_mixup_refuses_boxes():
    """Mode "mixup" pastes nothing, so a plan with boxes is from another operator."""
    batch = make_batch()
    with pytest.raises(ValueError, match=r"box'\].* must be empty in mode 'mixup'"):
        make_op(mode="mixup").replay(batch, entries(batch))


def test_replay_takes_no_notice_of_nan_in_padding():
    """A traced plan that names padding as partner leaves its NaN where it is."""
    batch = make_batch(4, valid=[1, 1, 1, 0])
    image = batch["image"].copy()
    image[3] = np.nan
    batch = batch.replace(data={**batch.data, "image": image})
    plan = entries(batch) | {"box": np.zeros((4, 4), np.int32), "lam": np.float32([0.5] * 4)}
    out = jax.jit(make_op(mode="mixup").replay)(batch, plan)
    np.testing.assert_array_equal(np.asarray(out["image"])[:3, 0, 0, 0], [0.5, 1.5, 2])
    assert np.isnan(out["image"][3]).all()


@dataclass(frozen=True)
class Sides(RegionSampler):
    """A box whose side is a whole number of pixels, or a fraction of the image."""

    side: float

    def word_count(self, sizes):
        return 0

    def sample(self, words, lam, sizes):
        whole = not isinstance(self.side, float)
        sides = [self.side if whole else round(self.side * size) for size in sizes]
        return jnp.broadcast_to(jnp.int32([0, 0, *sides]), (*lam.shape, 4))


def test_samplers_that_are_equal_but_not_the_same_are_told_apart():
    """A side of 1 is a pixel and of 1.0 the whole side, compiled or not, in either order."""
    batch = make_batch()
    for side, area in ((1, 1), (1.0, 48), (1, 1)):
        op = make_op(sampler=Sides(side))
        for out in (
            op(batch),
            op.apply_batch(batch),
            op.replay(batch, op(batch).states["mix_info"]),
        ):
            assert (np.asarray(out["image"]) != batch["image"]).sum() == 4 * area


def test_below_is_the_floor_of_the_product_for_every_count():
    """An index is floor(word · count / 2**32), exactly, for counts up to 2**31."""
    rng = np.random.default_rng(0)
    word = np.r_[rng.integers(0, 2**32, 20_000), [0, 2**32 - 1] * 6].astype(np.uint32)
    count = (2 ** rng.uniform(0, 31, 20_012)).astype(np.uint32)
    count[-12:] = [1, 1, 65535, 65535, 65536, 65536, 2**31, 2**31, 2**31 - 1, 2**31 - 1, 7, 7]
    expected = (word.astype(object) * count.astype(object)) // 2**32
    np.testing.assert_array_equal(
        below(jnp.asarray(word), jnp.asarray(count)), expected.astype(int)
    )


@pytest.mark.parametrize("count", [2**24 - 1, 2**24 + 3, 2**31 - 1])
def test_long_axes_are_cut_inside_their_ends(count):
    """A share of a long axis is within rounding, at most all of it; boxes stay inside."""
    fraction = np.r_[np.float32([0, 1, 1 - 2**-24, 0.5]), np.linspace(0, 1, 99, dtype=np.float32)]
    side = np.asarray(share(jnp.asarray(fraction), count)).astype(np.int64)
    assert side[0] == 0
    assert side[1] == count
    assert (side <= count).all()
    np.testing.assert_allclose(side, fraction.astype(np.float64) * count, rtol=2e-7, atol=0.5)
    word = jnp.asarray(np.random.default_rng(0).integers(0, 2**32, side.shape, dtype=np.uint32))
    for place in (place_inside, place_clipped):
        start, stop = (np.asarray(x, np.int64) for x in place(word, jnp.int32(side), count))
        assert ((start >= 0) & (start <= stop) & (stop <= count)).all()
        if place is place_inside:
            np.testing.assert_array_equal(stop - start, side)


def test_long_sounds_are_pasted_and_weighed():
    """100,000 samples on an axis: the label is the fraction of samples."""
    batch = make_batch(4, size=(100_000,))
    out = make_op(spatial_axes=(1,))(batch)
    shown = np.asarray(out["image"])
    for row, label in enumerate(np.asarray(out["label"])):
        assert label[row] == np.float32((shown[row] == row).mean())
    with pytest.raises(ValueError, match=r"ResizeMix .*at most 32768 .*got \(100000,\); use"):
        make_op(spatial_axes=(1,), sampler=ResizeMix())(batch)


@pytest.mark.parametrize(
    "mode",
    [*(pytest.param(mode, marks=pytest.mark.thorough) for mode in ("mixup", "cutmix")), "both"],
)
def test_double_precision_is_kept(mode):
    """Under x64, float64 images and labels are mixed with a float64 λ, exact to 1e-15."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        image, label = rng.random((16, 7, 3, 1)), rng.dirichlet(np.ones(5), 16)
        batch = Batch.from_arrays(
            {"image": image, "label": label, "half": image.astype(np.float16)}
        )
        op = make_op(mode=mode, data_field=("image", "half"))
        out = op(batch)
        info = jax.tree.map(np.asarray, out.states["mix_info"])
        assert info["lam"].dtype == out["image"].dtype == out["label"].dtype == np.float64
        assert out["half"].dtype == np.float16
        lam = info["lam"][:, None]
        if mode != "mixup":
            area = np.prod(info["box"][:, 2:] - info["box"][:, :2], axis=1)
            exact = np.where(area > 0, (21 - area) / 21, info["lam"])
            np.testing.assert_array_equal(info["lam"], exact)
        expected = lam * label + (1 - lam) * label[info["partner"]]
        np.testing.assert_allclose(out["label"], expected, rtol=1e-14)
        np.testing.assert_array_equal(op.replay(batch, info)["label"], out["label"])
        single = Batch.from_arrays({"image": np.float32(image), "label": np.float32(label)})
        assert make_op(mode=mode)(single).states["mix_info"]["lam"].dtype == np.float32


@pytest.mark.parametrize(
    "options",
    [{"mode": "both", "mix_group_size": 2}, {"sampler": FMix()}, {"sampler": ResizeMix()}],
    ids=["boxes", "masks", "resized"],
)
def test_mixing_works_where_rank_promotion_is_forbidden(options):
    """What a caller forbids to its own arithmetic does not reach ours; nothing is computed here."""
    op, batch = make_op(**options), make_batch()
    with jax.numpy_rank_promotion("raise"):
        out = jax.eval_shape(lambda batch, key: op(batch, key=key), batch, jax.random.key(0))
        replayed = jax.eval_shape(op.replay, batch, out.states["mix_info"])
    assert replayed["image"].shape == out["image"].shape == (4, 8, 6, 1)


def test_mixing_works_without_jit():
    """With jax.disable_jit, arrays of the host come as they are."""
    batch = make_batch(2, size=(2, 2, 1))
    op = make_op(mode="mixup")
    expected = op(batch, key=jax.random.key(1))
    with jax.disable_jit():
        out = op(batch, key=jax.random.key(1))
    np.testing.assert_array_equal(out["image"], expected["image"])
