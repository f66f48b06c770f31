"""Lets long code in tables break after a dot, a bracket, "=" or "/", else after an underscore."""

import html
import re

CELL = re.compile(r"<td\b.*?</td>", re.DOTALL)
PHRASE = re.compile(r"<code\b.*?</code>", re.DOTALL)
CODE = re.compile(r'(?<=<span class="pre">)[^<]+(?=</span>)')
# Not between the digits of a number; what HTML escapes has none of these characters.
BETWEEN = re.compile(r"(?<=[^\W\d]\.)(?=\w)|(?<=[=(/])(?=[\w&(\[])")
IN_NAMES = re.compile(r"(?<=[^\W_]_)(?=[^\W_])")
LONGEST = 18  # characters that stay together


def _joined(phrase):
    """Code of several words, which stay in one line if they are short."""
    is_short = not _is_long(re.sub(r"<[^>]*>", "", phrase))
    return phrase.replace("</span> <span", "</span>&#160;<span") if is_short else phrase


def _broken(word):
    """The code, which has no space, with a mark at each place where it may break."""
    parts = BETWEEN.split(word) if _is_long(word) else [word]
    return "<wbr>".join(IN_NAMES.sub("<wbr>", part) if _is_long(part) else part for part in parts)


def _is_long(word):
    return len(html.unescape(word)) > LONGEST


def _cell(cell):
    """A table cell, in whose code it is marked where it may break."""
    joined = PHRASE.sub(lambda phrase: _joined(phrase[0]), cell)
    return CODE.sub(lambda code: _broken(code[0]), joined)


def _breakable(_app, _page, _template, context, _doctree):
    """Mark where the code of the table cells of a page may break."""
    if "body" in context:
        context["body"] = CELL.sub(lambda cell: _cell(cell[0]), context["body"])


def setup(app):
    """Work on each page when it is written."""
    app.connect("html-page-context", _breakable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
