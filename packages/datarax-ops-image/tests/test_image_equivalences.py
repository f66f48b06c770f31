"""What operators draw has the laws that docs/coming-from.md says other libraries have."""

from dataclasses import dataclass
from math import inf

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from datarax.operators.modality import image as ops

pytestmark = pytest.mark.usefixtures("quick_compiles")

RECORDS = 4000
SIZE = (64, 81)


@dataclass
class Policy:
    """What another library's policy draws, and what its operations are told.

    Attributes:
      shares: by layer, how often each operation is drawn, by name.
      magnitude: the smallest and the largest, whatever the direction.
      numbers: by name, what the operation gets at the number behind it.
    """

    shares: tuple[dict[str, float], ...]
    magnitude: tuple[float, float]
    numbers: dict[str, tuple[float, float]]


def usual_crops(rng):
    """Boxes of at least .08 of the image: uniform in area, log-uniform in shape, any place."""
    tries = (10 * RECORDS,)
    area = rng.uniform(0.08, 1, tries) * SIZE[0] * SIZE[1]
    wide = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), tries))
    sides = np.rint(np.sqrt(np.stack([area / wide, area * wide], 1)))
    sides = sides[np.all(sides <= SIZE, axis=1)][:RECORDS]
    start = np.floor(rng.uniform(size=sides.shape) * (SIZE - sides + 1))
    return np.concatenate([start, start + sides], axis=1)


def evenly(names, share=1.0):
    """The same share of each operation."""
    return dict.fromkeys(names, share / len(names))


def random_places(size, padding=0):
    """Every origin of a crop, equally often."""
    ends = np.array(SIZE) - size + padding + 1
    return lambda rng: np.stack([rng.integers(-padding, end, RECORDS) for end in ends], axis=1)


TORCHVISION = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color"),
    *("Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
)
TIMM = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing"),
    *("SolarizeAdd", "ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing"),
    *("SharpnessIncreasing", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"),
)
IOUS = (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)
# By row: the operator, what the other library draws, and the options here. A range is uniform, one
# number is fixed, a function draws from its law, `applied` is how likely an image is changed,
# `sizes` are (height, width) before and after, `middle` is the origin of a crop of SIZE.
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
    "torchvision-resize": (
        ops.ResizeOperator,
        {"sizes": {(375, 500): (256, 341), (500, 333): (384, 256), (10, 10): (256, 256)}},
        {"size": 256},
    ),
    "torchvision-random-crop": (
        ops.CropOperator,
        {"origin": random_places(32, 4)},
        {"size": 32, "padding": 4},
    ),
    "torchvision-center-crop": (
        ops.CropOperator,
        {"sizes": {(300, 401): (224, 224)}, "origin": {(300, 401): (38, 88), (301, 403): (38, 90)}},
        {"size": 224, "position": "center"},
    ),
    "torchvision-resized-crop": (ops.ResizedCropOperator, {"box": usual_crops}, {"size": 224}),
    "torchvision-iou-crop": (
        ops.IoUCropOperator,
        {
            "min_iou": lambda rng: rng.choice(np.float32(IOUS), (RECORDS, 1)),
            "fixed": {"scale": (0.3, 1), "ratio": (0.5, 2)},
        },
        {"size": 300, "auxiliary_fields": ["boxes"], "box_fields": ("boxes",)},
    ),
    "torchvision-rand-augment": (
        ops.RandAugmentOperator,
        {
            "policy": Policy(
                (evenly(TORCHVISION), evenly(TORCHVISION)),
                (9, 9),
                {"ShearX": (9, 0.09), "Posterize": (9, 7), "Solarize": (9, 178.5)}
                | {"Rotate": (-9, -9), "Color": (9, 1.27), "TranslateY": (9, 0.3 * 150 / 331)},
            )
        },
        {"operations": "torchvision", "method": "nearest"},
    ),
    "torchvision-trivial-augment": (
        ops.TrivialAugmentOperator,
        {
            "policy": Policy(
                (evenly(TORCHVISION),),
                (0, 30),
                {"ShearX": (30, 0.99), "Posterize": (15, 5), "Solarize": (15, 127.5)}
                | {"Rotate": (-10, -45), "Color": (20, 1.66), "TranslateY": (10, 10)},
            )
        },
        {"method": "nearest"},
    ),
    "torchvision-auto-augment": (
        ops.AutoAugmentOperator,
        {
            "policy": Policy(
                (
                    {"Invert": 0.004, "Rotate": 0.028, "Sharpness": 0.044, "ShearY": 0.028}
                    | {"AutoContrast": 0.088, "Color": 0.08, "Equalize": 0.084, "Contrast": 0.024}
                    | {"TranslateY": 0.08, "Brightness": 0.04, "Solarize": 0.036},
                    {"Contrast": 0.008, "TranslateX": 0.032, "Sharpness": 0.068, "Invert": 0.004}
                    | {"TranslateY": 0.056, "Equalize": 0.104, "Posterize": 0.012, "Color": 0.036}
                    | {"Brightness": 0.052, "AutoContrast": 0.112, "Solarize": 0.04},
                ),
                (0, 9),
                {"Posterize": (7, 5), "Solarize": (5, 255 * 4 / 9), "Rotate": (2, 60 / 9)}
                | {"ShearY": (-8, -2.4 / 9), "TranslateX": (9, 150 / 331), "Color": (3, 1.3)},
            )
        },
        {"policy": "cifar10", "method": "nearest"},
    ),
    "timm-color-jitter": (
        ops.ColorJitterOperator,
        {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "saturation": (0.6, 1.4)},
        {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
    ),
    "timm-resized-crop": (
        ops.ResizedCropOperator,
        {"box": usual_crops},
        {"size": 224, "method": "bicubic"},
    ),
    "timm-rand-augment": (
        ops.RandAugmentOperator,
        {
            "policy": Policy(
                (evenly(TIMM, 0.5), evenly(TIMM, 0.5)),
                (7, 10),
                {"PosterizeIncreasing": (9, 1), "SolarizeIncreasing": (9.1, 24)}
                | {"SolarizeAdd": (9, 99), "ColorIncreasing": (-9, 0.19), "Rotate": (9, 27)},
            )
        },
        {"magnitude_std": 0.5, "prob": 0.5, "fill": 128},
    ),
    "timm-auto-augment": (
        ops.AutoAugmentOperator,
        {
            "policy": Policy(
                (
                    {"Posterize": 0.072, "Solarize": 0.072, "Equalize": 0.136, "Rotate": 0.088}
                    | {"Invert": 0.048, "Color": 0.096, "Sharpness": 0.016, "ShearX": 0.024},
                    {"Rotate": 0.056, "AutoContrast": 0.048, "Equalize": 0.312, "Posterize": 0.04}
                    | {"Solarize": 0.072, "Color": 0.056, "Contrast": 0.08, "Invert": 0.024},
                ),
                (0, 9),
                {},
            )
        },
        {"policy": "imagenet", "fill": 128},
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
    "keras-resize": (
        ops.ResizeOperator,
        {"sizes": {(300, 401): (224, 224)}, "fixed": {"method": "bilinear"}},
        {"size": (224, 224), "antialias": False},
    ),
    "keras-random-crop": (ops.CropOperator, {"origin": random_places(32)}, {"size": 32}),
    "keras-center-crop": (
        ops.CropOperator,
        {"sizes": {(300, 401): (224, 224)}, "origin": {(300, 400): (38, 88), (301, 401): (38, 88)}},
        {"size": 224, "position": "center"},
    ),
    "keras-rand-augment": (
        ops.RandAugmentOperator,
        {"policy": Policy((evenly(TORCHVISION), evenly(TORCHVISION)), (0, 9), {})},
        {"operations": "torchvision", "magnitude": 9, "magnitude_std": inf},
    ),
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
    "albumentations-resize": (
        ops.ResizeOperator,
        {"sizes": {(300, 401): (224, 224)}, "fixed": {"method": "bilinear"}},
        {"size": (224, 224), "antialias": False},
    ),
    "albumentations-random-crop": (ops.CropOperator, {"origin": random_places(32)}, {"size": 32}),
    "albumentations-center-crop": (
        ops.CropOperator,
        {"sizes": {(300, 401): (224, 224)}, "origin": {(300, 400): (38, 88), (301, 401): (38, 88)}},
        {"size": 224, "position": "center"},
    ),
    "albumentations-resized-crop": (
        ops.ResizedCropOperator,
        {"box": usual_crops},
        {"size": 224, "antialias": False},
    ),
    "augmax-flip": (ops.FlipOperator, {"applied": 0.5}, {"prob": 0.5}),
    "augmax-rotate": (ops.RotationOperator, {"degrees": (-30, 30)}, {"degrees": (-30, 30)}),
    "augmax-grayscale": (ops.GrayscaleOperator, {"applied": 0.5}, {"prob": 0.5}),
    "augmax-random-crop": (ops.CropOperator, {"origin": random_places(32)}, {"size": 32}),
    "augmax-center-crop": (
        ops.CropOperator,
        {"sizes": {(300, 401): (224, 224)}, "origin": {(300, 400): (38, 88)}},
        {"size": 224, "position": "center"},
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_draws_what_the_other_library_draws(row):
    """Numbers have the same law, or are the same; chances, sizes and places are too."""
    kind, there, options = ROWS[row]
    op = kind(kind.config_class(**options), rngs=nnx.Rngs(0))
    drawn = {}
    if op.stochastic:
        drawn = op.generate_random_params(jax.random.key(0), {"image": (RECORDS, *SIZE, 3)})
    for name, expected in there.items():
        if name in CHECKS:
            CHECKS[name](op, drawn, expected)
        elif isinstance(expected, dict):
            for size, place in expected.items():
                assert tuple(op.at_rest((*size, 3))[name]) == place
        elif callable(expected):
            theirs = expected(np.random.default_rng(0)).T
            ours = np.asarray(drawn[name]).reshape(RECORDS, -1).T
            for left, right in zip(ours, theirs, strict=True):
                assert stats.ks_2samp(left, right).pvalue > 1e-3
        elif isinstance(expected, tuple):
            assert_uniform(np.asarray(drawn[name], np.float64), *expected)
        else:
            assert name not in drawn
            assert getattr(op.config, name) == expected
    if "applied" not in there and "policy" not in there:
        assert np.all(drawn.get("applied", True))


def assert_uniform(numbers, low, high):
    width = high - low
    assert low - 1e-6 <= numbers.min() < low + 0.01 * width
    assert high - 0.01 * width < numbers.max() <= high + 1e-6
    assert numbers.mean() == pytest.approx((low + high) / 2, abs=0.02 * width)
    assert numbers.std() == pytest.approx(width / 12**0.5, rel=0.04)


def assert_applied(op, drawn, share):
    assert np.mean(drawn["applied"]) == pytest.approx(share, abs=0.03)


def assert_fixed(op, drawn, options):
    for name, value in options.items():
        assert name not in drawn
        assert getattr(op.config, name) == value


def assert_sizes(op, drawn, sizes):
    for before, after in sizes.items():
        image = jax.ShapeDtypeStruct((*before, 3), jnp.uint8)
        assert op.output_spec({"image": image})["image"].shape == (*after, 3)


def assert_policy(op, drawn, policy):
    """Shares within four standard deviations, all magnitudes in their range and at its ends."""
    config, operation = op.config, np.asarray(drawn["operation"])
    if isinstance(op, ops.AutoAugmentOperator):
        names = config.entries()
    else:
        names = tuple(policy.shares[0])
        assert config.table() == type(config)(operations=names).table()
    assert operation.shape == (RECORDS, len(policy.shares))
    for shares, numbers in zip(policy.shares, operation.T, strict=True):
        counts = np.bincount(numbers[numbers >= 0], minlength=len(names))
        expected = RECORDS * np.array([shares.get(name, 0) for name in names])
        assert (np.abs(counts - expected) <= 4 * np.sqrt(expected)).all()
    magnitude, (low, high) = np.asarray(drawn["magnitude"]), policy.magnitude
    assert (magnitude < 0).mean() == pytest.approx((magnitude > 0).mean(), abs=0.05)
    assert low <= np.abs(magnitude).min() <= low + 0.5
    assert high - 0.2 <= np.abs(magnitude).max() <= high
    for name, (at, number) in policy.numbers.items():
        made = config.table()[names.index(name)].number(jnp.float32(at), config.largest())
        assert float(made) == pytest.approx(number, rel=1e-5)


CHECKS = {
    "applied": assert_applied,
    "fixed": assert_fixed,
    "sizes": assert_sizes,
    "policy": assert_policy,
}
