from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from datarax.core.element_batch import Batch
from datarax.operators._mix.fmix import damping
from datarax.operators.batch_mix_operator import (
    BatchMixOperator,
    BatchMixOperatorConfig,
    CutMix,
    FMix,
    RegionSampler,
    ResizeMix,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")


def make_op(**options):
    options = {"mode": "cutmix", "granularity": "record", "mix_info": True, **options}
    return BatchMixOperator(BatchMixOperatorConfig(**options), rngs=nnx.Rngs(5))


def make_batch(rows=6, size=(8, 6, 3), dtype=np.float32, **fields):
    rng = np.random.default_rng(rows)
    image = (rng.random((rows, *size)) * 255).astype(dtype)
    return Batch.from_arrays({"image": image, "label": np.eye(rows, dtype=np.float32), **fields})


@dataclass(frozen=True)
class LeftHalf(RegionSampler):
    """The partner in the left half: all that a new method has to say."""

    def word_count(self, sizes):
        return 0

    def sample(self, words, lam, sizes):
        mask = jnp.arange(sizes[1]) < sizes[1] // 2
        return jnp.broadcast_to(mask, (*lam.shape, *sizes))


SAMPLERS = [CutMix(placement="clipped"), ResizeMix(), FMix(), LeftHalf()]
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)


def inside(info, sizes):
    """Where the partner shows, as a mask."""
    if "mask" in info:
        return np.asarray(info["mask"])
    box = np.asarray(info["box"])
    mask = np.zeros((len(box), *sizes), bool)
    for row, (y0, x0, y1, x1) in enumerate(box):
        mask[row, y0:y1, x0:x1] = True
    return mask


@each_sampler
def test_labels_carry_the_exact_fraction_of_the_region(sampler):
    """Outside the region pixels are the row's own, and both label weights are exact fractions."""
    batch = make_batch()
    out = make_op(sampler=sampler)(batch)
    info = out.states["mix_info"]
    mask = inside(info, (8, 6))
    assert mask.any()
    np.testing.assert_array_equal(np.asarray(out["image"])[~mask], batch["image"][~mask])
    area = mask.sum(axis=(1, 2))
    label, rows = np.asarray(out["label"]), np.arange(6)
    np.testing.assert_array_equal(label[rows, rows], np.float32(48 - area) / np.float32(48))
    partner = np.asarray(info["partner"])
    np.testing.assert_array_equal(label[rows, partner], np.float32(area) / np.float32(48))


@pytest.mark.parametrize("sampler", [FMix(), LeftHalf()], ids=["FMix", "LeftHalf"])
def test_masks_show_the_partner_as_it_is(sampler):
    """Inside the region pixels are the partner's at the same place, in companions too."""
    mask_field = np.random.default_rng(0).integers(0, 9, (6, 8, 6))
    out = make_op(sampler=sampler, paste_fields=("ids",))(make_batch(ids=mask_field))
    info = out.states["mix_info"]
    expected = np.where(info["mask"], mask_field[np.asarray(info["partner"])], mask_field)
    np.testing.assert_array_equal(out["ids"], expected)


@pytest.mark.parametrize(
    ("mode", "dtype"),
    [("cutmix", np.float32), ("cutmix", np.uint8), ("both", np.float32)],
    ids=["f32", "u8", "both"],
)
def test_resizemix_shrinks_the_whole_partner_into_the_box(mode, dtype):
    """Each pixel of the box is the partner's nearest to it: floor((i + 1/2) · size / side).

    All others stay; and a row without a box, in mode "both", is blended with the partner as it is.
    """
    batch = make_batch(dtype=dtype)
    out = make_op(mode=mode, sampler=ResizeMix(low=0.3, high=0.9))(batch)
    info = jax.tree.map(np.asarray, out.states["mix_info"])
    images, boxes = np.asarray(out["image"]), info["box"]
    assert {bool(box.any()) for box in boxes} == ({True, False} if mode == "both" else {True})
    for row, (y0, x0, y1, x1) in enumerate(boxes):
        own, partner = batch["image"][row], batch["image"][info["partner"][row]]
        if not boxes[row].any():
            lam = info["lam"][row]
            np.testing.assert_allclose(images[row], lam * own + (1 - lam) * partner, rtol=1e-6)
            continue
        ys = np.floor((np.arange(y1 - y0) + 0.5) * 8 / (y1 - y0)).astype(int)
        xs = np.floor((np.arange(x1 - x0) + 0.5) * 6 / (x1 - x0)).astype(int)
        expected = own.copy()
        expected[y0:y1, x0:x1] = partner[ys][:, xs]
        np.testing.assert_array_equal(images[row], expected)


def test_resizemix_scale_is_uniform_between_its_bounds():
    """Sides are τ of the image's, τ uniform from low to high."""
    op = make_op(sampler=ResizeMix(low=0.2, high=0.6), label_field=None)
    rows = Batch.from_arrays({"image": np.zeros((1_000, 500, 20), np.uint8)})
    box = np.asarray(op(rows).states["mix_info"]["box"])
    scale = (box[:, 2] - box[:, 0]) / 500
    assert stats.kstest(scale, stats.uniform(0.2, 0.4).cdf).pvalue > 1e-3
    np.testing.assert_allclose((box[:, 3] - box[:, 1]) / 20, scale, atol=0.0261)


def test_fmix_masks_have_the_area_of_the_ratio_and_are_smooth():
    """1 − λ of the pixels to within one; neighbours agree with decay 3, not with decay 0."""
    lam = jnp.linspace(0, 1, 17)
    words = jax.random.bits(jax.random.key(0), (17, 32 * 32))
    rough, smooth = (
        np.asarray(FMix(decay=decay).sample(words, lam, (32, 32))) for decay in (0.0, 3.0)
    )
    for mask in (rough, smooth):
        assert np.abs(mask.sum(axis=(1, 2)) - 1024 * (1 - np.asarray(lam))).max() <= 1
    changes = [(mask[6:11, 1:] != mask[6:11, :-1]).mean() for mask in (rough, smooth)]
    assert changes[0] > 0.3
    assert changes[1] < 0.1


def test_fmix_noise_has_the_spectrum_of_the_paper():
    """Amplitudes fall with the power of the frequency, and no frequency stands for the mean."""
    damped = damping((32, 32), 3.0)
    assert damped[0, 0] == 0
    np.testing.assert_allclose(damped[0, 2] / damped[0, 4], 8, rtol=1e-5)
    np.testing.assert_allclose(damped[3, 4] / damped[0, 5], 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("sampler", "mode"),
    [
        (None, "both"),
        pytest.param(ResizeMix(), "cutmix", marks=pytest.mark.thorough),
        (FMix(), "both"),
    ],
    ids=["CutMix", "ResizeMix", "FMix"],
)
def test_replay_gives_the_same_bits(sampler, mode):
    """mix_info applied to the original batch is the mix, and replaying counts nothing."""
    batch = make_batch(dtype=np.uint8, ids=np.arange(6 * 48).reshape(6, 8, 6))
    op = make_op(mode=mode, sampler=sampler, paste_fields=("ids",), label_smoothing=0.1, prob=0.8)
    out = op(batch)
    counts = op.get_operation_stats()
    again = op.replay(batch, out.states["mix_info"])
    for name in ("image", "label", "ids"):
        np.testing.assert_array_equal(out[name], again[name])
    assert op.get_operation_stats() == counts


def test_replay_of_mixup_gives_the_same_bits_in_groups():
    """Grouped MixUp of floats is replayed exactly, eagerly and under jit."""
    batch = make_batch(8)
    op = make_op(mode="mixup", mix_group_size=4)
    out = op(batch)
    info = out.states["mix_info"]
    for replayed in (op.replay(batch, info), jax.jit(op.replay)(batch, info)):
        np.testing.assert_array_equal(out["image"], replayed["image"])
        np.testing.assert_array_equal(out["label"], replayed["label"])


@pytest.mark.parametrize(
    ("entries", "error", "message"),
    [
        (lambda info: None, TypeError, "mix_info .* must be a dict"),
        (lambda info: {"lam": info["lam"]}, KeyError, "must have 'partner'"),
        (lambda info: {**info, "lam": info["lam"][:2]}, ValueError, r"shape \(6,\).*got \(2,\)"),
        (lambda info: {**info, "box": info["box"].astype(float)}, TypeError, "int32, got float32"),
    ],
    ids=["none", "missing", "short", "float"],
)
def test_replay_refuses_what_is_no_plan(entries, error, message):
    """An entry that is missing or of another shape or dtype is named."""
    op, batch = make_op(), make_batch()
    info = op(batch).states["mix_info"]
    with pytest.raises(error, match=message):
        op.replay(batch, entries(info))


@pytest.mark.parametrize(
    ("shape", "axes", "sampler"),
    [
        ((6, 40), (1,), FMix()),
        pytest.param((6, 9, 7), (1, 2), None, marks=pytest.mark.thorough),
        pytest.param((6, 3, 9, 7), (2, 3), ResizeMix(), marks=pytest.mark.thorough),
        ((6, 4, 5, 6, 2), (1, 2, 3), None),
    ],
    ids=["audio", "grey", "channels first", "volume"],
)
def test_data_of_any_dimension_is_mixed(shape, axes, sampler):
    """The label follows the volume of the region on one to three axes."""
    image = np.arange(6, dtype=np.float32).reshape(-1, *(1,) * (len(shape) - 1)) * np.ones(shape)
    batch = Batch.from_arrays({"image": image.astype(np.uint8), "label": np.eye(6)})
    out = make_op(spatial_axes=axes, sampler=sampler)(batch)
    partner = np.asarray(out.states["mix_info"]["partner"])
    shown = np.asarray(out["image"]).reshape(6, -1)
    label = np.asarray(out["label"])
    for row in range(6):
        assert set(shown[row]) <= {row, partner[row]}
        assert label[row, row] == np.float32((shown[row] == row).mean())


def test_a_sampler_that_returns_neither_boxes_nor_masks_is_refused():
    """The error names the sampler and both shapes that would do."""

    @dataclass(frozen=True)
    class Wrong(LeftHalf):
        def sample(self, words, lam, sizes):
            return jnp.zeros((*lam.shape, 3))

    with pytest.raises(TypeError, match=r"Wrong.sample must return boxes int32\(1, 6, 4\)"):
        make_op(sampler=Wrong())(make_batch())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sampler": FMix}, TypeError, "sampler must be a RegionSampler"),
        (
            {"sampler": FMix(), "mode": "mixup"},
            ValueError,
            "sampler.* has no effect in mode 'mixup'",
        ),
        ({"sampler": FMix(), "cutmix_minmax": (0.1, 0.2)}, ValueError, "has a sampler"),
        ({"sampler": CutMix(), "box_placement": "clipped"}, ValueError, "has a sampler"),
    ],
)
def test_samplers_that_do_not_fit_are_refused(options, error, message):
    """A class in place of an instance, a mode without regions, options that would be ignored."""
    with pytest.raises(error, match=message):
        make_op(**options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResizeMix(low=0.5, high=0.4), "ResizeMix.high must be from 0.5 to 1"),
        (lambda: ResizeMix(low=-0.1), "ResizeMix.low must be from 0 to 1"),
        (lambda: FMix(decay=-1), "FMix.decay must be from 0 to 100"),
        (lambda: CutMix(placement="outside"), "CutMix.placement must be one of"),
        (lambda: CutMix(minmax=(0.5, 0.1)), "CutMix.minmax must be two fractions"),
    ],
)
def test_options_of_samplers_are_checked(make, message):
    """Fractions and powers out of range are refused when the sampler is made."""
    with pytest.raises(ValueError, match=message):
        make()


def test_output_structure_names_masks():
    """With a sampler of masks, mix_info has a mask in place of a box."""
    batch = make_batch(2)
    op = make_op(sampler=FMix())
    record = jax.tree.map(lambda leaf: leaf[0], batch.data)
    _, state = op.get_output_structure(record, {})
    assert set(state["mix_info"]) == {"lam", "partner", "mask"} == set(op(batch).states["mix_info"])
