"""Each colour function against Pillow, on at least 10**7 values."""

import color
import numpy as np
import pytest

from datarax.operators.modality.image import functional

SIDE = 512
# By function, how its number is drawn for each image.
NUMBERS = {
    "brightness": lambda random: {"factor": float(random.uniform(-0.5, 3))},
    "contrast": lambda random: {"factor": float(random.uniform(-0.5, 3))},
    "equalize": lambda random: {},
    "grayscale": lambda random: {},
    "invert": lambda random: {},
    "posterize": lambda random: {"bits": int(random.integers(1, 9))},
    "saturation": lambda random: {"factor": float(random.uniform(-0.5, 3))},
    "sharpness": lambda random: {"factor": float(random.uniform(-0.5, 3))},
    "solarize": lambda random: {"threshold": float(random.uniform(-1, 257))},
    "solarize_add": lambda random: {"addend": int(random.integers(-255, 256))},
}


def images(count):
    """Images of very different spread, some smooth and some noise, with the numbers of each."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    for seed in range(count):
        random = np.random.default_rng(seed)
        waves = np.sin(random.uniform(3, 40, (3, 1, 1)) * x + random.uniform(3, 40, (3, 1, 1)) * y)
        smooth = waves * random.uniform(3, 130) + random.uniform(40, 215)
        noise = random.normal(0, random.choice([0, 2, 40]), (3, SIDE, SIDE))
        image = np.clip(smooth + noise, 0, 255).astype(np.uint8)
        yield np.ascontiguousarray(np.moveaxis(image, 0, -1)), random


@pytest.mark.parametrize("name", NUMBERS)
def test_every_value_is_pillows(name):
    """16 images of 512 x 512 colours, each with a number of its own."""
    for image, random in images(16):
        numbers = NUMBERS[name](random)
        made = np.asarray(getattr(functional, name)(image, **numbers))
        np.testing.assert_array_equal(made, color.REFERENCES[name](image, **numbers), str(numbers))


@pytest.mark.parametrize("shift", [0.0, 0.31, -0.5])
def test_hue_of_every_colour_is_pillows(shift):
    """All 2**24 colours there are."""
    number = np.arange(2**24, dtype=np.uint32).reshape(4096, 4096)
    image = np.stack([number >> 16, number >> 8, number], -1).astype(np.uint8)
    made = np.asarray(functional.hue(image, shift))
    np.testing.assert_array_equal(made, color.hue(image, shift))


def test_every_value_of_hsv_goes_back_as_pillows():
    """All 2**24 triples of hue, saturation and value."""
    from PIL import Image

    from datarax.operators.modality.image.functional import _hue

    number = np.arange(2**24, dtype=np.uint32).reshape(4096, 4096)
    parts = [(number >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)]
    made = np.asarray(_hue._colour_of(*(part.astype(np.int32) for part in parts)))
    picture = Image.merge("HSV", [Image.fromarray(part) for part in parts])
    np.testing.assert_array_equal(made, np.asarray(picture.convert("RGB")))


def test_auto_contrast_is_pillows_but_where_doubles_fall_short():
    """Pillow's value is the exact quotient, or one less where the quotient is a whole number."""
    from PIL import Image, ImageOps

    for image, _ in images(16):
        made = np.asarray(functional.auto_contrast(image)).astype(int)
        pillows = np.asarray(ImageOps.autocontrast(Image.fromarray(image))).astype(int)
        low, high = (end(image, axis=(0, 1)).astype(int) for end in (np.min, np.max))
        whole = 255 * (image.astype(int) - low) % np.maximum(high - low, 1) == 0
        assert set(np.unique(made - pillows)) <= {0, 1}
        assert whole[made != pillows].all()
