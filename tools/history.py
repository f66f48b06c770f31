"""Which versions of the packages were released, from which commits, by Git's own account."""

from __future__ import annotations

import re
import subprocess
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

SUBJECT = re.compile(r"Release (?P<dist>datarax-[a-z-]+) (?P<version>\S+)")
TAG = re.compile(r"(?P<dist>datarax-[a-z-]+)-v(?P<version>\S+)")


class RefusedError(Exception):
    """What cannot be done, why, and what to do instead."""


@dataclass(frozen=True)
class Build:
    """A version of a distribution as a commit holds it, or, without one, the working tree."""

    dist: str
    version: Version
    pins: dict[str, SpecifierSet]
    commit: str | None = None

    def __str__(self) -> str:
        where = "the working tree" if self.commit is None else self.commit[:9]
        return f"{self.dist} {self.version} ({where})"


def working_tree(root: Path) -> dict[str, Build]:
    """Each distribution as it is in the working tree."""
    files = sorted(root.glob("packages/*/pyproject.toml"))
    return {path.parent.name: build_of(path.read_text(encoding="utf-8")) for path in files}


def build_of(pyproject: str, commit: str | None = None) -> Build:
    """What a `pyproject.toml` says about its version and its pins on siblings."""
    project = tomllib.loads(pyproject)["project"]
    wanted = map(Requirement, project["dependencies"])
    pins = {line.name: line.specifier for line in wanted if line.name.startswith("datarax-")}
    return Build(project["name"], Version(project["version"]), pins, commit)


def git(root: Path, *arguments: str) -> str:
    """What Git prints; raises RefusedError with its complaint if it has one."""
    done = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RefusedError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def released(root: Path) -> dict[str, list[Build]]:
    """The releases of each distribution in the history of HEAD, oldest first.

    A release is a commit with a tag like `datarax-core-v0.2.0` or a subject like
    `Release datarax-core 0.2.0`, since tags are not always fetched. Those before are in the table
    `tool.releases.first` of the root `pyproject.toml`.

    Raises:
      RefusedError: if the history does not reach back to the first releases.
    """
    dists = list(working_tree(root))
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    commits = {}
    for version, commit in settings["tool"]["releases"]["first"].items():
        require_history(root, commit)
        commits |= {(dist, Version(version)): commit for dist in dists}
    for line in git(root, "log", "--format=%H %s", "--grep=^Release datarax-").splitlines():
        commit, _, subject = line.partition(" ")
        if match := SUBJECT.fullmatch(subject):
            commits[match["dist"], Version(match["version"])] = commit
    tags = ("for-each-ref", "--merged=HEAD", "--format=%(refname:short)", "refs/tags/datarax-*")
    for tag in git(root, *tags).split():
        if match := TAG.fullmatch(tag):
            commit = git(root, "rev-list", "-1", tag).strip()
            commits[match["dist"], Version(match["version"])] = commit
    builds: dict[str, list[Build]] = {dist: [] for dist in dists}
    for (dist, _), commit in sorted(commits.items()):
        text = git(root, "show", f"{commit}:packages/{dist}/pyproject.toml")
        builds[dist].append(build_of(text, commit))
    return builds


def require_history(root: Path, commit: str) -> None:
    """Raises RefusedError where a clone does not reach back to a commit."""
    try:
        git(root, "merge-base", "--is-ancestor", commit, "HEAD")
    except RefusedError as reason:
        raise RefusedError(
            f"the history here lacks commit {commit[:9]}, from which a release is built: in a "
            f"shallow clone run `git fetch --unshallow --tags` ({reason})"
        ) from None


def unpacked(root: Path, build: Build, into: Path) -> Path:
    """The folder of a distribution: in the working tree, or a copy as its commit has it."""
    package = Path("packages", build.dist)
    if build.commit is None:
        return root / package
    copy = into / f"{build.dist}-{build.version}-{build.commit[:9]}"
    if not copy.exists():
        into.mkdir(parents=True, exist_ok=True)
        # Others see all of it or nothing: two sessions may want it at once.
        with tempfile.TemporaryDirectory(dir=into) as folder:
            archive, half = Path(folder, "archive.tar"), Path(folder, "files")
            git(root, "archive", f"--output={archive}", build.commit, package.as_posix())
            with tarfile.open(archive) as files:
                files.extractall(half, filter="data")
            try:
                half.rename(copy)
            except OSError:
                # Another session was quicker.
                if not copy.exists():
                    raise
    return copy / package
