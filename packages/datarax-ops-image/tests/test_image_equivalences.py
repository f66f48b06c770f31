"""What operators draw has the ranges that docs/coming-from.md says other libraries have."""

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.operators.modality import image as ops

pytestmark = pytest.mark.usefixtures("quick_compiles")

RECORDS = 4000
# By row: the operator, what the other library draws, and the options here. A range is uniform, one
# number is fixed, and `applied` is how likely an image is changed.
ROWS = {
    "torchvision-color-jitter": (
        ops.ColorJitterOperator,
        {
            "brightness": (0.6, 1.4),
            "contrast": (0.7, 1.3),
            "saturation": (0, 2),
            "hue": (-0.1, 0.1),
        },
        {"brightness": 0.4, "contrast": 0.3, "saturation": 1, "hue": 0.1},
    ),
    "torchvision-rotation": (
        ops.RotationOperator,
        {"degrees": (-15, 15)},
        {"degrees": (-15, 15), "method": "nearest"},
    ),
    "torchvision-affine": (
        ops.AffineOperator,
        {
            "degrees": (-10, 10),
            "translate_x": (-0.1, 0.1),
            "translate_y": (-0.2, 0.2),
            "scale": (0.8, 1.2),
            "shear_x": (-5, 5),
            "shear_y": 0,
        },
        {
            "degrees": (-10, 10),
            "translate_x": (-0.1, 0.1),
            "translate_y": (-0.2, 0.2),
            "scale": (0.8, 1.2),
            "shear_x": (-5, 5),
            "method": "nearest",
        },
    ),
    "torchvision-horizontal-flip": (ops.FlipOperator, {"applied": 0.5}, {}),
    "torchvision-vertical-flip": (
        ops.FlipOperator,
        {"applied": 0.3},
        {"horizontal": False, "vertical": True, "prob": 0.3},
    ),
    "torchvision-grayscale": (ops.GrayscaleOperator, {"applied": 0.1}, {"prob": 0.1}),
    "torchvision-solarize": (
        ops.SolarizeOperator,
        {"threshold": 128, "applied": 0.2},
        {"threshold": 128, "prob": 0.2},
    ),
    "torchvision-posterize": (
        ops.PosterizeOperator,
        {"bits": 4, "applied": 0.5},
        {"bits": 4, "prob": 0.5},
    ),
    "torchvision-sharpness": (
        ops.SharpnessOperator,
        {"factor": 2, "applied": 0.5},
        {"factor": 2, "prob": 0.5},
    ),
    "torchvision-blur": (ops.GaussianBlurOperator, {"sigma": (0.1, 2)}, {"sigma": (0.1, 2.0)}),
    "torchvision-noise": (ops.NoiseOperator, {"std": 0.1}, {"std": 0.1}),
    "torchvision-scale-jitter": (
        ops.ScaleJitterOperator,
        {"scale": (0.1, 2)},
        {"size": (1024, 1024), "scale": (0.1, 2.0)},
    ),
    "timm-color-jitter": (
        ops.ColorJitterOperator,
        {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "saturation": (0.6, 1.4)},
        {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
    ),
    "keras-contrast": (ops.ContrastOperator, {"factor": (0.8, 1.2)}, {"factor": (0.8, 1.2)}),
    "keras-rotation": (
        ops.RotationOperator,
        {"degrees": (-36, 36)},
        {"degrees": (-36, 36), "fill": 0},
    ),
    "keras-translation": (
        ops.AffineOperator,
        {"translate_y": (-0.1, 0.1), "translate_x": (-0.2, 0.2)},
        {"translate_y": (-0.1, 0.1), "translate_x": (-0.2, 0.2)},
    ),
    "keras-invert": (ops.InvertOperator, {"applied": 0.2}, {"prob": 0.2}),
    "keras-grayscale": (ops.GrayscaleOperator, {"applied": 0.2}, {"prob": 0.2}),
    "albumentations-rotate": (
        ops.RotationOperator,
        {"degrees": (-90, 90), "applied": 0.5},
        {"degrees": (-90, 90), "prob": 0.5},
    ),
    "albumentations-noise": (
        ops.NoiseOperator,
        {"std": (0.2, 0.44), "applied": 0.5},
        {"std": (0.2, 0.44), "prob": 0.5},
    ),
    "albumentations-pixel-dropout": (
        ops.DropoutOperator,
        {"rate": 0.01, "applied": 0.5},
        {"rate": 0.01, "prob": 0.5},
    ),
    "augmax-flip": (ops.FlipOperator, {"applied": 0.5}, {"prob": 0.5}),
    "augmax-rotate": (ops.RotationOperator, {"degrees": (-30, 30)}, {"degrees": (-30, 30)}),
    "augmax-grayscale": (ops.GrayscaleOperator, {"applied": 0.5}, {"prob": 0.5}),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_draws_what_the_other_library_draws(row):
    """Uniform numbers reach both ends and have their middle as mean; chances are the same."""
    kind, there, options = ROWS[row]
    op = kind(kind.config_class(**options), rngs=nnx.Rngs(0))
    drawn = {}
    if op.stochastic:
        shapes = {"image": (RECORDS, 8, 8, 3)}
        drawn = op.generate_random_params(jax.random.key(0), shapes)
    applied = drawn.get("applied", np.ones(RECORDS))
    assert np.mean(applied) == pytest.approx(there.get("applied", 1), abs=0.03)
    for name, expected in there.items():
        if name == "applied":
            continue
        if not isinstance(expected, tuple):
            assert name not in drawn
            assert getattr(op.config, name) == expected
            continue
        low, high = expected
        numbers, width = np.asarray(drawn[name], np.float64), high - low
        assert low - 1e-6 <= numbers.min() < low + 0.01 * width
        assert high - 0.01 * width < numbers.max() <= high + 1e-6
        assert numbers.mean() == pytest.approx((low + high) / 2, abs=0.02 * width)
        assert numbers.std() == pytest.approx(width / 12**0.5, rel=0.04)
