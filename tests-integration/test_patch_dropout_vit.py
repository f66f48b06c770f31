"""The vision transformer in `examples/` learns from half of the tokens."""

import re
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

SCRIPT = Path(__file__).parents[1] / "examples" / "patch_dropout_vit.py"
SMALL = ["--batch-size", "8", "--steps", "25", "--repeats", "1", "--width", "16", "--depth", "1"]


@pytest.fixture(scope="module")
def example():
    """The names that a tiny run of the example leaves."""
    for module in ("skimage", "tqdm"):
        pytest.importorskip(module, reason=f"the example needs {module}")
    # A user has JAX's own promotion. Nothing here depends on what XLA optimises.
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.numpy_dtype_promotion("standard"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), *SMALL])
        # By this module the example tells a notebook, where it has no arguments.
        patch.delitem(sys.modules, "ipykernel", raising=False)
        yield runpy.run_path(str(SCRIPT))
    jax.config.update("jax_disable_most_optimizations", False)


def test_both_models_learn(example):
    """Each training ends below the loss of a guess among five classes."""
    assert example["results"].keys() == example["milliseconds"].keys() == example["STEPS"].keys()
    for loss, accuracy in example["results"].values():
        assert 0 < loss < 0.9 * np.log(5)
        assert 0.2 < accuracy <= 1
    assert all(median > 0 for median in example["milliseconds"].values())
    assert example["speedup"] > 0


def test_half_of_the_tokens_reach_the_blocks(example):
    """The indices name half of the tokens, in order, another half for each image."""
    indices = np.asarray(example["drop_tokens"](example["random_batch"](3))["image_token_indices"])
    assert indices.shape == (8, 32)
    assert (np.diff(indices, axis=1) > 0).all()
    assert indices.min() >= 0
    assert indices.max() < 64
    assert len({row.tobytes() for row in indices}) == 8


def test_the_model_sees_the_tokens_that_it_is_given(example):
    """All tokens are the whole image; a change in another token than those given changes nothing.

    Tokens count the image's squares of 4 x 4 pixels row by row, as the operator does.
    """
    model, _ = example["create"]()
    logits = nnx.jit(lambda model, images, indices: model(images, indices))
    images = example["random_batch"](4)["image"]
    whole = logits(model, images, None)
    every = np.tile(np.arange(64, dtype=np.int32), (8, 1))
    np.testing.assert_allclose(logits(model, images, every), whole, rtol=1e-5, atol=1e-6)
    changed = images.copy()
    changed[:, 9, 30] ^= 255  # row 2 and column 7 of the squares: token 23
    for first, seen in ((23, True), (24, False)):
        half = every[:, first : first + 32]
        same = np.array_equal(logits(model, changed, half), logits(model, images, half))
        assert same != seen


def test_half_of_the_tokens_take_half_of_the_operations(example):
    """Counted before anything is compiled, so the same on every machine."""
    model, _ = example["create"]()
    images = example["random_batch"](5)["image"]

    def operations(indices):
        step = jax.jit(lambda images, indices: model(images, indices))
        return step.lower(images, indices).cost_analysis()["flops"]

    half = np.tile(np.arange(32, dtype=np.int32), (8, 1))
    assert operations(half) < 0.55 * operations(None)


def test_page_links_the_example():
    """The documentation and the package's README name the example."""
    for page in ("docs/patch-dropout.md", "packages/datarax-ops-image/README.md"):
        text = (SCRIPT.parents[1] / page).read_text(encoding="utf-8")
        assert re.search(r"examples/patch_dropout_vit\.py", text), page
