"""Each row of the tables of other libraries is one test, with the options that the row gives."""

import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# In each test module, ROWS has by a row's id what is tested and, last, the options.
PAGES = {
    "docs/coming-from.md": "packages/datarax-ops-image/tests/test_image_equivalences.py",
    "docs/batch-mixing.md": "packages/datarax-ops-batch/tests/test_mix_equivalences.py",
    "docs/patch-dropout.md": "packages/datarax-ops-image/tests/test_patch_dropout_equivalences.py",
}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: Path(page).stem)


def table_rows(page):
    """Of each row that starts with an id (`timm-mixup`): the id, and the third column's code."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, rest in re.findall(r"^\| `([a-z]+(?:-[a-z]+)+)` \|(.*)\|$", text, re.MULTILINE):
        yield name, re.findall(r"`([^`]+)`", rest.split(" | ")[1])


def module_of(page):
    """The test module of a page."""
    path = ROOT / PAGES[page]
    spec = importlib.util.spec_from_file_location(f"of_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parametrized(module):
    """How many tests of a module there are for each value of a parameter."""
    marks = [
        mark
        for name, test in vars(module).items()
        if name.startswith("test_")
        for mark in getattr(test, "pytestmark", ())
        if mark.name == "parametrize"
    ]
    return Counter(value for mark in marks for value in mark.args[1] if isinstance(value, str))


@each_page
def test_each_row_is_one_test(page):
    """A row without a test, a test without a row, or one of either twice, is found."""
    module, rows = module_of(page), [name for name, _ in table_rows(page)]
    assert len(rows) > 5
    assert sorted(rows) == sorted(module.ROWS)
    assert {parametrized(module)[name] for name in rows} == {1}


@each_page
def test_each_row_is_tested_with_its_options(page):
    """The options in the third column are those that the row's test makes an operator with."""
    module = module_of(page)
    for name, code in table_rows(page):
        *_, options = module.ROWS[name]
        if options:
            assert eval(f"dict({', '.join(code)})", vars(module)) == options, name
