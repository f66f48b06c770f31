"""Runs the Python blocks of README.md, CHANGELOG.md and docs/*.md, top to bottom in each file."""

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["*.md"],
    excludes=["CONTRIBUTING.md"],
).pytest()
