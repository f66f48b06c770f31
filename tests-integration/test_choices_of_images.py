"""Image operators in compositions that leave records out."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.operators import (
    CompositeOperatorConfig,
    CompositeOperatorModule,
    ProbabilisticOperator,
    ProbabilisticOperatorConfig,
    SelectorOperator,
    SelectorOperatorConfig,
)
from datarax.operators.modality.image import (
    BrightnessOperator,
    BrightnessOperatorConfig,
    CropOperator,
    CropOperatorConfig,
    FlipOperator,
    FlipOperatorConfig,
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
    RotationOperator,
    RotationOperatorConfig,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")

ROWS = 16
FOLLOWS: dict[str, Any] = {
    "auxiliary_fields": ["boxes", "points", "mask"],
    "box_fields": ("boxes",),
    "keypoint_fields": ("points",),
}


def _scenes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    boxes = np.array([[4, 4, 20, 18], [np.nan] * 4], np.float32)
    return {
        "image": rng.integers(0, 256, (ROWS, 24, 32, 3), np.uint8),
        "boxes": np.tile(boxes, (ROWS, 1, 1)),
        "points": np.tile(np.float32([[5, 6], [30, 2], [np.nan, np.nan]]), (ROWS, 1, 1)),
        "mask": rng.integers(0, 3, (ROWS, 24, 32), np.uint8),
    }


def _rotation(rngs: nnx.Rngs) -> OperatorModule[Any]:
    return RotationOperator(RotationOperatorConfig(degrees=(10, 30), **FOLLOWS), rngs=rngs)


def _flip(rngs: nnx.Rngs) -> OperatorModule[Any]:
    return FlipOperator(FlipOperatorConfig(prob=0.5, **FOLLOWS), rngs=rngs)


def _rows(fields: dict[str, Any]) -> list[dict[str, bytes]]:
    """All bytes of each record."""
    return [
        {name: np.asarray(leaf)[row].tobytes() for name, leaf in fields.items()}
        for row in range(ROWS)
    ]


def _colour(rngs: nnx.Rngs) -> OperatorModule[Any]:
    return BrightnessOperator(BrightnessOperatorConfig(factor=(0.5, 0.8)), rngs=rngs)


def _crop(rngs: nnx.Rngs) -> OperatorModule[Any]:
    """Moves every image, whose size it keeps."""
    return CropOperator(CropOperatorConfig(size=(24, 32), padding=5, **FOLLOWS), rngs=rngs)


def _patches(rngs: nnx.Rngs) -> OperatorModule[Any]:
    config = PatchDropoutOperatorConfig(
        field_key="image", patch_size=(8, 8), num_patches=1, mask_fill=0, **FOLLOWS
    )
    return PatchDropoutOperator(config, rngs=rngs)


def _equal(left: Any, right: Any) -> None:
    assert sorted(left) == sorted(right)
    for name in left:
        np.testing.assert_array_equal(np.asarray(left[name]), np.asarray(right[name]), name)


def test_records_left_out_have_the_fields_of_those_that_are_not() -> None:
    """A record is either what the operator makes of it, or what it is in evaluation mode.

    So is one of an operator that changes every record, if it keeps the size.
    """
    member = _crop(nnx.Rngs(0))
    config = ProbabilisticOperatorConfig(probability=0.5)
    op = ProbabilisticOperator(config, operator=member, rngs=nnx.Rngs(1))
    scenes, key = _scenes(), jax.random.key(3)

    out = op(scenes, key=key)
    at_rest = nnx.view(member, deterministic=True)(scenes)

    same = (np.asarray(out["image"]) == scenes["image"]).all((1, 2, 3))
    assert 2 < same.sum() < ROWS - 2
    _equal(
        {name: np.asarray(out[name])[same] for name in out},
        {name: np.asarray(at_rest[name])[same] for name in at_rest},
    )
    assert (
        np.asarray(out["boxes_outline"])[~same][:, 0] != at_rest["boxes_outline"][~same][:, 0]
    ).any()
    spec = op.output_spec(
        {name: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for name, a in scenes.items()}
    )
    assert {name: leaf.shape for name, leaf in spec.items()} == {
        name: leaf.shape[1:] for name, leaf in out.items()
    }


def test_evaluation_keeps_the_fields_of_training() -> None:
    """Whatever a composition chooses in training, in evaluation it leaves the same fields."""
    scenes, rngs = _scenes(), nnx.Rngs(0)
    members = [[_colour(rngs), _rotation(rngs), _flip(rngs)] for _ in range(2)]
    either = SelectorOperator(SelectorOperatorConfig(k=1), operators=members[0], rngs=rngs)
    mixed = CompositeOperatorModule(
        CompositeOperatorConfig(order="random"), operators=members[1], rngs=rngs
    )
    nested = ProbabilisticOperator(
        ProbabilisticOperatorConfig(probability=0.5), operator=either, rngs=rngs
    )

    for op in (mixed, nested):
        train = op(scenes, key=jax.random.key(1))
        rest = nnx.view(op, deterministic=True)(scenes)

        assert sorted(train) == sorted(rest)
        assert {n: a.shape for n, a in train.items()} == {n: a.shape for n, a in rest.items()}
        _equal({name: rest[name] for name in scenes}, scenes)


@pytest.mark.parametrize(
    ("order", "makers"),
    [
        (False, (_colour, _flip)),
        pytest.param(True, (_colour, _flip, _patches), marks=pytest.mark.thorough),
    ],
    ids=["selector", "random order"],
)
def test_operators_that_move_pixels_and_others_are_chosen_among(order: bool, makers: Any) -> None:
    """A record is, bit by bit, what the chosen members make of it when they are called in turn.

    What follows the geometry is at rest in records that no member moves.
    """
    batch = Batch.from_arrays(_scenes(), record_index=np.arange(ROWS))
    members, rngs = [make(nnx.Rngs(0)) for make in makers], nnx.Rngs(1)
    op: OperatorModule[Any] = (
        CompositeOperatorModule(
            CompositeOperatorConfig(order="random"), operators=members, rngs=rngs
        )
        if order
        else SelectorOperator(SelectorOperatorConfig(k=1), operators=members, rngs=rngs)
    )
    ways = []
    for turns in permutations(makers, len(makers) if order else 1):
        made = batch
        for make in turns:
            made = make(nnx.Rngs(0))(made)
        ways.append(made.data)
    rest = nnx.view(_flip(nnx.Rngs(0)), deterministic=True)(batch).data

    out = op(batch).data

    results = [_rows(dict(rest) | dict(way)) for way in ways]
    fits = [
        [result[row] == found for result in results] for row, found in enumerate(_rows(dict(out)))
    ]
    assert all(map(any, fits))
    assert not any(map(all, zip(*fits, strict=True)))
    spec = {name: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for name, leaf in batch.items()}
    assert sorted(op.output_spec(spec)) == sorted(out)
