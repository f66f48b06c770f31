"""Every config is read from files and command lines alike, and comes back from `asdict`."""

import dataclasses
import json
from collections import UserDict, UserList

import pytest

from datarax import batching, operators, sources
from datarax.core import config as core
from datarax.core.modality import ModalityOperatorConfig
from datarax.operators.batch_mix_operator import BatchMixOperatorConfig, CutMix, FMix, ResizeMix
from datarax.operators.modality import image
from datarax.operators.modality.image import Choice, LogUniform, Normal, functional


def negative(pixels):
    """An operation of one's own."""
    return functional.invert(pixels)


AUXILIARY = {"auxiliary_fields": ["boxes", "mask"], "box_fields": ("boxes",)}
GIVEN = {
    "ColorJitterOperatorConfig": {"brightness": 0.4, "hue": (-0.1, 0.2)},
    "CropOperatorConfig": {"size": (8, 6), "padding": (1, 2), "fill": (1, 2, 3)},
    "IoUCropOperatorConfig": {"size": 8, **AUXILIARY},
    "ModalityOperatorConfig": {"field_key": "image", "clip_range": (0, 1), **AUXILIARY},
    "NormalizeOperatorConfig": {"mean": (0.4, 0.5, 0.6), "std": 0.5},
    "PatchDropoutOperatorConfig": {
        "field_key": "image",
        "num_patches": (1, 3),
        "patch_size": ((2, 4), (0.2, 0.5)),
        "stochastic": True,
        "drop_value": (0, 1, 2),
        "auxiliary_fields": ["mask"],
        "field_axes": {"mask": (-2, -1)},
    },
    "ResizeOperatorConfig": {"size": (8, 6)},
    "ResizedCropOperatorConfig": {"size": 8, "scale": (0.2, 1)},
    "ScaleJitterOperatorConfig": {"size": 8},
}
EXPORTED = {name: getattr(image, name) for name in dir(image) if name.endswith("OperatorConfig")}
OWN = image.Operation(negative)
CONFIGS = [
    core.DataraxModuleConfig(precomputed_stats={"mean": [[0.5, 1], [2, 3]], "std": {"x": 1}}),
    core.StructuralConfig(),
    core.OperatorConfig(batch_strategy="scan"),
    core.ElementOperatorConfig(stochastic=True, stream_name="own"),
    operators.CompositeOperatorConfig(order="random"),
    operators.MapOperatorConfig(fields=("image", "inputs.depth")),
    operators.MultiModalOperatorConfig(shared_draws=True),
    operators.ProbabilisticOperatorConfig(probability=1),
    operators.RepeatOperatorConfig(num_views=3),
    operators.SelectorOperatorConfig(k=2, weights=(1, 2, 0.5)),
    BatchMixOperatorConfig(),
    BatchMixOperatorConfig(
        mode="both",
        data_field=("image", "depth"),
        label_field=("label", "age"),
        mix_fields=("x",),
        paste_fields=("mask",),
        cutmix_minmax=(0.2, 0.8),
        num_classes={"age": None, "label": 3},
        ignore_index=255,
        field_axes={"mask": (-2, -1), "x": ()},
    ),
    *(
        BatchMixOperatorConfig(mode="cutmix", sampler=sampler)
        for sampler in (CutMix("clipped", (0.2, 0.8)), ResizeMix(0.2), FMix(2))
    ),
    batching.DefaultBatcherConfig(pad_values={"x": 1, "y": "last"}),
    batching.BucketBatcherConfig(boundaries=(2, 4), length_fields=("t",), batch_sizes=(4, 2)),
    batching.MultiRateBatcherConfig(steps=2, rates={"audio": 3}, pad_values={"audio": 2}),
    batching.PackingBatcherConfig(row_length=8),
    sources.SourceConfig(shuffle=True, seed=1, metadata_fields=("name",)),
    sources.MemorySourceConfig(metadata_fields=("name",)),
    sources.TFDSEagerConfig(name="mnist", split="train", exclude_keys={"id"}),
    sources.GrainSourceConfig(num_workers=2),
    sources.ImageFolderConfig(root="data", extensions=(".jpg",)),
    ModalityOperatorConfig(**GIVEN["ModalityOperatorConfig"]),
    *(
        kind(**GIVEN.get(name, {}))
        for name, kind in EXPORTED.items()
        if name != "PolicyOperatorConfig"
    ),
    image.BrightnessOperatorConfig(factor=LogUniform(0.5, 2)),
    image.PosterizeOperatorConfig(bits=Choice((4, 6), weights=(1, 3))),
    image.RotationOperatorConfig(degrees=Normal(0, 10, low=-30, high=30)),
    image.RandAugmentOperatorConfig(operations=("Rotate", OWN), fill=(1, 2, 3)),
    image.AutoAugmentOperatorConfig(policy=((("Rotate", 0.5, 3), (OWN, 1, None)),)),
]
OWN_FUNCTIONS = CONFIGS[-2:]
# What a command line has to say.
REQUIRED = {
    "boundaries": ["2", "4"],
    "field_key": ["image"],
    "length_fields": ["tokens"],
    "mean": ["0.5"],
    "name": ["mnist"],
    "rates": ["audio", "3"],
    "root": ["data"],
    "row_length": ["8"],
    "size": ["8"],
    "split": ["train"],
    "std": ["0.5"],
    "steps": ["2"],
}


def last_kinds(kind):
    """The packages' classes derived from this one that no other class of theirs is derived from."""
    derived = [kind for kind in kind.__subclasses__() if kind.__module__.startswith("datarax.")]
    return {found for each in derived for found in last_kinds(each)} if derived else {kind}


def written(value):
    """What JSON has of a value that it does not know."""
    return sorted(value) if isinstance(value, frozenset) else value.tolist()


def like_omegaconf(value):
    """The value with containers that are neither lists nor dicts."""
    if isinstance(value, dict):
        return UserDict({name: like_omegaconf(entry) for name, entry in value.items()})
    return UserList(map(like_omegaconf, value)) if isinstance(value, list | tuple) else value


def require_same(read, config):
    """The same values of the same types, so that both share what is compiled."""
    assert read == config
    assert hash(read) == hash(config)
    assert core.Exact(read) == core.Exact(config)


def test_every_config_comes_back():
    """`asdict`, JSON and containers of other libraries give equal configs, and so does replace."""
    assert last_kinds(core.DataraxModuleConfig) <= {type(config) for config in CONFIGS}
    for config in CONFIGS:
        kind, options = type(config), dataclasses.asdict(config)
        require_same(kind(**options), config)
        require_same(dataclasses.replace(config), config)
        require_same(kind(**like_omegaconf(options)), config)
        if config not in OWN_FUNCTIONS:
            require_same(kind(**json.loads(json.dumps(options, default=written))), config)


def arguments(config, dash):
    """The words of a command line that say what must be said."""
    for field in dataclasses.fields(config):
        if field.default is field.default_factory is dataclasses.MISSING:
            yield from ["--" + field.name.replace("_", dash), *REQUIRED[field.name]]
    if isinstance(config, image.ColorJitterOperatorConfig):
        yield from ["--brightness", "0.4"]
    if isinstance(config, image.IoUCropOperatorConfig):
        yield from [f"--auxiliary{dash}fields", "boxes", f"--box{dash}fields", "boxes"]


@pytest.mark.thorough
@pytest.mark.filterwarnings("default")
def test_libraries_of_configs_read_them():
    """OmegaConf, YAML, tyro, simple_parsing and Fiddle make every config."""
    import fiddle
    import simple_parsing
    import tyro
    import yaml
    from omegaconf import OmegaConf

    for config in CONFIGS:
        kind, options = type(config), dataclasses.asdict(config)
        values = {name: getattr(config, name) for name in options}
        require_same(fiddle.build(fiddle.Config(kind, **values)), config)
        if config not in OWN_FUNCTIONS:
            text = json.dumps(options, default=written)
            require_same(kind(**yaml.safe_load(text)), config)
            require_same(kind(**OmegaConf.create(json.loads(text))), config)
        assert type(tyro.cli(kind, args=list(arguments(config, "-")))) is kind
        if isinstance(config, batching.MultiRateBatcherConfig):
            continue  # simple_parsing has no way to say a dict
        parser = simple_parsing.ArgumentParser()
        parser.add_arguments(kind, "config")
        assert type(parser.parse_args(list(arguments(config, "_"))).config) is kind


@pytest.mark.thorough
def test_command_lines_say_numbers_and_ranges():
    """A number of an operator is said as one, and a range as two."""
    import simple_parsing
    import tyro

    kind = image.BrightnessOperatorConfig
    assert tyro.cli(kind, args=["--factor", "0.5"]) == kind(factor=0.5)
    assert tyro.cli(kind, args=["--factor", "0.5", "2"]) == kind(factor=(0.5, 2))
    parser = simple_parsing.ArgumentParser()
    parser.add_arguments(kind, "config")
    assert parser.parse_args(["--factor", "0.5"]).config == kind(factor=0.5)
