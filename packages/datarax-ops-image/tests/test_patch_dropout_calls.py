"""Calls of patch dropout: dicts, keys, views, evaluation mode, and neighbours of its kind."""

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.core.modality import ModalityOperator, ModalityOperatorConfig
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")


def operator(rngs=None, **options):
    options = {"field_key": "image", "num_patches": 1, "stochastic": True} | options
    rngs = nnx.Rngs(0) if rngs is None else rngs
    return PatchDropoutOperator(PatchDropoutOperatorConfig(**options), rngs=rngs)


def images(rows=4, shape=(16, 12)):
    return np.random.default_rng(0).uniform(1, 2, (rows, *shape)).astype(np.float32)


def indexed(**fields):
    return Batch.from_arrays({"image": images()}, record_index=np.arange(4), epoch=0, **fields)


@dataclass(frozen=True)
class ByTypeConfig(ModalityOperatorConfig):
    amount: Any = field(default=0, kw_only=True)


class ByType(ModalityOperator[ByTypeConfig]):
    """Adds the length of its option: 1 for 1, 3 for 1.0, 4 for True."""

    config_class = ByTypeConfig

    def transform_field(self, value, random_params, stats):
        return value + len(repr(self.config.amount))


def patch_of(size):
    return lambda: operator(patch_size=size, stochastic=False)


def constant(value):
    return lambda: operator(patch_size=(1.0, 1.0), drop_value=value, stochastic=False)


def by_type(amount):
    return lambda: ByType(ByTypeConfig(field_key="image", amount=amount))


@pytest.mark.parametrize(
    "makers",
    [
        (patch_of((1, 8)), patch_of((1.0, 8))),
        (constant(0.0), constant(-0.0)),
        pytest.param((by_type(1), by_type(True)), marks=pytest.mark.thorough),
        pytest.param((by_type(1.0), by_type(1)), marks=pytest.mark.thorough),
    ],
    ids=["pixel or side", "signed zero", "bool", "float"],
)
def test_options_that_are_equal_but_not_the_same_are_told_apart(makers):
    """The second operator does what it says, alone, in nnx.jit and in a chain."""

    class Chain(nnx.Module):
        def __init__(self, *operators):
            self.operators = nnx.List(operators)

        def __call__(self, batch):
            return [op(batch)["image"] for op in self.operators]

    def words(image):
        return np.asarray(image).view(np.uint32).tolist()

    batch = indexed()
    first, second = (words(jax.jit(make())(batch)["image"]) for make in makers)
    assert first != second
    called = nnx.jit(lambda op, batch: op(batch))
    for call in (lambda op: op(batch), lambda op: called(op, batch)):
        assert [words(call(make())["image"]) for make in makers] == [first, second]
    chained = nnx.jit(lambda chain, batch: chain(batch))
    for order in ((0, 1), (1, 0)):
        out = chained(Chain(*(makers[number]() for number in order)), batch)
        assert [words(image) for image in out] == [(first, second)[number] for number in order]


@pytest.mark.parametrize("stochastic", [True, False])
def test_a_dict_is_a_batch_without_numbers(stochastic):
    """Plain arrays in, plain arrays out, with the outputs of the operator among them."""
    options = {
        "patch_size": (4, 4),
        "target_key": "dropped",
        "auxiliary_fields": ["boxes"],
        "box_fields": ("boxes",),
        "stochastic": stochastic,
    }
    boxes = np.tile(np.float32([[0, 0, 12, 16]]), (4, 1, 1))
    given = {"image": images(), "boxes": boxes, "valid_mask": np.array([True, True, True, False])}
    out = operator(**options)(given)
    assert sorted(out) == ["boxes", "boxes_visibility", "dropped", "image", "valid_mask"]
    data = {"image": given["image"], "boxes": boxes}
    expected = operator(**options)(Batch.from_arrays(data, valid_mask=given["valid_mask"]))
    for name in out:
        np.testing.assert_array_equal(out[name], expected.as_dict()[name], err_msg=name)
    assert (np.asarray(out["dropped"]) == 0).sum((1, 2)).tolist() == [16] * 4


@pytest.mark.parametrize(
    ("impl", "numbers"),
    [
        ("threefry2x32", True),
        pytest.param("threefry2x32", False, marks=pytest.mark.thorough),
        pytest.param("rbg", True, marks=pytest.mark.thorough),
        ("rbg", False),
    ],
    ids=["record_index", "none", "rbg, record_index", "rbg, none"],
)
def test_an_explicit_key_decides_alone(impl, numbers):
    """Typed and raw keys draw the same in any operator, in jit, and advance no stream."""
    key = jax.random.key(3, impl=impl)
    batch = indexed() if numbers else Batch.from_arrays({"image": images()})
    first, second = operator(patch_size=(3, 3)), operator(nnx.Rngs(7), patch_size=(3, 3))
    expected = np.asarray(first(batch, key=key)["image"])
    for out in (
        first(batch, key=key),
        second(batch, key=jax.random.key_data(key)),
        jax.jit(lambda batch, key: second(batch, key=key))(batch, key),
    ):
        np.testing.assert_array_equal(out["image"], expected)
    other = np.asarray(first(batch, key=jax.random.key(4, impl=impl))["image"])
    assert (other != expected).any()
    assert int(first.rngs["default"].count[...]) == 0


def test_views_of_a_record_lose_different_patches():
    """View 0 is the record without views; each other view is one more draw."""
    op = operator(patch_size=(3, 3), num_patches=2)
    plain = np.asarray(op(indexed())["image"])
    views = [np.asarray(op(indexed(view=np.full(4, view)))["image"]) for view in range(3)]
    np.testing.assert_array_equal(views[0], plain)
    assert all(
        (views[a][row] != views[b][row]).any() for a, b in [(0, 1), (1, 2)] for row in [0, 3]
    )
    mixed = op(indexed(view=np.array([0, 1, 2, 0])))["image"]
    np.testing.assert_array_equal(mixed, [views[v][row] for row, v in enumerate([0, 1, 2, 0])])


class Shift(ModalityOperator[ModalityOperatorConfig]):
    """Another operator that draws a number for each record."""

    def generate_random_params(self, rng, data_shapes):
        return jax.random.uniform(rng, (data_shapes["image"][0],), dtype=np.float32)

    def transform_field(self, value, random_params, stats):
        return value + random_params


@pytest.mark.parametrize("numbers", [True, False], ids=["record_index", "none"])
@pytest.mark.parametrize("separate", [True, False], ids=["two Rngs", "one Rngs"])
def test_operators_of_one_seed_draw_by_themselves(numbers, separate):
    """Over 10,000 records neither another class nor, from one Rngs, another operator correlates."""
    rows = 10_000
    image = np.ones((rows, 1, 64), np.float32)
    index = np.arange(rows) if numbers else None
    batch = Batch.from_arrays({"image": image}, record_index=index)
    rngs = nnx.Rngs(0)

    def place(rngs):
        return np.argmin(operator(rngs, patch_size=(1, 1))(batch)["image"][:, 0], axis=1)

    draws = [place(rngs)]
    config = ModalityOperatorConfig(field_key="image", stochastic=True)
    shift = Shift(config, rngs=nnx.Rngs(0) if separate else rngs)
    draws.append(np.asarray(shift(batch)["image"][:, 0, 0]))
    again = place(nnx.Rngs(0) if separate else rngs)
    if separate:
        np.testing.assert_array_equal(again, draws[0])
    else:
        draws.append(again)
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 0.05


def scene():
    return {
        "image": images(),
        "mask": np.ones((4, 16, 12), np.uint8),
        "boxes": np.tile(np.float32([[0.3, 0.1, 30, 7.7], [5, 5, 5, 5]]), (4, 1, 1)),
        "points": np.tile(np.float32([[3, 4, 2], [-1, -1, 0], [40, 3, 2]]), (4, 1, 1)),
    }


def test_evaluation_drops_nothing_and_keeps_the_form():
    """Fields come through bit by bit, unclipped; outputs have their form and say all is there."""
    op = operator(
        patch_size=(4, 4),
        num_patches=4,
        placement="grid",
        grid_ratio=1.0,
        drop_tokens=True,
        target_key="out",
        clip_range=(0.0, 0.5),
        auxiliary_fields=["mask", "boxes", "points"],
        box_fields=("boxes",),
        keypoint_fields=("points",),
        shrink_boxes=True,
        mask_fill=0,
    )
    batch = Batch.from_arrays(scene(), valid_mask=[True, True, True, False])
    trained = op(batch)
    op.reset_operation_stats()
    op.eval()
    out = op(batch)
    for name, array in scene().items():
        np.testing.assert_array_equal(out[name], array)
    np.testing.assert_array_equal(out["out"], batch["image"])
    assert sorted(out.keys()) == sorted(trained.keys())
    assert out["boxes_visibility"].tolist() == [[1, 0]] * 4
    assert out["points_visibility"].tolist() == [[True, False, False]] * 4
    assert out["out_token_mask"].all()
    assert out["out_token_indices"].tolist() == [list(range(12))] * 4
    for name in list(trained.keys()):
        assert out[name].dtype == trained[name].dtype, name
        assert out[name].shape == trained[name].shape or name == "out_token_indices"
    assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": 3}
    spec = {n: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for n, a in batch.data.items()}
    made = {n: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for n, a in out.data.items()}
    assert op.output_spec(spec) == made
    viewed = nnx.view(op, deterministic=False)
    assert (np.asarray(viewed(batch)["out_token_mask"]).sum(1) == 8).all()


def test_evaluation_of_other_operators_writes_the_target_too():
    """Operators of one's own get it from the base; the deterministic ones stay as they are."""
    config = ModalityOperatorConfig(field_key="image", target_key="to.image", stochastic=True)
    shift = Shift(config, rngs=nnx.Rngs(0))
    batch = indexed()
    assert (np.asarray(shift(batch)["to"]["image"]) != batch["image"]).all()
    shift.eval()
    np.testing.assert_array_equal(shift(batch)["to"]["image"], batch["image"])
    np.testing.assert_array_equal(shift(batch)["image"], batch["image"])
    fixed = operator(stochastic=False, patch_size=(4, 4))
    before = np.asarray(fixed(batch)["image"])
    fixed.eval()
    np.testing.assert_array_equal(fixed(batch)["image"], before)
    assert (before == 0).any()


def test_an_operator_that_draws_must_say_so():
    """Patch dropout works without stochastic=True, as documented; one's own operator does not."""
    PatchDropoutOperator(PatchDropoutOperatorConfig(field_key="image"))
    with pytest.raises(ValueError, match=r"Shift has a generate_random_params.*stochastic=True"):
        Shift(ModalityOperatorConfig(field_key="image"))


def test_configs_of_the_wrong_class_are_refused():
    """Without a constructor of its own for it."""
    with pytest.raises(TypeError, match="must be a PatchDropoutOperatorConfig, got Modality"):
        PatchDropoutOperator(ModalityOperatorConfig(field_key="image"))
