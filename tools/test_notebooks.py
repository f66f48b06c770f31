"""A run notebook becomes a page: prose, code, what was printed, and pictures as files."""

import base64
import tempfile
from types import SimpleNamespace

from notebooks import LONGEST_OUTPUT, page


def markdown(source):
    return SimpleNamespace(cell_type="markdown", source=source)


def code(source, *outputs):
    return SimpleNamespace(cell_type="code", source=source, outputs=list(outputs))


class Output(dict):
    """An output of a notebook, whose entries are attributes too."""

    __getattr__ = dict.__getitem__


def printed(text, name="stdout"):
    return Output(output_type="stream", name=name, text=text)


def test_a_page_has_code_with_what_it_printed_and_drew(tmp_path):
    """Progress bars, on standard error, stay away; a picture is a file beside the others."""
    picture = Output(
        output_type="display_data", data={"image/png": base64.b64encode(b"png").decode()}
    )
    value = Output(output_type="execute_result", data={"text/plain": "Batch(4 rows)"})
    cells = [
        markdown("# Title"),
        code("draw()", printed("drawn\n"), printed("50 %", name="stderr"), picture),
        markdown("## Part"),
        code("batch", value),
        code("x = 1"),
        code("print(path)", printed(f"{tempfile.gettempdir()}/tmp_1/figures\n")),
    ]
    text = page("demo", SimpleNamespace(cells=cells), tmp_path)
    assert text.startswith("# Title\n\n```{note}\nMade of `examples/demo.py`")
    assert "```python\ndraw()\n```\n\n![What the cell above draws](../images/" in text
    assert "```text\ndrawn\n```\n\n## Part" in text
    assert "```text\nBatch(4 rows)\n```\n\n```python\nx = 1\n```\n" in text
    assert text.endswith("```text\n./figures\n```\n")
    assert "50 %" not in text
    assert (tmp_path / "notebook-demo-1.png").read_bytes() == b"png"


def test_long_output_is_cut(tmp_path):
    """A page shows the first lines."""
    cells = [markdown("# Title"), code("run()", printed("line\n" * 100))]
    text = page("demo", SimpleNamespace(cells=cells), tmp_path)
    assert text.count("\nline") == LONGEST_OUTPUT
