"""The modality base: fields by path, clipping, auxiliary fields, learning."""

import pickle

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.core.modality import FieldDomain, ModalityOperator, ModalityOperatorConfig
from datarax.operators.modality.image import (
    GeometricOperator,
    GeometricOperatorConfig,
    ImageOperator,
    ImageOperatorConfig,
)


class Shift(ModalityOperator):
    """The pattern of the documentation: `apply` by hand, one number a record."""

    def apply(self, data, state, metadata, random_params=None, stats=None):
        image = self._extract_field(data, self.config.field_key)
        transformed = image if random_params is None else image + random_params
        transformed = self._apply_clip_range(transformed)
        return self._remap_field(data, transformed), state, metadata

    def generate_random_params(self, rng, data_shapes):
        batch_size = data_shapes[self.config.field_key][0]
        return jax.random.uniform(rng, (batch_size,))


class FlipRows(ModalityOperator):
    """A geometric operator, in which masks, boxes and points follow."""

    domain = FieldDomain("image", layouts=(("height", "width"),), kinds=("integer", "float"))

    def transform_field(self, value, random_params, stats):
        return value[::-1]

    def transform_auxiliary(self, kind, value, field, random_params, stats):
        height = jnp.asarray(field.shape[0], value.dtype)
        if kind == "mask":
            return value[::-1]
        if kind == "boxes":
            y0, x0, y1, x1 = (value[:, i] for i in range(4))
            return jnp.stack([height - y1, x0, height - y0, x1], axis=1)
        return value.at[:, 0].set(height - value[:, 0])


def config(**options):
    return ModalityOperatorConfig(**{"field_key": "image"} | options)


def images(*shape, dtype=np.float32):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def test_extracts_by_dotted_path_and_by_literal_name():
    """A dot goes one level down, unless the field's own name has it."""
    op = Shift(config())
    data = {"inputs": {"image": 1, "a.b": 2}, "flat.name": 3}
    assert op._extract_field(data, "inputs.image") == 1
    assert op._extract_field(data, "inputs.a.b") == 2
    assert op._extract_field(data, "flat.name") == 3


@pytest.mark.parametrize("path", ["picture", "inputs.picture", "inputs.image.x"])
def test_missing_field_lists_the_fields_there_are(path):
    """A wrong path is a KeyError that shows the right ones."""
    data = {"inputs": {"image": np.zeros(2)}, "label": np.zeros(2)}
    with pytest.raises(
        KeyError, match=rf"no field '{path}'; there are \['inputs.image', 'label'\]"
    ):
        Shift(config())._extract_field(data, path)


def test_target_key_makes_missing_levels_and_leaves_the_input_alone():
    """Nested targets are created beside what is there, in a new dict."""
    op = Shift(config(target_key="out.views.one"))
    data = {"image": 1, "out": {"views": {"two": 2}}}
    assert op._remap_field(data, 5) == {"image": 1, "out": {"views": {"two": 2, "one": 5}}}
    assert data == {"image": 1, "out": {"views": {"two": 2}}}
    assert Shift(config(field_key="out.views"))._remap_field(data, 5)["out"] == {"views": 5}


def test_target_through_an_array_is_refused():
    """A target below a field that is no dict cannot be written."""
    with pytest.raises(TypeError, match="'x' must be written into a dict, got ndarray"):
        Shift(config(target_key="image.x"))._remap_field({"image": np.zeros(2)}, 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, ml_dtypes.bfloat16, np.float32])
def test_clip_keeps_dtype_and_matches_numpy(dtype):
    """Values are clipped in their own dtype."""
    value = np.array([0, 3, 7, 100], dtype)
    clipped = Shift(config(clip_range=(3, 50.0)))._apply_clip_range(value)
    assert clipped.dtype == dtype
    np.testing.assert_array_equal(np.asarray(clipped), np.array([3, 3, 7, 50], dtype))


def test_clip_rounds_bounds_inwards_and_keeps_nan_and_gradient():
    """No clipped value lies outside the range, in narrow dtypes and integers too."""
    op = Shift(config(clip_range=(0.1, 0.3)))
    low, high = np.asarray(op._apply_clip_range(jnp.array([-1, 1], jnp.bfloat16))).astype(float)
    assert 0.1 <= low < 0.101
    assert 0.298 < high <= 0.3
    assert Shift(config(clip_range=(0.5, 2.5)))._apply_clip_range(np.uint8([0, 9])).tolist() == [
        1,
        2,
    ]
    assert np.isnan(op._apply_clip_range(jnp.array([jnp.nan]))).all()
    gradient = jax.grad(lambda x: op._apply_clip_range(x).sum())(jnp.array([0.0, 0.2, 0.4]))
    assert gradient.tolist() == [0, 1, 0]


@pytest.mark.parametrize("bounds", [(0.2, 0.8), (300, 400), (-5, -1), (256, np.inf)])
def test_clip_range_without_a_value_of_the_dtype_is_refused(bounds):
    """A range that no uint8 satisfies is an error when the field's dtype is seen."""
    with pytest.raises(ValueError, match=r"clip_range .* contains no value of dtype uint8"):
        Shift(config(clip_range=bounds))(Batch.from_arrays({"image": images(2, 3, dtype=np.uint8)}))


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "dotted"])
@pytest.mark.parametrize("indexed", [False, True], ids=["stream", "record_index"])
def test_documented_pattern_draws_one_number_a_record(nested, indexed):
    """`data_shapes[field_key][0]` is the batch size, with dotted keys as well."""
    key = "inputs.image" if nested else "image"
    op = Shift(config(field_key=key, target_key="out", stochastic=True), rngs=nnx.Rngs(0))
    image = images(4, 2, 2)
    batch = Batch.from_arrays(
        {"inputs": {"image": image}} if nested else {"image": image},
        record_index=np.arange(4) if indexed else None,
    )
    shift = np.asarray(op(batch)["out"]) - image
    assert len(np.unique(shift[:, 0, 0])) == 4
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1, :1], shift.shape), atol=1e-5)


def test_output_spec_has_the_target():
    """Specs name the written field, nested and dotted ones included."""
    op = Shift(
        config(field_key="a.b", target_key="c.d", stochastic=True, clip_range=(0.0, 1.0)),
        rngs=nnx.Rngs(0),
    )
    spec = jax.ShapeDtypeStruct((2, 3), np.float32)
    assert op.output_spec({"a": {"b": spec}}) == {"a": {"b": spec}, "c": {"d": spec}}
    assert op.get_output_structure({"a": {"b": spec}}, {})[0] == {
        "a": {"b": None},
        "c": {"d": None},
    }


def test_geometry_carries_masks_boxes_and_points_along():
    """One overridden method moves every auxiliary field; padding rows stay as they are."""
    op = FlipRows(
        config(
            auxiliary_fields=["mask", "boxes", "points"],
            box_fields=("boxes",),
            box_format="xywh",
            keypoint_fields=("points",),
        )
    )
    boxes = np.int32([[1, 2, 3, 4], [0, 0, 0, 0], [-1, -1, -1, -1]])
    points = np.float32([[1, 2, 2], [-1, -1, 0], [4, 5, 0]])
    mask = images(1, 10, 6, dtype=np.uint8)
    out = op(
        Batch.from_arrays(
            {"image": images(1, 10, 6), "mask": mask, "boxes": boxes[None], "points": points[None]}
        )
    )
    np.testing.assert_array_equal(out["mask"], mask[:, ::-1])
    # Rows 2 to 6 of ten become rows 4 to 8.
    assert out["boxes"][0].tolist() == [[1, 4, 3, 4], [0, 0, 0, 0], [-1, -1, -1, -1]]
    assert out["points"][0].tolist() == [[1, 8, 2], [-1, -1, 0], [4, 5, 0]]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x: x[:1], ValueError, r"'mask' must keep its shape \(4, 4\), got \(1, 4\)"),
        (
            lambda x: x.astype(np.float32),
            TypeError,
            "'mask' must keep its dtype uint8, got float32",
        ),
        (lambda x: {"mask": x}, ValueError, "'mask' must keep its structure"),
    ],
    ids=["shape", "dtype", "structure"],
)
def test_preserve_auxiliary_refuses_changes(change, error, message):
    """With preserve_auxiliary a mask keeps its form; without, it may change."""

    class Change(FlipRows):
        def transform_auxiliary(self, kind, value, field, random_params, stats):
            return change(value)

    batch = Batch.from_arrays({"image": images(2, 4, 4), "mask": images(2, 4, 4, dtype=np.uint8)})
    with pytest.raises(error, match=message):
        Change(config(auxiliary_fields=["mask"]))(batch)
    free = Change(config(auxiliary_fields=["mask"], preserve_auxiliary=False))
    jax.tree.map(
        np.testing.assert_array_equal, free(batch)["mask"], jax.vmap(change)(batch["mask"])
    )


def test_missing_auxiliary_field_is_refused():
    """A field that shall follow must be there."""
    with pytest.raises(KeyError, match=r"no field 'mask'; there are \['image'\]"):
        FlipRows(config(auxiliary_fields=["mask"]))(Batch.from_arrays({"image": images(2, 4, 4)}))


def test_malformed_boxes_are_refused():
    """Boxes are four numbers."""
    op = FlipRows(config(auxiliary_fields=["boxes"], box_fields=("boxes",)))
    with pytest.raises(
        ValueError, match=r"boxes field 'boxes' must be \(boxes, 4\), got shape \(3,\)"
    ):
        op(Batch.from_arrays({"image": images(2, 4, 4), "boxes": np.zeros((2, 3), np.float32)}))
    with pytest.raises(
        TypeError, match="boxes field 'boxes' must be integers or floating, got bool"
    ):
        op(Batch.from_arrays({"image": images(2, 4, 4), "boxes": np.zeros((2, 3, 4), bool)}))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (
            np.zeros((2, 4, 4, 3), np.float32),
            ValueError,
            r"must be \(height, width\) to be used as image",
        ),
        (
            np.zeros((2, 4, 4), bool),
            TypeError,
            "kind integer or float to be used as image, got bool",
        ),
        (
            {"deep": np.zeros((2, 4))},
            TypeError,
            "'image' must be an array to be used as image, got dict",
        ),
    ],
    ids=["rank", "dtype", "level"],
)
def test_domain_is_checked_when_traced(image, error, message):
    """Rank and dtype outside the domain are errors that state the rule."""
    batch = Batch.from_arrays({"image": image})
    with pytest.raises(error, match=message):
        FlipRows(config())(batch)


def test_domain_checks_can_be_switched_off():
    """Without validate_domain_constraints a colour image may be flipped too."""
    op = FlipRows(config(validate_domain_constraints=False))
    image = images(2, 4, 4, 3)
    np.testing.assert_array_equal(op(Batch.from_arrays({"image": image}))["image"], image[:, ::-1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"field_key": ""}, ValueError, "field_key must be a non-empty string"),
        ({"field_key": 3}, TypeError, "field_key must be a non-empty string, got int 3"),
        ({"target_key": ""}, ValueError, "target_key must be a non-empty string or None"),
        ({"clip_range": (1.0, 0.0)}, ValueError, r"clip_range must be \(min, max\) with min < max"),
        ({"clip_range": (1.0, 1.0)}, ValueError, r"clip_range must be \(min, max\) with min < max"),
        (
            {"clip_range": (0.0, float("nan"))},
            ValueError,
            "clip_range must be a finite number, got nan",
        ),
        ({"clip_range": 1.0}, TypeError, r"clip_range must be \(min, max\), got 1.0"),
        ({"clip_range": ("a", 1)}, TypeError, "clip_range must be a number, got str 'a'"),
        ({"auxiliary_fields": "mask"}, TypeError, "auxiliary_fields must be a list of field names"),
        ({"auxiliary_fields": [1]}, TypeError, "auxiliary_fields must hold field names, got int 1"),
        ({"auxiliary_fields": ["m", "m"]}, ValueError, "must hold different non-empty names"),
        (
            {"auxiliary_fields": ["image"]},
            ValueError,
            "must not name 'image', which the operator writes",
        ),
        (
            {"box_fields": ("b",)},
            ValueError,
            r"box_fields names \['b'\], which auxiliary_fields \[\] must",
        ),
        (
            {"auxiliary_fields": ["b"], "box_fields": ("b",), "keypoint_fields": ("b",)},
            ValueError,
            "in both box_fields and keypoint_fields",
        ),
        ({"box_format": "yx"}, ValueError, "box_format must be one of"),
        ({"keypoint_format": "xyz"}, ValueError, "keypoint_format must be one of"),
        ({"preserve_auxiliary": 1}, TypeError, "preserve_auxiliary must be True or False"),
        ({"validate_domain_constraints": None}, TypeError, "must be True or False, got None"),
    ],
)
def test_wrong_options_are_refused(options, error, message):
    """Each option is checked when the config is made."""
    with pytest.raises(error, match=message):
        config(**options)


def test_config_has_the_documented_defaults_and_a_fixed_list():
    """Auxiliary names are a list, copied, unchangeable; the config hashes, compares and pickles."""
    names = ["mask"]
    made = config(auxiliary_fields=names)
    names.append("other")
    assert made.auxiliary_fields == ["mask"]
    assert isinstance(made.auxiliary_fields, list)
    assert made == config(auxiliary_fields=("mask",))
    assert hash(made) == hash(config(auxiliary_fields=("mask",)))
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(TypeError, match="cannot change"):
        made.auxiliary_fields.append("other")
    plain = config()
    assert (plain.target_key, plain.auxiliary_fields, plain.clip_range) == (None, None, None)
    assert plain.preserve_auxiliary
    assert plain.validate_domain_constraints


def test_wrong_config_type_and_missing_methods_are_named():
    """A base config is refused, and a subclass without its method says which one it needs."""
    from datarax.core.config import OperatorConfig

    with pytest.raises(TypeError, match="must be a ModalityOperatorConfig, got OperatorConfig"):
        ModalityOperator(OperatorConfig())
    with pytest.raises(NotImplementedError, match="must implement transform_field, or apply"):
        ModalityOperator(config())(Batch.from_arrays({"image": images(2, 3)}))


def test_parameters_train_together_with_a_model():
    """A learnable operator and a model converge under one nnx.Optimizer to the known answer."""

    class Gain(ModalityOperator):
        def __init__(self, config, *, rngs=None):
            super().__init__(config, rngs=rngs)
            self.gain = nnx.Param(jnp.array(0.5))

        def transform_field(self, value, random_params, stats):
            return value * self.gain[...]

    class Both(nnx.Module):
        def __init__(self):
            self.augment = Gain(config())
            self.offset = nnx.Param(jnp.array(0.0))

        def __call__(self, batch):
            return self.augment(batch)["image"] + self.offset[...]

    both = Both()
    optimizer = nnx.Optimizer(both, optax.sgd(0.3), wrt=nnx.Param)
    image = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32)
    batch = Batch.from_arrays({"image": image}, record_index=np.arange(64))

    @nnx.jit
    def step(both, optimizer, batch):
        def loss(both):
            return jnp.mean((both(batch) - (3 * batch["image"] - 1)) ** 2)

        value, gradients = nnx.value_and_grad(loss)(both)
        optimizer.update(both, gradients)
        return value

    for _ in range(60):
        value = step(both, optimizer, batch)
    assert value < 1e-8
    np.testing.assert_allclose([both.augment.gain[...], both.offset[...]], [3, -1], atol=1e-4)
    # The compiled call sees the new value.
    np.testing.assert_allclose(
        both.augment(batch)["image"], image * both.augment.gain[...], rtol=1e-6
    )


def test_custom_batch_level_operator_shares_statistics_of_the_batch():
    """An override of apply_batch computes over records and hands its result to apply as stats."""

    class Normalize(ModalityOperator):
        def transform_field(self, value, random_params, stats):
            return value - stats["mean"]

        def apply_batch(self, batch, stats=None):
            image = self._extract_field(batch.data, self.config.field_key)
            weight = batch.valid_mask.astype(image.dtype)
            mean = (image.mean(1) * weight).sum() / weight.sum()
            return super().apply_batch(batch, stats={"mean": mean})

    op = Normalize(config())
    out = op(
        Batch.from_arrays(
            {"image": np.float32([[1, 3], [5, 7], [9, 9]])}, valid_mask=[True, True, False]
        )
    )
    assert out["image"].tolist() == [[-3, -1], [1, 3], [5, 5]]
    assert op.get_operation_stats() == {"applied_count": 2, "skipped_count": 0}


def test_untouched_fields_are_the_very_same_objects():
    """What the operator does not write comes back as it went in."""
    batch = Batch.from_arrays({"image": images(2, 4, 4), "label": np.int32([1, 2])})
    assert FlipRows(config())(batch)["label"] is batch["label"]


class ForgetsImage(ImageOperator):
    """Has no return at its end."""

    def transform_image(self, image):
        return None


class ForgetsGeometry(GeometricOperator):
    """Has no return at its end."""

    def geometry(self, size):
        return None


def test_transformations_that_return_nothing_are_named():
    """An image or a geometry that is forgotten is an error, where records are left out too."""
    data = {"image": np.zeros((2, 4, 4), np.uint8)}
    with pytest.raises(TypeError, match="transform_image of ForgetsImage must return an array"):
        ForgetsImage(ImageOperatorConfig(prob=0.5), rngs=nnx.Rngs(0))(data)
    with pytest.raises(TypeError, match="geometry of ForgetsGeometry must return a geometry"):
        ForgetsGeometry(GeometricOperatorConfig())(data)
    with pytest.raises(ValueError, match="info_key must not be 'valid_mask'"):
        ImageOperatorConfig(info_key="valid_mask")
