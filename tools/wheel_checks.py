"""What must hold of the wheels in dist/ together, so that they form one `datarax`."""

from __future__ import annotations

import ast
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

# Python splices these from all distributions; an `__init__.py` in one would hide the others.
NAMESPACES = ("datarax", "datarax/core", "datarax/operators/modality")


def problems(wheels: dict[str, Path]) -> list[str]:
    """Everything that is wrong with these wheels, a sentence each.

    Args:
      wheels: the wheel of each distribution, its sdist beside it.
    """
    files = {dist: zipfile.ZipFile(path).namelist() for dist, path in wheels.items()}
    return [
        *shared_files(files),
        *stray_files(files),
        *private_imports(wheels),
        *files_that_sdists_lack(wheels, files),
    ]


def shared_files(files: dict[str, list[str]]) -> Iterator[str]:
    """Removing one of two distributions with the same file would break the other."""
    owners: dict[str, list[str]] = {}
    for dist, names in files.items():
        for name in names:
            owners.setdefault(name, []).append(dist)
    for name, dists in sorted(owners.items()):
        if len(dists) > 1:
            yield f"{' and '.join(dists)} both contain {name}"


def stray_files(files: dict[str, list[str]]) -> Iterator[str]:
    """No package has code that Python runs when it starts, or makes a namespace its own."""
    for dist, names in files.items():
        for name in names:
            if name.endswith(".pth"):
                yield f"{dist} contains {name}, which Python would run whenever it starts"
            if name in [f"{level}/__init__.py" for level in NAMESPACES]:
                yield f"{dist} contains {name}, which would hide the other distributions"


def private_imports(wheels: dict[str, Path]) -> Iterator[str]:
    """A patch release may change what is private, so another distribution must not import it."""
    modules = {dist: python_modules(path) for dist, path in wheels.items()}
    owners = {module: dist for dist, sources in modules.items() for module in sources}
    for dist, sources in modules.items():
        for module, source in sources.items():
            for target in sorted(set(imported(source))):
                owner = owner_of(target, owners)
                if owner not in (None, dist) and is_private(target):
                    yield f"{module} of {dist} imports {target}, which is private to {owner}"


def files_that_sdists_lack(wheels: dict[str, Path], files: dict[str, list[str]]) -> Iterator[str]:
    """A wheel built from an sdist is the one built from the repository."""
    for dist, path in wheels.items():
        sdist = path.name.removesuffix("-py3-none-any.whl")
        with tarfile.open(path.with_name(f"{sdist}.tar.gz")) as archive:
            held = {name.removeprefix(f"{sdist}/src/") for name in archive.getnames()}
        for name in files[dist]:
            if name.startswith("datarax/") and name not in held:
                yield f"the sdist of {dist} lacks {name}"


def python_modules(wheel: Path) -> dict[str, str]:
    """The sources of a wheel's modules, by dotted name."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): archive.read(
                name
            ).decode("utf-8")
            for name in archive.namelist()
            if name.endswith(".py")
        }


def imported(source: str) -> Iterator[str]:
    """The dotted names that a module imports, anywhere in it; relative imports stay at home."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def owner_of(target: str, owners: dict[str, str]) -> str | None:
    """The distribution of the module that a dotted name is, or is in."""
    while target not in owners:
        target, dot, _ = target.rpartition(".")
        if not dot:
            return None
    return owners[target]


def is_private(dotted: str) -> bool:
    """Whether a part of the name starts with an underscore, and is no `__dunder__`."""
    return any(part.startswith("_") and not part.endswith("__") for part in dotted.split("."))
