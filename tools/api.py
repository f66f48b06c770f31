"""Prints what users could have relied on and is gone, and exits with 1 if there is any.

`python tools/api.py OLD NEW`: two folders with the sources of a distribution, unpacked.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import griffe


class ExportedNames(griffe.Extension):
    """`from a import x as x` makes `x` public, which Griffe leaves to an extension."""

    def on_alias_instance(
        self, *, node: ast.AST | griffe.ObjectNode, alias: griffe.Alias, **_: object
    ) -> None:
        names = node.names if isinstance(node, ast.Import | ast.ImportFrom) else []
        if any(name.asname == name.name == alias.name for name in names):
            alias.public = not alias.name.startswith("_")


def load(folder: Path) -> griffe.Object | griffe.Alias:
    """The names of the modules in a folder, read without importing them."""
    return griffe.load(
        "datarax",
        search_paths=[folder],
        try_relative_path=False,
        allow_inspection=False,
        extensions=griffe.load_extensions(ExportedNames()),
    )


def breakages(old: Path, new: Path) -> list[str]:
    """What is gone or changed in public modules and signatures, a line each.

    Public is a name without underscore in a module whose path has none.
    """
    found = griffe.find_breaking_changes(load(old), load(new))
    return sorted({described(breakage) for breakage in found})


def described(breakage: griffe.Breakage) -> str:
    """For example `datarax.core.fields.get_field(path): parameter was removed`."""
    change = breakage.as_dict()
    parameters = [change[when] for when in ("old_value", "new_value")]
    names = {value.name for value in parameters if isinstance(value, griffe.Parameter)}
    where = f"{change['object_path']}({names.pop()})" if names else change["object_path"]
    line = f"{where}: {breakage.kind.value.lower()}"
    if breakage.kind is griffe.BreakageKind.PARAMETER_CHANGED_DEFAULT:
        line += " from {} to {}".format(*(value.default for value in parameters))
    return line


if __name__ == "__main__":
    lines = breakages(Path(sys.argv[1]), Path(sys.argv[2]))
    for line in lines:
        print(line)
    sys.exit(bool(lines))
