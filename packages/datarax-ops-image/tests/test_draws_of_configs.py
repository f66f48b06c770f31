"""What each operator draws for 10^5 records, against the law that its config names."""

import jax
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from datarax.core.randomness import record_keys
from datarax.operators.modality import image as images

pytestmark = pytest.mark.usefixtures("quick_compiles")

RECORDS = 100_000
SHAPES = {"image": (1, 12, 10, 3), "boxes": (1, 3, 4), "length": (1,)}


def uniform(low, high):
    return stats.uniform(low, high - low).cdf


def alike(*values):
    """Each of the values equally often."""
    return dict.fromkeys(values, 1 / len(values))


# By operator its options and the law of each number: a distribution function, or frequencies. The
# crop of ResizedCrop has tests of its own, and so have patches and policies.
WORD = uniform(0, 2**32)
SOMETIMES = {"applied": {True: 0.3, False: 0.7}}
ALWAYS = {"applied": {True: 1}}
LAWS = {
    "Brightness": ({}, {"factor": uniform(0.6, 1.4), **ALWAYS}),
    "ColorJitter": (
        {"brightness": 0.4, "contrast": (0.5, 2), "saturation": 1.5, "hue": 0.1},
        {
            "brightness": uniform(0.6, 1.4),
            "contrast": uniform(0.5, 2),
            "saturation": uniform(0, 2.5),
            "hue": uniform(-0.1, 0.1),
            **ALWAYS,
        },
    ),
    "Contrast": (
        {"factor": images.Choice((0.5, 1.5), weights=(1, 3))},
        {"factor": {0.5: 0.25, 1.5: 0.75}, **ALWAYS},
    ),
    "Dropout": ({"rate": (0.1, 0.5)}, {"rate": uniform(0.1, 0.5), "seed": WORD, **ALWAYS}),
    "GaussianBlur": ({}, {"sigma": uniform(0.1, 2), **ALWAYS}),
    "Hue": ({}, {"shift": uniform(-0.1, 0.1), **ALWAYS}),
    "Noise": ({}, {"std": uniform(0, 0.1), "seed": WORD, **ALWAYS}),
    "Posterize": ({}, {"bits": alike(4, 5, 6, 7, 8), **ALWAYS}),
    "Saturation": (
        {"factor": images.Normal(1, 0.2, low=0)},
        {"factor": stats.norm(1, 0.2).cdf, **ALWAYS},
    ),
    "Sharpness": (
        {"factor": images.LogUniform(0.5, 2)},
        {"factor": stats.loguniform(0.5, 2).cdf, **ALWAYS},
    ),
    "Solarize": (
        {"threshold": (64, 192), "prob": 0.3},
        {"threshold": uniform(64, 192), **SOMETIMES},
    ),
    "SpectrogramMask": (
        {"time_width": 4, "frequency_width": 3},
        {"time": WORD, "frequency": WORD, **ALWAYS},
    ),
    "AutoContrast": ({"prob": 0.3}, SOMETIMES),
    "Equalize": ({"prob": 0.3}, SOMETIMES),
    "Grayscale": ({"prob": 0.3}, SOMETIMES),
    "Invert": ({"prob": 0.3}, SOMETIMES),
    "Affine": (
        {"degrees": (-9, 9), "translate_y": (0, 0.5), "scale": images.LogUniform(0.8, 1.25)},
        {
            "degrees": uniform(-9, 9),
            "translate_y": uniform(0, 0.5),
            "scale": stats.loguniform(0.8, 1.25).cdf,
            **ALWAYS,
        },
    ),
    "Crop": (
        {"size": 8, "padding": (1, 0)},
        {"origin_0": alike(*range(-1, 6)), "origin_1": alike(0, 1, 2)},
    ),
    "Flip": ({"prob": 0.3}, SOMETIMES),
    "IoUCrop": (
        {"size": 8, "auxiliary_fields": ["boxes"], "box_fields": ("boxes",)},
        {"min_iou": alike(*map(np.float32, (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1))), "candidates": WORD},
    ),
    "ResizedCrop": ({"size": 8, "flip": 0.3}, {"flip": {True: 0.3, False: 0.7}}),
    "Rotation": ({}, {"degrees": uniform(-30, 30), **ALWAYS}),
    "ScaleJitter": ({"size": 8}, {"scale": uniform(0.1, 2), "place": WORD}),
}
# One of each kind of law; the others are for the thorough run.
OFTEN = ("Affine", "ColorJitter", "Posterize", "Solarize")
EVERY = [pytest.param(name, marks=[] if name in OFTEN else pytest.mark.thorough) for name in LAWS]


def drawn(name, options):
    """The numbers of records 0 to 10^5 - 1, by name; columns of a number as numbers."""
    kind = getattr(images, f"{name}Operator")
    op = kind(kind.config_class(stochastic=True, **options), rngs=nnx.Rngs(0))

    @jax.jit
    def numbers(key):
        keys = record_keys(key, None, np.arange(RECORDS, dtype=np.uint32))
        made = jax.vmap(lambda key: op.generate_random_params(key, SHAPES))(keys)
        return jax.tree.map(lambda leaf: leaf[:, 0], made)

    return {name: np.asarray(value) for name, value in numbers(jax.random.key(7)).items()}


@pytest.mark.parametrize("name", EVERY)
def test_each_number_has_its_law(name):
    """Distribution functions by Kolmogorov and Smirnov, frequencies by the test of chi squared."""
    options, laws = LAWS[name]
    found = drawn(name, options)
    if "origin" in found:
        found |= {f"origin_{axis}": found["origin"][:, axis] for axis in (0, 1)}
    if "order" in found:
        laws = {**laws, "permutation": alike(*range(24))}
        found["permutation"] = np.unique(found["order"], axis=0, return_inverse=True)[1]
    for number, law in laws.items():
        if callable(law):
            for column in found[number].reshape(RECORDS, -1).T[:4]:
                assert stats.kstest(column, law).pvalue > 1e-3, number
            continue
        values, counts = np.unique(found[number], return_counts=True)
        assert values.tolist() == sorted(value for value, share in law.items() if share)
        shares = np.array([law[value] for value in values.tolist()])
        assert stats.chisquare(counts, shares * RECORDS).pvalue > 1e-3 or len(law) == 1, number
