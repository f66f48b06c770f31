"""Sphinx settings: MyST pages, and API pages from the docstrings of the installed packages."""

import re

from flax import nnx
from sphinx.util import inspect

project = "datarax packages"
author = "The datarax contributors"
copyright = "The datarax contributors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = project
# A name in backticks is a link where the manual has the name, and code where it has not.
default_role = "any"
suppress_warnings = ["ref.any"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False

# The build asks no network, so names of JAX, Flax and NumPy cannot be looked up there.
nitpick_ignore_regex = [(r"py:.*", r"(?!datarax\.).*"), (r"py:.*", r"datarax\.(.*\.)?_.*")]


def _literals(_app, _what, _name, _object, _options, lines):
    """Turn the `code` of the docstrings into literals, a plural `Batch`es included."""
    text = "\n".join(lines)
    lines[:] = re.sub(r"(?<![`:])`([^`]+)`(?!`)(?=(\w?))", _literal, text).split("\n")


def _literal(match):
    return f"``{match[1]}``" + ("\\ " if match[2] else "")


def _constructor(_app, _what, _name, thing, _options, _signature, _returns):
    """Show how a module is made, which Flax hides behind its metaclass."""
    if isinstance(thing, type) and issubclass(thing, nnx.Module):
        signature = inspect.signature(thing.__init__, bound_method=True)
        shown = {"show_return_annotation": False, "unqualified_typehints": True}
        return inspect.stringify_signature(signature, **shown), None
    return None


def setup(app):
    """Prepare each docstring before Napoleon reads it, and each signature."""
    app.connect("autodoc-process-signature", _constructor)
    app.connect("autodoc-process-docstring", _literals, priority=400)
