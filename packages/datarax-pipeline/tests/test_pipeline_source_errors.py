"""What a pipeline says of sources that are none, and of records that are tuples."""

import numpy as np
import pytest

from datarax.core.config import OperatorConfig
from datarax.core.operator import OperatorModule
from datarax.pipeline import Pipeline
from datarax.sources import MemorySource, MemorySourceConfig

PAIRS = [(np.full((2, 2), number, np.uint8), number) for number in range(3)]


class Same(OperatorModule):
    def apply(self, data, state, metadata, random_params=None, stats=None):
        return data, state, metadata


def test_modules_are_no_records():
    """A list of operators in the place of the source names the place where they belong."""
    with pytest.raises(TypeError, match=r"a list of modules \['Same'\].* stages=\[...\]"):
        Pipeline(source=[Same(OperatorConfig())], batch_size=1)
    source = MemorySource(MemorySourceConfig(), data={"x": np.arange(3)})
    with pytest.raises(TypeError, match=r"modules \['MemorySource'\]; pass one source"):
        Pipeline(source=(source,), batch_size=1)


def test_parts_of_tuples_get_names():
    """As PyTorch data sets give them: (image, label)."""
    pipeline = Pipeline(source=PAIRS, fields=("image", "label"), batch_size=2)
    batches = list(pipeline)
    assert batches[0]["image"].shape == (2, 2, 2)
    assert [batch["label"].tolist() for batch in batches] == [[0, 1], [2, 0]]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (None, TypeError, r"record 0 of list is a tuple of 2, .* no fields; .*fields=\(\"image\""),
        (("image",), TypeError, r"a tuple of 2, but the pipeline has fields=\('image',\)"),
        ("image", TypeError, "fields must be names such as"),
        (("a", "a"), ValueError, "different non-empty names"),
    ],
    ids=["none", "too-few", "text", "twice"],
)
def test_tuples_without_names_are_refused(fields, error, message):
    """The error says what came and how to name it."""
    with pytest.raises(error, match=message):
        next(iter(Pipeline(source=PAIRS, fields=fields, batch_size=2)))


def test_fields_are_for_tuples():
    """Records that have names, and sources that give records of their own, take none."""
    with pytest.raises(TypeError, match=r"record 0 of list is dict, but .* fields=\('x',\)"):
        next(iter(Pipeline(source=[{"x": 1}], fields=("x",), batch_size=1)))
    source = MemorySource(MemorySourceConfig(), data={"x": np.arange(3)})
    with pytest.raises(ValueError, match="leave fields out"):
        Pipeline(source=source, fields=("x",), batch_size=1)
