"""The next release of a package: its number, its changelog, and what speaks against it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from packaging.version import Version

from history import TAG, Build, RefusedError

UNRELEASED = re.compile(
    r"^## \[Unreleased\]\n(?P<entries>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL
)
PARTS = ("major", "minor", "patch")


def bumped(version: Version, part: str) -> Version:
    """The version after this one: `minor` of 0.1.3 is 0.2.0."""
    if part not in PARTS:
        raise RefusedError(f"expected one of {', '.join(PARTS)} after `--`, got {part!r}")
    place = PARTS.index(part)
    numbers = [*version.release[:place], version.release[place] + 1, 0, 0]
    return Version(".".join(map(str, numbers[:3])))


def planned(
    dist: str,
    part: str,
    tree: dict[str, Build],
    released: dict[str, list[Build]],
    broken: list[str],
) -> Version:
    """The version of the next release of a distribution.

    Args:
      dist: the distribution.
      part: "major", "minor" or "patch".
      tree: each distribution as it is in the working tree.
      released: the releases of each, oldest first.
      broken: what users could have relied on and is gone since the last release, a line each.

    Raises:
      RefusedError: with all that speaks against it.
    """
    last = released[dist][-1]
    version = next_version(tree[dist], last, part)
    reasons = list(objections(dist, version, tree, released))
    if version < least_version(last, bool(broken)):
        reasons += [*broken, f"which a {part} release must not do: release a minor one"]
    if reasons:
        raise RefusedError("\n".join(reasons))
    return version


def next_version(tree: Build, last: Build, part: str) -> Version:
    """The version of the next release, which the tree may have already or not."""
    version = bumped(last.version, part)
    if tree.version > version:
        raise RefusedError(
            f"the {part} release after {last} is {version}, but its pyproject.toml has "
            f"{tree.version} already, for changes that need it; release that"
        )
    return version


def least_version(last: Build, breaks: bool) -> Version:
    """The lowest version that the tree may have: before 1.0 a minor release may break."""
    if not breaks:
        return last.version
    return bumped(last.version, "major" if last.version.major else "minor")


def objections(
    dist: str, version: Version, tree: dict[str, Build], released: dict[str, list[Build]]
) -> Iterator[str]:
    """Pins that a release of this version would break, and pins that no release meets yet."""
    for other in tree.values():
        pin = other.pins.get(dist)
        if pin is not None and not pin.contains(version):
            yield (
                f"{other.dist} pins {dist}{pin}, which does not allow {version}: raise the pin in "
                f"packages/{other.dist}/pyproject.toml first, and release {other.dist} next"
            )
    for name, pin in tree[dist].pins.items():
        if not any(pin.contains(build.version) for build in released[name]):
            newest = released[name][-1].version
            yield (
                f"{dist} pins {name}{pin}, but the newest release of {name} is {newest}: "
                f"release {name} first"
            )


def tagged_dist(tag: str, tree: dict[str, Build]) -> str:
    """The distribution that a tag like `datarax-core-v0.2.0` releases.

    Raises:
      RefusedError: unless the tag names a distribution and the version that it has in the tree.
    """
    match = TAG.fullmatch(tag)
    expected = " or ".join(f"{dist}-v{build.version}" for dist, build in tree.items())
    build = tree.get(match["dist"]) if match else None
    if build is None or match is None or str(build.version) != match["version"]:
        raise RefusedError(f"the tag of a release of this tree is {expected}, got {tag!r}")
    return build.dist


def with_version(pyproject: str, version: Version) -> str:
    """The text of a `pyproject.toml` with another version."""
    text, count = re.subn(r'^version = ".*"$', f'version = "{version}"', pyproject, flags=re.M)
    if count != 1:
        raise RefusedError(f"expected one line `version = …` in pyproject.toml, found {count}")
    return text


def dated(changelog: str, version: Version, day: str) -> str:
    """The text of a changelog whose unreleased entries are those of this version."""
    found = UNRELEASED.search(changelog)
    if found is None or not re.search(r"^- ", found["entries"], re.MULTILINE):
        raise RefusedError(
            "CHANGELOG.md has nothing under `## [Unreleased]`: say there what users will notice"
        )
    return changelog.replace("## [Unreleased]\n", f"## [{version}] - {day}\n", 1)


def write(folder: Path, version: Version, day: str) -> None:
    """Gives a package this version, and its changelog the day, or changes neither."""
    project, changelog = folder / "pyproject.toml", folder / "CHANGELOG.md"
    texts = {
        changelog: dated(changelog.read_text(encoding="utf-8"), version, day),
        project: with_version(project.read_text(encoding="utf-8"), version),
    }
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
