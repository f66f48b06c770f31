"""Where crops lie, against the algorithms of other libraries written in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from datarax.core.randomness import random_words
from datarax.operators.modality.image import _crop_laws

pytestmark = pytest.mark.usefixtures("quick_compiles")

SIZE = (37, 53)
DRAWS = 10_000


def as_torchvision(rng, scale, ratio):
    """`RandomResizedCrop.get_params`: ten tries, then the middle."""
    height, width = SIZE
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
            return y, x, y + h, x + w
    h, w = height, width
    if width / height < min(ratio):
        h = round(width / min(ratio))
    elif width / height > max(ratio):
        w = round(height * max(ratio))
    y, x = (height - h) // 2, (width - w) // 2
    return y, x, y + h, x + w


def as_tensorflow(rng, scale, ratio):
    """`sample_distorted_bounding_box`: ten tries, then the whole image; never the last origin."""
    height, width = SIZE
    for _ in range(10):
        aspect = rng.uniform(*ratio)
        least, most = scale[0] * height * width, scale[1] * height * width
        h, highest = np.rint(np.sqrt(least / aspect)), np.rint(np.sqrt(most / aspect))
        if np.rint(highest * aspect) > width:
            highest = np.floor((width + 0.5 - 1e-7) / aspect)
            highest -= np.rint(highest * aspect) > width
        highest = min(highest, height)
        h = int(min(h, highest))
        h += rng.integers(0, int(highest) - h + 1)
        w = int(np.rint(h * aspect))
        if w * h < least:
            h += 1
            w = int(np.rint(h * aspect))
        if w * h > most:
            h -= 1
            w = int(np.rint(h * aspect))
        if not (least <= w * h <= most and 0 < w <= width and 0 < h <= height):
            continue
        y = rng.integers(0, height - h) if h < height else 0
        x = rng.integers(0, width - w) if w < width else 0
        return y, x, y + h, x + w
    return 0, 0, height, width


@pytest.mark.parametrize(
    ("sampling", "theirs"), [("torchvision", as_torchvision), ("inception", as_tensorflow)]
)
@pytest.mark.parametrize(
    ("scale", "ratio"),
    [
        pytest.param((0.08, 1), (3 / 4, 4 / 3), id="usual"),
        pytest.param((0.9, 1), (0.2, 0.4), id="fallback"),
        pytest.param((0.3, 0.4), (2, 3), id="wide", marks=pytest.mark.thorough),
    ],
)
def test_crops_follow_the_law_of(sampling, theirs, scale, ratio):
    """Height, width, place and area have the distributions of the algorithm."""
    law = _crop_laws.LAWS[sampling]
    words = random_words(jax.random.key(0), (DRAWS, _crop_laws.TRIES, 4))
    ours = np.asarray(jax.jit(jax.vmap(lambda words: law(words, SIZE, scale, ratio)))(words))
    rng = np.random.default_rng(0)
    others = np.array([theirs(rng, scale, ratio) for _ in range(DRAWS // 4)])
    for left, right in zip(_measures(ours), _measures(others), strict=True):
        assert stats.ks_2samp(left, right).pvalue > 1e-3
    assert ours[:, :2].min() >= 0
    assert (ours[:, 2:] <= SIZE).all()
    assert ours.dtype == np.int32


def _measures(boxes):
    sides = boxes[:, 2:] - boxes[:, :2]
    return [*sides.T, *boxes[:, :2].T, sides.prod(axis=1)]


def test_every_place_of_a_crop_is_equally_likely():
    """The last one too in torchvision's law, but not in TensorFlow's."""
    words = random_words(jax.random.key(1), (DRAWS, _crop_laws.TRIES, 4))
    for sampling, places in (("torchvision", 8), ("inception", 7)):
        law = _crop_laws.LAWS[sampling]
        crop = jax.jit(jax.vmap(lambda words, law=law: law(words, (8, 64), (1 / 8, 1 / 8), (1, 1))))
        first = np.asarray(crop(words))[:, 1]
        counts = np.bincount(first, minlength=64 - 8 + (places == 8))
        assert stats.chisquare(counts).pvalue > 1e-3


def test_an_overlapping_crop_keeps_what_it_promises():
    """The crop overlaps with the box by so much, or is the whole image; padding has no say."""
    words = random_words(jax.random.key(2), (2000, 30, 4))
    corners = jnp.array([[5, 6, 25, 30], [jnp.nan] * 4, [0, 0, 0, 0]], jnp.float32)
    there = jnp.array([True, False, False])

    def crop(words, least):
        return _crop_laws.with_overlap(words, corners, there, least, SIZE, (0.3, 1), (0.5, 2))

    crops = np.asarray(jax.jit(jax.vmap(crop, (0, None)))(words, jnp.float32(0.5)))
    whole = (crops == (0, 0, *SIZE)).all(axis=1)
    assert 0 < whole.mean() < 0.5
    sides = np.minimum(crops[:, 2:], (25, 30)) - np.maximum(crops[:, :2], (5, 6))
    shared = np.maximum(sides, 0).prod(axis=1)
    union = (crops[:, 2:] - crops[:, :2]).prod(axis=1) + 20 * 24 - shared
    assert (shared / union)[~whole].min() >= 0.5
    ratios = (crops[:, 3] - crops[:, 1]) / (crops[:, 2] - crops[:, 0])
    assert ((ratios >= 0.5) & (ratios <= 2)).all()
    assert (np.asarray(crop(words[0], jnp.float32(1))) == (0, 0, *SIZE)).all()
