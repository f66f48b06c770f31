"""Sphinx settings: MyST pages, and API pages from the docstrings of the installed packages."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "datarax packages"
author = "The datarax contributors"
copyright = "The datarax contributors"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "api_pages",
    "breakable",
    "mathml",
]
html_theme = "furo"
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_math_renderer = "mathml"
exclude_patterns = ["figures", "api/versions.md"]
html_title = project
# A name that the manual does not have is code.
suppress_warnings = ["ref.any"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# The build asks no network, so names of JAX, Flax and NumPy cannot be looked up there.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!datarax\.).*"),
    (r"py:.*", r"datarax\.(.*\.)?_.*"),
    (r"py:.*", r"datarax\..*ConfigT"),
]


def _marked(_app, _what, _name, _object, _options, lines):
    """Turn the `code` of the docstrings into links and literals, a plural `Batch`es included."""
    text = "\n".join(lines)
    lines[:] = re.sub(r"(?<![`:])`([^`]+)`(?!`)(?=(\w?))", _mark, text).split("\n")


def _mark(match):
    is_name = re.fullmatch(r"[A-Z]\w*(\.\w+)*|datarax(\.\w+)+", match[1])
    mark = f":any:`{match[1]}`" if is_name else f"``{match[1]}``"
    return mark + ("\\ " if match[2] else "")


def setup(app):
    """Prepare each docstring before Napoleon reads it."""
    app.connect("autodoc-process-docstring", _marked, priority=400)
