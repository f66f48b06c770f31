"""Every name of the documentation is where it is documented, with the documented signature."""

import dataclasses
import importlib
import inspect

import pytest
from flax import nnx

from datarax.core.config import BatchMixOperatorConfig, StructuralConfig
from datarax.core.modality import ModalityOperatorConfig
from datarax.operators.modality.image.patch_dropout_operator import PatchDropoutOperatorConfig

NAMES = [
    "datarax.core.config.DataraxModuleConfig",
    "datarax.core.config.StructuralConfig",
    "datarax.core.config.OperatorConfig",
    "datarax.core.config.ElementOperatorConfig",
    "datarax.core.config.BatchMixOperatorConfig",
    "datarax.core.element_batch.Element",
    "datarax.core.element_batch.Batch",
    "datarax.core.module.DataraxModule",
    "datarax.core.operator.OperatorModule",
    "datarax.core.structural.StructuralModule",
    "datarax.core.statistics.RunningStatistics",
    "datarax.core.checkpoint.Checkpointer",
    "datarax.core.batcher.BatcherModule",
    "datarax.core.modality.ModalityOperator",
    "datarax.core.modality.ModalityOperatorConfig",
    "datarax.operators.ElementOperator",
    "datarax.operators.ElementOperatorConfig",
    "datarax.operators.batch_mix_operator.BatchMixOperator",
    "datarax.operators.batch_mix_operator.BatchMixOperatorConfig",
    "datarax.operators.modality.image.patch_dropout_operator.PatchDropoutOperator",
    "datarax.operators.modality.image.patch_dropout_operator.PatchDropoutOperatorConfig",
    "datarax.batching.DefaultBatcher",
    "datarax.batching.masked_mean",
    "datarax.batching.masked_sum_count",
    "datarax.pipeline.Pipeline",
    "datarax.sources.MemorySource",
    "datarax.sources.MemorySourceConfig",
    "datarax.sources.TFDSEagerSource",
    "datarax.sources.TFDSEagerConfig",
]

MODULE_METHODS = [
    "get_operation_stats",
    "reset_operation_stats",
    "compute_statistics",
    "get_statistics",
    "set_statistics",
    "reset_statistics",
    "reset_cache",
    "copy",
    "get_state",
    "set_state",
    "clone",
    "requires_rng_streams",
    "ensure_rng_streams",
]
OPERATOR_METHODS = [
    "generate_random_params",
    "apply",
    "apply_batch",
    "get_output_structure",
    "output_spec",
]
MODALITY_METHODS = ["_extract_field", "_apply_clip_range", "_remap_field"]

PATCH_DROPOUT = "datarax.operators.modality.image.patch_dropout_operator.PatchDropoutOperator"
METHODS = {
    "datarax.core.batcher.BatcherModule": [*MODULE_METHODS, "process", "batch_spec"],
    "datarax.core.modality.ModalityOperator": [
        *MODULE_METHODS,
        *OPERATOR_METHODS,
        *MODALITY_METHODS,
    ],
    "datarax.operators.batch_mix_operator.BatchMixOperator": [*MODULE_METHODS, *OPERATOR_METHODS],
    PATCH_DROPOUT: [*MODULE_METHODS, *OPERATOR_METHODS, *MODALITY_METHODS],
}

OPERATOR_FIELDS = {
    "cacheable": False,
    "batch_stats_fn": None,
    "precomputed_stats": None,
    "stochastic": False,
    "stream_name": None,
    "batch_strategy": "vmap",
}
MODALITY_FIELDS = {
    "field_key": dataclasses.MISSING,
    "target_key": None,
    "auxiliary_fields": None,
    "clip_range": None,
    "preserve_auxiliary": True,
    "validate_domain_constraints": True,
}
PATCH_FIELDS = {"num_patches": 4, "patch_size": (8, 8), "drop_value": 0.0}


def resolve(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", NAMES)
def test_a_documented_name_is_where_it_is_documented(name):
    """The name can be imported and has a docstring of its own."""
    assert inspect.getdoc(resolve(name))


@pytest.mark.parametrize("name", METHODS, ids=lambda name: name.rpartition(".")[2])
def test_documented_methods_are_there(name):
    """Each documented method is callable on the class."""
    missing = [m for m in METHODS[name] if not callable(getattr(resolve(name), m, None))]
    assert missing == []


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (ModalityOperatorConfig, OPERATOR_FIELDS | MODALITY_FIELDS),
        (PatchDropoutOperatorConfig, OPERATOR_FIELDS | MODALITY_FIELDS | PATCH_FIELDS),
    ],
    ids=["modality", "patch dropout"],
)
def test_documented_config_fields_keep_their_place_and_default(config, fields):
    """The first six are positional, the rest keyword-only, with the documented defaults."""
    parameters = inspect.signature(config).parameters
    assert list(parameters)[:6] == list(OPERATOR_FIELDS)
    for name, default in fields.items():
        field = next(f for f in dataclasses.fields(config) if f.name == name)
        assert field.default == default, name
        assert field.kw_only == (name not in OPERATOR_FIELDS), name


def test_the_batcher_of_the_documentation_runs():
    """The documented minimal subclass, config included, can be called with no elements."""
    from datarax.core.batcher import BatcherModule

    class DefaultBatcherConfig(StructuralConfig):
        pass

    class DefaultBatcher(BatcherModule):
        def process(self, elements, batch_size, drop_remainder=False):
            return []

    batcher = DefaultBatcher(DefaultBatcherConfig(stochastic=False), rngs=nnx.Rngs(0))
    assert list(batcher([], batch_size=32)) == []
    for name in ("config", "rngs", "name", "stochastic", "stream_name"):
        assert hasattr(batcher, name)


def test_the_mix_config_is_one_class_under_both_names():
    """The lazily resolved name in datarax.core.config is the class of the operator's module."""
    assert resolve("datarax.operators.batch_mix_operator.BatchMixOperatorConfig") is (
        BatchMixOperatorConfig
    )
