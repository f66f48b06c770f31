"""Image operations beside their peers: each function, RandAugment, resized crops, a whole recipe.

Each image has numbers of its own, as in training; where a peer draws one for a batch, its name says
so. Peers run in the form in which their users have them: Pillow and torchvision image by image,
Kornia on floats `(batch, channel, height, width)`, Keras and augmax as jitted functions of a batch.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass

import floors
import numpy as np
from harness import Call, Case, main

SIDE = 224
FILL = (124, 116, 104)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photographs(rows: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """Smooth noise: neighbours are alike, as in photographs, and all values occur."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (rows, height // 16 + 2, width // 16 + 2, 3)).astype(np.float32)
    fine = coarse.repeat(16, 1).repeat(16, 2)[:, :height, :width]
    for axis, length in ((1, height), (2, width)):
        moved = np.roll(fine, -8, axis)
        fine = (fine + moved) / 2
        assert fine.shape[axis] == length
    noise = rng.normal(0, 8, fine.shape)
    return np.clip(fine + noise, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Function:
    """One function, by its name in each library, and the range of its number.

    Args:
      name: of `functional`.
      low, high: its number, uniform; None for none.
      torchvision: of `torchvision.transforms.v2.functional`; the number follows the image.
      keras: a layer and its arguments.
      augmax: a transformation and its arguments.
      kornia: of `kornia.enhance` or `kornia.geometry.transform`.
    """

    name: str
    low: float | None = None
    high: float | None = None
    torchvision: str | None = None
    kornia: str | None = None
    keras: tuple[str, dict] | None = None
    augmax: tuple[str, dict] | None = None

    def numbers(self, rows: int) -> list[float]:
        """A number for each image."""
        rng = np.random.default_rng(1)
        if self.name == "posterize":
            return rng.integers(self.low, self.high + 1, rows).tolist()
        return rng.uniform(self.low or 0, self.high or 0, rows).astype(np.float32).tolist()


FUNCTIONS = (
    Function("invert", None, None, "invert", None, ("RandomInvert", {"factor": 1.0})),
    Function(
        "solarize",
        0,
        255,
        "solarize",
        "solarize",
        ("Solarization", {"threshold_factor": (0, 1.0)}),
        ("Solarization", {"p": 1.0}),
    ),
    Function("posterize", 1, 7, "posterize", "posterize", ("RandomPosterization", {"factor": 4})),
    Function(
        "brightness",
        0.6,
        1.4,
        "adjust_brightness",
        "adjust_brightness",
        ("RandomBrightness", {"factor": 0.4}),
        ("RandomBrightness", {"p": 1.0}),
    ),
    Function(
        "contrast",
        0.6,
        1.4,
        "adjust_contrast",
        "adjust_contrast",
        ("RandomContrast", {"factor": 0.4}),
        ("RandomContrast", {"p": 1.0}),
    ),
    Function(
        "saturation",
        0.6,
        1.4,
        "adjust_saturation",
        "adjust_saturation",
        ("RandomSaturation", {"factor": (0.3, 0.7)}),
    ),
    Function("hue", -0.1, 0.1, "adjust_hue", "adjust_hue", ("RandomHue", {"factor": 0.1})),
    Function("grayscale", None, None, None, None, ("RandomGrayscale", {"factor": 1.0})),
    Function(
        "sharpness",
        0.1,
        1.9,
        "adjust_sharpness",
        "sharpness",
        ("RandomSharpness", {"factor": (0.1, 0.9)}),
    ),
    Function("auto_contrast", None, None, "autocontrast", None, ("AutoContrast", {})),
    Function("equalize", None, None, "equalize", "equalize", ("Equalization", {})),
    Function(
        "rotate",
        -30,
        30,
        "rotate",
        "rotate",
        ("RandomRotation", {"factor": 1 / 12, "fill_mode": "constant"}),
        ("Rotate", {"angle_range": 30}),
    ),
)


def ours_function(function: Function, rows: int) -> Call:
    import jax

    from datarax.operators.modality.image import functional

    one = getattr(functional, function.name)
    if function.name == "rotate":
        one = functools.partial(one, fill=FILL)
    images = jax.device_put(photographs(rows))
    numbers = () if function.low is None else (np.float32(function.numbers(rows)),)
    run = jax.jit(jax.vmap(one))
    return lambda: jax.block_until_ready(run(images, *numbers))


def pillow_function(function: Function, rows: int) -> Call:
    call = pillow_calls()[function.name]
    pairs = list(zip(pillow_images(photographs(rows)), function.numbers(rows), strict=True))
    return lambda: [np.asarray(call(image, number)) for image, number in pairs]


def pillow_images(images: np.ndarray) -> list:
    from PIL import Image

    return [Image.fromarray(image) for image in images]


def pillow_calls() -> dict[str, Callable]:
    """Functions of a Pillow image and a number."""
    from PIL import Image, ImageEnhance, ImageOps

    moving = {"resample": Image.Resampling.BILINEAR, "fillcolor": FILL}

    def transform(image, *matrix):
        return image.transform(image.size, Image.Transform.AFFINE, matrix, **moving)

    def solarize_add(image, addend):
        table = [min(255, level + int(addend)) if level < 128 else level for level in range(256)]
        return image.point(table * 3)

    def hue(image, shift):
        hue, saturation, value = image.convert("HSV").split()
        turned = Image.fromarray(np.asarray(hue) + np.uint8(int(shift * 255) % 256))
        return Image.merge("HSV", (turned, saturation, value)).convert("RGB")

    return {
        "invert": lambda image, _: ImageOps.invert(image),
        "solarize": lambda image, number: ImageOps.solarize(image, int(number)),
        "solarize_add": solarize_add,
        "posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
        "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
        "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
        "saturation": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
        "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
        "hue": hue,
        "grayscale": lambda image, _: image.convert("L").convert("RGB"),
        "auto_contrast": lambda image, _: ImageOps.autocontrast(image),
        "equalize": lambda image, _: ImageOps.equalize(image),
        "rotate": lambda image, degrees: image.rotate(degrees, **moving),
        "shear_x": lambda image, by: transform(image, 1, by, 0, 0, 1, 0),
        "shear_y": lambda image, by: transform(image, 1, 0, 0, by, 1, 0),
        "translate_x": lambda image, by: transform(image, 1, 0, by * image.width, 0, 1, 0),
        "translate_y": lambda image, by: transform(image, 1, 0, 0, 0, 1, by * image.height),
    }


def torchvision_function(function: Function, rows: int) -> Call:
    from torchvision.transforms.v2 import functional

    if function.torchvision is None:
        raise ImportError("torchvision has no such function")
    one = getattr(functional, function.torchvision)
    if function.name == "rotate":
        bilinear = functional.InterpolationMode.BILINEAR
        one = functools.partial(one, interpolation=bilinear, fill=list(FILL))
    images = torch_images(photographs(rows))
    if function.low is None:
        return lambda: [one(image) for image in images]
    pairs = list(zip(images, function.numbers(rows), strict=True))
    return lambda: [one(image, number) for image, number in pairs]


def torch_images(images: np.ndarray):
    import torch

    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def kornia_function(function: Function, rows: int) -> Call:
    import kornia
    import torch

    if function.kornia is None:
        raise ImportError("Kornia has no such function")
    turned = function.name == "rotate"
    one = getattr(kornia.geometry.transform if turned else kornia.enhance, function.kornia)
    images = torch_images(photographs(rows)).to(torch.float32) / 255
    scale = 255 if function.name == "solarize" else 1
    numbers = torch.tensor(function.numbers(rows)) / scale
    if function.name == "posterize":
        numbers = numbers.to(torch.int32)
    given = () if function.low is None else (numbers,)
    return lambda: one(images, *given)


def keras_function(function: Function, rows: int) -> Call:
    import os

    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    if function.keras is None:
        raise ImportError("Keras has no such layer")
    name, options = function.keras
    value_range = {} if name in ("RandomRotation",) else {"value_range": (0, 255)}
    layer = getattr(keras.layers, name)(**options, **value_range)
    return keras_jit(layer, photographs(rows).astype(np.float32))


def keras_jit(layer, images: np.ndarray) -> Call:
    import jax

    given = jax.device_put(images)
    layer(given[:1], training=True)

    @jax.jit
    def run(images, variables):
        return layer.stateless_call([], variables, images, training=True)

    held = [[variable.value for variable in layer.non_trainable_variables]]

    def call() -> None:
        out, held[0] = run(given, held[0])
        jax.block_until_ready(out)

    return call


def augmax_function(function: Function, rows: int) -> Call:
    import augmax
    import jax

    if function.augmax is None:
        raise ImportError("augmax has no such transformation")
    name, options = function.augmax
    chain = augmax.Chain(augmax.ByteToFloat(), getattr(augmax, name)(**options))
    images = jax.device_put(photographs(rows))
    keys = jax.random.split(jax.random.key(0), rows)
    run = jax.jit(jax.vmap(chain))
    return lambda: jax.block_until_ready(run(keys, images))


def function_case(function: Function, rows: int) -> Case:
    contenders = {
        "ours": ours_function,
        "pillow, loop": pillow_function,
        "torchvision, image by image": torchvision_function,
        "kornia, floats": kornia_function,
        "keras, jit, floats": keras_function,
        "augmax, jit, floats": augmax_function,
    }
    prepared = {name: functools.partial(make, function, rows) for name, make in contenders.items()}
    return image_case(f"{function.name}, {rows} x {SIDE} px", rows, prepared, 8)


def image_case(name: str, rows: int, contenders: dict[str, Callable], calls: int) -> Case:
    floor = {floors.REFERENCE: lambda: floors.fresh(photographs(rows))}
    return Case(name, floor | contenders, floors.REFERENCE, calls)


def rand_augment(rows: int, prob: float, **options) -> Callable:
    """Timm's rand-m9-mstd0.5-inc1 as an operator."""
    from flax import nnx

    from datarax.operators.modality.image import RandAugmentOperator, RandAugmentOperatorConfig

    config = RandAugmentOperatorConfig(magnitude_std=0.5, prob=prob, fill=FILL, **options)
    return RandAugmentOperator(config, rngs=nnx.Rngs(0))


def ours_rand_augment(rows: int, prob: float) -> Call:
    import jax

    augment, fields = rand_augment(rows, prob), {"image": jax.device_put(photographs(rows))}
    return lambda: jax.block_until_ready(augment(fields))


def ours_all_branches(rows: int, prob: float) -> Call:
    """The same layers by `vmap` of `switch`, which computes every operation of every record."""
    import jax
    import jax.numpy as jnp

    from datarax.operators.modality.image import Warp, functional
    from datarax.operators.modality.image._policy_tables import TIMM

    def call_of(operation) -> Callable:
        if isinstance(operation, Warp):

            def moved(image, number):
                matrix = operation.function(image.shape[:2], number)
                return functional.affine(image, getattr(matrix, "floating", matrix), fill=FILL)

            return moved
        return operation

    branches = [call_of(operation) for operation in TIMM.values()] + [lambda image, _: image]

    def one(image, operations, magnitudes):
        for layer in range(2):
            numbers = [each.number(magnitudes[layer]) for each in TIMM.values()]
            number = jnp.stack([*numbers, jnp.float32(0)])[operations[layer]]
            image = jax.lax.switch(operations[layer], branches, image, number)
        return image

    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 15, (rows, 2))
    operations = jnp.int32(np.where(rng.random((rows, 2)) < prob, drawn, 15))
    magnitudes = jnp.float32(rng.normal(0.9, 0.05, (rows, 2)).clip(0, 1))
    images = jax.device_put(photographs(rows))
    run = jax.jit(jax.vmap(one))
    return lambda: jax.block_until_ready(run(images, operations, magnitudes))


def pillow_layers(rng: random.Random, prob: float) -> Callable:
    """Timm's layers in plain Pillow; timm itself adds the cost of its classes."""
    calls = pillow_calls()

    def sign(value: float) -> float:
        return value if rng.random() < 0.5 else -value

    numbers = {
        "auto_contrast": lambda m: 0,
        "equalize": lambda m: 0,
        "invert": lambda m: 0,
        "rotate": lambda m: sign(30 * m),
        "posterize": lambda m: 4 - int(4 * m),
        "solarize": lambda m: 256 - int(256 * m),
        "solarize_add": lambda m: 110 * m,
        "saturation": lambda m: 1 + sign(0.9 * m),
        "contrast": lambda m: 1 + sign(0.9 * m),
        "brightness": lambda m: 1 + sign(0.9 * m),
        "sharpness": lambda m: 1 + sign(0.9 * m),
        "shear_x": lambda m: sign(0.3 * m),
        "shear_y": lambda m: sign(0.3 * m),
        "translate_x": lambda m: sign(0.45 * m),
        "translate_y": lambda m: sign(0.45 * m),
    }
    names = list(numbers)

    def augment(image):
        for _ in range(2):
            if rng.random() < prob:
                name = rng.choice(names)
                part = min(1, max(0, rng.gauss(0.9, 0.05)))
                image = calls[name](image, numbers[name](part))
        return image

    return augment


def pillow_rand_augment(rows: int, prob: float) -> Call:
    augment, images = pillow_layers(random.Random(0), prob), pillow_images(photographs(rows))
    return lambda: [np.asarray(augment(image)) for image in images]


def timm_rand_augment(rows: int, prob: float) -> Call:
    from timm.data.auto_augment import rand_augment_transform

    augment = rand_augment_transform(
        f"rand-m9-mstd0.5-inc1-p{prob}", {"img_mean": FILL, "interpolation": 2}
    )
    images = pillow_images(photographs(rows))
    return lambda: [np.asarray(augment(image)) for image in images]


def torchvision_rand_augment(rows: int, prob: float) -> Call:
    from torchvision.transforms import v2

    bilinear = v2.InterpolationMode.BILINEAR
    augment = v2.RandAugment(interpolation=bilinear, fill=list(FILL))
    layers = [
        v2.RandomApply([v2.RandAugment(1, interpolation=bilinear, fill=list(FILL))], prob)
    ] * 2
    augment = augment if prob == 1 else v2.Compose(layers)
    images = torch_images(photographs(rows))
    return lambda: [augment(image) for image in images]


def keras_rand_augment(rows: int, prob: float) -> Call:
    import os

    os.environ["KERAS_BACKEND"] = "jax"
    import jax
    import keras

    layer = keras.layers.RandAugment(value_range=(0, 255), num_ops=2, factor=0.9)
    images = jax.device_put(photographs(rows))
    return lambda: jax.block_until_ready(layer(images, training=True))


def kornia_rand_augment(rows: int, prob: float) -> Call:
    import kornia
    import torch

    augment = kornia.augmentation.auto.RandAugment(n=2, m=9)
    images = torch_images(photographs(rows)).to(torch.float32) / 255
    return lambda: augment(images)


def rand_augment_case(rows: int, prob: float) -> Case:
    contenders = {
        "ours": ours_rand_augment,
        "ours, all branches": ours_all_branches,
        "pillow, loop": pillow_rand_augment,
        "timm, loop": timm_rand_augment,
        "torchvision, image by image": torchvision_rand_augment,
        "kornia, floats, one draw": kornia_rand_augment,
        "keras, eager": keras_rand_augment,
    }
    if rows > 32:
        del contenders["ours, all branches"], contenders["keras, eager"]
    prepared = {name: functools.partial(make, rows, prob) for name, make in contenders.items()}
    name = f"RandAugment, two layers, p {prob:g}, {rows} x {SIDE} px"
    return image_case(name, rows, prepared, 6)


@dataclass(frozen=True)
class Crops:
    """Resized crops of one size of input."""

    rows: int
    height: int
    width: int
    method: str

    @property
    def name(self) -> str:
        return (
            f"resized crop, {self.method}, {self.rows} x {self.height} x {self.width} -> {SIDE} px"
        )

    def boxes(self) -> np.ndarray:
        """(y0, x0, y1, x1): area from 8 to 100 %, ratio from 3/4 to 4/3."""
        rng, boxes = np.random.default_rng(2), []
        while len(boxes) < self.rows:
            area = rng.uniform(0.08, 1) * self.height * self.width
            ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            height, width = round(np.sqrt(area / ratio)), round(np.sqrt(area * ratio))
            if 0 < height <= self.height and 0 < width <= self.width:
                y = rng.integers(0, self.height - height + 1)
                x = rng.integers(0, self.width - width + 1)
                boxes.append((y, x, y + height, x + width))
        return np.int32(boxes)


def ours_crop(crops: Crops) -> Call:
    import jax

    from datarax.operators.modality.image import functional

    images = jax.device_put(photographs(crops.rows, crops.height, crops.width))
    boxes = jax.device_put(crops.boxes())

    def one(image, box):
        return functional.resized_crop(image, box, (SIDE, SIDE), method=crops.method)

    run = jax.jit(jax.vmap(one))
    return lambda: jax.block_until_ready(run(images, boxes))


def pillow_crop(crops: Crops) -> Call:
    from PIL import Image

    method = Image.Resampling[crops.method.upper()]
    images = pillow_images(photographs(crops.rows, crops.height, crops.width))
    pairs = list(zip(images, crops.boxes()[:, [1, 0, 3, 2]].tolist(), strict=True))

    def one(image, box):
        return np.asarray(image.crop(box).resize((SIDE, SIDE), method))

    return lambda: [one(image, box) for image, box in pairs]


def torchvision_crop(crops: Crops) -> Call:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import resized_crop

    images = torch_images(photographs(crops.rows, crops.height, crops.width))
    pairs = list(zip(images, crops.boxes().tolist(), strict=True))
    method = InterpolationMode[crops.method.upper()]

    def one(image, box):
        y0, x0, y1, x1 = box
        size = [SIDE, SIDE]
        return resized_crop(image, y0, x0, y1 - y0, x1 - x0, size, method, antialias=True)

    return lambda: [one(image, box) for image, box in pairs]


def kornia_crop(crops: Crops) -> Call:
    import kornia
    import torch

    images = torch_images(photographs(crops.rows, crops.height, crops.width))
    images = images.to(torch.float32) / 255
    crop = kornia.augmentation.RandomResizedCrop((SIDE, SIDE), resample=crops.method)
    return lambda: crop(images)


def augmax_crop(crops: Crops) -> Call:
    import augmax
    import jax

    if crops.method != "bilinear":
        raise ImportError("augmax has bilinear only")
    images = photographs(crops.rows, crops.height, crops.width)
    chain = augmax.Chain(augmax.ByteToFloat(), augmax.RandomSizedCrop(SIDE, SIDE))
    images, keys = jax.device_put(images), jax.random.split(jax.random.key(0), crops.rows)
    run = jax.jit(jax.vmap(chain))
    return lambda: jax.block_until_ready(run(keys, images))


def crop_case(crops: Crops) -> Case:
    contenders = {
        "ours": ours_crop,
        "pillow, loop": pillow_crop,
        "torchvision, image by image": torchvision_crop,
        "kornia, floats, no antialias": kornia_crop,
        "augmax, jit, floats, no antialias": augmax_crop,
    }
    prepared = {name: functools.partial(make, crops) for name, make in contenders.items()}
    return image_case(crops.name, crops.rows, prepared, 8)


RECIPE = Crops(32, 375, 500, "bicubic")


def ours_recipe() -> Call:
    """DeiT's operators and timm's mixing in one compiled function of plain fields."""
    import jax
    from flax import nnx

    from datarax.operators import CompositeOperatorConfig, CompositeOperatorModule
    from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig
    from datarax.operators.modality import image as operators
    from datarax.operators.modality.image.patch_dropout_operator import (
        PatchDropoutOperator,
        PatchDropoutOperatorConfig,
    )

    rngs = nnx.Rngs(0)
    crop = operators.ResizedCropOperatorConfig(size=SIDE, method="bicubic", flip=0.5)
    normalize = operators.NormalizeOperatorConfig(mean=MEAN, std=STD, dtype="bfloat16")
    erase = PatchDropoutOperatorConfig(
        field_key="image",
        stochastic=True,
        prob=0.25,
        num_patches=1,
        patch_area=(0.02, 1 / 3),
        aspect_ratio=(0.3, 1 / 0.3),
        fill="noise",
        fill_range=(-2.0, 2.0),
    )
    mix = BatchMixOperatorConfig(
        mode="both",
        alpha=0.8,
        cutmix_alpha=1.0,
        num_classes=1000,
        label_smoothing=0.1,
        data_field="image",
        label_field="label",
    )
    members = [
        operators.ResizedCropOperator(crop, rngs=rngs),
        rand_augment(RECIPE.rows, 0.5, method="bicubic"),
        operators.NormalizeOperator(normalize),
        PatchDropoutOperator(erase, rngs=rngs),
    ]
    augment = CompositeOperatorModule(CompositeOperatorConfig(), operators=members)
    blend = BatchMixOperator(mix, rngs=rngs)

    @jax.jit
    def recipe(fields, key):
        first, second = jax.random.split(key)
        return blend(augment(fields, key=first), key=second)

    images = jax.device_put(photographs(RECIPE.rows, RECIPE.height, RECIPE.width))
    labels = np.arange(RECIPE.rows, dtype=np.int32)
    keys = iter(range(10**9))

    def call() -> None:
        fields = {"image": images, "label": labels}
        jax.block_until_ready(recipe(fields, jax.random.key(next(keys))))

    return call


def timm_recipe() -> Call:
    """Timm's transforms image by image, stacked, mixed, and cast to bfloat16."""
    import torch
    from timm.data import Mixup, create_transform

    transform = create_transform(
        SIDE,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        re_count=1,
    )
    mix = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=1000)
    labels = torch.arange(RECIPE.rows)
    images = pillow_images(photographs(RECIPE.rows, RECIPE.height, RECIPE.width))

    def call() -> None:
        batch = torch.stack([transform(image) for image in images])
        mixed, _ = mix(batch, labels)
        mixed.to(torch.bfloat16)

    return call


def recipe_case() -> Case:
    name = f"DeiT recipe, {RECIPE.rows} x {RECIPE.height} x {RECIPE.width} -> {SIDE} px, bfloat16"
    contenders = {"ours": ours_recipe, "timm, image by image": timm_recipe}
    return image_case(name, RECIPE.rows, contenders, 8)


CASES = (
    *(function_case(function, rows) for function in FUNCTIONS for rows in (32, 128)),
    *(rand_augment_case(rows, prob) for rows in (32, 128) for prob in (0.5, 1.0)),
    *(
        crop_case(Crops(32, *size, method))
        for size in ((256, 256), (375, 500))
        for method in ("bilinear", "bicubic")
    ),
    recipe_case(),
)

if __name__ == "__main__":
    main(CASES)
