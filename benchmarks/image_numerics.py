"""Where other libraries' image functions give other numbers than "image numerics 1".

Each library is asked for the same thing in its own words. Where it takes uint8, its bytes are
compared with ours; where it takes floats, its floats with those of our functions, clipped to 0..1,
and a value counts as equal if it differs by less than half a level. Libraries that are not
installed are left out, and results are added to those that the file has, so that one file collects
several environments:

    python benchmarks/image_numerics.py --output benchmarks/results/image_numerics.json
    ../pillow13/bin/python benchmarks/image_numerics.py --output ... --page docs/image-numerics.md
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np

from datarax.operators.modality.image import functional

Image = np.ndarray
Function = Callable[[Image], Any]

SIZE = (160, 211)
SMALL, LARGE, WIDE, BOX = (56, 70), (300, 311), (80, 300), (21, 40, 151, 170)
OURS: dict[str, Function] = {
    "brightness 1.4": lambda x: functional.brightness(x, 1.4),
    "contrast 0.6": lambda x: functional.contrast(x, 0.6),
    "saturation 1.6": lambda x: functional.saturation(x, 1.6),
    "sharpness 1.8": lambda x: functional.sharpness(x, 1.8),
    "hue 0.1": lambda x: functional.hue(x, 0.1),
    "grayscale": functional.grayscale,
    "invert": functional.invert,
    "solarize": lambda x: functional.solarize(x, 128 if x.dtype == np.uint8 else 128 / 255),
    "posterize 4": lambda x: functional.posterize(x, 4),
    "equalize": functional.equalize,
    "auto-contrast": functional.auto_contrast,
    "blur 1.2": lambda x: functional.gaussian_blur(x, 1.2, max_sigma=1.2),
    "resize down, bilinear": lambda x: functional.resize(x, SMALL),
    "resize down, bicubic": lambda x: functional.resize(x, SMALL, method="bicubic"),
    "resize up, bilinear": lambda x: functional.resize(x, LARGE),
    "resize low and wide, bicubic": lambda x: functional.resize(x, WIDE, method="bicubic"),
    "resized crop, bicubic": lambda x: functional.resized_crop(x, BOX, SMALL, method="bicubic"),
    "rotate 20, bilinear": lambda x: functional.rotate(x, 20.0),
    "rotate 20, nearest": lambda x: functional.rotate(x, 20.0, method="nearest"),
}


def photographs() -> list[Image]:
    """Two images of colour and detail, the second of little contrast."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    waves = [
        np.sin(y / a + x / b) + np.cos(x / a - y * x / 900) for a, b in ((9, 7), (23, 5), (4, 31))
    ]
    random = np.random.default_rng(0)
    smooth = np.stack(waves, -1) * 60 + 128 + random.normal(0, 4, (*SIZE, 3))
    smooth[30:50, 20:60] = (255, 0, 128)
    return [np.clip(image, 0, 255).astype(np.uint8) for image in (smooth, smooth * 0.4 + 60)]


def pillow() -> dict[str, Function]:
    from PIL import Image as P
    from PIL import ImageEnhance, ImageFilter, ImageOps

    def of(function: Callable) -> Function:
        return lambda image: np.asarray(function(P.fromarray(image)))

    def hue(picture: Any) -> Any:
        hues, saturations, values = picture.convert("HSV").split()
        turned = np.asarray(hues) + np.uint8(25)
        return P.merge("HSV", (P.fromarray(turned), saturations, values)).convert("RGB")

    bilinear, bicubic, nearest = (P.Resampling[name] for name in ("BILINEAR", "BICUBIC", "NEAREST"))
    y0, x0, y1, x1 = BOX
    functions = {
        "brightness 1.4": lambda p: ImageEnhance.Brightness(p).enhance(1.4),
        "contrast 0.6": lambda p: ImageEnhance.Contrast(p).enhance(0.6),
        "saturation 1.6": lambda p: ImageEnhance.Color(p).enhance(1.6),
        "sharpness 1.8": lambda p: ImageEnhance.Sharpness(p).enhance(1.8),
        "hue 0.1": hue,
        "grayscale": lambda p: p.convert("L").convert("RGB"),
        "invert": ImageOps.invert,
        "solarize": lambda p: ImageOps.solarize(p, 128),
        "posterize 4": lambda p: ImageOps.posterize(p, 4),
        "equalize": ImageOps.equalize,
        "auto-contrast": ImageOps.autocontrast,
        "blur 1.2": lambda p: p.filter(ImageFilter.GaussianBlur(1.2)),
        "resize down, bilinear": lambda p: p.resize(SMALL[::-1], bilinear),
        "resize down, bicubic": lambda p: p.resize(SMALL[::-1], bicubic),
        "resize up, bilinear": lambda p: p.resize(LARGE[::-1], bilinear),
        "resize low and wide, bicubic": lambda p: p.resize(WIDE[::-1], bicubic),
        "resized crop, bicubic": lambda p: p.crop((x0, y0, x1, y1)).resize(SMALL[::-1], bicubic),
        "rotate 20, bilinear": lambda p: p.rotate(20, bilinear),
        "rotate 20, nearest": lambda p: p.rotate(20, nearest),
    }
    return {name: of(function) for name, function in functions.items()}


def torchvision() -> dict[str, Function]:
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as v2

    def of(function: Callable) -> Function:
        return lambda image: function(torch.tensor(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()

    bilinear, bicubic, nearest = (
        InterpolationMode[name] for name in ("BILINEAR", "BICUBIC", "NEAREST")
    )
    y0, x0, y1, x1 = BOX
    box = (y0, x0, y1 - y0, x1 - x0)
    functions = {
        "brightness 1.4": lambda x: v2.adjust_brightness(x, 1.4),
        "contrast 0.6": lambda x: v2.adjust_contrast(x, 0.6),
        "saturation 1.6": lambda x: v2.adjust_saturation(x, 1.6),
        "sharpness 1.8": lambda x: v2.adjust_sharpness(x, 1.8),
        "hue 0.1": lambda x: v2.adjust_hue(x, 0.1),
        "grayscale": lambda x: v2.rgb_to_grayscale(x, num_output_channels=3),
        "invert": v2.invert,
        "solarize": lambda x: v2.solarize(x, 128),
        "posterize 4": lambda x: v2.posterize(x, 4),
        "equalize": v2.equalize,
        "auto-contrast": v2.autocontrast,
        "blur 1.2": lambda x: v2.gaussian_blur(x, [9, 9], [1.2, 1.2]),
        "resize down, bilinear": lambda x: v2.resize(x, SMALL, bilinear, antialias=True),
        "resize down, bicubic": lambda x: v2.resize(x, SMALL, bicubic, antialias=True),
        "resize up, bilinear": lambda x: v2.resize(x, LARGE, bilinear, antialias=True),
        "resize low and wide, bicubic": lambda x: v2.resize(x, WIDE, bicubic, antialias=True),
        "resized crop, bicubic": lambda x: v2.resized_crop(x, *box, SMALL, bicubic, antialias=True),
        "rotate 20, bilinear": lambda x: v2.rotate(x, 20, bilinear),
        "rotate 20, nearest": lambda x: v2.rotate(x, 20, nearest),
    }
    return {name: of(function) for name, function in functions.items()}


def kornia() -> dict[str, Function]:
    import torch
    from kornia import color, enhance, filters
    from kornia.geometry import transform

    def of(function: Callable) -> Function:
        def call(image: Image) -> Image:
            batch = torch.tensor(image).permute(2, 0, 1)[None].float() / 255
            return function(batch)[0].permute(1, 2, 0).numpy()

        return call

    def resized(size: tuple[int, int], method: str) -> Callable:
        return lambda x: transform.resize(x, size, method, align_corners=False, antialias=True)

    angle = torch.tensor([20.0])
    functions = {
        "brightness 1.4": lambda x: enhance.adjust_brightness(x, 0.4),
        "contrast 0.6": lambda x: enhance.adjust_contrast(x, 0.6),
        "saturation 1.6": lambda x: enhance.adjust_saturation(x, 1.6),
        "sharpness 1.8": lambda x: enhance.sharpness(x, 1.8),
        "hue 0.1": lambda x: enhance.adjust_hue(x, 0.1 * 2 * math.pi),
        "grayscale": lambda x: color.rgb_to_grayscale(x).expand(-1, 3, -1, -1),
        "invert": lambda x: enhance.invert(x, torch.tensor(1.0)),
        "solarize": lambda x: enhance.solarize(x, 128 / 255),
        "posterize 4": lambda x: enhance.posterize(x, 4),
        "equalize": enhance.equalize,
        "auto-contrast": enhance.normalize_min_max,
        "blur 1.2": lambda x: filters.gaussian_blur2d(x, (9, 9), (1.2, 1.2)),
        "resize down, bilinear": resized(SMALL, "bilinear"),
        "resize down, bicubic": resized(SMALL, "bicubic"),
        "resize up, bilinear": resized(LARGE, "bilinear"),
        "resize low and wide, bicubic": resized(WIDE, "bicubic"),
        "rotate 20, bilinear": lambda x: transform.rotate(x, angle),
        "rotate 20, nearest": lambda x: transform.rotate(x, angle, mode="nearest"),
    }
    return {name: of(function) for name, function in functions.items()}


def keras() -> dict[str, Function]:
    from keras import layers, ops

    def of(function: Callable) -> Function:
        return lambda image: np.asarray(function((image / np.float32(255))[None])[0])

    unit = {"value_range": (0, 1)}

    def layer(kind: str, *numbers: Any) -> Callable:
        return lambda x: getattr(layers, kind)(*numbers, **unit)(x, training=True)

    def gray(x: Any) -> Any:
        return ops.repeat(ops.image.rgb_to_grayscale(x), 3, axis=-1)

    def resized(size: tuple[int, int], method: str) -> Callable:
        return lambda x: ops.image.resize(x, size, interpolation=method, antialias=True)

    functions = {
        "brightness 1.4": layer("RandomBrightness", (0.4, 0.4)),
        "grayscale": gray,
        "invert": layer("RandomInvert", (1.0, 1.0)),
        "posterize 4": layer("RandomPosterization", (4, 4)),
        "equalize": layer("Equalization"),
        "auto-contrast": layer("AutoContrast"),
        "blur 1.2": lambda x: ops.image.gaussian_blur(x, (9, 9), (1.2, 1.2)),
        "resize down, bilinear": resized(SMALL, "bilinear"),
        "resize down, bicubic": resized(SMALL, "bicubic"),
        "resize up, bilinear": resized(LARGE, "bilinear"),
        "resize low and wide, bicubic": resized(WIDE, "bicubic"),
    }
    return {name: of(function) for name, function in functions.items()}


def augmax() -> dict[str, Function]:
    import augmax as a

    def of(transformation: Any) -> Function:
        chain = a.Chain(transformation)
        return lambda image: np.asarray(chain(jax.random.key(0), jnp.float32(image) / 255))

    functions = {
        "brightness 1.4": lambda: a.RandomBrightness((0.4, 0.4), p=1.0),
        "contrast 0.6": lambda: a.RandomContrast((-0.4, -0.4), p=1.0),
        "grayscale": lambda: a.RandomGrayscale(p=1.0),
        "solarize": lambda: a.Solarization(128 / 255, p=1.0),
        "blur 1.2": lambda: a.GaussianBlur(1.2, p=1.0),
        "resize down, bilinear": lambda: a.Resize(SMALL[1], SMALL[0]),
        "resize up, bilinear": lambda: a.Resize(LARGE[1], LARGE[0]),
        "rotate 20, bilinear": lambda: a.Rotate((20, 20), p=1.0),
    }
    return {name: of(make()) for name, make in functions.items()}


def jax_image() -> dict[str, Function]:
    y0, x0, y1, x1 = BOX

    def resized(size: tuple[int, int], method: str) -> Function:
        return lambda image: np.asarray(
            jax.image.resize(jnp.float32(image) / 255, (*size, 3), method, antialias=True)
        )

    def crop(image: Image) -> Image:
        scale = jnp.array([SMALL[0] / (y1 - y0), SMALL[1] / (x1 - x0)])
        shift = -scale * jnp.array([y0, x0])
        pixels = jnp.float32(image) / 255
        return np.asarray(
            jax.image.scale_and_translate(pixels, (*SMALL, 3), (0, 1), scale, shift, "cubic")
        )

    return {
        "resize down, bilinear": resized(SMALL, "linear"),
        "resize down, bicubic": resized(SMALL, "cubic"),
        "resize up, bilinear": resized(LARGE, "linear"),
        "resize low and wide, bicubic": resized(WIDE, "cubic"),
        "resized crop, bicubic": crop,
    }


# By the distribution whose version counts, its name in the table and what it is asked.
PEERS = {
    "pillow": ("Pillow", pillow),
    "torchvision": ("torchvision v2", torchvision),
    "kornia": ("Kornia", kornia),
    "keras": ("Keras", keras),
    "augmax": ("augmax", augmax),
    "jax": ("jax.image", jax_image),
}
MODULES = {"pillow": "PIL"}


def compared(name: str, function: Function) -> dict[str, Any]:
    """The share of equal values and the largest difference, in levels, over all images."""
    equal, largest, floats = [], 0.0, False
    for image in photographs():
        theirs = np.asarray(function(image))
        floats = theirs.dtype != np.uint8
        ours = np.asarray(OURS[name](image / np.float32(255) if floats else image))
        assert theirs.shape == ours.shape, (name, theirs.shape, ours.shape)
        ours, theirs = (
            np.clip(values, 0, 1) * 255 if floats else values.astype(float)
            for values in (ours, theirs)
        )
        difference = np.abs(ours - theirs)
        equal.append(difference < 0.5)
        largest = max(largest, float(difference.max()))
    return {
        "equal": round(float(np.mean(equal)), 6),
        "largest": round(largest, 2),
        "compared as": "floats" if floats else "uint8",
    }


def measured(distribution: str) -> dict[str, Any] | None:
    """All cases of one library; a case that fails says why."""
    try:
        import_module(MODULES.get(distribution, distribution))
    except ImportError as error:
        print(f"{distribution} is left out: {error}")
        return None
    cases = {}
    for name, function in PEERS[distribution][1]().items():
        try:
            cases[name] = compared(name, function)
        except (TypeError, ValueError, AttributeError, AssertionError) as error:
            cases[name] = {"failed": f"{type(error).__name__}: {str(error)[:200]}"}
    return cases


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table, a column for each library."""
    columns = sorted(results["peers"].items())
    lines = [
        "| function | " + " | ".join(name for name, _ in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in OURS:
        cells = []
        for _, cases in columns:
            case = cases.get(name, {})
            if "equal" not in case:
                cells.append("")
            elif case["equal"] == 1:
                cells.append("same")
            else:
                share = min(100 * case["equal"], 99.99)
                cells.append(f"{share:.4g} % / {case['largest']:.3g}")
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON file to which results are added")
    parser.add_argument("--page", type=Path, help="page whose table is replaced")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    options = parser.parse_args()
    results: dict[str, Any] = {"image numerics": 1, "peers": {}}
    if options.output and options.output.exists():
        results = json.loads(options.output.read_text(encoding="utf-8"))
    for distribution in options.peers:
        cases = measured(distribution)
        if cases is not None:
            version = metadata.version(distribution)
            results["peers"][f"{PEERS[distribution][0]} {version}"] = cases
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))
    if options.page:
        text = options.page.read_text(encoding="utf-8")
        start, stop = (text.index(mark) for mark in ("<!-- table -->", "<!-- end of table -->"))
        text = text[:start] + f"<!-- table -->\n\n{table(results)}\n\n" + text[stop:]
        options.page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
