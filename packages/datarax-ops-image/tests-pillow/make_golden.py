"""Writes what Pillow makes of each case to `tests/golden`, where the unit tests read it.

Run with Pillow at the version that the nox session pins; the session checks the files against it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import color
import geometry
import numpy as np
import PIL

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"
REFERENCES = geometry.REFERENCES | color.REFERENCES
CASES = geometry.CASES | color.CASES


def draw_images() -> dict[str, np.ndarray]:
    """Something like a photograph, noise, and one without channels; of odd sizes."""
    y, x = np.mgrid[0:97, 0:83]
    waves = [
        np.sin(y / a + x / b) + np.cos(x / a - y * x / 900) for a, b in ((9, 7), (23, 5), (4, 31))
    ]
    random = np.random.default_rng(0)
    smooth = np.stack(waves, -1) * 60 + 128 + random.normal(0, 4, (97, 83, 3))
    smooth[30:50, 20:60] = (255, 0, 128)
    return {
        "photograph": np.clip(smooth, 0, 255).astype(np.uint8),
        "noise": random.integers(0, 256, (71, 90, 3), np.uint8),
        "gray": np.clip(smooth[:60, :53, 1] * 1.5 - 60, 0, 255).astype(np.uint8),
    }


def images() -> dict[str, np.ndarray]:
    """The images as they were drawn once: sines may differ between machines."""
    with np.load(GOLDEN / "images.npz") as kept:
        return dict(kept)


def digest(values: np.ndarray) -> str:
    """The shape and a hash of the bytes of an array."""
    return f"{values.shape} {hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"


def answers(name: str) -> list[dict]:
    """The cases of one function with the digests of what Pillow makes of them."""
    pictures = images()
    return [
        {
            "image": image,
            "numbers": numbers,
            "digest": digest(REFERENCES[name](pictures[image], **numbers)),
        }
        for image, numbers in CASES[name]
    ]


def text(name: str) -> str:
    """The file of one function."""
    lines = ",\n  ".join(json.dumps(answer) for answer in answers(name))
    return f'{{"pillow": "{PIL.__version__}", "cases": [\n  {lines}\n]}}\n'


if __name__ == "__main__":
    if not (GOLDEN / "images.npz").exists():
        np.savez_compressed(GOLDEN / "images.npz", **draw_images())
    for name in CASES:
        (GOLDEN / f"{name}.json").write_text(text(name), encoding="utf-8")
