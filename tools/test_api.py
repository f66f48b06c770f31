"""What users could have relied on is told from what they could not."""

import pytest

from api import breakages

PUBLIC = """
from dataclasses import dataclass
import math
from datarax.core._private import moved as moved

def f(x, y=1): ...

@dataclass
class Config:
    size: int = 3

class Module:
    def call(self, batch): ...
    def _own(self): ...

def _hidden(): ...
"""
PRIVATE = "def moved(key): ...\ndef other(key): ...\n"


def sources(folder, public=PUBLIC, private=PRIVATE):
    core = folder / "datarax" / "core"
    core.mkdir(parents=True)
    (core / "public.py").write_text(public)
    (core / "_private.py").write_text(private)
    return folder


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("def f(x, y=1)", "def g(x, y=1)", "core.public.f: public object was removed"),
        ("def f(x, y=1)", "def f(x)", "core.public.f(y): parameter was removed"),
        ("y=1)", "y=2)", "core.public.f(y): parameter default was changed from 1 to 2"),
        ("y=1)", "y=1, *, z)", "core.public.f(z): parameter was added as required"),
        ("call(self, batch)", "call(self, key)", "Module.call(batch): parameter was removed"),
        ("    size: int = 3", "    pass", "Config.__init__(size): parameter was removed"),
        ("moved as moved", "other", "core.public.moved: public object was removed"),
    ],
)
def test_breaks_of_public_names_are_found(tmp_path, old, new, expected):
    """Functions, methods, fields of configs, and names taken from a private module."""
    changed = sources(tmp_path / "new", public=PUBLIC.replace(old, new))
    found = breakages(sources(tmp_path / "old"), changed)
    assert any(line.endswith(expected) for line in found), found


def test_signatures_behind_an_exported_name_count(tmp_path):
    """A function in a private module is public where a public one exports it."""
    changed = sources(tmp_path / "new", private=PRIVATE.replace("moved(key)", "moved()"))
    expected = "datarax.core._private.moved(key): parameter was removed"
    assert breakages(sources(tmp_path / "old"), changed) == [expected]


@pytest.mark.parametrize(
    "changes",
    [
        {"private": PRIVATE.replace("def other(key)", "def another()")},
        {"public": PUBLIC.replace("def _hidden()", "def _unseen(x)")},
        {"public": PUBLIC.replace("def _own(self)", "def _other(self)")},
        {"public": PUBLIC.replace("import math\n", "")},
        {"public": PUBLIC.replace("y=1)", "y=1, z=2)") + "def g(): ...\n"},
    ],
    ids=["private module", "private function", "private method", "import", "addition"],
)
def test_nobody_relies_on_what_is_private_or_new(tmp_path, changes):
    """Private names may change at any time, and additions break nobody."""
    assert breakages(sources(tmp_path / "old"), sources(tmp_path / "new", **changes)) == []
