"""What the files of the repository say about each other stays true."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
NAMES = [package.name for package in PACKAGES]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = 'python -m pip install "nox[uv]" && python -m nox'

every_package = pytest.mark.parametrize("package", PACKAGES, ids=NAMES)


def test_ci_runs_the_command_of_the_readme():
    """The README's test command is, to the letter, what `.ci/run` runs last."""
    assert f"```console\n{COMMAND}\n```" in README
    last = (ROOT / ".ci/run").read_text(encoding="utf-8").strip().splitlines()[-1]
    assert last == COMMAND


@every_package
def test_readme_names_the_package(package):
    """The table of the README has a row for every package."""
    assert f"| [`{package.name}`](packages/{package.name}) |" in README


@every_package
def test_changelog_starts_with_the_version(package):
    """The newest entry is the version in `pyproject.toml`, or is unreleased and that comes next."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (package / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## \[(.*?)\]", changelog, flags=re.MULTILINE)
    assert project["name"] == package.name
    newest = Version(next(entry for entry in entries if entry != "Unreleased"))
    version = Version(project["version"])
    assert version == newest or (version > newest and entries[0] == "Unreleased")


@every_package
def test_package_carries_the_license(package):
    """An sdist cannot reach the root, so each package has its own copy of the license."""
    assert (package / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@every_package
def test_package_tests_run_under_the_same_settings(package):
    """All suites share one conftest: eight CPU devices and strict dtype promotion."""
    settings = (ROOT / "tests-integration/conftest.py").read_bytes()
    assert (package / "tests/conftest.py").read_bytes() == settings


@pytest.mark.parametrize("package", ["flax", "jax", "jaxtyping", "numpy", "orbax-checkpoint"])
def test_lowest_constraints_are_the_declared_floors(package):
    """`nox -s lowest` tests exactly the oldest versions that the packages declare."""
    constraints = (ROOT / "constraints/lowest.txt").read_text(encoding="utf-8")
    pinned = re.search(rf"^{package}==(.*)$", constraints, flags=re.MULTILINE)[1]
    floors = {
        floor
        for folder in PACKAGES
        for floor in re.findall(
            rf'"{package}>=([\d.]+)"', (folder / "pyproject.toml").read_text(encoding="utf-8")
        )
    }
    assert floors
    assert all(f"{pinned}.0".startswith(f"{floor}.") for floor in floors)


def workflow_steps():
    """Each step of each job of the workflows, with the matrix of its job."""
    for path in sorted(ROOT.glob(".github/workflows/*.yml")):
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            for step in job["steps"]:
                yield step, job.get("strategy", {}).get("matrix", {})


def test_workflows_run_nox_and_nothing_else():
    """What a code host runs can be run at home, by sessions that there are."""
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = set(re.findall(r"^def (\w+)\(session: nox.Session", noxfile, flags=re.MULTILINE))
    for step, matrix in workflow_steps():
        command = step.get("run", 'python -m pip install "nox[uv]"')
        for entry in matrix.get("include", [{}]):
            run = command.replace("${{ matrix.session }}", entry.get("session", ""))
            if not re.fullmatch(r'python3? -m pip install "nox\[uv\]"', run):
                names = re.fullmatch(r'python3? -m nox -s "?([^"]+?)"?( -- .*)?', run)[1]
                names = re.sub(r"\(.*?\)", "", names).split()
                assert {name.partition("-")[0] for name in names} <= sessions, run


def test_workflows_test_every_package():
    """The matrix of packages is that of the repository."""
    matrices = [matrix["dist"] for _, matrix in workflow_steps() if "dist" in matrix]
    assert matrices
    assert all(matrix == NAMES for matrix in matrices)


def test_the_project_of_somebody_else_allows_the_packages_of_the_tree():
    """Its pins are raised with those of the packages."""
    project = tomllib.loads(
        (ROOT / "tests-integration/downstream/pyproject.toml").read_text(encoding="utf-8")
    )["project"]
    for line in map(Requirement, project["dependencies"]):
        package = (ROOT / "packages" / line.name / "pyproject.toml").read_text(encoding="utf-8")
        assert line.specifier.contains(tomllib.loads(package)["project"]["version"]), line


def test_drawings_and_tables_of_how_it_works_name_files_that_there_are():
    """A file that is moved or renamed has to move there too."""
    texts = [
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("docs/figures/how_it_works.py", "docs/how-it-works.md")
    ]
    named = {name for text in texts for name in re.findall(r"[\w/-]*/\w+\.py", text)}
    paths = [
        path.as_posix()
        for folder in ("packages", "tests-integration", "tools", "benchmarks", "docs")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert len(named) > 20
    assert [
        name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in paths)
    ] == []
