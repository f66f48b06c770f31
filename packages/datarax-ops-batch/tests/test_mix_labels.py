"""Labels of every form, in training, in evaluation and where a class does not exist."""

import logging

import jax
import numpy as np
import pytest
from flax import nnx
from jax.experimental import checkify

from datarax.core.element_batch import Batch
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig, FMix

pytestmark = pytest.mark.usefixtures("quick_compiles")


def make_op(**options):
    return BatchMixOperator(BatchMixOperatorConfig(**options), rngs=nnx.Rngs(batch_mix=1))


def make_batch(label, **options):
    rows = len(label)
    image = np.arange(rows * 12, dtype=np.uint8).reshape(rows, 4, 3, 1)
    return Batch.from_arrays({"image": image, "label": label}, **options)


CLASSES = np.array([0, 3, 1, 2, 3])
HOT = np.eye(4, dtype=np.float32)[CLASSES]
MULTI = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 0], [0, 1, 1, 0]])


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (CLASSES[:, None].astype(np.int16), HOT),
        (CLASSES[:, None].astype(np.uint8), HOT),
        (MULTI.astype(np.int32), MULTI),
        (MULTI.astype(np.uint8), MULTI),
        (MULTI.astype(bool), MULTI),
    ],
    ids=["column", "bytes", "integers", "multi bytes", "bools"],
)
def test_labels_of_every_form_are_mixed_as_rows_of_floats(label, expected):
    """A column of class numbers becomes one-hot, integer and bool multi-hot rows float32."""
    op, batch = make_op(num_classes=4, mix_info=True), make_batch(label)
    out = op(batch)
    info = jax.tree.map(np.asarray, out.states["mix_info"])
    lam = info["lam"][:, None].astype(np.float64)
    assert out["label"].dtype == np.float32
    mixed = lam * expected + (1 - lam) * expected[info["partner"]]
    np.testing.assert_allclose(out["label"], mixed, atol=1e-6)
    record = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch.data)
    assert op.output_spec(record)["label"] == jax.ShapeDtypeStruct((4,), np.float32)


def test_integer_multi_hot_rows_need_no_number_of_classes():
    """Rows of several columns are weights, which num_classes has nothing to say about."""
    out = make_op(prob=0.0)(make_batch(MULTI))
    np.testing.assert_array_equal(out["label"], MULTI)
    with pytest.raises(ValueError, match="rows that sum to 1"):
        make_op(label_smoothing=0.1)(make_batch(MULTI))


@pytest.mark.parametrize("mode", ["eager", "recycled"])
def test_a_class_that_does_not_exist_is_named_with_its_record(mode):
    """The error has the class, the record's number and the row; padding may hold anything."""
    op = make_op(num_classes=4)
    mask = np.array([1, 1, 0, 1, 1], bool)
    right = make_batch(CLASSES, record_index=[20, 30, 40, 50, 60], valid_mask=mask)
    wrong = right.replace(data={**right.data, "label": np.array([0, 1, 99, -2, 7])})
    with pytest.raises(ValueError, match=r"from 0 to 3, got -2 in record 50 \(row 3\); raise"):
        op.recycle(wrong, spent=op(right)) if mode == "recycled" else op(wrong)
    with pytest.raises(ValueError, match=r"got -2 in row 3; raise"):
        op(wrong.replace(record_index=None))


def test_checkify_brings_the_class_out_of_a_trace():
    """With checkify=True a wrapped step throws; without the wrapper, or right, nothing happens."""
    op = make_op(num_classes=4, checkify=True, prob=0.0)
    right = make_batch(CLASSES.astype(np.uint8), record_index=np.arange(10, 15), epoch=0)
    wrong = right.replace(data={**right.data, "label": np.uint8([0, 1, 2, 9, 3])})
    step = jax.jit(checkify.checkify(lambda batch: op(batch)["label"]))
    error, label = step(right)
    error.throw()
    np.testing.assert_array_equal(label, HOT)
    error, _ = step(wrong)
    with pytest.raises(checkify.JaxRuntimeError, match="got 9 in record 13; raise num_classes"):
        error.throw()
    assert np.isnan(jax.jit(lambda batch: op(batch)["label"])(wrong)[3]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "mixup", "num_classes": 4, "label_smoothing": 0.1},
        {"mode": "cutmix", "sampler": FMix(), "num_classes": 4, "mix_group_size": 2},
        {"mode": "both", "label_field": None},
    ],
    ids=["mixup", "masks", "no labels"],
)
def test_evaluation_keeps_the_form_of_labels_and_changes_nothing_else(options):
    """op.eval() gives what enabled=False gives, in the structure of training, and skips all."""
    op, batch = make_op(mix_info=True, **options), make_batch(CLASSES)
    training = op(batch)
    op.reset_operation_stats()
    op.enabled.set_value(False)
    disabled = op(batch)
    op.enabled.set_value(True)
    op.eval()
    out = op(batch)
    assert out["image"] is batch["image"]
    assert jax.tree.structure(out) == jax.tree.structure(training)
    assert [leaf.dtype for leaf in jax.tree.leaves(out)] == [
        leaf.dtype for leaf in jax.tree.leaves(training)
    ]
    jax.tree.map(np.testing.assert_array_equal, out, disabled)
    if options["label_field" if "label_field" in options else "num_classes"]:
        np.testing.assert_array_equal(out["label"], HOT)
    info = out.states["mix_info"]
    np.testing.assert_array_equal(info["partner"], np.arange(5))
    assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": 10}
    op.train()
    assert not np.array_equal(op(batch)["image"], batch["image"])


def test_fields_are_named_by_dotted_path():
    """Nested fields of every role are mixed in place; what is beside them stays as it is."""
    batch = make_batch(CLASSES)
    depth, mask = np.ones((5, 4, 3), np.float32), np.arange(60).reshape(5, 4, 3)
    nested = {
        "inputs": {"image": batch["image"], "depth": depth * CLASSES[:, None, None], "mask": mask},
        "targets": {"a.b": CLASSES, "other": CLASSES},
    }
    plain = {**nested["inputs"], "label": CLASSES}
    names = {"data_field": "image", "mix_fields": ("depth",), "paste_fields": ("mask",)}
    paths = {
        "data_field": "inputs.image",
        "label_field": "targets.a.b",
        "mix_fields": ("inputs.depth",),
        "paste_fields": ("inputs.mask",),
    }
    options = {"mode": "cutmix", "num_classes": 4, "granularity": "record"}
    expected = make_op(**options, **names)(Batch.from_arrays(plain))
    out = make_op(**options, **paths)(Batch.from_arrays(nested))
    for field in ("image", "depth", "mask"):
        np.testing.assert_array_equal(out["inputs"][field], expected[field])
    np.testing.assert_array_equal(out["targets"]["a.b"], expected["label"])
    assert out["targets"]["other"] is CLASSES
    assert set(out.data) == {"inputs", "targets"}
    spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), nested)
    assert make_op(**options, **paths).output_spec(spec)["targets"]["a.b"].shape == (4,)
    with pytest.raises(KeyError, match=r"'inputs.picture' \(data_field\).*'inputs.image'"):
        make_op(data_field="inputs.picture")(Batch.from_arrays(nested))


def test_rows_without_a_partner_are_told_once(caplog):
    """A group of one row is logged at INFO with its number, not again for that batch size."""
    op = make_op(mix_group_size=4, label_field=None)
    with caplog.at_level(logging.INFO, "datarax.operators.batch_mix_operator"):
        for _ in range(2):
            op(make_batch(np.zeros((9, 2), np.float32)))
        op(make_batch(np.zeros((8, 2), np.float32)))
    assert [record.getMessage().count("rows [8] of a batch of 9") for record in caplog.records] == [
        1
    ]


def test_what_becomes_of_masks_in_mixup_draws_is_said_at_construction(caplog):
    """paste_fields in mode "both" is logged at INFO with the remedy, in mode "cutmix" not."""
    with caplog.at_level(logging.INFO, "datarax.operators.batch_mix_operator"):
        make_op(mode="cutmix", paste_fields=("mask",))
        make_op(mode="both", paste_fields=("mask",))
    (record,) = caplog.records
    assert "leaves them as they are where it draws MixUp" in record.getMessage()


def test_the_stream_of_that_name_or_the_default_one_is_drawn_from():
    """Rngs with batch_mix or with default will do; another name alone will not."""
    batch = make_batch(HOT)
    for rngs in (nnx.Rngs(batch_mix=0), nnx.Rngs(0), nnx.Rngs(other=1, default=0)):
        assert BatchMixOperator(BatchMixOperatorConfig(), rngs=rngs)(batch)["image"].shape[0] == 5
    with pytest.raises(ValueError, match=r"needs the random streams \['batch_mix'\]"):
        BatchMixOperator(BatchMixOperatorConfig(), rngs=nnx.Rngs(other=0))
