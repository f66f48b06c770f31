"""Prints the public names that a built manual lacks, and exits with 1 if there are any.

`python tools/documented.py build/docs/objects.inv SOURCES...`: the folders with the sources of the
distributions.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import griffe

from api import load

# What the standard library documents better: loggers, and type variables.
UNDOCUMENTED = ("logger", "ConfigT", "OperatorConfigT", "StructuralConfigT")


def inventory(path: Path) -> set[str]:
    """The names of Python objects in the inventory of a manual that Sphinx built."""
    header, _, packed = path.read_bytes().partition(b"zlib.\n")
    if not header.startswith(b"# Sphinx inventory version 2"):
        raise ValueError(f"expected an inventory of Sphinx, version 2, in {path}")
    lines = zlib.decompress(packed).decode().splitlines()
    return {name for name, kind, *_ in map(str.split, lines) if kind.startswith("py:")}


def public(module: griffe.Object | griffe.Alias) -> Iterator[tuple[str, str]]:
    """The public names below a module, and the path of the object that each stands for."""
    for name, member in module.members.items():
        if name.startswith("_") or name in UNDOCUMENTED:
            continue
        if member.is_alias:
            if member.public:
                yield member.path, member.target_path
        elif member.is_module:
            yield from public(member)
        elif member.is_public:
            yield member.path, member.path


def missing(names: set[str], sources: list[Path]) -> list[str]:
    """The public names that are documented neither here nor where they come from."""
    return sorted(
        path
        for source in sources
        for path, target in public(load(source))
        if not {path, target} & names
    )


if __name__ == "__main__":
    lines = missing(inventory(Path(sys.argv[1])), list(map(Path, sys.argv[2:])))
    for line in lines:
        print(f"{line} is public, but has no place in the manual")
    sys.exit(bool(lines))
