"""The functions of uint8 images against digests of what Pillow makes of the same arguments.

The files in `golden/` are written by `tests-pillow/make_golden.py`.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from datarax.operators.modality.image import functional

GOLDEN = Path(__file__).parent / "golden"

pytestmark = pytest.mark.usefixtures("quick_compiles")


@lru_cache
def images():
    with np.load(GOLDEN / "images.npz") as kept:
        return dict(kept)


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.json")))
def test_uint8_is_what_pillow_makes(name):
    """Every value of every case is the one of Pillow."""
    different = []
    for case in json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))["cases"]:
        made = np.asarray(getattr(functional, name)(images()[case["image"]], **case["numbers"]))
        assert made.dtype == np.uint8
        digest = f"{made.shape} {hashlib.sha256(np.ascontiguousarray(made).tobytes()).hexdigest()}"
        if digest != case["digest"]:
            different.append((case["image"], case["numbers"]))
    assert not different
