"""Policies: RandAugment, TrivialAugment and AutoAugment."""

import hashlib
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from datarax.core.element_batch import Batch
from datarax.operators import (
    CompositeOperatorConfig,
    CompositeOperatorModule,
    ProbabilisticOperator,
    ProbabilisticOperatorConfig,
)
from datarax.operators.modality.image import (
    AutoAugmentOperator,
    AutoAugmentOperatorConfig,
    Operation,
    RandAugmentOperator,
    RandAugmentOperatorConfig,
    TrivialAugmentOperator,
    TrivialAugmentOperatorConfig,
    Warp,
    functional,
)
from datarax.operators.modality.image._policy_tables import AUTO_AUGMENT, TIMM, TORCHVISION, WIDE

GOLDEN = Path(__file__).parent / "golden"
RAND = RandAugmentOperatorConfig
# Full tables take seconds to compile: what holds for all operations is tested with few of them.
FEW = ("Invert", "ShearX", "Brightness")
LINES = ((("Invert", 0.6, None), ("ShearX", 0.9, 5)), (("Brightness", 0.5, 9),))
POLICIES = {
    "rand": (RandAugmentOperator, RAND(operations=FEW, prob=0.5, info_key="policy")),
    "trivial": (
        TrivialAugmentOperator,
        TrivialAugmentOperatorConfig(operations=("Posterize", *FEW[1:]), info_key="policy"),
    ),
    "auto": (AutoAugmentOperator, AutoAugmentOperatorConfig(policy=LINES, info_key="policy")),
}

pytestmark = pytest.mark.usefixtures("quick_compiles")


def made(policy, seed=0):
    kind, config = POLICIES[policy]
    return kind(config, rngs=nnx.Rngs(seed))


def images(rows, shape=(24, 20, 3), dtype=np.uint8):
    values = np.random.default_rng(0).integers(0, 256, (rows, *shape), np.uint8)
    return values if dtype == np.uint8 else (values / 255).astype(dtype)


def numbered(rows, **fields):
    return Batch.from_arrays({"image": images(rows), **fields}, record_index=np.arange(rows))


def test_a_batch_is_what_pillow_makes_by_the_rules_of_timm():
    """Thirty records of two layers, every operation among the first ones, to the bit."""
    golden = json.loads((GOLDEN / "policies" / "rand_augment.json").read_text(encoding="utf-8"))
    with np.load(GOLDEN / "images.npz") as kept:
        photograph = kept["photograph"]
    places = np.random.default_rng(0).integers(0, 30, (len(golden["operation"]), 2))
    pictures = np.stack([photograph[y : y + 60, x : x + 50] for y, x in places])
    assert digest(pictures) == golden["pictures"]
    augment = RandAugmentOperator(RAND(fill=128), rngs=nnx.Rngs(0))
    numbers = {
        "operation": np.int32(golden["operation"]),
        "magnitude": np.float32(golden["magnitude"]),
    }
    assert digest(augment.replay({"image": pictures}, numbers)["image"]) == golden["digest"]


def digest(values):
    values = np.ascontiguousarray(values)
    return f"{values.shape} {hashlib.sha256(values.tobytes()).hexdigest()}"


# What the installed timm 1.0.31 and torchvision 0.28 hand to their functions.
ARGUMENTS = {
    "Rotate": ([0, 3.9, 15, 27, 30], TIMM, 10),
    "PosterizeIncreasing": ([4, 4, 2, 1, 0], TIMM, 10),
    "SolarizeIncreasing": ([256, 223, 128, 26, 0], TIMM, 10),
    "SolarizeAdd": ([0, 14, 55, 99, 110], TIMM, 10),
    "ColorIncreasing": ([1, 1.117, 1.45, 1.81, 1.9], TIMM, 10),
    "ShearX": ([0, 0.039, 0.15, 0.27, 0.3], TIMM, 10),
    "TranslateXRel": ([0, 0.0585, 0.225, 0.405, 0.45], TIMM, 10),
    "Posterize": ([8, 7, 7, 5, 4], TORCHVISION, 30),
    "Solarize": ([255, 212.5, 178.5, 59.5, 0], TORCHVISION, 30),
    "Brightness": ([1, 1.15, 1.27, 1.69, 1.9], TORCHVISION, 30),
}
LEVELS = {10: [0, 1.3, 5, 9, 10], 30: [0, 5, 9, 23, 30]}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_magnitude_means_what_it_means_to_timm_and_torchvision(name):
    """Five magnitudes; in the other direction the change is subtracted, or the same."""
    expected, table, largest = ARGUMENTS[name]
    operation, levels = table[name], np.float32(LEVELS[largest])
    np.testing.assert_allclose(operation.number(levels, largest), expected, rtol=1e-6, atol=1e-7)
    other = 2 * expected[0] - np.array(expected) if operation.signed else expected
    np.testing.assert_allclose(operation.number(-levels, largest), other, rtol=1e-6, atol=1e-7)


def alone(image, operation, magnitude, **warping):
    """The image after the function that an operation stands for, called by itself."""
    number = operation.number(jnp.float32(magnitude), 10)
    if not isinstance(operation, Warp):
        return operation(image, number)
    if operation.function.__name__ == "rotate":
        return functional.rotate(image, number, **warping)
    return functional.affine(image, operation.function(image.shape[:2], number), **warping)


@pytest.mark.parametrize(
    ("table", "dtype"),
    [
        pytest.param("torchvision", np.uint8, id="uint8"),
        pytest.param("timm", np.float32, id="float32", marks=pytest.mark.thorough),
    ],
)
def test_each_operation_is_its_function(table, dtype):
    """Every line of a table, at a magnitude in each direction, is a call of its function."""
    operations = list((TIMM if table == "timm" else TORCHVISION).values())
    fill = 77 if dtype == np.uint8 else 0.25
    config = RAND(operations=table, num_layers=1, max_magnitude=10, fill=fill)
    augment = RandAugmentOperator(config, rngs=nnx.Rngs(0))
    pictures = images(2 * len(operations), dtype=dtype)
    operation = np.arange(len(pictures), dtype=np.int32) % len(operations)
    magnitude = np.where(np.arange(len(pictures)) < len(operations), 7.3, -4.6).astype(np.float32)
    numbers = {"operation": operation[:, None], "magnitude": magnitude[:, None]}
    result = np.asarray(augment.replay({"image": pictures}, numbers)["image"])
    assert result.dtype == dtype
    for row, image in enumerate(pictures):
        line = operations[operation[row]]
        expected = alone(image, line, magnitude[row], fill=config.fill)
        np.testing.assert_array_equal(result[row], np.asarray(expected), err_msg=str(row))


def drawn(operator, rows=20_000):
    shapes = {"image": (rows, 8, 8, 3)}
    return jax.tree.map(np.asarray, operator.generate_random_params(jax.random.key(1), shapes))


def assert_alike(counts):
    assert stats.chisquare(counts).pvalue > 1e-3


def test_rand_augment_draws_layers_one_by_one():
    """Operations, directions and layers left out are independent; magnitudes are clipped normal."""
    draws = drawn(RandAugmentOperator(RAND(magnitude_std=0.5, prob=0.5), rngs=nnx.Rngs(0)))
    operation, magnitude = draws["operation"], draws["magnitude"]
    assert operation.shape == magnitude.shape == (20_000, 2)
    chosen = operation >= 0
    assert stats.binomtest(int(chosen.sum()), chosen.size, 0.5).pvalue > 1e-3
    assert_alike(np.bincount(operation[chosen], minlength=len(TIMM)))
    both = operation[chosen.all(1)]
    assert_alike(np.bincount(both[:, 0] * 15 + both[:, 1], minlength=225))
    assert stats.binomtest(int((magnitude < 0).sum()), magnitude.size, 0.5).pvalue > 1e-3
    assert np.abs(magnitude).max() == 10
    clipped = np.abs(magnitude) == 10
    assert stats.binomtest(int(clipped.sum()), clipped.size, stats.norm.sf(2)).pvalue > 1e-3
    law = stats.truncnorm(-18, 2, loc=9, scale=0.5).cdf
    assert stats.kstest(np.abs(magnitude[~clipped]), law).pvalue > 1e-3
    np.testing.assert_array_equal(draws["applied"], chosen.any(1))


def test_an_infinite_deviation_draws_all_magnitudes_up_to_the_given_one():
    """They are uniform, as big_vision and timm's mstd100 have them."""
    augment = RandAugmentOperator(RAND(magnitude=8, magnitude_std=math.inf), rngs=nnx.Rngs(0))
    magnitude = np.abs(drawn(augment)["magnitude"]).ravel()
    assert stats.kstest(magnitude, stats.uniform(0, 8).cdf).pvalue > 1e-3


def test_trivial_augment_draws_one_operation_at_any_magnitude():
    """One of fourteen operations, and one of thirty-one magnitudes, in either direction."""
    draws = drawn(TrivialAugmentOperator(TrivialAugmentOperatorConfig(), rngs=nnx.Rngs(0)))
    operation, magnitude = draws["operation"], draws["magnitude"]
    assert operation.shape == magnitude.shape == (20_000, 1)
    levels = np.bincount(np.abs(magnitude).ravel().astype(int), minlength=31)
    assert_alike(np.bincount(operation.ravel(), minlength=14))
    assert_alike(levels)
    assert stats.binomtest(int((magnitude < 0).sum()), int((magnitude != 0).sum())).pvalue > 1e-3


@pytest.mark.parametrize("name", ["imagenet", "cifar10", "svhn"])
def test_auto_augment_draws_a_sub_policy_and_its_layers(name):
    """Each layer of each sub-policy comes as often as the paper's probabilities say."""
    config = AutoAugmentOperatorConfig(policy=name)
    draws = drawn(AutoAugmentOperator(config, rngs=nnx.Rngs(0)), 50_000)
    names = config.entries()
    expected, rows = {}, len(draws["operation"])
    for sub_policy in config.sub_policies():
        for layer, (entry, probability, magnitude) in enumerate(sub_policy):
            place = layer, names.index(entry), magnitude or 0
            expected[place] = expected.get(place, 0) + probability / len(config.sub_policies())
    for (layer, operation, magnitude), share in expected.items():
        found = (draws["operation"][:, layer] == operation) & (
            np.abs(draws["magnitude"][:, layer]) == magnitude
        )
        assert stats.binomtest(int(found.sum()), rows, min(share, 1.0)).pvalue > 1e-5


def test_the_tables_are_those_of_the_papers():
    """How many operations and sub-policies there are, and a line of each table."""
    assert [len(table) for table in (TIMM, TORCHVISION, WIDE, AUTO_AUGMENT)] == [15, 14, 14, 15]
    lines = {
        name: AutoAugmentOperatorConfig(policy=name).sub_policies()
        for name in ("imagenet", "cifar10", "svhn")
    }
    assert all(len(policy) == 25 for policy in lines.values())
    assert lines["imagenet"][0] == (("Posterize", 0.4, 8), ("Rotate", 0.6, 9))
    assert lines["cifar10"][3] == (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9))
    assert lines["svhn"][-1] == (("ShearX", 0.7, 2), ("Invert", 0.1, None))


@pytest.mark.parametrize(
    "policy", ["rand", "auto", pytest.param("trivial", marks=pytest.mark.thorough)]
)
def test_a_record_is_the_same_in_any_batch(policy):
    """A record alone has the bytes that it has among others."""
    batch = numbered(8)
    whole = np.asarray(made(policy)(batch)["image"])
    np.testing.assert_array_equal(made(policy)(batch[5:6])["image"], whole[5:6])
    assert (whole != batch["image"]).any()


def test_a_compiled_composition_gives_the_same_bytes():
    """Inside it, records have the bytes of a call of the operator itself."""
    operator, batch = made("rand"), numbered(8)
    inside = CompositeOperatorModule(CompositeOperatorConfig(), operators=[operator])
    traced = jax.jit(lambda batch: inside(batch)["image"])(batch)
    np.testing.assert_array_equal(traced, operator(batch)["image"])


@pytest.mark.thorough
@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_for_some_records_changes_them_as_it_would_all(policy):
    """Compiled or alone, a record has the bytes of a call of the policy, or its own."""
    config = ProbabilisticOperatorConfig(probability=0.5)
    some = ProbabilisticOperator(config, operator=made(policy), rngs=nnx.Rngs(1))
    batch = numbered(8)
    traced = np.asarray(jax.jit(lambda batch: some(batch)["image"])(batch))
    np.testing.assert_array_equal(some(batch[5:6])["image"], traced[5:6])
    ways = np.stack([batch["image"], made(policy)(batch)["image"]])
    fits = (ways == traced).all((2, 3, 4))
    assert fits.any(0).all()
    assert not fits.all(1).any()


def test_records_go_on_eight_devices_as_on_one():
    """A sharded batch gives the bytes of the batch on one device."""
    batch = numbered(8)
    mesh = jax.make_mesh((8,), ("data",))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    spread = jax.tree.map(lambda leaf: jax.device_put(leaf, sharding), batch)
    np.testing.assert_array_equal(made("rand")(spread)["image"], made("rand")(batch)["image"])


def test_what_was_drawn_can_be_replayed():
    """Numbers that a call leaves behind give its result again, to the bit."""
    operator, pictures = made("rand"), {"image": images(8)}
    once = operator(pictures)
    again = operator.replay(pictures, once["policy"])
    np.testing.assert_array_equal(again["image"], once["image"])


def test_evaluation_leaves_records_alone():
    """In evaluation mode, and with a prob of 0, nothing changes and all count as skipped."""
    operator, pictures = made("rand"), {"image": images(8)}
    operator.eval()
    np.testing.assert_array_equal(operator(pictures)["image"], pictures["image"])
    operator.train()
    operator.prob = 0
    np.testing.assert_array_equal(operator(pictures)["image"], pictures["image"])
    assert operator.get_operation_stats() == {"applied_count": 0, "skipped_count": 16}


def test_counts_are_of_records_in_which_a_layer_did_something():
    """With a layer probability of one half, about three in four records of two layers."""
    operator = made("rand")
    rows = np.asarray(operator({"image": images(8)})["policy"]["applied"])
    counts = operator.get_operation_stats()
    assert counts == {"applied_count": rows.sum(), "skipped_count": 8 - rows.sum()}
    assert 0 < rows.sum() < 8


def test_masks_boxes_and_points_follow_all_layers():
    """They go where a square of the image goes, layer by layer, and stay where no layer moves."""
    config = RAND(
        operations=("Rotate", "TranslateXRel", "Invert"),
        auxiliary_fields=["mask", "boxes", "points"],
        box_fields=("boxes",),
        box_format="yxyx",
        keypoint_fields=("points",),
        keypoint_format="yx",
    )
    operator = RandAugmentOperator(config, rngs=nnx.Rngs(0))
    layers = np.int32([[0, 1], [1, 0], [1, 1], [2, 2], [-1, -1], [-1, 0]])
    rows = len(layers)
    mask = np.zeros((rows, 64, 64), np.uint8)
    mask[:, 24:40, 28:44] = 1
    fields = {
        "image": images(rows, (64, 64, 3)),
        "mask": mask,
        "boxes": np.float32([[[24, 28, 40, 44], [0, 0, 0, 0]]] * rows),
        "points": np.float32([[[32, 36], [-1, -1]]] * rows),
    }
    numbers = {"operation": layers, "magnitude": np.float32([[4, 3]] * rows)}
    result = jax.tree.map(np.asarray, operator.replay(fields, numbers))
    for row in range(rows):
        y, x = np.nonzero(result["mask"][row])
        found = [y.min(), x.min(), y.max() + 1, x.max() + 1]
        np.testing.assert_allclose(result["boxes"][row, 0], found, atol=1.1)
        centre = y.mean() + 0.5, x.mean() + 0.5
        np.testing.assert_allclose(result["points"][row, 0], centre, atol=1.1)
    moved = result["boxes"][:, 0] != fields["boxes"][:, 0]
    assert moved.any(1).tolist() == [True, True, True, False, False, True]
    np.testing.assert_array_equal(result["boxes"][:, 1], fields["boxes"][:, 1])
    np.testing.assert_array_equal(result["points"][:, 1], fields["points"][:, 1])


def test_magnitudes_change_without_compiling_again(caplog):
    """New values of the Variables are drawn from at once."""
    operator, pictures = made("rand"), {"image": images(8)}
    operator(pictures)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        operator.magnitude = 3
        operator.prob = 1
        result = operator(pictures)["policy"]
    assert not [record for record in caplog.records if "Compiling" in record.getMessage()]
    assert np.unique(np.abs(result["magnitude"])).tolist() == [3.0]
    assert np.asarray(result["operation"]).min() >= 0


@pytest.mark.thorough
def test_floats_have_gradients():
    """Through every operation that a batch goes through, the gradient is finite and not all 0."""
    operator = RandAugmentOperator(RAND(operations=FEW[1:], num_layers=1), rngs=nnx.Rngs(0))
    pictures, key = jnp.asarray(images(8, dtype=np.float32)), jax.random.key(0)
    slope = jax.grad(lambda x: jnp.sum(operator({"image": x}, key=key)["image"] ** 2))(pictures)
    assert np.isfinite(slope).all()
    assert (np.abs(slope).sum((1, 2, 3)) > 0).all()


def test_narrow_floats_and_gray_images_keep_their_form():
    """bfloat16 images of two axes go through every layer, near what float32 gives."""
    operator, key = made("rand"), jax.random.key(0)
    wide = images(8, (12, 10), np.float32)
    narrow = operator({"image": jnp.asarray(wide, jnp.bfloat16)}, key=key)["image"]
    assert narrow.dtype == jnp.bfloat16
    exact = operator({"image": wide}, key=key)["image"]
    np.testing.assert_allclose(narrow.astype(jnp.float32), exact, atol=0.03)


def test_operations_of_ones_own_stand_beside_the_tables():
    """A tuple of names and of operations is a table, numbered in its order."""
    halved = Operation(lambda image, by: image // jnp.uint8(2) + by.astype(jnp.uint8), 0, 10)
    config = RAND(operations=("Invert", halved), num_layers=1, info_key="policy")
    operator, pictures = RandAugmentOperator(config, rngs=nnx.Rngs(0)), images(16, (8, 8, 3))
    result = operator({"image": pictures})
    own = np.asarray(result["policy"]["operation"])[:, 0] == 1
    assert 0 < own.sum() < 16
    np.testing.assert_array_equal(np.asarray(result["image"])[own], pictures[own] // 2 + 9)
    np.testing.assert_array_equal(np.asarray(result["image"])[~own], 255 - pictures[~own])


ERRORS = [
    (lambda: RAND(operations="randaug"), ValueError, r"operations must be one of \['timm', 'tor"),
    (lambda: RAND(operations=("Rotat",)), ValueError, r"names 'Rotat', which is no operation; the"),
    (lambda: RAND(operations=()), ValueError, "must have at least one operation"),
    (lambda: RAND(operations=(3,)), TypeError, "names of operations or an Operation, got int 3"),
    (lambda: RAND(operations=None), TypeError, "must be one of .* or a tuple of names"),
    (lambda: RAND(num_layers=0), ValueError, "num_layers must be at least 1, got 0"),
    (lambda: RAND(num_layers=2.0), TypeError, "num_layers must be an int, got 2.0"),
    (lambda: RAND(magnitude=11), ValueError, "magnitude must be from 0 to max_magnitude=10, got"),
    (lambda: RAND(magnitude_std=-1), ValueError, "magnitude_std must be a number of 0 or more"),
    (lambda: RAND(max_magnitude=0), ValueError, "max_magnitude must be above 0, got 0"),
    (lambda: RAND(method="lanczos"), ValueError, "method"),
    (lambda: RAND(fill="red"), TypeError, "fill"),
    (lambda: AutoAugmentOperatorConfig(policy="coco"), ValueError, "policy must be one of"),
    (lambda: AutoAugmentOperatorConfig(policy=()), ValueError, "at least one sub-policy"),
    (lambda: AutoAugmentOperatorConfig(policy=((),)), ValueError, r"policy\[0\] must have at lea"),
    (
        lambda: AutoAugmentOperatorConfig(policy=((("Invert", 1),),)),
        TypeError,
        r"must be a tuple of layers \(operation, probability, magnitude\)",
    ),
    (
        lambda: AutoAugmentOperatorConfig(policy=((("Blur", 1, 3),),)),
        ValueError,
        r"policy\[0\] names 'Blur', which is no operation; there are \['Identity'",
    ),
    (
        lambda: AutoAugmentOperatorConfig(policy=((("Invert", 2, None),),)),
        ValueError,
        r"probability in AutoAugmentOperatorConfig.policy\[0\] must be from 0 to 1, got 2",
    ),
    (
        lambda: AutoAugmentOperatorConfig(policy=((("Rotate", 1, 10),),)),
        ValueError,
        "must be from 0 to 9, got 10",
    ),
    (lambda: Operation(functional.invert, 1), ValueError, "needs first and last, or neither"),
    (lambda: RandAugmentOperator(RAND()), ValueError, "rngs is None"),
]


@pytest.mark.parametrize(("make", "error", "match"), ERRORS)
def test_wrong_options_are_refused(make, error, match):
    """At construction, with the option, what was expected and what came."""
    with pytest.raises(error, match=match):
        make()


def test_gradients_of_one_image_are_those_of_differences():
    """Alone, mapped, rematerialised or in a batch, an image of floats has its gradient."""
    op = RandAugmentOperator(
        RAND(operations=("Invert", "Brightness"), num_layers=2), rngs=nnx.Rngs(0)
    )
    weights, away = np.random.default_rng(1).random((2, 3, 6, 5, 3), np.float32)
    numbers = {
        "operation": jnp.int32([[1, 0], [0, -1], [1, 1]]),
        "magnitude": jnp.float32([[5, -3], [9, 2], [4, -9]]),
        "applied": jnp.ones(3, bool),
    }

    def loss(picture, weights, numbers):
        return jnp.sum(weights * op.apply({"image": picture}, {}, None, numbers)[0]["image"])

    def total(pictures):
        return jnp.sum(weights * op.replay({"image": pictures}, numbers)["image"])

    @jax.jit
    def slopes(pictures):
        slope, records = jax.grad(jax.checkpoint(loss)), (pictures, weights, numbers)
        alone = slope(*jax.tree.map(lambda leaf: leaf[2], records))
        return jax.grad(total)(pictures), jax.vmap(slope)(*records), alone

    pictures = images(3, (6, 5, 3), np.float32)
    batched, mapped, alone = slopes(pictures)
    np.testing.assert_allclose(mapped, batched, rtol=1e-6)
    np.testing.assert_allclose(alone, batched[2], rtol=1e-6)
    difference = total(pictures + away) - total(pictures)
    np.testing.assert_allclose(np.sum(batched * away), difference, rtol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("policy", POLICIES)
def test_explicit_keys_draw_the_same_inside_of_jit(policy):
    """`op(batch, key=key)` is the same under a `jax.jit` of the user's, and no stream advances."""
    operator, batch, key = made(policy), {"image": images(3, (6, 5, 3))}, jax.random.key(5)
    inside = jax.jit(lambda batch, key: operator(batch, key=key))(batch, key)
    again = operator(batch, key=key)
    np.testing.assert_array_equal(inside["image"], again["image"])
    assert (inside["image"] != operator(batch, key=jax.random.key(6))["image"]).any()
