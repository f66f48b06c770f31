import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig

NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"stochastic": False}, ValueError, "stochastic must be True"),
        ({"cacheable": True}, ValueError, "cacheable=True and stochastic=True"),
        ({"mode": "mosaic"}, ValueError, "mode must be one of .*'both'.*got 'mosaic'"),
        ({"alpha": 0}, ValueError, "alpha must be positive and finite.*got 0"),
        ({"alpha": -0.4}, ValueError, "alpha must be positive and finite.*got -0.4"),
        ({"alpha": NAN}, ValueError, "alpha must be positive and finite.*got nan"),
        ({"alpha": float("inf")}, ValueError, "alpha must be positive and finite.*got inf"),
        ({"alpha": "1"}, TypeError, "alpha must be a positive number, got str '1'"),
        ({"prob": 1.5}, ValueError, "prob must be from 0 to 1, got 1.5"),
        ({"prob": NAN}, ValueError, "prob must be from 0 to 1, got nan"),
        ({"prob": True}, TypeError, "prob must be a number from 0 to 1, got bool"),
        ({"mode": "both", "switch_prob": -1}, ValueError, "switch_prob must be from 0 to 1"),
        ({"mode": "both", "cutmix_alpha": 0.0}, ValueError, "cutmix_alpha must be positive"),
        ({"cutmix_alpha": 1.0}, ValueError, "cutmix_alpha=1.0 has no effect in mode 'mixup'"),
        ({"switch_prob": 0.5}, ValueError, "switch_prob=0.5 has no effect in mode 'mixup'"),
        ({"box_placement": "clipped"}, ValueError, "box_placement='clipped' has no effect"),
        ({"paste_fields": ("mask",)}, ValueError, "paste_fields.* has no effect in mode 'mixup'"),
        ({"box_placement": "outside"}, ValueError, "box_placement must be one of"),
        ({"granularity": "pixel"}, ValueError, "granularity must be one of.*got 'pixel'"),
        ({"cutmix_minmax": (0.2, 0.8)}, ValueError, "cutmix_minmax.*has no effect"),
        ({"mode": "cutmix", "cutmix_minmax": (0.8, 0.2)}, ValueError, "low <= high"),
        ({"mode": "cutmix", "cutmix_minmax": (0.1, NAN)}, ValueError, "low <= high"),
        ({"mode": "cutmix", "cutmix_minmax": ["0.1", 0.2]}, TypeError, "tuple of two numbers"),
        ({"mode": "cutmix", "cutmix_minmax": (0.1,)}, ValueError, "two fractions"),
        ({"mix_group_size": 1}, ValueError, "mix_group_size must be at least 2, got 1"),
        ({"mix_group_size": 2.0}, TypeError, "mix_group_size must be an integer, got float"),
        ({"num_classes": 0}, ValueError, "num_classes must be at least 1, got 0"),
        ({"label_smoothing": 1.1}, ValueError, "label_smoothing must be from 0 to 1"),
        ({"smooth_multi_hot": True}, ValueError, "no effect without label_smoothing"),
        ({"label_field": None, "num_classes": 3}, ValueError, "num_classes has no effect without"),
        ({"spatial_axes": (0, 1)}, ValueError, "ascending axes after the batch axis 0"),
        ({"spatial_axes": (2, 1)}, ValueError, "ascending axes after the batch axis 0"),
        ({"spatial_axes": ()}, ValueError, "ascending axes after the batch axis 0"),
        ({"spatial_axes": {1, 2}}, TypeError, "spatial_axes must be a tuple of axes"),
        ({"data_field": 3}, TypeError, "data_field must be a tuple of names.*got int 3"),
        ({"data_field": ()}, ValueError, "data_field must name at least one field"),
        ({"data_field": ""}, ValueError, "data_field must hold non-empty names"),
        (
            {"mix_fields": "depth"},
            TypeError,
            "mix_fields must be a tuple of names.*got str 'depth'",
        ),
        ({"mix_fields": ("label",)}, ValueError, "'label' as label_field and as mix_fields"),
        ({"cacheable": "mixup"}, TypeError, r"by name; write .*\(mode='mixup'"),
        ({"mix_info": 1}, TypeError, "mix_info must be True or False"),
    ],
)
def test_config_refuses(options, error, message):
    """An option out of range, of the wrong type or without effect is refused with its name."""
    with pytest.raises(error, match=rf"BatchMixOperatorConfig.*{message}"):
        BatchMixOperatorConfig(**options)


def batch_of(**fields):
    image = np.zeros((4, 6, 5, 3), np.float32)
    return Batch.from_arrays({"image": image, "label": np.eye(4, dtype=np.float32), **fields})


@pytest.mark.parametrize(
    ("options", "fields", "error", "message"),
    [
        ({"data_field": "img"}, {}, KeyError, r"field 'img' \(data_field\).*\['image', 'label'\]"),
        ({"label_field": "y"}, {}, KeyError, "'y'.*name one of these.*or label_field=None"),
        ({"mix_fields": ("d",)}, {}, KeyError, r"field 'd' \(mix_fields\)"),
        ({}, {"label": np.arange(4)}, ValueError, "integer class numbers.*set num_classes"),
        ({}, {"label": np.float32([0, 1, 2, 3])}, ValueError, r"shape \(batch, classes\).*\(4,\)"),
        ({}, {"label": np.ones(4, bool)}, ValueError, r"of bool.*shape \(batch, classes\).*\(4,\)"),
        ({}, {"label": np.ones((4, 2), complex)}, TypeError, "rows of classes.*got complex"),
        ({}, {"label": np.ones((4, 1), int)}, ValueError, "integer class numbers.*set num_classes"),
        (
            {"num_classes": 5},
            {"label": np.eye(4, dtype=np.int32)},
            ValueError,
            r"num_classes=5 columns, got shape \(4, 4\)",
        ),
        ({"num_classes": 5}, {}, ValueError, "num_classes=5 columns"),
        (
            {"num_classes": 3},
            {"label": np.array([0, 1, 2, 3])},
            ValueError,
            r"class numbers from 0 to 2, got 3 in row 3; raise num_classes",
        ),
        (
            {"num_classes": 3},
            {"label": jnp.int32([0, -1, 2, 2])},
            ValueError,
            r"class numbers from 0 to 2, got -1 in row 1",
        ),
        ({}, {"image": np.zeros((4, 6, 5), bool)}, TypeError, "floats or integers.*got bool"),
        (
            {},
            {"image": {"left": np.zeros((4, 2))}},
            TypeError,
            "'image'.*must be one array, got dict",
        ),
        (
            {"mode": "cutmix"},
            {"image": np.zeros((4, 6), np.float32)},
            ValueError,
            r"spatial axes \(1, 2\).*got shape \(4, 6\); set spatial_axes",
        ),
        (
            {"mode": "cutmix", "spatial_axes": (1, 4)},
            {},
            ValueError,
            r"spatial axes \(1, 4\).*got shape \(4, 6, 5, 3\)",
        ),
        (
            {"mode": "cutmix"},
            {"image": np.zeros((4, 0, 5, 3), np.float32)},
            ValueError,
            r"from 1 to 2\*\*31 - 1 pixels",
        ),
        (
            {"mode": "cutmix", "paste_fields": ("mask",)},
            {"mask": np.zeros((4, 5, 6))},
            ValueError,
            r"'mask' must be \(6, 5\).*like 'image'.*got shape \(4, 5, 6\); resize",
        ),
    ],
)
def test_batch_is_refused_and_nothing_changes(options, fields, error, message):
    """A field that is missing or does not fit is named; the stream and the counts stay."""
    op = BatchMixOperator(BatchMixOperatorConfig(**options), rngs=nnx.Rngs(0))
    before = jax.tree.map(np.asarray, op.get_state())
    for call in (op, op.apply_batch):
        with pytest.raises(error, match=message):
            call(batch_of(**fields))
    jax.tree.map(np.testing.assert_array_equal, before, op.get_state())


def test_class_numbers_of_padding_are_not_checked():
    """A padded row may hold any class number."""
    batch = batch_of(label=np.array([0, 1, 2, -1])).select(np.arange(4) < 3)
    op = BatchMixOperator(BatchMixOperatorConfig(num_classes=3), rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(op(batch)["label"][3], [0, 0, 0])


def test_something_else_than_a_batch_of_fields_is_refused():
    """A list or a bare array is not a batch of named fields."""
    op = BatchMixOperator(BatchMixOperatorConfig(), rngs=nnx.Rngs(0), name="mine")
    with pytest.raises(TypeError, match=r"'mine'.* got list"):
        op([np.zeros((2, 2, 2))])
    with pytest.raises(TypeError, match=r"'mine' mixes the fields of a dict.*one array"):
        op(Batch.from_arrays(np.zeros((2, 2, 2))))


def test_streams_are_required():
    """Mixing needs rngs that have the stream."""
    config = BatchMixOperatorConfig(stream_name="mixup")
    with pytest.raises(ValueError, match="rngs is None"):
        BatchMixOperator(config)
    with pytest.raises(ValueError, match=re.escape("needs the random streams ['mixup']")):
        BatchMixOperator(config, rngs=nnx.Rngs(other=0))


def test_config_of_another_operator_is_refused():
    """Only a BatchMixOperatorConfig says how to mix."""
    with pytest.raises(TypeError, match="must be a BatchMixOperatorConfig, got dict"):
        BatchMixOperator({"mode": "mixup"}, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("prob", 1.5, ValueError, "prob must be a number from 0 to 1, got 1.5"),
        ("prob", NAN, ValueError, "prob must be a number from 0 to 1, got nan"),
        ("prob", "0.5", ValueError, "prob must be a number from 0 to 1, got 0.5"),
        ("prob", np.zeros(2), ValueError, r"must be a scalar, got shape \(2,\)"),
        ("enabled", 1, TypeError, "enabled must be True or False, got int64 1"),
    ],
)
def test_schedule_refuses_bad_values(name, value, error, message):
    """A value that would retrace or make no sense is refused; the old one stays."""
    op = BatchMixOperator(BatchMixOperatorConfig(), rngs=nnx.Rngs(0))
    with pytest.raises(error, match=message):
        getattr(op, name).set_value(value)
    assert float(op.prob.get_value()) == 1
    assert bool(op.enabled.get_value())


def test_a_second_mix_info_is_refused():
    """The plan of an earlier mix is not overwritten."""
    op = BatchMixOperator(BatchMixOperatorConfig(mix_info=True), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="'mix_info' from another mix already"):
        op(op(batch_of()))
