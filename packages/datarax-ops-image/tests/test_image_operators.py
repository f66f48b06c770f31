"""What all image operators promise, from one table of them."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators import CompositeOperatorConfig, CompositeOperatorModule
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
RANDOM = [name for name in CASES if name not in ("Normalize", "Resize")]
DTYPES = ("uint8", "float32", "bfloat16")
ROWS = 6


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
def called(name, dtype="uint8"):
    """What the operator of the table makes of the rows, called on its own."""
    return operator(name, info_key="numbers")(rows(dtype))


def test_every_operator_is_in_the_table():
    """A new operator that this file does not test is noticed."""
    exported = {name.removesuffix("Operator") for name in vars(images) if name.endswith("Operator")}
    assert exported - {"Image", "Geometric", "PatchDropout"} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_record_is_the_same_alone_in_any_batch_and_compiled_anyhow(name):
    """All bits agree between a call, and calls for other rows inside a compiled function."""
    op = operator(name)
    member = CompositeOperatorModule(CompositeOperatorConfig(), operators=[op])

    @jax.jit
    def contexts(batch):
        return member(batch[2:])["image"], op(batch[3:4])["image"]

    composed, alone = contexts(rows("float32"))
    expected = called(name, "float32")["image"]
    assert same(expected[2:], composed)
    assert same(expected[3:4], alone)
