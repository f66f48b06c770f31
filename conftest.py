"""Runs the Python blocks of README.md, CHANGELOG.md and docs/*.md, top to bottom in each file."""

import jax
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

# A project of its own, with its own settings: `nox -s downstream` tests it.
collect_ignore = ["tests-integration/downstream"]


def as_a_user(namespace):
    """Documents run with JAX's own settings, not with the strict ones of the tests.

    Only that little is optimised, because most of the time goes into compiling.
    """
    namespace["_settings"] = {
        "jax_numpy_dtype_promotion": jax.config.jax_numpy_dtype_promotion,
        "jax_disable_most_optimizations": jax.config.read("jax_disable_most_optimizations"),
    }
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    jax.config.update("jax_disable_most_optimizations", True)


def as_before(namespace):
    """The tests that follow a document are strict again."""
    for name, value in namespace["_settings"].items():
        jax.config.update(name, value)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["*.md"],
    excludes=["CONTRIBUTING.md", "docs/notebooks/*"],
    setup=as_a_user,
    teardown=as_before,
).pytest()
