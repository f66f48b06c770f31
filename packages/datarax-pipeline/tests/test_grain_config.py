"""What of `GrainSource` needs no Grain: its config, and the error without it."""

import sys

import pytest

from datarax.sources import GrainSource, GrainSourceConfig


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_workers": -1}, ValueError, "num_workers must be 0 or more, got -1"),
        ({"num_threads": 1.5}, TypeError, "num_threads must be an integer, got 1.5"),
        ({"shard": (0, 2)}, TypeError, r"shard must be grain.sharding.ShardOptions or None"),
    ],
)
def test_config_refuses_bad_options(options, error, message):
    """Bad options are refused when the config is made."""
    with pytest.raises(error, match=message):
        GrainSourceConfig(**options)


def test_missing_extra_says_what_to_install(monkeypatch):
    """Without Grain, the error of the source names the extra."""
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"pip install 'datarax-pipeline\[grain\]'"):
        GrainSource(GrainSourceConfig(), dataset=[{}])
