"""Configs are frozen, comparable, hashable and validated when they are made."""

import dataclasses
import pickle
from collections import UserDict, UserList
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import config as config_module
from datarax.core.config import (
    DataraxModuleConfig,
    ElementOperatorConfig,
    OperatorConfig,
    StructuralConfig,
)


def test_documented_defaults_and_order():
    """The fields stand in the documented order with the documented defaults."""
    fields = {field.name: field.default for field in dataclasses.fields(OperatorConfig)}
    assert fields == {
        "cacheable": False,
        "batch_stats_fn": None,
        "precomputed_stats": None,
        "stochastic": False,
        "stream_name": None,
        "batch_strategy": "vmap",
    }
    assert list(fields)[:5] == [field.name for field in dataclasses.fields(StructuralConfig)]
    assert issubclass(ElementOperatorConfig, OperatorConfig)


def test_configs_are_frozen():
    """A config cannot change after it was validated, nor can its statistics."""
    config = OperatorConfig(precomputed_stats={"mean": np.zeros(3)})
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field"):
        config.stochastic = True
    with pytest.raises(TypeError, match="precomputed_stats cannot change"):
        config.precomputed_stats["mean"] = 1
    with pytest.raises(ValueError, match="read-only"):
        config.precomputed_stats["mean"][0] = 1


def test_statistics_are_copied():
    """Later changes of the array that was passed do not reach the config."""
    mean = np.zeros(3)
    config = OperatorConfig(precomputed_stats={"mean": mean})
    mean[0] = 9
    assert config.precomputed_stats["mean"][0] == 0


def test_configs_compare_and_hash_by_content():
    """Equal statistics make equal configs; different ones do not; pickling keeps them."""
    one, same, other = (
        OperatorConfig(precomputed_stats={"image": {"mean": np.arange(3) + shift}})
        for shift in (0, 0, 1)
    )
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert pickle.loads(pickle.dumps(one)) == one
    assert OperatorConfig(precomputed_stats={"m": jnp.zeros(2)}) == OperatorConfig(
        precomputed_stats={"m": np.zeros(2, np.float32)}
    )


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        (OperatorConfig, {"cacheable": 1}, TypeError, "OperatorConfig.cacheable must be True or"),
        (OperatorConfig, {"stochastic": "yes"}, TypeError, "stochastic must be True or False"),
        (OperatorConfig, {"stream_name": 3, "stochastic": True}, TypeError, "non-empty string"),
        (OperatorConfig, {"stream_name": "", "stochastic": True}, ValueError, "non-empty string"),
        (OperatorConfig, {"stream_name": "a"}, ValueError, "no effect with stochastic=False"),
        (
            StructuralConfig,
            {"cacheable": True, "stochastic": True},
            ValueError,
            "cacheable=True and stochastic=True",
        ),
        (
            OperatorConfig,
            {"batch_strategy": "pmap"},
            ValueError,
            r"must be one of \('vmap', 'scan'\), got 'pmap'",
        ),
        (OperatorConfig, {"batch_stats_fn": 3}, TypeError, "batch_stats_fn must be callable"),
        (OperatorConfig, {"precomputed_stats": 3}, TypeError, "must be a dict of numbers"),
        (
            OperatorConfig,
            {"precomputed_stats": {"a": {"b": "text"}}},
            TypeError,
            r"precomputed_stats\['a'\]\['b'\] must be a number",
        ),
        (
            DataraxModuleConfig,
            {"precomputed_stats": {"a": 1}, "batch_stats_fn": dict},
            ValueError,
            "both batch_stats_fn and precomputed_stats",
        ),
    ],
)
def test_bad_options_are_refused_at_construction(kind, options, error, message):
    """The message names the field, what was expected and what came."""
    with pytest.raises(error, match=message):
        kind(**options)


def test_the_mix_config_names_the_package_that_has_it():
    """Without datarax-ops-batch the documented name says what to install."""
    try:
        import datarax.operators.batch_mix_operator as mix
    except ModuleNotFoundError:
        with pytest.raises(ImportError, match="python -m pip install datarax-ops-batch"):
            config_module.BatchMixOperatorConfig  # noqa: B018
    else:
        assert config_module.BatchMixOperatorConfig is mix.BatchMixOperatorConfig
    with pytest.raises(AttributeError, match="no attribute 'NoSuchConfig'"):
        config_module.NoSuchConfig  # noqa: B018


def test_a_module_can_compute_statistics():
    """An nnx.Module serves as batch_stats_fn."""

    class Mean(nnx.Module):
        def __call__(self, data):
            return {"mean": data.mean()}

    assert OperatorConfig(batch_stats_fn=Mean()).batch_stats_fn(np.ones(3))["mean"] == 1


@dataclasses.dataclass(frozen=True)
class Wave:
    """A part of an option, which files name."""

    length: float
    kind: str = dataclasses.field(default="Wave", init=False, repr=False)


@dataclasses.dataclass(frozen=True)
class ReadConfig(OperatorConfig):
    """Checks before its base does, as some configs do."""

    sizes: tuple[int, ...] = (1, 2)
    names: list[str] | None = None
    waves: tuple[Wave | float, ...] = ()
    extra: Any = None

    def __post_init__(self):
        if not isinstance(self.sizes, tuple):
            raise TypeError("sizes must be a tuple")
        super().__post_init__()


class Rows(Sequence):
    """Reads like a list, and is none."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return (3, 4)[index]


@pytest.mark.parametrize("sizes", [[3, 4], UserList([3, 4]), Rows(), range(3, 5)], ids=type)
def test_sequences_are_taken_as_the_annotation_says(sizes):
    """What reads like a list becomes a tuple, before any check; a list where one is announced."""
    config = ReadConfig(sizes=sizes, names=UserList("ab"), extra=UserDict(a=UserList([1])))
    assert (config.sizes, config.names, config.extra) == ((3, 4), ["a", "b"], {"a": (1,)})
    assert ReadConfig(extra=(rows := Rows())).extra is rows


def test_asdict_comes_back_with_what_is_inside():
    """A dict that names the class of an option makes it again, and an equal config."""
    config = ReadConfig(waves=(Wave(0.5), 2.0), precomputed_stats={"mean": [[0.5, 1], [2, 3]]})
    read = ReadConfig(**dataclasses.asdict(config))
    assert (read, hash(read)) == (config, hash(config))
    assert read.precomputed_stats["mean"].shape == (2, 2)
    assert ReadConfig(extra={"kind": "Wave"}).extra == {"kind": "Wave"}


def test_annotations_are_types():
    """Parsers of command lines find types, whose names they would look up in the wrong module."""
    assert {field.name: field.type for field in dataclasses.fields(OperatorConfig)} == {
        **dict.fromkeys(("cacheable", "stochastic"), bool),
        "batch_stats_fn": Callable[..., dict[str, Any]] | None,
        "precomputed_stats": dict[str, Any] | None,
        "stream_name": str | None,
        "batch_strategy": str,
    }
