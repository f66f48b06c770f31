import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.config import BatchMixOperatorConfig as ConfigFromCore
from datarax.core.element_batch import Batch
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig

pytestmark = pytest.mark.usefixtures("quick_compiles")
thorough = pytest.mark.thorough


def make_op(**options):
    return BatchMixOperator(BatchMixOperatorConfig(**options), rngs=nnx.Rngs(7))


def make_batch(rows=8, size=(6, 5, 3), dtype=np.float32, valid=None, **fields):
    rng = np.random.default_rng(rows)
    image = rng.random((rows, *size)) * (255 if np.issubdtype(dtype, np.integer) else 1)
    label = np.eye(10, dtype=np.float32)[rng.integers(0, 10, rows)]
    data = {"image": image.astype(dtype), "label": label, **fields}
    return Batch.from_arrays(data, valid_mask=None if valid is None else np.array(valid, bool))


def info_of(batch):
    return {name: np.asarray(value) for name, value in batch.states["mix_info"].items()}


def weights(info, size):
    """λ and 1 − λ of every row in float64, from the plan and the definition of either mix."""
    area = np.prod(info["box"][:, 2:] - info["box"][:, :2], axis=1)
    lam = np.where(area > 0, 1 - area / np.prod(size), info["lam"].astype(np.float64))
    return lam, 1 - lam


def oracle(batch, info, size):
    """Images and labels as the formulas have them, in float64."""
    image, label = (np.asarray(batch[name], np.float64) for name in ("image", "label"))
    partner, box = info["partner"], info["box"]
    lam, rest = weights(info, size)
    mixed = image.copy()
    for row in range(len(image)):
        y0, x0, y1, x1 = box[row]
        if y1 > y0 and x1 > x0:
            mixed[row, y0:y1, x0:x1] = image[partner[row], y0:y1, x0:x1]
        elif lam[row] < 1:
            mixed[row] = lam[row] * image[row] + rest[row] * image[partner[row]]
    soft = lam[:, None] * label + rest[:, None] * label[partner]
    return mixed, soft


MODES = ["mixup", "cutmix", "both"]
each_mode = pytest.mark.parametrize(
    "mode", [*(pytest.param(mode, marks=thorough) for mode in MODES[:2]), "both"]
)
each_granularity = pytest.mark.parametrize("granularity", ["batch", "record"])


@pytest.mark.parametrize(
    ("mode", "granularity", "rows"),
    [
        ("mixup", "batch", 13),
        pytest.param("mixup", "record", 13, marks=thorough),
        pytest.param("cutmix", "batch", 13, marks=thorough),
        ("cutmix", "record", 13),
        pytest.param("both", "batch", 13, marks=thorough),
        *(("both", "record", rows) for rows in (1, 2, 13)),
        pytest.param("both", "record", 3, marks=thorough),
    ],
)
def test_mix_follows_the_formulas(mode, granularity, rows):
    """Images and labels are those of the plan's λ, partner and box, by NumPy in float64."""
    batch = make_batch(rows)
    out = make_op(mode=mode, granularity=granularity, mix_info=True)(batch)
    info = info_of(out)
    image, label = oracle(batch, info, (6, 5))
    np.testing.assert_allclose(out["image"], image, rtol=1e-6)
    np.testing.assert_allclose(out["label"], label, rtol=1e-6, atol=1e-7)
    if rows > 1:
        assert (info["partner"] != np.arange(rows)).all()
    if granularity == "batch":
        assert len(np.unique(info["lam"])) == 1
        assert len(np.unique(info["box"], axis=0)) == 1
    elif rows > 3:
        assert len(np.unique(info["lam"])) > 1


def test_bytes_stay_bytes_and_nearest():
    """A uint8 image comes out as the nearest integer for the λ that the label carries."""
    batch = make_batch(9, dtype=np.uint8)
    out = make_op(mode="both", granularity="record", mix_info=True)(batch)
    assert out["image"].dtype == np.uint8
    image, _ = oracle(batch, info_of(out), (6, 5))
    assert np.abs(np.asarray(out["image"], np.float64) - image).max() <= 0.5


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=thorough), "int16"])
def test_dtype_of_images_is_kept_and_labels_are_at_least_float32(dtype):
    """Half precision and integer images keep their dtype; bfloat16 labels become float32."""
    batch = make_batch(4, dtype=jnp.dtype(dtype))
    batch = batch.replace(data={**batch.data, "label": batch["label"].astype(jnp.bfloat16)})
    out = make_op(mode="both")(batch)
    assert out["image"].dtype == dtype
    assert out["label"].dtype == np.float32


def test_fields_that_are_not_named_are_the_very_same_objects():
    """Class numbers, masks and nested fields beside image and label are not touched."""
    extra = {"label_idx": np.arange(8), "nested": {"mask": np.ones((8, 2), bool)}}
    batch = make_batch(**extra)
    out = make_op(mode="both")(batch)
    assert out["label_idx"] is batch["label_idx"]
    assert out["nested"]["mask"] is batch["nested"]["mask"]
    assert out.valid_mask is batch.valid_mask


@pytest.mark.parametrize(
    ("mode", "granularity", "dtype"),
    [
        pytest.param("mixup", "batch", np.float32, marks=thorough),
        ("cutmix", "batch", np.uint8),
        ("both", "record", np.float32),
        pytest.param("both", "record", np.uint8, marks=thorough),
    ],
    ids=["mixup f32", "cutmix u8", "both f32", "both u8"],
)
def test_padding_comes_out_bit_identical_and_leaves_no_trace(mode, granularity, dtype):
    """Padded rows pass through, NaN included, and valid rows do not depend on what they hold."""
    valid = [1, 1, 0, 1, 0, 1, 1, 0]
    first = make_batch(dtype=dtype, valid=valid)
    junk = np.nan if dtype is np.float32 else 255
    image, label = first["image"].copy(), first["label"].copy()
    image[~first.valid_mask], label[~first.valid_mask] = junk, np.nan
    second = first.replace(data={"image": image, "label": label})
    options = {"mode": mode, "granularity": granularity, "mix_info": True}
    one, two = make_op(**options)(first), make_op(**options)(second)
    for name in ("image", "label"):
        before, a, b = (np.asarray(x[name]) for x in (second, one, two))
        np.testing.assert_array_equal(b[~second.valid_mask], before[~second.valid_mask])
        np.testing.assert_array_equal(a[second.valid_mask], b[second.valid_mask])
    partner = info_of(one)["partner"]
    np.testing.assert_array_equal(np.sort(partner[first.valid_mask]), np.flatnonzero(valid))


@pytest.mark.parametrize(
    ("valid", "applied"), [([0, 0, 0], 0), ([0, 1, 0], 0), ([0, 1, 1], 2)], ids=["0", "1", "2"]
)
def test_fewer_than_two_valid_rows_pass_through_and_count_as_skipped(valid, applied):
    """A lone record comes out as it is; padding is never counted."""
    batch = make_batch(3, valid=valid)
    op = make_op(mode="both")
    out = op(batch)
    counts = op.get_operation_stats()
    assert counts == {"applied_count": applied, "skipped_count": sum(valid) - applied}
    if not applied:
        np.testing.assert_array_equal(out["image"], batch["image"])
        np.testing.assert_array_equal(out["label"], batch["label"])


def test_disabled_mixing_is_the_identity_in_every_bit():
    """With enabled=False, images and labels with NaN and inf come out as they are."""
    batch = make_batch()
    image = batch["image"].copy()
    image[0, 0], image[1, 0] = np.nan, np.inf
    batch = batch.replace(data={**batch.data, "image": image})
    op = make_op(mode="both", label_smoothing=0.1)
    op.enabled.set_value(False)
    out = op(batch)
    np.testing.assert_array_equal(np.asarray(out["image"]).view(np.uint32), image.view(np.uint32))
    np.testing.assert_array_equal(out["label"], batch["label"])
    assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": 8}


@each_granularity
def test_prob_is_how_likely_a_draw_mixes(granularity):
    """The fraction of mixed records is prob, drawn for the batch or for each record."""
    op = make_op(prob=0.3, granularity=granularity)
    batch = make_batch(100, size=(2, 2, 1))
    for prob in (0.3, 0.0, 1.0):
        op.prob.set_value(prob)
        done = []
        for _ in range(60):
            before = op.get_operation_stats()["applied_count"]
            op(batch)
            done.append(op.get_operation_stats()["applied_count"] - before)
        if granularity == "batch":
            assert set(done) <= {0, 100}
        draws = 60 if granularity == "batch" else 6_000
        limit = 4.5 * np.sqrt(prob * (1 - prob) / draws)
        assert abs(np.mean(done) / 100 - prob) <= limit


@pytest.mark.parametrize(
    "switch_prob",
    [pytest.param(0.0, marks=thorough), 0.25, pytest.param(1.0, marks=thorough)],
)
def test_switch_prob_is_how_likely_a_draw_is_cutmix(switch_prob):
    """In mode "both", that fraction of records gets a box and the others are blended."""
    op = make_op(mode="both", switch_prob=switch_prob, granularity="record", mix_info=True)
    info = info_of(op(make_batch(4_000, size=(16, 16, 1))))
    cut = (info["box"][:, 2:] > info["box"][:, :2]).all(axis=1)
    # A few boxes are too small to have a pixel.
    limit = 4.5 * np.sqrt(switch_prob * (1 - switch_prob) / 4_000) + 0.02
    assert abs(cut.mean() - switch_prob) <= limit


def test_both_uses_alpha_for_mixup_and_cutmix_alpha_for_boxes():
    """A large cutmix_alpha makes boxes of half the image while alpha leaves λ at the ends."""
    op = make_op(mode="both", alpha=0.01, cutmix_alpha=1e5, granularity="record", mix_info=True)
    info = info_of(op(make_batch(500, size=(64, 64, 1))))
    cut = (info["box"][:, 2:] > info["box"][:, :2]).all(axis=1)
    assert np.abs(info["lam"][cut] - 0.5).max() < 0.02
    assert np.median(np.minimum(info["lam"], 1 - info["lam"])[~cut]) < 1e-6


def test_schedule_compiles_nothing_again():
    """One trace serves every value of prob and enabled, whatever type sets them."""
    traces = []

    class Counted(BatchMixOperator):
        def apply_batch(self, batch, stats=None):
            traces.append(1)
            return super().apply_batch(batch, stats)

    op = Counted(BatchMixOperatorConfig(mode="both"), rngs=nnx.Rngs(0))
    batch = make_batch()
    op(batch)
    for prob in (0.5, 1, 0, np.float64(0.25), jnp.float32(0.75)):
        op.prob.set_value(prob)
        op(batch)
        assert float(op.prob.get_value()) == float(prob)
    op.prob[...] = 0.1
    op.enabled[...] = False
    op(batch)
    op.enabled.set_value(jnp.bool_(True))
    op(batch)
    assert len(traces) == 1


def test_schedule_can_be_assigned():
    """A plain assignment sets the Variable's value, checked as by set_value."""
    op, batch = make_op(), make_batch()
    op.enabled = False
    np.testing.assert_array_equal(op(batch)["image"], batch["image"])
    op.enabled, op.prob = True, 0.0
    np.testing.assert_array_equal(op(batch)["image"], batch["image"])
    with pytest.raises(ValueError, match="prob must be a number from 0 to 1, got 2"):
        op.prob = 2
    assert isinstance(op.prob, nnx.Variable)


def test_schedule_can_be_set_inside_a_compiled_step():
    """Prob set from a traced value under nnx.jit takes effect and stays."""

    @nnx.jit
    def step(op, batch, prob):
        op.prob.set_value(prob)
        return op(batch)

    op, batch = make_op(), make_batch()
    out = step(op, batch, jnp.float32(0))
    np.testing.assert_array_equal(out["image"], batch["image"])
    assert float(op.prob.get_value()) == 0


def test_integer_labels_become_one_hot():
    """Class numbers with num_classes are mixed as one-hot rows."""
    classes = np.arange(8) % 4
    batch = make_batch(label=classes)
    out = make_op(mode="both", num_classes=4, mix_info=True)(batch)
    hot = make_batch(label=np.eye(4, dtype=np.float32)[classes])
    _, expected = oracle(hot, info_of(out), (6, 5))
    np.testing.assert_allclose(out["label"], expected, atol=1e-7)
    assert out["label"].dtype == np.float32


def test_bytes_as_class_numbers_name_more_classes_than_bytes_can():
    """uint8 labels of 300 classes become rows with a single 1."""
    classes = np.array([0, 44, 255, 7], np.uint8)
    out = make_op(num_classes=300, prob=0.0)(make_batch(4, label=classes))
    np.testing.assert_array_equal(out["label"], np.eye(300)[classes])


@pytest.mark.parametrize(
    "integers", [True, pytest.param(False, marks=thorough)], ids=["integers", "one-hot"]
)
def test_label_smoothing_reaches_mixed_and_unmixed_rows(integers):
    """On = 1 − ε + ε/K and off = ε/K, before mixing, in rows that prob leaves alone too."""
    classes = np.arange(8) % 4
    hot = np.eye(4, dtype=np.float32)[classes]
    valid = np.arange(8) < 7
    batch = make_batch(label=classes if integers else hot, valid=valid)
    options = {"num_classes": 4} if integers else {}
    for prob in (0.0, 1.0):
        op = make_op(label_smoothing=0.2, prob=prob, mix_info=True, **options)
        out = op(batch)
        smooth = make_batch(label=np.where(hot == 1, 0.85, 0.05), valid=valid)
        _, expected = oracle(smooth, info_of(out), (6, 5))
        np.testing.assert_allclose(out["label"][:7], expected[:7], rtol=1e-6)
        np.testing.assert_array_equal(out["label"][7], hot[7])


def test_multi_hot_labels_pass_as_they_are_and_are_smoothed_only_on_request():
    """Rows that do not sum to 1 mix like others; smoothing them needs smooth_multi_hot."""
    multi = (np.random.default_rng(0).random((8, 5)) < 0.5).astype(np.float32)
    batch = make_batch(label=multi)
    out = make_op(mix_info=True)(batch)
    np.testing.assert_allclose(out["label"], oracle(batch, info_of(out), (6, 5))[1], atol=1e-7)
    with pytest.raises(ValueError, match=r"rows that sum to 1 .*smooth_multi_hot"):
        make_op(label_smoothing=0.1)(batch)
    asked = make_op(label_smoothing=0.1, smooth_multi_hot=True, prob=0.0)(batch)
    np.testing.assert_allclose(asked["label"], multi * 0.9 + 0.02, rtol=1e-6)


def test_labels_that_cannot_be_read_become_nan_where_they_are_wrong():
    """Inside a caller's trace a class that does not exist shows in the loss, not as a zero row."""
    op = make_op(num_classes=4, prob=0.0)
    batch = make_batch(4, label=np.array([0, 9, -1, 3]), valid=[1, 1, 0, 1])
    label = np.asarray(nnx.jit(lambda op, batch: op(batch))(op, batch)["label"])
    np.testing.assert_array_equal(np.isnan(label).any(axis=1), [False, True, False, False])


def test_several_images_and_labels_share_ratio_partner_and_box():
    """Tuples of fields are mixed with one plan."""
    batch = make_batch(second=make_batch(8)["image"] + 1, coarse=np.eye(8, dtype=np.float32))
    options = {"data_field": ("image", "second"), "label_field": ("label", "coarse")}
    out = make_op(mode="both", granularity="record", mix_info=True, **options)(batch)
    info = info_of(out)
    np.testing.assert_allclose(out["second"], np.asarray(out["image"]) + 1, rtol=1e-6)
    lam, rest = weights(info, (6, 5))
    hot = np.eye(8)
    expected = lam[:, None] * hot + rest[:, None] * hot[info["partner"]]
    np.testing.assert_allclose(out["coarse"], expected, atol=1e-7)


def test_companions_are_mixed_or_pasted_by_their_role():
    """Depth follows the image, a mask gets only pasted class ids, a target follows the label."""
    rng = np.random.default_rng(4)
    depth, mask = rng.random((8, 6, 5)).astype(np.float32), rng.integers(0, 250, (8, 6, 5, 1))
    target = rng.random(8).astype(np.float32)
    batch = make_batch(depth=depth, mask=mask.astype(np.uint8), target=target)
    roles = {"mix_fields": ("depth", "target"), "paste_fields": ("mask",)}
    out = make_op(mode="both", granularity="record", mix_info=True, **roles)(batch)
    info = info_of(out)
    lam, rest = weights(info, (6, 5))
    like_image = batch.replace(data={**batch.data, "image": depth})
    np.testing.assert_allclose(out["depth"], oracle(like_image, info, (6, 5))[0], rtol=1e-6)
    expected = lam * target + rest * target[info["partner"]]
    np.testing.assert_allclose(out["target"], expected, rtol=1e-6)
    cut_only = {**info, "lam": np.where((info["box"] == 0).all(axis=1), 1, info["lam"])}
    like_image = batch.replace(data={**batch.data, "image": mask})
    np.testing.assert_array_equal(out["mask"], oracle(like_image, cut_only, (6, 5))[0])


def test_labels_are_optional():
    """label_field=None mixes images of a batch without labels."""
    batch = Batch.from_arrays({"image": make_batch()["image"]})
    out = make_op(label_field=None)(batch)
    assert set(out.keys()) == {"image"}
    assert not np.array_equal(out["image"], batch["image"])


@pytest.mark.parametrize(
    ("mode", "granularity"),
    [
        pytest.param("mixup", "batch", marks=thorough),
        pytest.param("cutmix", "record", marks=thorough),
        ("both", "record"),
    ],
)
def test_scan_strategy_gives_the_same_result(mode, granularity):
    """batch_strategy="scan" mixes one record after the other, to the same bits."""
    batch = make_batch(5, dtype=np.uint8, mask=np.arange(150).reshape(5, 6, 5))
    options = {"mode": mode, "granularity": granularity}
    if mode != "mixup":
        options["paste_fields"] = ("mask",)
    at_once = make_op(**options)(batch)
    one_by_one = make_op(**options, batch_strategy="scan")(batch)
    for name in ("image", "label", "mask"):
        np.testing.assert_array_equal(at_once[name], one_by_one[name])


def test_documented_calls_exist():
    """Apply and generate_random_params hand back what they get, as documented."""
    op, key = make_op(), jax.random.key(0)
    assert op.generate_random_params(key, {}) is key
    record = ({"image": np.zeros(3)}, {}, {"name": "cat"})
    assert op.apply(*record) == record
    assert ConfigFromCore is BatchMixOperatorConfig
    assert op.requires_rng_streams() == ["batch_mix"]


def test_positional_fields_stand_in_the_documented_order():
    """cacheable, batch_stats_fn, precomputed_stats, stochastic, stream_name, batch_strategy."""
    config = BatchMixOperatorConfig(False, None, {"mean": 1.0}, True, "mix", "scan", mode="cutmix")
    assert (config.stream_name, config.batch_strategy, config.mode) == ("mix", "scan", "cutmix")
    with pytest.raises(TypeError, match="positional"):
        BatchMixOperatorConfig(False, None, None, True, "mix", "scan", "cutmix")


def test_output_spec_tells_what_comes_out():
    """Integer labels become rows of classes and half-precision ones float32; the rest stays."""
    batch = make_batch(4, label=np.arange(4), soft=np.zeros((4, 5), jnp.bfloat16))
    op = make_op(num_classes=5, label_field=("label", "soft"))

    def spec(batch):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch.data)

    assert op.output_spec(spec(batch)) == spec(op(batch))


def test_output_structure_has_the_mix_info():
    """get_output_structure lists the state that mix_info adds."""
    batch = make_batch(2)
    record = jax.tree.map(lambda leaf: leaf[0], batch.data)
    _, state = make_op(mix_info=True).get_output_structure(record, {})
    out = make_op(mix_info=True)(batch)
    assert jax.tree.structure(out.states) == jax.tree.structure(state, is_leaf=lambda x: x is None)


def test_loss_on_mixed_labels_is_the_mixed_loss():
    """CE(mixed) = λ CE(y_a) + (1 − λ) CE(y_b), from what mix_info leaves."""
    batch = make_batch(16)
    out = make_op(mode="both", granularity="record", mix_info=True)(batch)
    info = info_of(out)
    lam, rest = weights(info, (6, 5))
    logits = np.random.default_rng(0).standard_normal((16, 10))
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    label = np.asarray(batch["label"], np.float64)
    mixed = -(np.asarray(out["label"]) * log_p).sum(1)
    apart = -lam * (label * log_p).sum(1) - rest * (label[info["partner"]] * log_p).sum(1)
    np.testing.assert_allclose(mixed, apart, atol=1e-5)


@each_mode
def test_gradients_reach_images_and_labels_with_their_weights(mode):
    """A label gets λ of its own row's gradient and 1 − λ of that whose partner it is."""
    batch = make_batch(5).replace(record_index=np.arange(5))
    op = make_op(mode=mode, granularity="record", mix_info=True)
    info = info_of(op(batch))
    ct = np.random.default_rng(1).standard_normal(batch["label"].shape).astype(np.float32)

    def total(label, image):
        out = op(batch.replace(data={"image": image, "label": label}))
        return (out["label"] * ct).sum() + out["image"].sum()

    label_grad, image_grad = jax.jit(jax.grad(total, (0, 1)))(batch["label"], batch["image"])
    lam, rest = weights(info, (6, 5))
    expected = lam[:, None] * ct
    np.add.at(expected, info["partner"], rest[:, None] * ct)
    np.testing.assert_allclose(label_grad, expected, rtol=1e-5, atol=1e-6)
    total = np.asarray(image_grad, np.float64).sum()
    assert total == pytest.approx(image_grad.size, rel=1e-5)


def test_copy_and_checkpoint_keep_the_schedule():
    """Prob is part of the state: copied, saved and restored."""
    op = make_op(prob=0.5)
    op.prob.set_value(0.25)
    other = make_op(prob=0.5)
    other.set_state(op.get_state())
    assert float(other.prob.get_value()) == 0.25
    assert float(op.copy().prob.get_value()) == 0.25
    assert float(op.copy(config=BatchMixOperatorConfig(prob=0.75)).prob.get_value()) == 0.75
