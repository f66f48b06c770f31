"""Runs examples as notebooks and writes them as pages of the manual, with what they showed.

`python tools/notebooks.py examples/a.py examples/b.py`: pages go to docs/notebooks, pictures to
docs/images. Both are committed, because a run takes minutes; a test compares the code of the pages
with that of the examples.
"""

from __future__ import annotations

import base64
import io
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
LONGEST_OUTPUT = 40
LARGEST_PNG = 300_000  # bytes
HEAD = """```{{note}}
Made of `examples/{name}.py` by `nox -s notebooks`. For a notebook of your own, run
`jupytext --to ipynb examples/{name}.py`.
```
"""


def executed(example: Path) -> Any:
    """The notebook of an example, with its outputs."""
    import jupytext
    import nbclient

    notebook = jupytext.read(example)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = nbclient.NotebookClient(
            notebook, timeout=1800, kernel_name="python3", resources=resources
        )
        client.execute()
    return notebook


def without_folder(text: str) -> str:
    """The text without the temporary folder that the notebook ran in."""
    return re.sub(rf"{re.escape(tempfile.gettempdir())}/\w+/", "./", text)


def page(name: str, notebook: Any, images: Path) -> str:
    """The text of a page; pictures are written on the way.

    Args:
      name: of the example.
      notebook: with outputs.
      images: the folder for pictures.
    """
    title, *cells = notebook.cells
    parts = [title.source, HEAD.format(name=name)]
    number = 0
    for cell in cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        if cell.source:
            parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            picture = output.get("data", {}).get("image/png")
            if picture is not None:
                number += 1
                ending, content = smaller(base64.b64decode(picture))
                file = images / f"notebook-{name}-{number}.{ending}"
                file.write_bytes(content)
                parts.append(f"![What the cell above draws](../images/{file.name})")
        text = without_folder("".join(shown(cell.outputs))).strip("\n")
        if text:
            parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def smaller(png: bytes) -> tuple[str, bytes]:
    """The ending and the content of a picture's file: photographs, large as PNG, become JPEG."""
    if len(png) < LARGEST_PNG:
        return "png", png
    from PIL import Image

    content = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(content, "JPEG", quality=88)
    return "jpg", content.getvalue()


def shown(outputs: list[Any]) -> Iterator[str]:
    """What a cell printed, at most 40 lines of it, and the value of its last line."""
    for output in outputs:
        if output.output_type == "stream" and output.name == "stdout":
            lines = output.text.splitlines(keepends=True)
            yield from lines[:LONGEST_OUTPUT]
        elif output.output_type == "execute_result" and "image/png" not in output.data:
            yield output.data["text/plain"] + "\n"


if __name__ == "__main__":
    (DOCS / "notebooks").mkdir(exist_ok=True)
    for path in map(Path, sys.argv[1:]):
        text = page(path.stem, executed(path), DOCS / "images")
        (DOCS / "notebooks" / f"{path.stem}.md").write_text(text, encoding="utf-8")
