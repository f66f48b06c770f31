"""What a built manual lacks, found in its inventory."""

import zlib

import pytest

from documented import inventory, missing


@pytest.fixture
def sources(tmp_path):
    """A distribution with a public module that defines a class and exports a function."""
    package = tmp_path / "src/datarax/sums"
    package.mkdir(parents=True)
    text = "from datarax.sums._add import add as add\nclass Sum: ...\ndef _carry(): ...\n"
    (package / "__init__.py").write_text(text, encoding="utf-8")
    (package / "_add.py").write_text("def add(): ...\n", encoding="utf-8")
    return tmp_path / "src"


@pytest.mark.parametrize(
    ("names", "lacking"),
    [
        ({"datarax.sums.add", "datarax.sums.Sum"}, []),
        ({"datarax.sums._add.add", "datarax.sums.Sum"}, []),
        ({"datarax.sums.Sum"}, ["datarax.sums.add"]),
        (set(), ["datarax.sums.Sum", "datarax.sums.add"]),
    ],
    ids=["all", "where it comes from", "no export", "nothing"],
)
def test_a_public_name_without_a_place_is_missing(sources, names, lacking):
    """What is defined and what is exported counts; what is private does not."""
    assert missing(names, [sources]) == lacking


def test_an_inventory_gives_the_names_of_python(tmp_path):
    """Pages and other labels are left out."""
    lines = b"a.B py:class 1 a.html#$ -\nbatching std:doc -1 batching.html Batching\n"
    header = b"# Sphinx inventory version 2\n# Project: p\n# Version: \n# compressed using zlib.\n"
    path = tmp_path / "objects.inv"
    path.write_bytes(header + zlib.compress(lines))
    assert inventory(path) == {"a.B"}


def test_another_file_is_no_inventory(tmp_path):
    """The file and the format are named."""
    path = tmp_path / "objects.inv"
    path.write_bytes(b"# Sphinx inventory version 1\n")
    with pytest.raises(
        ValueError, match=r"expected an inventory of Sphinx, version 2, in .*objects"
    ):
        inventory(path)
