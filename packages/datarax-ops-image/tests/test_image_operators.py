"""What all image operators promise, from one table of them."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from datarax.core.element_batch import Batch
from datarax.operators import (
    CompositeOperatorConfig,
    CompositeOperatorModule,
    SelectorOperator,
    SelectorOperatorConfig,
)
from datarax.operators.modality import image as images

pytestmark = pytest.mark.usefixtures("quick_compiles")

# Options with which each operator draws numbers, for images of 12 x 10.
CASES = {
    "Brightness": {},
    "ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "Contrast": {"factor": images.Choice((0.5, 1.5))},
    "Dropout": {"rate": 0.3, "fill": (1, 0, 1)},
    "GaussianBlur": {},
    "Hue": {},
    "Noise": {},
    "Posterize": {},
    "Saturation": {"factor": images.Normal(1, 0.4, low=0, high=2)},
    "Sharpness": {},
    "Solarize": {"prob": 0.5},
    "SpectrogramMask": {"time_width": 4, "frequency_width": 3, "length_field": "length"},
    "AutoContrast": {"prob": 0.5},
    "Equalize": {"prob": 0.5},
    "Grayscale": {"prob": 0.5},
    "Invert": {"prob": 0.5},
    "Normalize": {"mean": (0.5, 0.4, 0.3), "std": 0.2},
    "Affine": {"degrees": (-9, 9), "shear_x": (-9, 9), "scale": images.LogUniform(0.8, 1.25)},
    "Crop": {"size": 8, "padding": 2, "mode": "reflect"},
    "Flip": {},
    "IoUCrop": {"size": (9, 8), "auxiliary_fields": ["boxes"], "box_fields": ("boxes",)},
    "Resize": {"size": 7, "method": "bicubic"},
    "ResizedCrop": {"size": (8, 9), "sampling": "inception", "flip": 0.5},
    "Rotation": {"method": "bicubic", "fill": (1, 0, 0)},
    "ScaleJitter": {"size": 11, "scale": (0.5, 2)},
}
# One of each kind; the others are for the thorough run.
OFTEN = ("ColorJitter", "Noise", "IoUCrop", "ResizedCrop", "Rotation")
EVERY = [pytest.param(name, marks=[] if name in OFTEN else pytest.mark.thorough) for name in CASES]
RANDOM = [case for case in EVERY if case.values[0] not in ("Normalize", "Resize")]
DTYPES = ("uint8", "float32", "bfloat16")
ROWS = 8


def operator(name, seed=0, **options):
    """The operator of this name with the options of the table and these."""
    config = getattr(images, f"{name}OperatorConfig")(**CASES[name] | options)
    return getattr(images, f"{name}Operator")(config, rngs=nnx.Rngs(seed))


def rows(dtype="uint8", number=ROWS):
    """A batch of images of some structure, with the numbers of their records."""
    values = np.random.default_rng(0).integers(0, 256, (ROWS, 12, 10, 3), np.uint8)
    values[:, :5, :4] //= 4
    if dtype != "uint8":
        values = (values / np.float32(255)).astype(jnp.dtype(dtype))
    data = {
        "image": values,
        "length": np.arange(4, 4 + ROWS, dtype=np.int32),
        "boxes": np.tile(np.float32([[1, 2, 9, 8]]), (ROWS, 1, 1)),
    }
    batch = Batch.from_arrays(data, record_index=np.arange(10, 10 + ROWS), epoch=2)
    return batch[:number]


def same(left, right):
    """Whether two arrays agree in every bit."""
    left, right = np.asarray(left), np.asarray(right)
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


@cache
def called(name, dtype="float32"):
    """What the operator of the table makes of the rows, called on its own."""
    return operator(name, info_key="numbers")(rows(dtype))


def test_every_operator_is_in_the_table():
    """A new operator that this file does not test is noticed."""
    exported = {name.removesuffix("Operator") for name in vars(images) if name.endswith("Operator")}
    policies = {"RandAugment", "TrivialAugment", "AutoAugment"}
    assert exported - {"Image", "Geometric", "PatchDropout"} - policies == set(CASES)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(slice(3, 4), id="alone"),
        pytest.param(slice(2, ROWS), id="some", marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize("name", EVERY)
def test_a_record_is_the_same_alone_in_any_batch_and_compiled_anyhow(name, part):
    """All bits agree between a call, and one for other rows inside a compiled function."""
    op = CompositeOperatorModule(CompositeOperatorConfig(), operators=[operator(name)])
    composed = jax.jit(lambda batch: op(batch[part])["image"])(rows("float32"))
    assert same(called(name, "float32")["image"][part], composed)


@pytest.mark.parametrize("name", RANDOM)
def test_the_numbers_of_a_call_give_its_result_again(name):
    """`replay` with what `info_key` left is the call, to the bit, and counts nothing."""
    op = operator(name, info_key="numbers")
    out = called(name)
    again = op.replay(rows("float32"), out.states["numbers"])
    assert same(out["image"], again["image"])
    assert again.states == {}
    assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": 0}


@pytest.mark.parametrize("name", RANDOM)
def test_evaluation_has_the_form_of_training(name):
    """Records pass as they are, or at rest where the size changes, with the same fields."""
    op = operator(name, info_key="numbers")
    op.eval()
    trained, out = called(name), op(rows("float32"))
    for left, right in ((trained.data, out.data), (trained.states, out.states)):
        assert jax.tree.map(jnp.shape, left) == jax.tree.map(jnp.shape, right)
        assert jax.tree.map(jnp.result_type, left) == jax.tree.map(jnp.result_type, right)
    if op.prob is not None:
        assert same(out["image"], rows("float32")["image"])
        assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": ROWS}


def test_prob_is_a_variable_that_decides_for_each_record():
    """The share of changed records follows it, the others keep every bit, and nothing retraces."""
    op = operator("Invert", prob=0.3)
    images = {"image": np.full((4000, 1, 1), 7, np.uint8)}
    changed = np.asarray(op(images)["image"])[:, 0, 0] != 7
    assert changed.mean() == pytest.approx(0.3, abs=0.03)
    assert op.get_operation_stats()["applied_count"] == changed.sum()
    for prob in (0.0, 1.0):
        op.prob = prob
        assert (op(images)["image"] == (248 if prob else 7)).all()
    with pytest.raises(ValueError, match="prob must be a number from 0 to 1, got 2"):
        op.prob = 2
    with pytest.raises(ValueError, match="prob of InvertOperator cannot change"):
        fixed("Invert").prob = 0.5


def fixed(name, **options):
    """An operator of the defaults, without random streams."""
    return getattr(images, f"{name}Operator")(getattr(images, f"{name}OperatorConfig")(**options))


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_need_no_word_but_streams(name):
    """An operator whose numbers are random is stochastic, and says so if it has no streams."""
    config = operator(name).config
    assert config.stochastic
    with pytest.raises(ValueError, match=f"{name}Operator is stochastic, because .*rngs is None"):
        getattr(images, f"{name}Operator")(config)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_a_key_decides_typed_or_raw_with_dicts_in_and_out(implementation):
    """A dict comes back as a dict, the same for the same key, and no stream advances."""
    op = operator("Brightness")
    key = jax.random.key(3, impl=implementation)
    images_in = {"image": rows()["image"], "valid_mask": np.arange(ROWS) != 2}
    first = op(images_in, key=key)
    raw = op(images_in, key=jax.random.key_data(key))
    assert list(first) == ["image", "valid_mask"]
    assert same(first["image"], raw["image"])
    assert not same(first["image"], op(images_in, key=jax.random.key(4))["image"])
    assert op.get_operation_stats()["applied_count"] == 3 * (ROWS - 1)


@pytest.mark.parametrize("devices", [2, pytest.param(8, marks=pytest.mark.thorough)])
def test_devices_make_no_difference(devices):
    """A chain of operators on a batch in shards gives the bits of one device."""
    names = ("Brightness", "ResizedCrop")
    op, other = (
        CompositeOperatorModule(CompositeOperatorConfig(), operators=list(map(operator, names)))
        for _ in range(2)
    )
    batch = rows("float32")
    mesh = jax.make_mesh((devices,), ("batch",), devices=jax.devices()[:devices])
    place = NamedSharding(mesh, PartitionSpec("batch"))
    arrays = jax.tree.map(lambda leaf: jax.device_put(leaf, place) if leaf.ndim else leaf, batch)
    out = op(arrays)
    assert len(out["image"].sharding.device_set) == devices
    assert same(out["image"], other(batch)["image"])


def test_a_chooser_takes_any_of_them():
    """Compositions that choose a record's operator work with operators of both kinds."""
    names = ("Brightness", "Flip")
    members = list(map(operator, names))
    config = SelectorOperatorConfig(k=1)
    op = SelectorOperator(config, operators=members, rngs=nnx.Rngs(1))
    batch = rows()
    out = np.asarray(op(batch)["image"])
    results = [np.asarray(operator(name)(batch)["image"]) for name in names]
    for row in range(ROWS):
        assert any(same(out[row], result[row]) for result in results)


def test_state_travels_through_a_checkpoint():
    """`get_state` has prob, learned numbers and streams, and `set_state` puts them back."""
    config = images.RotationOperatorConfig(degrees=3.0, learn=("degrees",), prob=0.5)
    op, other = (images.RotationOperator(config, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    op.prob = 0.25
    op.degrees[...] = jnp.float32(7)
    other.set_state(op.get_state())
    assert float(other.prob.get_value()) == 0.25
    assert float(other.degrees[...]) == 7
    assert same(op(rows())["image"], other(rows())["image"])


def test_repr_says_what_differs_from_the_defaults():
    """One line, in which a range reads as the distribution that it is."""
    op = fixed("Brightness", factor=0.5)
    assert repr(op) == "BrightnessOperator(factor=0.5)"
    config = images.BrightnessOperatorConfig(factor=(0, 1))
    assert "factor=Uniform(low=0, high=1)" in repr(
        images.BrightnessOperator(config, rngs=nnx.Rngs(0))
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: operator("Crop", size=(40, 8))(rows()),
            r"size \(40, 8\) does not fit field 'image'",
        ),
        (lambda: operator("Crop", size=0), "size must be at least 1 pixel, got 0"),
        (lambda: operator("Crop", position="left"), "position must be one of"),
        (lambda: operator("Crop", fill=3), "fill=3 has no effect with mode='reflect'"),
        (lambda: operator("Crop", prob=0.5), "prob must be 1, because a record that is left as"),
        (lambda: operator("ResizedCrop", sampling="timm"), "sampling must be one of"),
        (lambda: operator("ResizedCrop", scale=(0.5, 0.1)), "scale must be .min, max."),
        (lambda: operator("Resize", method="area"), "ResizeOperatorConfig.method must be one of"),
        (lambda: operator("Hue", shift=(0, 1)), "shift must be from -0.5 to 0.5, got Uniform"),
        (lambda: operator("Brightness", factor=(2, 1)), "factor is the empty range"),
        (
            lambda: operator("Brightness", learn=("factor",)),
            "learn names 'factor', which must be a",
        ),
        (
            lambda: operator("ColorJitter", **dict.fromkeys(CASES["ColorJitter"], 0)),
            "changes nothing",
        ),
        (lambda: operator("IoUCrop", box_fields=()), "box_fields must name the boxes"),
        (lambda: operator("Flip", horizontal=False), "flips nothing; set horizontal or vertical"),
        (lambda: operator("Normalize", std=0), "std must be positive, got 0"),
        (lambda: operator("Normalize", dtype="int8"), "dtype must be a floating dtype"),
        (
            lambda: operator("Solarize", threshold=128)(rows("float32")),
            "above 1, the largest value",
        ),
        (
            lambda: operator("SpectrogramMask", frequency_width=11)(rows()),
            "frequency_width 11 is more than the 10 frequencies",
        ),
        (
            lambda: operator("Flip", auxiliary_fields=["length"])(rows()),
            "auxiliary field 'length' is a mask of shape",
        ),
        (
            lambda: operator("Flip", auxiliary_fields=["image2"], box_fields=("image2",))(
                {"image": rows()["image"], "image2": np.zeros((ROWS, 3))}
            ),
            r"boxes field 'image2' must be \(boxes, 4\), got shape \(3,\)",
        ),
        (
            lambda: operator("Flip")({"image": np.zeros((2, 4, 4, 3), np.int32)}),
            "must be uint8 or float to be changed by FlipOperator, got int32; cast it first",
        ),
        (
            lambda: operator("Flip")({"image": np.zeros((2, 4, 4, 3, 1), np.uint8)}),
            r"must be \(height, width\) or \(height, width, channel\)",
        ),
        (
            lambda: operator("Invert").replay(rows(), {"factor": np.ones(ROWS)}),
            "have .'factor'., which its config does not draw",
        ),
        (lambda: operator("Brightness").replay(rows(), {}), "lack 'factor'; there are"),
        (
            lambda: operator("Brightness").replay(rows(), {"factor": np.float32([1])}),
            r"must have shape \(8,\) for this batch, got \(1,\)",
        ),
    ],
)
def test_what_is_wrong_is_said(make, message):
    """When it is made, or when the call is traced: what, the expectation, what came."""
    with pytest.raises((TypeError, ValueError, KeyError), match=message):
        make()


@pytest.mark.parametrize("name", EVERY)
def test_operators_work_where_rank_promotion_is_forbidden(name):
    """What a caller forbids to its own arithmetic does not reach ours; nothing is computed here."""
    op, batch = operator(name, info_key="numbers"), rows("float32")
    with jax.numpy_rank_promotion("raise"):
        out = jax.eval_shape(lambda batch, key: op(batch, key=key), batch, jax.random.key(0))
        again = jax.eval_shape(op.replay, batch, out.states["numbers"])
    assert again["image"].shape == out["image"].shape


def test_functions_work_where_rank_promotion_is_forbidden():
    """The pure functions broadcast too."""
    image = jnp.zeros((6, 5, 3), jnp.uint8)
    calls = [
        lambda: images.functional.resize(image, (3, 4)),
        lambda: images.functional.crop(image, (1, 1), (3, 4)),
        lambda: images.functional.equalize(image),
        lambda: images.functional.rotate(image, 10.0),
    ]
    with jax.numpy_rank_promotion("raise"):
        shapes = [jax.eval_shape(call).shape for call in calls]
    assert shapes == [(3, 4, 3), (3, 4, 3), (6, 5, 3), (6, 5, 3)]


def test_numbers_of_the_host_are_replayed_under_a_guard():
    """`jax.transfer_guard("disallow")` is for transfers that nobody asks for."""
    op, out = operator("Flip", info_key="numbers"), called("Flip")
    numbers = jax.device_get(out.states["numbers"])
    with jax.transfer_guard("disallow"):
        again = op.replay(rows("float32"), numbers)
    assert same(again["image"], out["image"])
