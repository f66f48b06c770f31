"""Patch dropout: which pixels change, in every dtype and shape, against loops in NumPy."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators.modality.image.patch_dropout_operator import (
    PatchDropoutOperator,
    PatchDropoutOperatorConfig,
)


def operator(**options):
    options = {"field_key": "image", "stochastic": True} | options
    return PatchDropoutOperator(PatchDropoutOperatorConfig(**options), rngs=nnx.Rngs(0))


def noise(*shape, dtype=np.float32):
    """Values that no fill used here has."""
    return np.random.default_rng(0).integers(1, 120, shape).astype(dtype)


def dropped(image, positions, sizes, value, axes=(0, 1)):
    """The oracle: each patch written in turn into a copy."""
    out = np.moveaxis(image.copy(), axes, (0, 1))
    for (y, x), (height, width) in zip(
        positions, np.broadcast_to(sizes, (len(positions), 2)), strict=True
    ):
        out[y : y + height, x : x + width] = value
    return np.moveaxis(out, (0, 1), axes)


POSITIONS = np.int32([[0, 0], [3, 5], [4, 5], [12, 8]])


def test_documented_defaults():
    """The documented fields have their documented defaults."""
    config = PatchDropoutOperatorConfig(field_key="image")
    assert (config.num_patches, config.patch_size, config.drop_value) == (4, (8, 8), 0.0)
    assert (config.stochastic, config.clip_range, config.auxiliary_fields) == (False, None, None)
    assert isinstance(hash(config), int)


DTYPES = [np.uint8, np.int8, np.uint16, np.int32, np.float16, ml_dtypes.bfloat16, np.float32]
SHAPES = {"grey": (16, 12), "rgb": (16, 12, 3), "five": (16, 12, 5)}


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        pytest.param(
            shape,
            dtype,
            id=f"{name}-{np.dtype(dtype).name}",
            marks=[] if name == "rgb" or dtype == np.uint8 else pytest.mark.thorough,
        )
        for name, shape in SHAPES.items()
        for dtype in DTYPES
    ],
)
def test_given_positions_are_honoured_exactly(dtype, shape):
    """One record, positions from outside: exactly those rectangles change, in the image's dtype."""
    op = operator(patch_size=(4, 3), drop_value=7)
    image = noise(*shape, dtype=dtype)
    out, state, metadata = op.apply({"image": image}, {"s": 1}, "m", {"patch_positions": POSITIONS})
    assert out["image"].dtype == dtype
    np.testing.assert_array_equal(
        np.asarray(out["image"]), dropped(image, POSITIONS, (4, 3), np.asarray(7, dtype))
    )
    assert (state, metadata) == ({"s": 1}, "m")


@pytest.mark.parametrize("number", [1, 31, 32, 33, 70])
def test_any_number_of_patches_beyond_one_word_of_bits(number):
    """Patches past the thirty-second lie in further words, and none is lost."""
    positions = np.random.default_rng(number).integers(0, 62, (number, 2)).astype(np.int32)
    op = operator(num_patches=number, patch_size=(2, 2))
    image = noise(64, 64, 3)
    out = op.apply({"image": image}, {}, None, {"patch_positions": positions})[0]["image"]
    np.testing.assert_array_equal(out, dropped(image, positions, (2, 2), 0))


def test_sizes_and_counts_may_be_given_too():
    """With ranges, each given patch has its size, and only the first `patch_count` exist."""
    op = operator(num_patches=(0, 4), patch_size=((1, 4), (1, 4)))
    image = noise(16, 12, 3)
    sizes = np.int32([[1, 4], [4, 1], [2, 2], [3, 3]])
    params = {"patch_positions": POSITIONS, "patch_sizes": sizes, "patch_count": np.int32(3)}
    out = op.apply({"image": image}, {}, None, params)[0]["image"]
    np.testing.assert_array_equal(out, dropped(image, POSITIONS[:3], sizes[:3], 0))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((5, 16, 12, 3), (1, 2)),
        ((3, 16, 12), (1, 2)),
        ((16, 5, 12), (0, 2)),
        ((2, 16, 3, 12, 2), (1, 3)),
    ],
    ids=["video", "channels-first", "apart", "everything"],
)
def test_patches_extend_over_the_axes_that_are_not_spatial(shape, axes):
    """spatial_axes says which axes are height and width; all others are covered whole."""
    op = operator(patch_size=(4, 3), spatial_axes=axes)
    image = noise(*shape)
    out = op.apply({"image": image}, {}, None, {"patch_positions": POSITIONS})[0]["image"]
    np.testing.assert_array_equal(out, dropped(image, POSITIONS, (4, 3), 0, axes))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_pixels_outside_keep_every_bit(dtype):
    """Signalling NaN, infinities, subnormals and negative zero come through as they are."""
    dtype = np.dtype(dtype)
    word = np.dtype(f"uint{8 * dtype.itemsize}")
    bits = np.arange(2**16, dtype=word).reshape(1, 256, 256)
    bits = bits << (8 * dtype.itemsize - 16) | bits % 2
    op = operator(num_patches=1, patch_size=(8, 8), stochastic=False, seed=3)
    out = np.asarray(op(Batch.from_arrays({"image": bits.view(dtype)}))["image"]).view(word)
    changed = np.argwhere(out != bits)
    inside = np.zeros((1, 256, 256), bool)
    inside[
        0, *(slice(a, b + 1) for a, b in zip(changed.min(0)[1:], changed.max(0)[1:], strict=True))
    ] = True
    assert inside.sum() <= 64
    np.testing.assert_array_equal(out[~inside], bits[~inside])


def test_deterministic_mode_repeats_the_patches_of_its_seed():
    """Every record of every call has the patches of the seed; another seed has others."""
    image = np.ones((3, 32, 32, 3), np.float32)
    batch = Batch.from_arrays({"image": image})
    first = np.asarray(operator(stochastic=False, seed=1)(batch)["image"])
    again = operator(stochastic=False, seed=1)
    np.testing.assert_array_equal(first, np.broadcast_to(first[:1], first.shape))
    np.testing.assert_array_equal(again(batch)["image"], first)
    np.testing.assert_array_equal(again(batch)["image"], first)
    single = again.apply({"image": image[0]}, {}, None, {"patch_positions": POSITIONS})[0]["image"]
    np.testing.assert_array_equal(single, first[0])
    assert (np.asarray(operator(stochastic=False, seed=2)(batch)["image"]) != first).any()
    assert 0 < (first[0, :, :, 0] == 0).sum() <= 4 * 64


def test_deterministic_mode_needs_no_streams():
    """Without randomness rngs may be left out."""
    config = PatchDropoutOperatorConfig(field_key="image", patch_size=(2, 2))
    out = PatchDropoutOperator(config)(Batch.from_arrays({"image": noise(1, 8, 8)}))
    assert (np.asarray(out["image"]) == 0).any()


@pytest.mark.parametrize("number", [0, (0, 0)], ids=["int", "range"])
def test_no_patches_is_identity_and_still_writes_the_target(number):
    """With nothing to drop the target is a copy, and records count as skipped."""
    op = operator(num_patches=number, target_key="out.image")
    image = noise(3, 16, 12, 3)
    out = op(Batch.from_arrays({"image": image}))
    np.testing.assert_array_equal(out["out"]["image"], image)
    np.testing.assert_array_equal(out["image"], image)
    assert op.get_operation_stats() == {"applied_count": 0, "skipped_count": 3}


def test_target_key_leaves_the_source_alone():
    """The dropped image goes to the target, the source stays the same object."""
    op = operator(patch_size=(2, 2), field_key="inputs.image", target_key="views.dropped")
    batch = Batch.from_arrays({"inputs": {"image": noise(2, 8, 8)}, "label": np.int32([1, 2])})
    out = op(batch)
    assert out["inputs"]["image"] is batch["inputs"]["image"]
    assert out["label"] is batch["label"]
    assert (np.asarray(out["views"]["dropped"]) == 0).any()
    spec = jax.ShapeDtypeStruct((8, 8), np.float32)
    written = op.output_spec({"inputs": {"image": spec}})
    assert written == {"inputs": {"image": spec}, "views": {"dropped": spec}}


def test_clip_range_clips_the_whole_output():
    """Values outside the range are clipped everywhere, and the dtype stays."""
    op = operator(patch_size=(2, 2), num_patches=1, clip_range=(10, 50), drop_value=30)
    image = noise(2, 8, 8, dtype=np.uint8)
    out = np.asarray(op(Batch.from_arrays({"image": image}))["image"])
    assert out.dtype == np.uint8
    different = out != np.clip(image, 10, 50)
    assert (out[different] == 30).all()
    assert different.sum() <= 8


def test_gradient_is_one_outside_and_zero_inside():
    """Backpropagation stops at dropped pixels and passes through all others."""
    for fill in ("constant", "mean"):
        op = operator(patch_size=(4, 3), fill=fill)
        image = noise(16, 12, 3)

        def total(image, op=op):
            return op.apply({"image": image}, {}, None, {"patch_positions": POSITIONS})[0][
                "image"
            ].sum()

        inside = dropped(np.ones_like(image), POSITIONS, (4, 3), 0)
        np.testing.assert_array_equal(jax.grad(total)(image), inside)
    batch = Batch.from_arrays({"image": noise(2, 16, 12, 3)}, record_index=[0, 1])
    slope = jax.grad(lambda x: op(batch.replace(data={"image": x}))["image"].sum())(batch["image"])
    changed = np.asarray(op(batch)["image"]) != batch["image"]
    np.testing.assert_array_equal(slope, (~changed).astype(np.float32))


def test_one_compilation_for_all_counts_and_sizes():
    """What is drawn never changes shapes, so a jitted step traces once."""
    op = operator(num_patches=(0, 5), patch_size=((1, 9), (0.1, 0.5)), prob=0.5)
    traces = []

    @jax.jit
    def step(batch):
        traces.append(1)
        return op(batch)["image"]

    covered = set()
    for start in range(0, 40, 4):
        batch = Batch.from_arrays(
            {"image": np.ones((4, 16, 12), np.float32)}, record_index=np.arange(4) + start
        )
        covered |= {int((image == 0).sum()) for image in np.asarray(step(batch))}
    assert len(traces) == 1
    assert len(covered) > 10


def test_float_sizes_are_fractions_of_the_image():
    """A fraction of 1 gives strips; a small one is at least a pixel."""
    image = np.ones((1, 40, 30), np.float32)
    op = operator(num_patches=1, patch_size=(1.0, 0.1))
    out = np.asarray(op(Batch.from_arrays({"image": image}))["image"][0])
    assert sorted(np.flatnonzero((out == 0).all(0)) - np.flatnonzero((out == 0).all(0))[0]) == [
        0,
        1,
        2,
    ]
    assert (out == 0).sum() == 3 * 40
    op = operator(num_patches=1, patch_size=(0.001, 0.001))
    assert (np.asarray(op(Batch.from_arrays({"image": image}))["image"]) == 0).sum() == 1


@pytest.mark.parametrize("big", [0, 16, np.nan])
def test_padding_rows_do_not_matter(big):
    """What stands in padded rows changes nothing for the others and is not counted."""
    op = operator(patch_size=(2, 2), fill="mean")
    image = noise(4, 8, 8)
    image[3] = big
    mask = [True, True, True, False]
    out = op(Batch.from_arrays({"image": image}, valid_mask=mask, record_index=[5, 6, 7, 0]))
    alone = op(Batch.from_arrays({"image": image[:3]}, record_index=[5, 6, 7]))
    np.testing.assert_array_equal(np.asarray(out["image"])[:3], alone["image"])
    assert out.valid_mask.tolist() == mask
    assert op.get_operation_stats() == {"applied_count": 6, "skipped_count": 0}


def test_strategies_and_transformations_agree_to_the_bit():
    """Eager apply, the compiled call, jit, nnx.jit and scan give one result."""
    options = {"num_patches": (1, 3), "patch_size": ((2, 5), (2, 5)), "prob": 0.8, "fill": "color"}
    options |= {"fill_range": (-0.213, 0.157)}
    op = operator(**options)
    batch = Batch.from_arrays(
        {"image": noise(6, 16, 12, 3)}, record_index=np.arange(6), epoch=np.uint32(2)
    )
    expected = np.asarray(op(batch)["image"])
    results = {
        "jit": jax.jit(op)(batch)["image"],
        "nnx.jit": nnx.jit(lambda op, batch: op(batch))(op, batch)["image"],
        "scan": operator(**options, batch_strategy="scan")(batch)["image"],
    }
    from datarax.core.randomness import record_keys

    keys = record_keys(op.rngs["default"].key[...], batch.epoch, batch.record_index)
    singles = []
    for key, image in zip(keys, batch["image"], strict=True):
        params = jax.tree.map(
            lambda leaf: leaf[0], op.generate_random_params(key, {"image": (1, 16, 12, 3)})
        )
        singles.append(op.apply({"image": image}, {}, None, params)[0]["image"])
    results["apply"] = np.stack(singles)
    for name, result in results.items():
        np.testing.assert_array_equal(result, expected, err_msg=name)


@pytest.mark.parametrize(
    ("dtype", "drop_value"),
    [
        pytest.param(np.uint8, 7, marks=pytest.mark.thorough),
        pytest.param(np.uint8, (1, 2, 3), marks=pytest.mark.thorough),
        pytest.param(ml_dtypes.bfloat16, 7, marks=pytest.mark.thorough),
        (np.float32, (1, 2, 3)),
    ],
)
def test_in_place_gives_the_same_images_and_gradients(dtype, drop_value):
    """Both ways of writing patches agree, record by record, mapped, and differentiated."""
    options = {"patch_size": (4, 3), "prob": 0.6, "num_patches": (1, 3), "drop_value": drop_value}
    batch = Batch.from_arrays(
        {"image": noise(6, 16, 12, 3, dtype=dtype)}, record_index=np.arange(6)
    )
    usual, other = operator(**options), operator(**options, in_place=True)
    np.testing.assert_array_equal(other(batch)["image"], usual(batch)["image"])
    params = {"patch_positions": POSITIONS, "patch_count": np.int32(2)}
    fixed = {"patch_size": (4, 3), "drop_value": drop_value}
    np.testing.assert_array_equal(
        operator(**fixed, in_place=True)(batch)["image"], operator(**fixed)(batch)["image"]
    )
    single = [
        op.apply({"image": batch["image"][0]}, {}, None, params)[0]["image"]
        for op in (usual, other)
    ]
    np.testing.assert_array_equal(*single)
    if dtype == np.float32:

        def slope(op):
            return jax.grad(lambda x: op(batch.replace(data={"image": x}))["image"].sum())(
                batch["image"]
            )

        np.testing.assert_array_equal(slope(other), slope(usual))


def test_in_place_reuses_a_donated_image():
    """The compiled step writes into the buffer that it was given."""
    op = operator(patch_size=(4, 3), in_place=True)
    batch = Batch.from_arrays({"image": noise(2, 16, 12, 3)}, record_index=[0, 1])

    def step(image, rest):
        return op(rest.replace(data={"image": image}))["image"]

    # A copy, because an array that shares its memory with NumPy cannot be overwritten.
    images = jnp.array(batch["image"], copy=True)
    address = images.unsafe_buffer_pointer()
    out = jax.jit(step, donate_argnums=0)(images, batch.replace(data={}))
    assert out.unsafe_buffer_pointer() == address


@pytest.mark.parametrize(
    "options", [{"fill": "mean"}, {"patch_size": ((1, 2), 2)}, {"patch_area": (0.1, 0.2)}]
)
def test_in_place_refuses_what_it_cannot_do(options):
    """Only constant fills of one size are written in place."""
    with pytest.raises(ValueError, match="in_place=True needs fill='constant' and one patch_size"):
        operator(**options, in_place=True)
