"""What other libraries' options become here: a test for each row of the documentation's tables.

A row's options are given the peer's rectangles and must return the peer's numbers. Where the table
says that both draw alike, draws from the peer's formula are compared with ours; where it says that
they differ, the difference is measured. The formulas are our own words for what the peers document.
"""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from datarax.core.element_batch import Batch
from datarax.operators import ElementOperator, ElementOperatorConfig
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)

HEIGHT, WIDTH = SHAPE = 32, 48
PAGE = Path(__file__).parents[3] / "docs" / "patch-dropout.md"
DRAWS = 4000
AREA, RATIO = (0.02, 0.33), (0.3, 3.3)
ROWS = {}


def row(name, beside=None, **options):
    """Registers the check of a row under its id, with the options in the row's third column.

    Options `beside` them come from another row of the table.
    """

    def register(check):
        ROWS[name] = check, beside or {}, options
        return check

    return register


pytestmark = pytest.mark.usefixtures("quick_compiles")


def operator(**options):
    options = {"field_key": "image", "stochastic": True} | options
    return PatchDropoutOperator(PatchDropoutOperatorConfig(**options), rngs=nnx.Rngs(0))


def picture(dtype=np.uint8, channels=3):
    pixels = np.random.default_rng(1).integers(1, 256, (*SHAPE, channels))
    return pixels.astype(np.uint8) if dtype == np.uint8 else (pixels / 256).astype(dtype)


def dropped(op, data, places, sizes=None, **params):
    """The operator's result for rectangles given by (y, x) and (height, width)."""
    params["patch_positions"] = np.int32(places)
    if sizes is not None:
        params["patch_sizes"] = np.int32(sizes)
    return op.apply(data, {}, None, params)[0]


def drawn(op):
    """Many draws: (y, x) and (height, width) of all patches, and how many each record has."""
    # The generator that compiles quickest.
    key = jax.random.key(0, impl="rbg")
    params = op.generate_random_params(key, {"image": (DRAWS, *SHAPE, 3)})
    places = np.asarray(params["patch_positions"])
    sizes = np.asarray(params.get("patch_sizes", np.zeros_like(places)))
    count = np.asarray(params.get("patch_count", np.full(DRAWS, places.shape[1])))
    return places, sizes, count


def assert_same_law(ours, theirs):
    """Columns and their products have the same distributions, by Kolmogorov and Smirnov at 0.1%."""
    ours, theirs = (np.asarray(a, float).reshape(len(a), -1) for a in (ours, theirs))
    ours, theirs = (np.column_stack([a, a.prod(1)]).T for a in (ours, theirs))
    for a, b in zip(ours, theirs, strict=True):
        assert distance(a, b) < 1.95 * np.sqrt(1 / len(a) + 1 / len(b))


def assert_same_places(ours, our_sizes, theirs, sizes):
    """Corners have the same distribution, and patches reach all four edges of the image."""
    assert_same_law(ours, theirs)
    for places, lengths in ((ours, our_sizes), (theirs, sizes)):
        assert places.min(0).tolist() == [0, 0]
        assert (places + lengths).max(0).tolist() == list(SHAPE)


def distance(a, b):
    """The largest difference between two empirical distribution functions."""
    values = np.union1d(a, b)
    shares = [np.searchsorted(np.sort(c), values, side="right") / len(c) for c in (a, b)]
    return np.abs(shares[0] - shares[1]).max()


# The peers' formulas.


def erased(image, places, sizes, value):
    """`value` in each half-open rectangle of a copy."""
    image = image.copy()
    for (y, x), (height, width) in zip(places, sizes, strict=True):
        image[y : y + height, x : x + width] = value
    return image


def sides(area, aspect):
    """The rectangle of an area and of height / width, in whole pixels."""
    return np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)], -1).round().astype(int)


def origins(rng, sizes):
    """Every corner that keeps the rectangle inside is equally likely."""
    return rng.integers(0, np.array(SHAPE) - sizes + 1)


def areas(rng, shape, scale):
    return rng.uniform(*scale, shape) * HEIGHT * WIDTH


def tried_ten_times(rng, scale, ratio):
    """torchvision, timm: drawn again until both sides are shorter than the image's."""
    aspect = np.exp(rng.uniform(*np.log(ratio), (DRAWS, 10)))
    tries = sides(areas(rng, (DRAWS, 10), scale), aspect)
    fits = (tries < SHAPE).all(-1)
    return tries[np.arange(DRAWS), fits.argmax(1)] * fits.any(1)[:, None]


def clamped(rng, scale, ratio):
    """Kornia: a fair coin says whether the rectangle is wide or tall; sides are cut."""
    wide, tall = rng.uniform(ratio[0], 1, DRAWS), rng.uniform(1, ratio[1], DRAWS)
    aspect = np.where(rng.random(DRAWS) < 0.5, wide, tall)
    return np.clip(sides(areas(rng, DRAWS, scale), aspect), 1, SHAPE)


def never_too_long(rng, scale, ratio):
    """Albumentations' Erasing: width / height is uniform; areas stop where one would not fit."""
    largest = min(
        scale[1] * HEIGHT * WIDTH, min(ratio) * HEIGHT * HEIGHT, WIDTH * WIDTH / max(ratio)
    )
    area = rng.uniform(scale[0] * HEIGHT * WIDTH, largest, DRAWS)
    low = np.maximum(ratio[0], area / HEIGHT**2)
    return sides(area, 1 / rng.uniform(low, np.minimum(ratio[1], WIDTH**2 / area)))


def real_valued(rng, scale):
    """Keras: real sides and corners; a pixel is erased where its index lies in the rectangle."""
    length = np.sqrt(rng.uniform(*scale, (DRAWS, 2))) * SHAPE
    start = rng.random((DRAWS, 2)) * (SHAPE - length)
    first = np.ceil(start).astype(int)
    return first, np.ceil(start + length).astype(int) - first


# The rows.

BY_AREA = {"num_patches": 1, "patch_area": AREA, "aspect_ratio": RATIO}


def assert_same_pixels(op, places, sizes, value=0, dtype=np.uint8):
    """Rectangles, one to an image, come out as the peer writes them."""
    image = picture(dtype)
    for place, size in zip(places[:4, None], sizes[:4, None], strict=True):
        new = dropped(op, {"image": image}, place, size)["image"]
        assert new.dtype == dtype
        np.testing.assert_array_equal(new, erased(image, place, size, value))


@row("torchvision-random-erasing", **BY_AREA, prob=0.5)
def _(op):
    rng = np.random.default_rng(0)
    sizes = tried_ten_times(rng, AREA, RATIO)
    places = origins(rng, sizes)
    assert_same_pixels(op, places, sizes)
    our_places, our_sizes, count = drawn(op)
    # What is drawn again there is cut to a side of the image here.
    fits = (our_sizes[:, 0] < SHAPE).all(1)
    assert 0.03 < 1 - fits.mean() < 0.15
    assert_same_law(our_sizes[fits, 0], sizes)
    assert_same_places(our_places[fits, 0], our_sizes[fits, 0], places, sizes)
    assert abs((count == 1).mean() - 0.5) < 0.03


@row(
    "torchvision-value-per-channel",
    BY_AREA,
    drop_value=(0.5, 0.25, 0.75),
    spatial_axes=(1, 2),
    channel_axis=0,
)
def _(op):
    image = picture(np.float32)
    expected = erased(image, [(5, 7)], [(9, 20)], (0.5, 0.25, 0.75))
    new = dropped(op, {"image": image.transpose(2, 0, 1)}, [(5, 7)], [(9, 20)])["image"]
    np.testing.assert_array_equal(new, expected.transpose(2, 0, 1))


def inside_and_outside(op, image, seed=1):
    """Values in a large patch, after a check that all others are as before."""
    place, size = [(1, 0)], [(HEIGHT - 1, WIDTH - 1)]
    new = dropped(op, {"image": image}, place, size, fill_seed=np.uint32([0, seed]))["image"]
    np.testing.assert_array_equal(
        erased(np.asarray(new), place, size, 0), erased(image, place, size, 0)
    )
    return np.asarray(new)[1:, :-1]


@row("torchvision-value-random", BY_AREA, fill="noise")
def _(op):
    # There they are normal.
    noise = inside_and_outside(op, picture(np.float32))
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-3


@row("torchvision-video", BY_AREA, spatial_axes=(2, 3), channel_axis=1)
def _(op):
    frames = np.stack([picture(), picture()[::-1], picture()[:, ::-1]])
    expected = [erased(frame, [(3, 40)], [(20, 8)], 0) for frame in frames]
    new = dropped(op, {"image": frames.transpose(0, 3, 1, 2)}, [(3, 40)], [(20, 8)])["image"]
    np.testing.assert_array_equal(np.asarray(new).transpose(0, 2, 3, 1), expected)


@row("timm-const", num_patches=1, prob=0.25, patch_area=(0.02, 1 / 3), aspect_ratio=(0.3, 1 / 0.3))
def _(op):
    rng = np.random.default_rng(0)
    sizes = tried_ten_times(rng, (0.02, 1 / 3), (0.3, 1 / 0.3))
    places = origins(rng, sizes)
    assert_same_pixels(op, places, sizes, dtype=np.float32)
    our_places, our_sizes, count = drawn(op)
    fits = (our_sizes[:, 0] < SHAPE).all(1)
    assert_same_law(our_sizes[fits, 0], sizes)
    assert_same_places(our_places[fits, 0], our_sizes[fits, 0], places, sizes)
    assert abs((count == 1).mean() - 0.25) < 0.03


@row("timm-count", num_patches=3, patch_area=(0.02 / 3, 1 / 9), aspect_ratio=(0.3, 1 / 0.3))
def _(op):
    rng = np.random.default_rng(0)
    # The area of each of the three is divided by their number.
    sizes = tried_ten_times(rng, (0.02 / 3, 1 / 3 / 3), (0.3, 1 / 0.3))
    places = origins(rng, sizes)
    image = picture(np.float32)
    new = dropped(op, {"image": image}, places[:3], sizes[:3])["image"]
    np.testing.assert_array_equal(new, erased(image, places[:3], sizes[:3], 0))
    _, our_sizes, count = drawn(op)
    assert (count == 3).all()
    for number in range(3):
        fits = (our_sizes[:, number] < SHAPE).all(1)
        assert_same_law(our_sizes[fits, number], sizes)


@row("timm-rand", BY_AREA, fill="color")
def _(op):
    image = picture(np.float32)
    colors = [inside_and_outside(op, image, seed) for seed in range(4)]
    assert all((color == color[0, 0]).all() for color in colors)
    assert len(np.unique([color[0, 0] for color in colors])) == 12
    # There it is normal.
    assert all(((color >= 0) & (color < 1)).all() for color in colors)


@row("timm-pixel", BY_AREA, fill="noise", fill_range=(-2.0, 2.0))
def _(op):
    noise = inside_and_outside(op, picture(np.float32))
    assert stats.kstest(noise.ravel(), stats.uniform(-2, 4).cdf).pvalue > 1e-3


@row("albumentations-coarse-dropout", num_patches=(1, 4), patch_size=((4, 8), (6, 12)), prob=0.5)
def _(op):
    rng = np.random.default_rng(0)
    sizes = rng.integers((4, 6), (9, 13), (DRAWS, 4, 2))
    places = origins(rng, sizes)
    image = picture()
    for holes in range(1, 5):
        new = dropped(op, {"image": image}, places[0], sizes[0], patch_count=np.int32(holes))
        expected = erased(image, places[0, :holes], sizes[0, :holes], 0)
        np.testing.assert_array_equal(new["image"], expected)
    our_places, our_sizes, count = drawn(op)
    assert_same_law(our_sizes.reshape(-1, 2), sizes.reshape(-1, 2))
    assert_same_places(*(a.reshape(-1, 2) for a in (our_places, our_sizes, places, sizes)))
    assert_same_law(count, rng.integers(1, 5, DRAWS) * (rng.random(DRAWS) < 0.5))


@row("albumentations-coarse-dropout-fractions", num_patches=1, patch_size=((0.125, 0.25),) * 2)
def _(op):
    rng = np.random.default_rng(0)
    # Cut to whole pixels there, so that 8 and 12, which are drawn here, never are.
    sizes = (rng.uniform(0.125, 0.25, (DRAWS, 2)) * SHAPE).astype(int)
    assert_same_pixels(op, origins(rng, sizes), sizes)
    assert sizes.max(0).tolist() == [7, 11]
    our_places, ours, _ = drawn(op)
    assert_same_places(our_places[:, 0], ours[:, 0], origins(rng, ours[:, 0]), ours[:, 0])
    assert_same_law(ours[:, 0], rng.integers((4, 6), (9, 13), (DRAWS, 2)))
    both = (ours[:, 0] < (8, 12)).all(1)
    assert_same_law(ours[both, 0], sizes)


HOLES = {"num_patches": 2, "patch_size": ((4, 8), (6, 12))}
ONE_HOLE = HOLES | {"num_patches": 1}


@row("albumentations-fill", ONE_HOLE, drop_value=(10, 20, 30))
def _(op):
    assert_same_pixels(op, np.array([(4, 3), (27, 40)]), np.array([(8, 6), (5, 8)]), (10, 20, 30))


@row("albumentations-fill-random", ONE_HOLE, fill="noise")
def _(op):
    noise = inside_and_outside(op, picture())
    assert stats.chisquare(np.bincount(noise.ravel(), minlength=256)).pvalue > 1e-3
    noise = inside_and_outside(op, picture(np.float32))
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-3


@row("albumentations-fill-random-uniform", HOLES, fill="color")
def _(op):
    image, places, sizes = picture(), [(0, 0), (20, 30)], [(4, 6), (8, 12)]
    new = dropped(op, {"image": image}, places, sizes, fill_seed=np.uint32([0, 1]))["image"]
    color = np.asarray(new)[0, 0]
    # There each of the two holes has a colour of its own.
    np.testing.assert_array_equal(new, erased(image, places, sizes, color))
    assert color.any()


def assert_same_masks(op, value):
    rng = np.random.default_rng(0)
    data = {"image": picture(), "mask": rng.integers(1, 5, SHAPE).astype(np.uint8)}
    sizes = np.array([(4, 6), (8, 12)])
    places = origins(rng, sizes)
    new = dropped(op, data, places, sizes)
    np.testing.assert_array_equal(new["image"], erased(data["image"], places, sizes, 0))
    np.testing.assert_array_equal(new["mask"], erased(data["mask"], places, sizes, value))


@row("albumentations-fill-mask", HOLES, auxiliary_fields=["mask"], mask_fill=255)
def _(op):
    assert_same_masks(op, 255)


@row(
    "albumentations-boxes",
    HOLES,
    auxiliary_fields=["boxes"],
    box_fields=("boxes",),
    shrink_boxes=True,
)
def _(op):
    rng = np.random.default_rng(0)
    corner = rng.integers(0, (30, 20), (40, 2))
    boxes = np.concatenate([corner, corner + rng.integers(2, 13, (40, 2))], axis=1)  # x, y
    sizes = np.array([(8, 12), (8, 12)])
    places = np.array([(2, 4), (7, 14)])
    new = dropped(op, {"image": picture(), "boxes": boxes.astype(np.int32)}, places, sizes)
    hidden = erased(np.zeros(SHAPE, int), places, sizes, 1)
    kept, visibility = [], []
    for x0, y0, x1, y1 in boxes:
        visible = 1 - hidden[y0:y1, x0:x1]
        visibility.append(visible.mean())
        if visibility[-1] >= 0.3:
            y, x = np.nonzero(visible)
            kept.append([x0 + x.min(), y0 + y.min(), x0 + x.max() + 1, y0 + y.max() + 1])
    np.testing.assert_allclose(new["boxes_visibility"], visibility, atol=1e-6)
    ours = np.asarray(new["boxes"])[np.asarray(new["boxes_visibility"]) >= 0.3]
    np.testing.assert_array_equal(ours, kept)
    assert 10 < len(kept) < 40
    assert (ours != boxes[np.array(visibility) >= 0.3]).any()


@row("albumentations-keypoints", HOLES, auxiliary_fields=["points"], keypoint_fields=("points",))
def _(op):
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.integers(0, (48, 32), (40, 2)), rng.uniform(0, 32, (40, 2))])
    places, sizes = np.array([(2, 4), (12, 20)]), np.array([(8, 12), (8, 12)])
    points = points.astype(np.float32)
    new = dropped(op, {"image": picture(), "points": points}, places, sizes)
    x, y = points.T[:, :, None]
    hidden = (x >= places[:, 1]) & (x < places[:, 1] + sizes[:, 1])
    hidden &= (y >= places[:, 0]) & (y < places[:, 0] + sizes[:, 0])
    np.testing.assert_array_equal(new["points"], points)
    np.testing.assert_array_equal(new["points_visibility"], ~hidden.any(1))
    assert 5 < hidden.sum() < 75


@row("albumentations-erasing", num_patches=1, patch_area=AREA, aspect_ratio=(1 / 3.3, 1 / 0.3))
def _(op):
    rng = np.random.default_rng(0)
    sizes = never_too_long(rng, AREA, RATIO)
    assert_same_pixels(op, origins(rng, sizes), sizes)
    _, ours, _ = drawn(op)
    # 507 pixels are 33% of the image, but 307 the most that fits with any ratio.
    assert sizes.prod(1).max() < 330
    assert 490 < ours[:, 0].prod(1).max() < 530
    # Ratios that are uniform favour wide rectangles.
    assert (sizes[:, 1] > sizes[:, 0]).mean() > 0.7
    assert (ours[:, 0, 1] > ours[:, 0, 0]).mean() < 0.6


def grid(offset):
    """Corners of the holes in cells of 8 pixels that tile the image, row by row."""
    rows, columns = np.meshgrid(np.arange(0, HEIGHT, 8), np.arange(0, WIDTH, 8), indexing="ij")
    return np.stack([rows.ravel(), columns.ravel()], 1) + offset


GRID = {"placement": "grid", "num_patches": None, "grid_ratio": 0.5}


@row("albumentations-grid-dropout", grid_jitter=1.0, patch_size=(4, 4), **GRID)
def _(op):
    rng = np.random.default_rng(0)
    places = grid(rng.integers(0, 5, (24, 2)))
    image = picture()
    new = dropped(op, {"image": image}, places)["image"]
    np.testing.assert_array_equal(new, erased(image, places, [(4, 4)] * 24, 0))
    ours = drawn(op)[0]
    assert (np.diff(np.sort(ours[..., 0] // 8 * 6 + ours[..., 1] // 8, axis=1)) == 1).all()
    assert_same_law(ours[:500].reshape(-1, 2) % 8, rng.integers(0, 5, (12000, 2)))


@row("albumentations-grid-dropout-shift", patch_size=(4, 4), **GRID)
def _(op):
    # shift_xy=(2, 2) is the middle of the cells.
    image = picture()
    new = dropped(op, {"image": image}, drawn(op)[0][0])["image"]
    np.testing.assert_array_equal(new, erased(image, grid(2), [(4, 4)] * 24, 0))


@row("albumentations-grid-dropout-holes", patch_size=(0.125, 0.125), **GRID)
def _(op):
    # Four by four cells of 8 x 12 pixels; shift_xy=(3, 2).
    corners = grid(0).reshape(4, 6, 2)[:, :4].reshape(-1, 2) * (1, 1.5) + (2, 3)
    image = picture()
    new = dropped(op, {"image": image}, drawn(op)[0][0])["image"]
    np.testing.assert_array_equal(new, erased(image, corners.astype(int), [(4, 6)] * 16, 0))


def assert_same_strips(op, axis, low, high):
    """Strips from `low` to `high` pixels thick across the whole image, along y (0) or x (1)."""
    rng = np.random.default_rng(0)
    sizes = np.tile(np.array(SHAPE), (DRAWS, 2, 1))
    sizes[..., axis] = rng.integers(low, high + 1, (DRAWS, 2))
    places = origins(rng, sizes)
    our_places, our_sizes, count = drawn(op)
    number = our_places.shape[1]
    image = picture()
    new = dropped(op, {"image": image}, places[0, :number], sizes[0, :number])["image"]
    np.testing.assert_array_equal(new, erased(image, places[0, :number], sizes[0, :number], 0))
    assert_same_law(our_sizes[:, 0], sizes[:, 0])
    assert_same_places(our_places[:, 0], our_sizes[:, 0], places[:, 0], sizes[:, 0])
    return count


@row("albumentations-xy-masking-x", num_patches=2, patch_size=(1.0, (4, 12)))
def _(op):
    assert (assert_same_strips(op, 1, 4, 12) == 2).all()


@row("albumentations-xy-masking-y", num_patches=2, patch_size=((2, 6), 1.0))
def _(op):
    assert (assert_same_strips(op, 0, 2, 6) == 2).all()


@row("albumentations-time-masking", num_patches=1, patch_size=(1.0, (1, 12)), prob=6 / 13)
def _(op):
    # None or one strip of 0 to 12 pixels there; `prob` makes what is not seen.
    count = assert_same_strips(op, 1, 1, 12)
    rng = np.random.default_rng(0)
    theirs = rng.integers(0, 2, DRAWS) * rng.integers(0, 13, DRAWS)
    assert abs((count == 0).mean() - (theirs == 0).mean()) < 0.03


@row("albumentations-frequency-masking", num_patches=1, patch_size=((1, 8), 1.0), prob=4 / 9)
def _(op):
    count = assert_same_strips(op, 0, 1, 8)
    rng = np.random.default_rng(0)
    theirs = rng.integers(0, 2, DRAWS) * rng.integers(0, 9, DRAWS)
    assert abs((count == 0).mean() - (theirs == 0).mean()) < 0.03


def drop_objects(element, key):
    """One of the objects, which a mask numbers from 1, disappears from image and mask."""
    image, mask = element.data["image"], element.data["mask"]
    objects = mask.max().astype(jnp.int32)
    chosen = jax.random.randint(key, (), 1, jnp.maximum(objects, 1) + 1)
    hidden = (mask == chosen.astype(mask.dtype)) & (objects > 0)
    zero = jnp.zeros((), image.dtype)
    return element.update_data(
        {
            "image": jnp.where(hidden[..., None], zero, image),
            "mask": jnp.where(hidden, jnp.zeros((), mask.dtype), mask),
        }
    )


@row("albumentations-mask-dropout")
def _(_op):
    image, mask = picture(), np.zeros(SHAPE, np.uint8)
    mask[2:9, 3:20], mask[6:14, 30:40], mask[20:30, 5:45] = 1, 2, 3
    data = {"image": np.stack([image] * 90), "mask": np.stack([mask] * 89 + [mask * 0])}
    op = ElementOperator(ElementOperatorConfig(stochastic=True), fn=drop_objects, rngs=nnx.Rngs(0))
    new = jax.device_get(op(Batch.from_arrays(data, record_index=np.arange(90))).data)
    counts = {1: 0, 2: 0, 3: 0}
    for pixels, left in zip(new["image"][:89], new["mask"][:89], strict=True):
        gone = ({1, 2, 3} - set(np.unique(left))).pop()
        counts[gone] += 1
        np.testing.assert_array_equal(left, np.where(mask == gone, 0, mask))
        np.testing.assert_array_equal(pixels, np.where(mask[..., None] == gone, 0, image))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    np.testing.assert_array_equal(new["image"][89], image)


@row("kornia-random-erasing", **BY_AREA, prob=0.5)
def _(op):
    rng = np.random.default_rng(0)
    sizes = clamped(rng, AREA, RATIO)
    assert_same_pixels(op, origins(rng, sizes), sizes, dtype=np.float32)
    places, ours, count = drawn(op)
    assert_same_places(places[:, 0], ours[:, 0], origins(rng, ours[:, 0]), ours[:, 0])
    whole = (ours[:, 0] < SHAPE).all(1), (sizes < SHAPE).all(1)
    area = [s.prod(1) for s in (ours[whole[0], 0], sizes[whole[1]])]
    assert distance(*area) < 0.05
    # Ratios below 1 are uniform there, and their logarithm here: the median is 0.65, or 0.55.
    aspect = [s[:, 0] / s[:, 1] for s in (ours[:, 0], sizes)]
    assert [0.5 < np.median(a[a < 1]) < 0.6 for a in aspect] == [True, False]
    assert abs((count == 1).mean() - 0.5) < 0.03


@row("kornia-value", BY_AREA, drop_value=0.5)
def _(op):
    sizes = clamped(np.random.default_rng(1), AREA, RATIO)
    assert_same_pixels(op, sizes * 0, sizes, 0.5, dtype=np.float32)


@row("kornia-same-on-batch", BY_AREA, stochastic=False, seed=3)
def _(op):
    image = np.stack([picture(), picture()[::-1]])
    new = np.asarray(op(Batch.from_arrays({"image": image}))["image"])
    where = [np.argwhere((record == 0).all(-1)) for record in new]
    place = where[0].min(0)
    size = where[0].max(0) + 1 - place
    np.testing.assert_array_equal(where[0], where[1])
    np.testing.assert_array_equal(new, [erased(record, [place], [size], 0) for record in image])
    # There each call draws another rectangle.
    np.testing.assert_array_equal(op(Batch.from_arrays({"image": image}))["image"], new)


@row("kornia-mask", BY_AREA | {"num_patches": 2}, auxiliary_fields=["mask"], mask_fill=0)
def _(op):
    assert_same_masks(op, 0)


SIDES = {"num_patches": 1, "patch_size": ((0.1414, 0.5745), (0.1414, 0.5745))}


@row("keras-random-erasing", prob=0.5, **SIDES)
def _(op):
    places, sizes = real_valued(np.random.default_rng(0), AREA)
    assert_same_pixels(op, places, sizes)
    our_places, ours, count = drawn(op)
    assert ours[:, 0].min(0).tolist() == [5, 7]
    assert ours[:, 0].max(0).tolist() == [18, 28]
    # Long sides are likelier there, and the first row and column stay.
    assert (sizes.mean(0) - ours[:, 0].mean(0) > (0.8, 1.2)).all()
    assert places.min(0).tolist() == [1, 1]
    assert our_places[:, 0].min(0).tolist() == [0, 0]
    assert abs((count == 1).mean() - 0.5) < 0.03


@row("keras-factor", SIDES, prob=0.5)
def _(op):
    # factor=1.0, the default there: a probability from 0 to 1 for each image.
    rng = np.random.default_rng(0)
    theirs = rng.random(DRAWS) < rng.uniform(0, 1, DRAWS)
    assert abs(theirs.mean() - (drawn(op)[2] == 1).mean()) < 0.03


@row("keras-fill-value", SIDES, drop_value=128)
def _(op):
    places, sizes = real_valued(np.random.default_rng(1), AREA)
    assert_same_pixels(op, places, sizes, np.clip(128, 0, 255))


@row("keras-noise", SIDES, fill="noise")
def _(op):
    theirs = np.clip(np.random.default_rng(0).normal(size=5000) * 255, 0, 255)
    ours = inside_and_outside(op, picture())
    # There most of it is black or white.
    assert (theirs % 255 == 0).mean() > 0.6
    assert (ours % 255 == 0).mean() < 0.02


@pytest.mark.parametrize("name", ROWS)
def test_row_of_the_tables_gives_the_peers_numbers(name):
    """The options here do to the peer's rectangles what the peer does, and differ as is stated."""
    check, beside, options = ROWS[name]
    check(operator(**beside, **options))


def table_rows(text):
    """Of each row that starts with an id: the id, and the code of the third column."""
    for line in re.findall(r"^\| `([a-z]+-[a-z-]+)` \|(.*)\|$", text, re.MULTILINE):
        yield line[0], re.findall(r"`([^`]+)`", line[1].split(" | ")[1])


def test_tables_hold_the_options_that_are_tested():
    """The page gives for each row exactly the options with which the row is tested."""
    if not PAGE.exists():
        pytest.skip("the documentation is not part of the sdist")
    found = dict(table_rows(PAGE.read_text(encoding="utf-8")))
    assert found.keys() == ROWS.keys()
    for name, (_, _, options) in ROWS.items():
        if options:
            assert eval(f"dict({', '.join(found[name])})") == options, name
