"""The files that the unit tests trust say what Pillow says."""

import json

import pytest
from make_golden import CASES, GOLDEN, text


@pytest.mark.parametrize("name", CASES)
def test_the_file_is_what_pillow_makes(name):
    """Each golden file is the one that the script would write."""
    kept = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert kept == json.loads(text(name))
