"""A notebook shows batches, operators and pipelines, run by a kernel as a user runs it."""

import pytest

SETUP = """
import numpy as np
from datarax.core.element_batch import Batch
from datarax.operators import ElementOperator, ElementOperatorConfig
from datarax.pipeline import Pipeline
from datarax.sources import MemorySource, MemorySourceConfig

images = np.random.default_rng(0).integers(256, size=(4, 8, 8, 3)).astype(np.uint8)
data = {"image": images, "label": np.arange(4, dtype=np.int32)}
batch = Batch.from_arrays(data, valid_mask=[True, True, True, False])
op = ElementOperator(ElementOperatorConfig(), fn=lambda element, key=None: element, name="same")
source = MemorySource(MemorySourceConfig(shuffle=True, seed=0), data=data)
pipeline = Pipeline(source=source, stages=[op], batch_size=4)
"""
SHOWN = ("batch", "op", "op.config", "pipeline")


def test_a_notebook_shows_objects_as_pictures_and_tables():
    """HTML with a picture for each valid row, and a line as text."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [nbformat.v4.new_code_cell(cell) for cell in (SETUP, *SHOWN)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    batch, *others = (cell.outputs[-1].data for cell in notebook.cells[1:])
    assert batch["text/html"].count("data:image/png;base64,") == 3
    assert all("<details>" in shown["text/html"] for shown in others)
    assert batch["text/plain"].startswith("Batch(4 rows, 3 valid, ")
    lines = [shown["text/plain"] for shown in others]
    assert lines[:2] == ["ElementOperator(name='same')", "ElementOperatorConfig()"]
    assert lines[2].startswith("Pipeline(source=MemorySource, ")


def test_treescope_shows_what_is_inside():
    """Where it is installed and asked, with all fields and Variables."""
    treescope = pytest.importorskip("treescope")
    shown = {}
    exec(SETUP, shown)
    names = ("valid_mask", "_operation_count", "batch_strategy", "batches")
    for expression, name in zip(SHOWN, names, strict=True):
        assert name in treescope.render_to_text(eval(expression, shown))
