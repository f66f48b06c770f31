import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from datarax.core.element_batch import Batch
from datarax.core.randomness import below
from datarax.operators._mix.box import exact_fraction, place_clipped, sides_of_ratio
from datarax.operators._mix.paste import paste
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig

pytestmark = pytest.mark.usefixtures("quick_compiles")


def drawn_boxes(rows, size, **options):
    """Boxes and λ of one batch with a draw a record."""
    config = BatchMixOperatorConfig(
        mode="cutmix", granularity="record", label_field=None, mix_info=True, **options
    )
    op = BatchMixOperator(config, rngs=nnx.Rngs(1))
    info = op(Batch.from_arrays({"image": np.zeros((rows, *size), np.uint8)})).states["mix_info"]
    return np.asarray(info["box"]), np.asarray(info["lam"])


def test_below_is_the_floor_of_the_product():
    """An index is floor(word · count / 2**32), for counts up to 65535."""
    rng = np.random.default_rng(0)
    word = rng.integers(0, 2**32, 10_000, dtype=np.uint32)
    count = rng.integers(1, 2**16, 10_000, dtype=np.int32)
    expected = ((word.astype(object) * count) // 2**32).astype(int)
    np.testing.assert_array_equal(below(jnp.asarray(word), jnp.asarray(count)), expected)


@pytest.mark.parametrize("sizes", [(13,), (9, 31), (6, 10, 21)], ids=["1d", "2d", "3d"])
def test_sides_are_the_rounded_root_of_the_area(sizes):
    """A side is size · (1 − λ)^(1/d), rounded to a pixel."""
    lam = np.linspace(0, 1, 997, dtype=np.float32)
    exact = [size * (1 - lam.astype(np.float64)) ** (1 / len(sizes)) for size in sizes]
    for side, real in zip(sides_of_ratio(jnp.asarray(lam), sizes), exact, strict=True):
        assert np.abs(np.asarray(side) - real).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("size", [(7, 5, 3), (5, 12, 1)], ids=["high", "wide"])
def test_boxes_inside_have_beta_areas_and_every_legal_origin(size):
    """Inside: sides follow from λ uniform, and given its side each origin is equally likely."""
    box, _ = drawn_boxes(40_000, size, alpha=1.0)
    for axis in range(2):
        start, stop, length = box[:, axis], box[:, axis + 2], size[axis]
        side = stop - start
        assert start.min() == 0
        assert stop.max() == length
        edges = np.clip((np.arange(length + 2) - 0.5) / length, 0, 1)
        expected = np.diff(edges**2) * len(side)
        assert stats.chisquare(np.bincount(side, minlength=length + 1), expected).pvalue > 1e-3
        for fixed in range(1, length):
            counts = np.bincount(start[side == fixed], minlength=length - fixed + 1)
            assert len(counts) == length - fixed + 1
            assert stats.chisquare(counts).pvalue > 1e-4


def test_origins_on_both_axes_are_independent():
    """Given the sides, where a box starts on one axis says nothing about the other."""
    box, _ = drawn_boxes(60_000, (6, 6, 1))
    half = box[(box[:, 2] - box[:, 0] == 3) & (box[:, 3] - box[:, 1] == 3)]
    table = np.zeros((4, 4))
    np.add.at(table, (half[:, 0], half[:, 1]), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("side", [1, 2, 5])
def test_clipped_boxes_have_centres_uniform_over_the_pixels(side):
    """Clipped: each centre is equally likely, and what sticks out of the image is cut off."""
    words = jax.random.bits(jax.random.key(side), (30_000,))
    start, stop = place_clipped(words, jnp.full(words.shape, side, jnp.int32), 6)
    expected = {}
    for centre in range(6):
        low = centre - side // 2
        span = (max(low, 0), min(low + side, 6))
        expected[span] = expected.get(span, 0) + 5_000
    spans = np.stack([start, stop], axis=1)
    counts = [(spans == span).all(axis=1).sum() for span in expected]
    assert sum(counts) == 30_000
    assert stats.chisquare(counts, list(expected.values())).pvalue > 1e-3


@pytest.mark.parametrize("placement", ["inside", "clipped"])
def test_last_row_and_column_are_reached_on_images_that_are_not_square(placement):
    """Boxes stay in the image, reach all its borders, and do not swap height and width."""
    box, _ = drawn_boxes(3_000, (3, 8, 2), box_placement=placement)
    box = box[(box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])]
    np.testing.assert_array_equal(box.min(axis=0)[:2], [0, 0])
    np.testing.assert_array_equal(box.max(axis=0)[2:], [3, 8])
    assert box[:, 0].max() == 2
    assert box[:, 1].max() == 7


@pytest.mark.parametrize("placement", ["inside", "clipped"])
def test_lambda_is_the_exact_fraction_outside_the_box(placement):
    """λ is the correctly rounded quotient of pixels kept and pixels there are."""
    box, lam = drawn_boxes(2_000, (7, 11, 3), box_placement=placement)
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    np.testing.assert_array_equal(lam, np.float32(77 - area) / np.float32(77))


def test_every_fraction_of_an_image_is_correctly_rounded():
    """No division is replaced by a multiplication with a rounded reciprocal."""
    part = np.arange(50_177, dtype=np.int32)
    quotient = jax.jit(lambda part: exact_fraction(part, (224, 224)))(part)
    np.testing.assert_array_equal(quotient, (part / 50_176).astype(np.float32))


def test_minmax_draws_each_side_uniformly_between_its_bounds():
    """Sides are uniform from round(low · size) to round(high · size), independently."""
    box, _ = drawn_boxes(30_000, (10, 20, 1), cutmix_minmax=(0.2, 0.4))
    height, width = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    table = np.zeros((3, 5))
    np.add.at(table, (height - 2, width - 4), 1)
    assert stats.chisquare(table.ravel()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((4, 9), (1,)),
        ((4, 5, 6), (1, 2)),
        ((4, 5, 6, 3), (1, 2)),
        ((4, 3, 5, 6), (2, 3)),
        ((4, 4, 5, 6, 2), (1, 2, 3)),
        ((4, 2, 5, 6, 3), (2, 3)),
        ((4, 5, 2, 6), (1, 3)),
    ],
    ids=["audio", "grey", "image", "channels first", "volume", "video", "apart"],
)
def test_paste_takes_the_box_and_nothing_else(shape, axes):
    """Every value is the partner's inside the box and the row's own outside, on any axes."""
    rng = np.random.default_rng(0)
    own, other = rng.random((2, *shape))
    spans = [np.sort(rng.integers(0, shape[axis] + 1, (4, 2))) for axis in axes]
    box = np.stack([s[:, 0] for s in spans] + [s[:, 1] for s in spans], axis=1).astype(np.int32)
    expected = own.astype(np.float32)
    for row in range(4):
        window = [slice(None)] * (len(shape) - 1)
        for axis, span in zip(axes, spans, strict=True):
            window[axis - 1] = slice(*span[row])
        expected[row][tuple(window)] = other[row][tuple(window)]
    pasted = paste(jnp.float32(own), jnp.float32(other), jnp.asarray(box), axes)
    np.testing.assert_array_equal(pasted, expected)
