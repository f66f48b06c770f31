"""Lets code in tables break after a dot, an underscore, a bracket, "=" or "/", not in a word."""

import re

CELL = re.compile(r"<td\b.*?</td>", re.DOTALL)
CODE = re.compile(r'(?<=<span class="pre">)[^<]+(?=</span>)')
# Not between the digits of a number; what HTML escapes has none of these characters.
BREAK = re.compile(r"(?<=[^\W\d]\.)(?=\w)|(?<=_)(?=[^\W_])|(?<=[=(/])(?=[\w&(\[])")


def _breakable(_app, _page, _template, context, _doctree):
    """Mark where the code of the table cells of a page may break."""
    if "body" in context:
        context["body"] = CELL.sub(
            lambda cell: CODE.sub(lambda code: BREAK.sub("<wbr>", code[0]), cell[0]),
            context["body"],
        )


def setup(app):
    """Work on each page when it is written."""
    app.connect("html-page-context", _breakable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
