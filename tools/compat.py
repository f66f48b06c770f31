"""Which versions of the packages have to work together: what a user may have, by the pins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet

from history import Build


@dataclass(frozen=True)
class Pairing:
    """Builds that are installed together, to run the tests of one of them.

    Args:
      question: who is tried with whom.
      tested: the distribution whose tests are run.
      builds: by distribution; none where the pins leave nothing to try.
    """

    question: str
    tested: str
    builds: dict[str, Build]


def pairings(tree: dict[str, Build], released: dict[str, list[Build]]) -> Iterator[Pairing]:
    """The newest of each with the oldest siblings, and the oldest dependants with the newest.

    Args:
      tree: each distribution as it is in the working tree, the newest there is.
      released: the releases of each, oldest first.
    """
    oldest_first = {dist: [*released[dist], tree[dist]] for dist in tree}
    newest_first = {dist: builds[::-1] for dist, builds in oldest_first.items()}
    for dist, newest in tree.items():
        if newest.pins:
            found = resolved({dist: newest}, oldest_first)
            old = [build for build in (found or {}).values() if build.commit]
            question = f"the newest {dist} with the oldest {' and '.join(newest.pins)} it allows"
            yield Pairing(question, dist, found if found and old else {})
    for sibling, newest in tree.items():
        for dist in tree:
            if sibling not in tree[dist].pins:
                continue
            tries = ({sibling: newest, dist: old} for old in released[dist] if sibling in old.pins)
            found = next(filter(None, (resolved(chosen, newest_first) for chosen in tries)), {})
            question = f"the oldest {dist} that allows the newest {sibling}"
            yield Pairing(question, dist, found)


def resolved(
    chosen: dict[str, Build], candidates: dict[str, list[Build]]
) -> dict[str, Build] | None:
    """The chosen builds with the siblings that they need, the first candidates that all pins allow.

    None if there are no such siblings.
    """
    for build in chosen.values():
        for name, pin in build.pins.items():
            if name not in chosen:
                tries = (
                    resolved({**chosen, name: other}, candidates) for other in candidates[name]
                )
                return next(filter(None, tries), None)
            if not pin.contains(chosen[name].version, prereleases=True):
                return None
    return chosen


def merged(pairings: list[Pairing]) -> list[tuple[dict[str, Build], list[Pairing]]]:
    """The pairings that one environment can hold, with the builds in it, in few environments."""
    environments: list[tuple[dict[str, Build], list[Pairing]]] = []
    for pairing in pairings:
        for builds, held in environments:
            if all(builds.get(dist, build) == build for dist, build in pairing.builds.items()):
                builds.update(pairing.builds)
                held.append(pairing)
                break
        else:
            environments.append((dict(pairing.builds), [pairing]))
    return environments


def nothing_to_test(
    pairing: Pairing, released: dict[str, list[Build]], folder_of: Callable[[Build], Path]
) -> str | None:
    """Why a pairing says nothing that was not said when its builds were released, or None."""
    new = [build for build in pairing.builds.values() if build.commit is None]
    if not pairing.builds or len(new) == len(pairing.builds):
        return "the pins allow no release"
    if all(unchanged(build, released[build.dist][-1], folder_of) for build in new):
        return f"{' and '.join(build.dist for build in new)} did not change since"
    return None


def unchanged(build: Build, last: Build, folder_of: Callable[[Build], Path]) -> bool:
    """Whether the working tree has the pins and the modules of the last release."""
    return build.pins == last.pins and modules(folder_of(build)) == modules(folder_of(last))


def modules(folder: Path) -> dict[Path, bytes]:
    """The modules of a distribution, by path."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("src/**/*.py")}


def table(tree: dict[str, Build], released: dict[str, list[Build]]) -> str:
    """Which version works with which, as a table in Markdown: the newest of each package first.

    Args:
      tree: each distribution as it is in the working tree.
      released: the releases of each, oldest first.
    """
    known = {dist: versions(tree[dist], released[dist]) for dist in tree}
    lines = ["| package | version | works with |", "|---|---|---|"]
    for dist, builds in known.items():
        for build in reversed(builds):
            label = f"{build.version}" if build.commit else f"{build.version}, not released"
            works = ", ".join(
                f"{name} {allowed(pin, known[name])}" for name, pin in build.pins.items()
            )
            lines.append(f"| {dist} | {label} | {works or 'nothing else needed'} |")
    return "\n".join(lines)


def versions(newest: Build, releases: list[Build]) -> list[Build]:
    """The releases of a distribution, and the working tree if its version is a new one."""
    new = newest.version not in [build.version for build in releases]
    return [*releases, newest] if new else releases


def allowed(pin: SpecifierSet, builds: list[Build]) -> str:
    """The pin, and the versions so far that it allows."""
    found = [str(build.version) for build in builds if pin.contains(build.version)]
    return f"{pin} ({', '.join(found) or 'none yet'})"
