"""Operators in exported programs whose batch size is a symbol."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax import export

from datarax import operators
from datarax.operators import batch_mix_operator as mixing
from datarax.operators.modality import image as ops


def mix(**options):
    config = mixing.BatchMixOperatorConfig(num_classes=3, **options)
    return mixing.BatchMixOperator(config, rngs=nnx.Rngs(0))


def recipe():
    """Operators of records and of whole batches, as one."""
    patches = ops.PatchDropoutOperatorConfig(field_key="image", patch_size=(2, 3), stochastic=True)
    members = [
        operators.RepeatOperator(operators.RepeatOperatorConfig(num_views=2)),
        ops.FlipOperator(ops.FlipOperatorConfig(), rngs=nnx.Rngs(0)),
        ops.PatchDropoutOperator(patches, rngs=nnx.Rngs(0)),
        mix(mode="both", granularity="record"),
        ops.NormalizeOperator(ops.NormalizeOperatorConfig(mean=0.5, std=0.25)),
    ]
    config = operators.CompositeOperatorConfig()
    return operators.CompositeOperatorModule(config, operators=members)


def crop_and_policy():
    rngs = nnx.Rngs(0)
    members = [
        ops.ResizedCropOperator(ops.ResizedCropOperatorConfig(size=6), rngs=rngs),
        ops.RandAugmentOperator(ops.RandAugmentOperatorConfig(), rngs=rngs),
    ]
    config = operators.CompositeOperatorConfig()
    return operators.CompositeOperatorModule(config, operators=members)


@pytest.mark.parametrize(
    "make",
    [
        recipe,
        pytest.param(lambda: mix(mode="cutmix", mix_group_size=2), marks=pytest.mark.thorough),
        pytest.param(lambda: mix(sampler=mixing.FMix(), mode="cutmix"), marks=pytest.mark.thorough),
        pytest.param(crop_and_policy, marks=pytest.mark.thorough),
    ],
    ids=["recipe", "groups", "blobs", "crop and policy"],
)
def test_one_exported_program_serves_all_batch_sizes(make):
    """What it gives for a batch is, bit for bit, what the operator gives."""
    op, key = make(), jax.random.key(3)
    (rows,) = export.symbolic_shape("rows")
    spec = {
        "image": jax.ShapeDtypeStruct((rows, 8, 9, 3), np.uint8),
        "label": jax.ShapeDtypeStruct((rows,), np.int32),
    }
    exported = export.export(jax.jit(lambda batch: op(batch, key=key)))(spec)
    rng = np.random.default_rng(0)
    for size in (1, 5):
        batch = {
            "image": rng.integers(0, 256, (size, 8, 9, 3)).astype(np.uint8),
            "label": rng.integers(0, 3, size).astype(np.int32),
        }
        out = exported.call(batch)
        jax.tree.map(np.testing.assert_array_equal, out, op(batch, key=key))
