"""Sphinx settings: MyST pages, and API pages from the docstrings of the installed packages."""

project = "datarax packages"
author = "The datarax contributors"
copyright = "The datarax contributors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = project
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False

# The build asks no network, so names of JAX, Flax and NumPy cannot be looked up there.
suppress_warnings = ["toc.empty_glob"]
nitpick_ignore_regex = [(r"py:.*", r"(?!datarax\.).*"), (r"py:.*", r"datarax\.(.*\.)?_.*")]
