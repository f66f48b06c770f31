"""Configs of patch dropout that come from files, and go through dataclasses."""

import dataclasses
from collections.abc import Sequence

import pytest

from datarax.operators.modality.image.patch_dropout_operator import PatchDropoutOperatorConfig


class Listed(Sequence):
    """A sequence that is neither list nor tuple, as OmegaConf reads one."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, number):
        return self.values[number]


def read(kind, value):
    return kind([read(kind, entry) for entry in value]) if isinstance(value, tuple) else value


@pytest.mark.parametrize("kind", [list, Listed])
@pytest.mark.parametrize(
    "options",
    [
        {"num_patches": (1, 4), "stochastic": True, "prob": 0.5},
        {"patch_size": ((1, 4), (0.1, 0.5)), "drop_value": (1, 2, 3)},
        {"patch_area": (0.1, 0.2), "aspect_ratio": (0.5, 2.0), "clip_range": (0, 1)},
        {"fill": "noise", "fill_range": (0, 1), "spatial_axes": (1, 2)},
        {"auxiliary_fields": ("boxes", "points"), "box_fields": ("boxes",)},
        {"placement": "grid", "num_patches": None, "grid_jitter": 0.5},
    ],
    ids=lambda options: " ".join(options),
)
def test_sequences_of_any_kind_are_tuples_afterwards(kind, options):
    """A config read from a file equals the one that is written in Python, and hashes like it."""
    written = PatchDropoutOperatorConfig(field_key="image", **options)
    given = {name: read(kind, value) for name, value in options.items()}
    config = PatchDropoutOperatorConfig(field_key="image", **given)
    assert config == written
    assert hash(config) == hash(written)
    assert dataclasses.replace(config) == config
    assert PatchDropoutOperatorConfig(**dataclasses.asdict(config)) == config


def test_replace_changes_one_option():
    """No option that was left out is in the way of another."""
    grid = PatchDropoutOperatorConfig(field_key="image", placement="grid")
    assert dataclasses.replace(grid, placement="random").placement == "random"


@pytest.mark.parametrize("value", ["ab", b"ab", (1,), 3], ids=["text", "bytes", "one", "number"])
def test_what_is_no_pair_is_refused(value):
    """Text is no sequence of options."""
    with pytest.raises(TypeError, match=r"patch_size must be \(height, width\), got"):
        PatchDropoutOperatorConfig(field_key="image", patch_size=value)
