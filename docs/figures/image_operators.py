"""Draws docs/image-operators.md: `python docs/figures/image_operators.py [NAME ...]`.

Each row has one photograph, and every picture in it is a record of one batch: what differs are the
numbers, which are given by `replay` or drawn.
"""

import sys
from pathlib import Path

import matplotlib.patheffects as effects
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from matplotlib.patches import Rectangle
from patch_dropout import ASTRONAUT, PICTURES, SIDE, panels, show, spectrogram, square

from datarax.operators.modality import image as ops

FOLDER = Path(__file__).parents[1] / "images"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FOLLOW = {"auxiliary_fields": ["mask", "boxes"], "box_fields": ("boxes",)}
# Face, badge and orbiter, (x0, y0, x1, y1) as fractions of the square photograph.
BOXES = np.float32([[100, 58, 166, 132], [220, 50, 272, 190], [62, 240, 120, 280]]) / 280


def suit(image):
    """Where the astronaut's suit is."""
    red, green, blue = (image[..., i].astype(int) for i in range(3))
    return ((red > 153) & (green < 140) & (blue < 115) & (red - blue > 89)).astype(np.uint8)


WHOLE_BOX = np.float32([[0.05, 0.06, 0.9, 1.0]])
SCENE = {"image": square(ASTRONAUT), "mask": suit(square(ASTRONAUT)), "boxes": BOXES * SIDE}
WHOLE = SCENE | {"boxes": WHOLE_BOX * SIDE}


def op(kind, seed=0, **options):
    """An operator with its config."""
    return kind(kind.config_class(**options), rngs=nnx.Rngs(seed))


def batch(record, number):
    """So many copies of a record."""
    return {name: np.stack([array] * number) for name, array in record.items()}


def given(kind, picture, name, numbers, **options):
    """Titles and pictures: the photograph as it is, and with each of the numbers."""
    low, high = min(numbers), max(numbers)
    operator = op(kind, **{name: (low, high)}, **options)
    drawn = {name: np.asarray(numbers, np.float32 if isinstance(high, float) else np.int32)}
    if kind in (ops.NoiseOperator, ops.DropoutOperator):
        drawn["seed"] = np.ones((len(numbers), 2), np.uint32)
    images = operator.replay(batch({"image": picture}, len(numbers)), drawn)["image"]
    titles = ["as it is", *(f"{name}={number:g}" for number in numbers)]
    return list(zip(titles, [{"image": picture}, *({"image": x} for x in images)], strict=True))


def one_by_one(fields):
    """The records of a batch."""
    return [{name: np.asarray(array[i]) for name, array in fields.items()} for i in range(5)]


def drawn(kind, record=None, title="", seed=0, **options):
    """Five records that the operator draws numbers for, the first with a title."""
    follow = FOLLOW if "boxes" in (record or {}) else {}
    fields = {"image": PICTURES} if record is None else batch(record, 5)
    records = one_by_one(op(kind, seed, **options, **follow)(fields))
    return list(zip([title, "", "", "", ""], records, strict=True))


def alone(kind, title, record=None, **options):
    """One record, with a title."""
    record = record or SCENE
    follow = FOLLOW if "boxes" in (record or {}) else {}
    fields = op(kind, **options, **follow)(batch(record, 1))
    return title, {name: np.asarray(array[0]) for name, array in fields.items()}


def each(kinds, picture):
    """A photograph as it is, and after operators without a number."""
    record = {"image": picture}
    return [
        ("as it is", record),
        *(alone(kind, title, record, **more) for title, kind, more in kinds),
    ]


def draw(axis, title, record):
    """A picture on the canvas of the figure, with its mask in blue and its boxes."""
    image = record["image"]
    if "mask" in record:
        shown = np.where(
            record["mask"][..., None] > 0, 0.4 * image + 0.6 * np.float32([0, 90, 255]), image
        )
        image = shown.round().astype(np.uint8)
    show(axis, image, title, loc="left")
    height, width = image.shape[:2]
    for number, (x0, y0, x1, y1) in enumerate(record.get("boxes", ())):
        if record.get("boxes_visibility", np.ones(9))[number] > 0:
            frame = Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, ec="w", lw=1.5)
            frame.set_path_effects([effects.withStroke(linewidth=3, foreground="black")])
            axis.add_patch(frame)
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def save(name, rows):
    """Writes a JPEG with a row of pictures for each list."""
    columns = max(map(len, rows))
    figure, axes = panels(columns, [SIDE] * len(rows))
    for line, row in zip(axes, rows, strict=True):
        for axis, (title, record) in zip(line, row, strict=False):
            draw(axis, title, record)
    path = FOLDER / f"image-{name}.jpg"
    figure.savefig(path, facecolor="white", pil_kwargs={"quality": 82, "optimize": True})
    plt.close(figure)
    print(f"{path.name}: {path.stat().st_size // 1024} kB")


def resized():
    """Smaller with and without antialias; a part, enlarged by each method."""
    small = {"size": (40, 40)}
    part = {"image": PICTURES[1][48:80, 40:72]}
    cat = {"image": PICTURES[1]}
    resize, large = ops.ResizeOperator, {"size": (SIDE, SIDE)}
    return [
        [
            ("as it is", cat),
            alone(resize, "size=(40, 40)", cat, **small),
            alone(resize, "antialias=False", cat, **small, antialias=False),
            alone(resize, "size=(20, 20)", cat, size=(20, 20)),
            alone(resize, "size=(80, 160)", cat, size=(80, 160)),
        ],
        [
            ("32 of the pixels", part),
            alone(resize, 'method="nearest"', part, **large, method="nearest"),
            alone(resize, '"bilinear"', part, **large),
            alone(resize, '"bicubic"', part, **large, method="bicubic"),
        ],
    ]


def cropped():
    """Random places, then each way to pad."""
    crop, pad = ops.CropOperator, {"size": SIDE + 60, "padding": 30, "position": "center"}
    return [
        drawn(crop, SCENE, "size=112, five draws", size=112),
        [
            alone(crop, "padding=30, fill=128", **pad, fill=128),
            *(alone(crop, f'mode="{m}"', **pad, mode=m) for m in ("edge", "reflect", "symmetric")),
            alone(crop, 'position="center"', size=112, position="center"),
        ],
    ]


def affine():
    """One number after the other, then all of them drawn."""
    kind = ops.AffineOperator
    some = {"degrees": (-30, 30), "scale": (0.6, 1.3), "shear_x": (-15, 15)}
    return [
        [
            alone(kind, "translate_x=0.2", translate_x=0.2),
            alone(kind, "scale=0.7", scale=0.7),
            alone(kind, "shear_x=20", shear_x=20),
            alone(kind, "shear_y=-20", shear_y=-20),
            alone(kind, "degrees=45, fill=128", degrees=45, fill=128),
        ],
        drawn(kind, SCENE, "three numbers drawn", **some),
    ]


def normalized():
    """Normalised photographs, shown in grey levels from -2.6 to 2.6."""
    images = op(ops.NormalizeOperator, mean=MEAN, std=STD)({"image": PICTURES})["image"]
    shown = np.clip(255 * (np.asarray(images) + 2.6) / 5.2, 0, 255).astype(np.uint8)
    titles = ["shown from -2.6 to 2.6", "", "", "", ""]
    return [list(zip(titles, ({"image": x} for x in shown), strict=True))]


def masked_spectrogram():
    """A spectrogram, upright with frequency to the top, with masks in time, frequency and both."""
    sound = spectrogram()[::-1].T
    options = {"time_masks": 0, "frequency_masks": 0, "time_width": 40, "frequency_width": 30}

    def masked(title, **more):
        kind, seed = ops.SpectrogramMaskOperator, 3
        fields = {"image": sound[None].astype(np.float32), "frames": np.int32([80])}
        image = op(kind, seed, **options | more)(fields)["image"]
        return title, {"image": np.asarray(image[0]).T[::-1]}

    both = {"time_masks": 2, "frequency_masks": 2}
    return [
        [
            ("as it is", {"image": sound.T[::-1]}),
            masked("time_masks=2", time_masks=2),
            masked("frequency_masks=2", frequency_masks=2),
            masked("both", **both),
            masked("only the first half is real", **both, length_field="frames"),
        ]
    ]


def figures():
    """A function that makes the rows, by the name of a figure."""
    cat, cup, rocket, motorcycle = PICTURES[1:]
    dull = (60 + cat * 0.4).astype(np.uint8)
    blends = (0.0, 0.5, 1.5, 2.0)
    rand = {"fill": (124, 116, 104)}
    jitter = ops.ColorJitterOperator
    plain = [
        ("Grayscale", ops.GrayscaleOperator, {}),
        ("Invert", ops.InvertOperator, {}),
        ("AutoContrast", ops.AutoContrastOperator, {}),
        ("Equalize", ops.EqualizeOperator, {}),
    ]
    flips = [("horizontal", {}), ("vertical", {"horizontal": False, "vertical": True})]
    flips += [("both", {"vertical": True})]
    crops = {"size": SIDE}

    def row(*args, **options):
        return lambda: [given(*args, **options)]

    return {
        "brightness": row(ops.BrightnessOperator, cup, "factor", blends),
        "contrast": row(ops.ContrastOperator, motorcycle, "factor", blends),
        "saturation": row(ops.SaturationOperator, rocket, "factor", blends),
        "sharpness": row(ops.SharpnessOperator, cat, "factor", (0.0, 2.0, 4.0, 8.0)),
        "hue": row(ops.HueOperator, cup, "shift", (-0.25, -0.1, 0.1, 0.25)),
        "color-jitter": lambda: [
            drawn(jitter, {"image": motorcycle}, "0.2, 0.2, 0.2, 0.05", **strength(0.2, 0.05)),
            drawn(jitter, {"image": motorcycle}, "0.6, 0.6, 0.6, 0.2", **strength(0.6, 0.2)),
        ],
        "plain": lambda: [each(plain, dull), each(plain, PICTURES[0])],
        "solarize": row(ops.SolarizeOperator, rocket, "threshold", (224, 160, 96, 32)),
        "posterize": row(ops.PosterizeOperator, cat, "bits", (4, 3, 2, 1)),
        "gaussian-blur": row(ops.GaussianBlurOperator, motorcycle, "sigma", (0.5, 1.0, 2.0, 4.0)),
        "noise": row(ops.NoiseOperator, cup, "std", (0.03, 0.1, 0.2, 0.4)),
        "dropout": row(ops.DropoutOperator, cat, "rate", (0.02, 0.1, 0.3, 0.6)),
        "normalize": normalized,
        "resize": resized,
        "crop": cropped,
        "resized-crop": lambda: [
            drawn(ops.ResizedCropOperator, SCENE, "scale=(0.5, 1)", scale=(0.5, 1), **crops),
            drawn(ops.ResizedCropOperator, SCENE, "scale=(0.08, 0.5)", scale=(0.08, 0.5), **crops),
        ],
        "flip": lambda: [
            [("as it is", SCENE), *(alone(ops.FlipOperator, t, prob=1, **o) for t, o in flips)]
        ],
        "rotation": lambda: [
            [
                alone(ops.RotationOperator, f"degrees={degrees}", degrees=degrees)
                for degrees in (-30, -10, 10, 45, 90)
            ]
        ],
        "affine": affine,
        "scale-jitter": lambda: [
            drawn(ops.ScaleJitterOperator, SCENE, "scale=(0.5, 2)", scale=(0.5, 2), **crops),
        ],
        "iou-crop": lambda: [
            drawn(ops.IoUCropOperator, SCENE, "min_iou=0.1", min_iou=0.1, **crops),
            drawn(ops.IoUCropOperator, WHOLE, "min_iou=0.6", min_iou=0.6, **crops),
        ],
        "spectrogram-mask": masked_spectrogram,
        "rand-augment": lambda: [
            drawn(ops.RandAugmentOperator, title=f"magnitude={m}", magnitude=m, **rand)
            for m in (3, 6, 9)
        ],
        "trivial-augment": lambda: [
            drawn(ops.TrivialAugmentOperator, title="one operation for each record")
        ],
        "auto-augment": lambda: [
            drawn(ops.AutoAugmentOperator, title=f'policy="{name}"', policy=name)
            for name in ("imagenet", "cifar10", "svhn")
        ],
    }


def strength(blends, hue):
    """Options of a colour jitter."""
    return {"brightness": blends, "contrast": blends, "saturation": blends, "hue": hue}


def main(names):
    """Draws all figures, or those named."""
    for name, rows in figures().items():
        if not names or name in names:
            save(name, rows())


if __name__ == "__main__":
    main(sys.argv[1:])
