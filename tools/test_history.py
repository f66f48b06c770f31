"""Releases are found by tag, by subject and by the table, and their sources by commit."""

import subprocess

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from history import Build, RefusedError, git, released, unpacked, working_tree

PINS = {"datarax-batching": "datarax-core~={0}.0"}


@pytest.fixture
def repository(tmp_path):
    """Two packages, released together as 0.1.0 before releases were commits of their own."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")

    def commit(subject, **versions):
        for name, version in versions.items():
            dist = f"datarax-{name}"
            pins = [PINS[dist].format(version.rpartition(".")[0])] if dist in PINS else []
            folder = tmp_path / "packages" / dist
            (folder / "src").mkdir(parents=True, exist_ok=True)
            (folder / "src" / "module.py").write_text(f"VERSION = {version!r}\n")
            project = f'[project]\nname = "{dist}"\nversion = "{version}"\ndependencies = {pins}\n'
            (folder / "pyproject.toml").write_text(project)
        git(tmp_path, "add", "--all")
        git(tmp_path, *identity, "commit", "--allow-empty", "--message", subject)
        return git(tmp_path, "rev-parse", "HEAD").strip()

    git(tmp_path, "init", "--quiet")
    first = commit("Begin", core="0.1.0", batching="0.1.0")
    table = f'[tool.releases.first]\n"0.1.0" = "{first}"\n'
    (tmp_path / "pyproject.toml").write_text(table)
    commit("Work on core", core="0.2.0")
    return tmp_path, commit


def test_releases_are_found_by_table_tag_and_subject(repository):
    """Each release has the version, the pins and the commit that it was made of, oldest first."""
    root, commit = repository
    second = commit("Release datarax-core 0.2.0")
    third = commit("Mend core", core="0.2.1")
    git(root, "tag", "datarax-core-v0.2.1")
    commit("Release datarax-core 0.3.0 of the documents", core="0.3.0")
    found = released(root)
    core = [(str(build.version), build.commit) for build in found["datarax-core"]]
    assert core[1:] == [("0.2.0", second), ("0.2.1", third)]
    (batching,) = found["datarax-batching"]
    assert batching.pins == {"datarax-core": SpecifierSet("~=0.1.0")}
    assert core[0] == ("0.1.0", batching.commit)
    assert working_tree(root)["datarax-core"] == Build("datarax-core", Version("0.3.0"), {})


def test_sources_of_a_release_are_those_of_its_commit(repository, tmp_path):
    """What was changed since does not reach the copy from which a release is built."""
    root, _ = repository
    first = released(root)["datarax-core"][0]
    old = unpacked(root, first, tmp_path / "build" / "releases")
    assert (old / "src/module.py").read_text() == "VERSION = '0.1.0'\n"
    now = unpacked(root, working_tree(root)["datarax-core"], tmp_path / "build")
    assert (now / "src/module.py").read_text() == "VERSION = '0.2.0'\n"


def test_a_shallow_clone_is_told_to_fetch_the_history(repository, tmp_path):
    """Without the commits of the releases nothing is compared, and the remedy is named."""
    root, _ = repository
    command = ["git", "clone", "--quiet", "--depth=1", root.as_uri(), str(tmp_path / "shallow")]
    subprocess.run(command, check=True)
    (tmp_path / "shallow" / "pyproject.toml").write_text((root / "pyproject.toml").read_text())
    with pytest.raises(RefusedError, match=r"lacks commit .* run `git fetch --unshallow --tags`"):
        released(tmp_path / "shallow")
