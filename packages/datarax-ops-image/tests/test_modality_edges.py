"""The modality base where a transformation or a name is wrong, and coordinates of narrow dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.core.element_batch import Batch
from datarax.core.modality import ModalityOperator, ModalityOperatorConfig, logger


class Move(ModalityOperator):
    """Moves coordinates to the right by as many pixels as the image is wide."""

    def transform_field(self, value, random_params, stats):
        return value

    def transform_auxiliary(self, kind, value, field, random_params, stats):
        amount = field.shape[1] if random_params is None else random_params
        amount = jnp.asarray(amount, value.dtype)
        columns = (1, 3) if kind == "boxes" else (1,)
        for column in columns:
            value = value.at[:, column].add(amount)
        return value


def config(**options):
    return ModalityOperatorConfig(**{"field_key": "image"} | options)


def test_the_documented_logger_is_there():
    """It has the module's name."""
    assert logger.name == "datarax.core.modality"


@pytest.mark.parametrize("name", ["field_key", "target_key"])
@pytest.mark.parametrize("value", ["valid_mask", "valid_mask.image"])
def test_the_mask_is_no_field(name, value):
    """A batch's mask is neither read nor written as a field."""
    with pytest.raises(ValueError, match=rf"{name} must not be '{value}', because 'valid_mask' is"):
        config(**{name: value})


@pytest.mark.parametrize("method", ["transform_field", "transform_auxiliary"])
def test_a_transformation_that_returns_nothing_is_named(method):
    """A forgotten return is an error, not a field of None."""

    class Forgetful(Move):
        pass

    setattr(Forgetful, method, lambda self, *_: None)
    op = Forgetful(config(auxiliary_fields=["mask"], preserve_auxiliary=False))
    with pytest.raises(TypeError, match=f"{method} of Forgetful must return an array, got None"):
        op(Batch.from_arrays({"image": np.ones((1, 2, 2)), "mask": np.ones((1, 2, 2))}))


def test_a_target_that_is_a_field_already_is_refused():
    """Fields, levels of fields and outputs of an operator before are not overwritten."""
    data = {"image": np.ones((1, 2, 2), np.float32), "more": {"x": np.ones((1, 1), np.float32)}}
    for target in ("more", "more.x"):
        with pytest.raises(ValueError, match=f"Move writes the field '{target}', which the data"):
            Move(config(target_key=target))(Batch.from_arrays(data))
    same = Move(config(target_key="image"))(Batch.from_arrays(data))
    np.testing.assert_array_equal(same["image"], data["image"])


@pytest.mark.parametrize("box_format", ["xyxy", "xywh"])
def test_narrow_integers_have_room_and_come_back(box_format):
    """A uint8 coordinate in an image of 100 columns is moved in int32 and cut to 255."""
    op = Move(
        config(
            auxiliary_fields=["boxes", "points"],
            box_fields=("boxes",),
            box_format=box_format,
            keypoint_fields=("points",),
        )
    )
    data = {
        "image": np.ones((1, 4, 100), np.uint8),
        "boxes": np.uint8([[[10, 1, 30, 9], [200, 1, 230, 9], [0, 0, 0, 0]]]),
        "points": np.uint8([[[1, 2], [200, 2]]]),
    }
    out = op(Batch.from_arrays(data))
    assert out["points"].dtype == out["boxes"].dtype == np.uint8
    assert out["points"].tolist() == [[[101, 2], [255, 2]]]
    last = 130 if box_format == "xyxy" else 30
    assert out["boxes"][0, [0, 2]].tolist() == [[110, 1, last, 9], [0, 0, 0, 0]]
    assert out["boxes"][0, 1, 0] == 255


def test_the_gradient_of_a_move_that_moves_nothing_yet_is_there():
    """Boxes that stay where they are still depend on a learned amount."""
    op = Move(config(auxiliary_fields=["boxes"], box_fields=("boxes",), box_format="xywh"))
    data = {"image": np.ones((4, 4), np.float32), "boxes": np.float32([[1, 1, 2, 2]])}

    def first_column(amount):
        return op.apply(data, {}, None, amount)[0]["boxes"][0, 0]

    assert jax.grad(first_column)(0.0) == 1
