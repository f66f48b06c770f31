"""Patches by area and shape, on a grid, and as tokens of a vision transformer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from datarax.core.element_batch import Batch
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")


def operator(**options):
    options = {"field_key": "image", "stochastic": True} | options
    return PatchDropoutOperator(PatchDropoutOperatorConfig(**options), rngs=nnx.Rngs(0))


def drawn(op, shape, *, batch=4000):
    params = op.generate_random_params(jax.random.key(0), {"image": (batch, *shape)})
    return {name: np.asarray(array) for name, array in params.items()}


def ones(rows, height, width):
    return Batch.from_arrays(
        {"image": np.ones((rows, height, width), np.float32)}, record_index=np.arange(rows)
    )


def test_areas_and_shapes_have_the_stated_distributions():
    """The area is uniform, the logarithm of height / width too, and sides fit the image."""
    op = operator(num_patches=1, patch_area=(0.02, 0.1), aspect_ratio=(0.5, 2.0))
    params = drawn(op, (512, 512, 3))
    sizes = params["patch_sizes"][:, 0].astype(float)
    area, aspect = sizes.prod(1) / 512**2, sizes[:, 0] / sizes[:, 1]
    # Sides are whole pixels, so that both are a little off at the ends.
    assert stats.kstest(area, stats.uniform(0.02, 0.08).cdf).pvalue > 1e-3
    assert stats.kstest(np.log2(aspect), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(area, np.log(aspect))[0, 1]) < 0.06
    assert (params["patch_positions"][:, 0] + sizes <= 512).all()
    assert (params["patch_positions"] >= 0).all()


def test_sides_by_area_are_cut_to_the_image():
    """An area of 1 with a long shape covers the image's whole length and stays inside."""
    params = drawn(operator(patch_area=(1.0, 1.0), aspect_ratio=(4.0, 4.0)), (20, 30), batch=50)
    assert (params["patch_sizes"][..., 0] == 20).all()
    assert (params["patch_sizes"][..., 1] == 12).all()


def test_the_grid_lies_in_the_middle_with_its_patches_in_the_middle_of_cells():
    """All cells: regular holes with the stated ratio of side to cell."""
    op = operator(placement="grid", num_patches=None, patch_size=(2, 4), grid_ratio=0.5)
    image = np.asarray(op(ones(2, 18, 33))["image"])
    # Four rows of 4 in 18, four columns of 8 in 33: margins of 1 and 0.
    expected = np.ones((18, 33))
    for y in range(4):
        for x in range(4):
            expected[2 + 4 * y : 4 + 4 * y, 2 + 8 * x : 6 + 8 * x] = 0
    np.testing.assert_array_equal(image, np.stack([expected] * 2))


def test_a_grid_of_fractions_covers_the_stated_share():
    """Holes of a fraction of the image with ratio 1 / 2 leave three quarters."""
    op = operator(placement="grid", num_patches=None, patch_size=(0.125, 0.125), stochastic=False)
    assert np.asarray(op(ones(1, 64, 64))["image"]).mean() == 0.75


@pytest.mark.parametrize(("jitter", "reach"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_jitter_moves_each_patch_within_its_cell(jitter, reach):
    """Places are uniform over the allowed ones, and patches move by themselves."""
    op = operator(placement="grid", num_patches=None, patch_size=(4, 4), grid_jitter=jitter)
    params = drawn(op, (16, 16), batch=2000)
    order = np.lexsort(params["patch_positions"].transpose(2, 0, 1)[::-1] // 8)
    positions = np.take_along_axis(params["patch_positions"], order[..., None], axis=1)
    np.testing.assert_array_equal(positions[:, 3] // 8, np.ones((2000, 2)))
    offset = positions[:, 3] % 8 - (4 - reach) // 2
    assert offset.min() == 0
    assert offset.max() == reach
    assert stats.chisquare(np.bincount(offset.ravel())).pvalue > 1e-3 or not reach
    if reach:
        other = positions[:, 0] % 8
        assert abs(np.corrcoef(offset[:, 0], other[:, 0])[0, 1]) < 0.08


def test_a_number_of_cells_is_chosen_without_repetition():
    """Every set of cells is equally likely."""
    op = operator(placement="grid", num_patches=2, patch_size=(4, 4), grid_ratio=1.0)
    cells = drawn(op, (8, 8))["patch_positions"] // 4
    chosen = np.sort(cells[..., 0] * 2 + cells[..., 1], axis=1)
    pairs, counts = np.unique(chosen, axis=0, return_counts=True)
    assert pairs.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_tokens_are_those_that_the_image_keeps():
    """Mask and indices say which patches still stand, in the image of the same record."""
    op = operator(
        placement="grid", num_patches=5, patch_size=(4, 2), grid_ratio=1.0, drop_tokens=True
    )
    batch = ones(6, 12, 8)
    out = op(batch)
    whole = np.asarray(out["image"]).reshape(6, 3, 4, 4, 2).min((2, 4)).reshape(6, 12)
    assert out["image_token_mask"].dtype == bool
    assert out["image_token_indices"].dtype == np.int32
    np.testing.assert_array_equal(out["image_token_mask"], whole == 1)
    np.testing.assert_array_equal(
        out["image_token_indices"], [np.flatnonzero(record) for record in whole]
    )
    assert len({record.tobytes() for record in whole}) > 1
    np.testing.assert_array_equal(op(batch.slice(2, 4))["image_token_mask"], whole[2:4] == 1)
    spec = op.output_spec({"image": jax.ShapeDtypeStruct((12, 8), np.float32)})
    assert spec["image_token_indices"] == jax.ShapeDtypeStruct((7,), np.int32)


def test_fewer_tokens_make_a_transformer_cheaper():
    """With half of the tokens gathered, attention and MLP take at most half the operations."""

    def attend(tokens):
        scores = jnp.einsum("btc,bsc->bts", tokens, tokens)
        return jnp.einsum("bts,bsc->btc", jax.nn.softmax(scores), tokens) @ jnp.ones((32, 32))

    op = operator(
        placement="grid", num_patches=32, patch_size=(4, 4), grid_ratio=1.0, drop_tokens=True
    )

    def whole(batch):
        tokens = batch["image"].reshape(-1, 8, 4, 8, 4, 2).transpose(0, 1, 3, 2, 4, 5)
        return tokens.reshape(-1, 64, 32)

    def kept(batch):
        indices = op(batch)["image_token_indices"]
        return jnp.take_along_axis(whole(batch), indices[..., None], axis=1)

    batch = Batch.from_arrays(
        {"image": np.ones((4, 32, 32, 2), np.float32)}, record_index=np.arange(4)
    )
    costs = [
        jax.jit(lambda batch, f=f: attend(f(batch))).lower(batch).compile().cost_analysis()["flops"]
        for f in (whole, kept)
    ]
    assert costs[1] < 0.55 * costs[0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"patch_area": (0, 1)}, ValueError, "patch_area must be .* 0 < min <= max <= 1"),
        ({"patch_area": (0.1, 2)}, ValueError, "patch_area must be .* 0 < min <= max <= 1"),
        ({"patch_area": 0.1}, TypeError, r"patch_area must be \(min, max\), got 0.1"),
        ({"patch_area": (0.1, 1), "patch_size": (4, 4)}, ValueError, "no effect with patch_area"),
        ({"aspect_ratio": (1, 2)}, ValueError, "aspect_ratio=.* has no effect without patch_area"),
        ({"patch_area": (0.1, 1), "aspect_ratio": (2, 1)}, ValueError, "aspect_ratio must be"),
        ({"placement": "hex"}, ValueError, "placement='hex' must be 'random' or 'grid'"),
        ({"num_patches": None}, ValueError, "num_patches=None needs placement='grid'"),
        ({"grid_ratio": 0.5}, ValueError, "grid_ratio=0.5 has no effect with placement='random'"),
        ({"grid_jitter": 0.5}, ValueError, "grid_jitter=0.5 has no effect"),
        ({"placement": "grid", "grid_ratio": 0}, ValueError, r"grid_ratio=0 must be in \(0, 1\]"),
        ({"placement": "grid", "grid_jitter": 2}, ValueError, "grid_jitter must be from 0 to 1"),
        (
            {"placement": "grid", "patch_area": (0.1, 1)},
            ValueError,
            "patch_area=.* must be one size",
        ),
        ({"placement": "grid", "patch_size": ((1, 2), 2)}, ValueError, "must be one size"),
        ({"drop_tokens": True}, ValueError, "drop_tokens=True needs placement='grid'"),
        (
            {"drop_tokens": True, "placement": "grid", "grid_ratio": 1.0, "num_patches": (1, 2)},
            ValueError,
            "drop_tokens=True needs one number of patches",
        ),
    ],
)
def test_wrong_options_are_refused(options, error, message):
    """Options that exclude each other are named."""
    with pytest.raises(error, match=message):
        operator(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"patch_size": (12, 4)},
            r"cells of \(24, 8\) around patches of \(12, 4\), which do not fit",
        ),
        (
            {"num_patches": 17},
            r"num_patches 17 are more than the 2 x 2 cells .* use at most 4, or None",
        ),
        (
            {"grid_ratio": 1.0, "drop_tokens": True, "num_patches": 1, "patch_size": (5, 4)},
            r"drop_tokens needs a patch_size that divides 'image' of \(16, 16\), got \(5, 4\)",
        ),
    ],
    ids=["cell", "count", "tokens"],
)
def test_grids_that_do_not_fit_are_refused(options, message):
    """Found when the image's shape is seen."""
    op = operator(**{"placement": "grid", "patch_size": (4, 4)} | options)
    with pytest.raises(ValueError, match=message):
        op(ones(1, 16, 16))


@pytest.mark.parametrize(
    "positions", [[[0, 0], [0, 0]], [[0, 0], [1, 4]]], ids=["twice", "between"]
)
def test_positions_that_are_no_tokens_are_refused(positions):
    """Given positions must be different tokens."""
    op = operator(
        placement="grid", num_patches=2, patch_size=(4, 4), grid_ratio=1.0, drop_tokens=True
    )
    with pytest.raises(ValueError, match=r"must be different tokens .* multiples of \(4, 4\)"):
        op.apply(
            {"image": np.ones((8, 8), np.float32)},
            {},
            None,
            {"patch_positions": np.int32(positions)},
        )
