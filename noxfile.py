"""Everything that CI runs: `python -m nox`. One session: `python -m nox -s lint`.

The editing loop of one package: `python -m nox -s "unit(datarax-core)" -- -k mask -x`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import nox

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tools"))

from compat import merged, nothing_to_test, pairings
from history import Build, RefusedError, git, released, unpacked, working_tree
from releases import least_version, planned, tagged_dist, write
from wheel_checks import problems

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"
# With NOX_PARALLEL=auto, as in `.ci/run`, each core runs a session, and what a session prints comes
# when it ends. A nox from before October 2026 runs them one after the other.
RUNS_IN_PARALLEL = hasattr(nox.Session, "parallel")
if RUNS_IN_PARALLEL:
    nox.options.allow_parallel = True
ON_ITS_OWN = {"allow_parallel": False} if RUNS_IN_PARALLEL else {}

# pyenv has its interpreters outside PATH until one is chosen; `integration` wants them all.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, PYENV.glob("versions/*/bin"))])
# Where Python may not keep its bytecode, every process compiles all of JAX again, for 3 s.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

DIST = ROOT / "dist"
BUILD = ROOT / "build"
TOOLS = nox.project.load_toml(ROOT / "pyproject.toml")
PROJECTS = {
    project["name"]: project | {"folder": path.parent}
    for path in sorted(ROOT.glob("packages/*/pyproject.toml"))
    for project in [nox.project.load_toml(path)["project"]]
}
ACCELERATORS = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/accel0")
INTEGRATION = ("tests-integration", "README.md", "docs")
# Of the integration tests, those that depend most on the versions of Python, JAX and Flax.
ANY_VERSION = (
    "tests-integration/test_documented_names.py",
    "tests-integration/test_training_loop.py",
)
# What trains models or starts processes runs once, on the interpreter of most machines.
ONCE = (
    "tests-integration/test_batching_recipes.py",
    "tests-integration/test_examples.py",
    "tests-integration/test_foreign_sources.py",
    "tests-integration/test_notebook.py",
    "tests-integration/test_patch_dropout_vit.py",
    "tests-integration/test_resume_schedules.py",
    "tests-integration/test_tutorial.py",
)
# What `lowest` runs of the packages' own tests: where most of JAX, Flax and Orbax is called. The
# others hold our own arithmetic, which is the same on every version.
ANY_VERSION_UNIT = (
    "packages/datarax-core/tests/test_calls.py",
    "packages/datarax-core/tests/test_checkpoint_parts.py",
    "packages/datarax-core/tests/test_dispatch.py",
    "packages/datarax-core/tests/test_element_batch.py",
    "packages/datarax-core/tests/test_explicit_axes.py",
    "packages/datarax-core/tests/test_module.py",
    "packages/datarax-core/tests/test_recycling.py",
    "packages/datarax-core/tests/test_state.py",
    "packages/datarax-core/tests/test_threefry.py",
    "packages/datarax-batching/tests/test_batch_padding.py",
    "packages/datarax-batching/tests/test_default_batcher.py",
    "packages/datarax-batching/tests/test_masked_reductions.py",
    "packages/datarax-ops-batch/tests/test_mix_labels.py",
    "packages/datarax-ops-batch/tests/test_mix_recycling.py",
    "packages/datarax-ops-image/tests/test_modality.py",
    "packages/datarax-ops-image/tests/test_patch_dropout_random.py",
    "packages/datarax-pipeline/tests/test_pipeline.py",
    "packages/datarax-pipeline/tests/test_pipeline_state.py",
)
# Bits that must not depend on what XLA fuses: compiled once more as users compile.
AS_USERS_COMPILE = (
    "packages/datarax-ops-batch/tests/test_mix_randomness.py::test_compiled_and_uncompiled_calls_agree",
    "packages/datarax-ops-batch/tests/test_mix_records.py"
    "::test_draws_are_those_of_the_record_whatever_its_batch",
    "packages/datarax-ops-image/tests/test_patch_dropout.py"
    "::test_strategies_and_transformations_agree_to_the_bit",
    "packages/datarax-core/tests/test_statistics.py::test_ten_million_values_agree_with_float64",
)
# Most of the time goes into compiling, half of that into how XLA writes the code of fusions; JAX
# 0.10, the last for Python 3.11, has the quicker way of before, and later ones end at the flag.
QUICK_FUSIONS = "--xla_cpu_use_fusion_emitters=false"
OFFERS_QUICK_FUSIONS = sys.version_info < (3, 12)
UNIT_COMPILES = {"XLA_FLAGS": QUICK_FUSIONS if OFFERS_QUICK_FUSIONS else ""}
QUICK_COMPILES = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
# What one session compiles, the next one with the same JAX and options need not compile again.
COMPILED_BEFORE = {
    "JAX_COMPILATION_CACHE_DIR": str(BUILD / "compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
NO_SOURCE_TREE = {"PYTHONPATH": None}
# The schema of each kind of file that a code host reads.
HOSTED = {
    "vendor.citation-file-format": "CITATION.cff",
    "vendor.github-issue-forms": ".github/ISSUE_TEMPLATE/*.yml",
    "vendor.github-workflows": ".github/workflows/*.yml",
}


def group(name: str) -> list[str]:
    """The requirements of a dependency group of the root `pyproject.toml`."""
    return list(nox.project.dependency_groups(TOOLS, name))


def wheel(dist: str) -> Path:
    """The wheel that the build session made of a distribution."""
    return DIST / f"{dist.replace('-', '_')}-{PROJECTS[dist]['version']}-py3-none-any.whl"


def with_siblings(dists: list[str]) -> list[str]:
    """The distributions and those of this repository that they depend on, directly or not."""
    found = dict.fromkeys(dists)
    for dist in dists:
        names = [re.match(r"[\w.-]+", line)[0] for line in PROJECTS[dist]["dependencies"]]
        found |= dict.fromkeys(with_siblings([name for name in names if name in PROJECTS]))
    return list(found)


def install(
    session: nox.Session,
    dists: list[str],
    extras: str,
    *others: str,
    wheels: dict[str, Path] | None = None,
) -> None:
    """Install wheels, by default from `dist/`, those of their siblings, and other requirements.

    A reused environment holds a wheel of the same version, so it is replaced explicitly.
    """
    wheels = wheels or {dist: wheel(dist) for dist in with_siblings(dists)}
    known = {extra for dist in dists for extra in PROJECTS[dist]["optional-dependencies"]}
    chosen = [extra for extra in extras.split(",") if extra in known]
    wanted = [
        f"{dist}[{','.join(chosen if dist in dists else [])}] @ {path.as_uri()}"
        for dist, path in wheels.items()
    ]
    if session.venv_backend == "uv":
        session.install(*(f"--reinstall-package={dist}" for dist in wheels), *wanted, *others)
    else:
        session.install("--force-reinstall", "--no-deps", *map(str, wheels.values()))
        session.install(*wanted, *others)


def build_all(
    session: nox.Session, python: str = "python", env: dict[str, str] | None = None
) -> None:
    """Build and check the wheel and the sdist of every package."""
    shutil.rmtree(DIST, ignore_errors=True)
    for project in PROJECTS.values():
        with session.chdir(project["folder"]):
            command = [python, "-m", "hatchling", "build", "-d", str(DIST)]
            session.run(*command, silent=True, external=env is not None, env=env)
    found = problems({dist: wheel(dist) for dist in PROJECTS})
    if found:
        session.error("\n".join(found))
    session.log(f"{len(PROJECTS)} wheels that can be installed together")


@nox.session
def build(session: nox.Session) -> None:
    """Wheels and sdists in dist/, and what must hold of them together."""
    session.install(*group("build"))
    build_all(session)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format; what a code host reads, against its schemas."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    for schema, pattern in HOSTED.items():
        files = map(str, sorted(ROOT.glob(pattern)))
        session.run("check-jsonschema", "--builtin-schema", schema, *files, silent=True)
    # It knows more than the schema, but no wheel has it.
    if shutil.which("actionlint"):
        session.run("actionlint", external=True)


@nox.session
def tools(session: nox.Session) -> None:
    """The tests of what this file uses from tools/."""
    session.install(*group("tools"))
    session.run("pytest", "tools", "--noconftest", *session.posargs, env=NO_SOURCE_TREE)


def run_tests(session: nox.Session, *targets: str, **env: str) -> None:
    """Pytest on all cores, a file to a core.

    On one, and so with --pdb, where options are given; on one, too, beside other sessions.
    """
    all_cores = [] if RUNS_IN_PARALLEL and session.parallel else ["-n", "logical"]
    options = session.posargs or [*all_cores, "--dist", "loadfile"]
    # What another process is still writing cannot be read, and is compiled again.
    options = ["-W", "ignore:Error reading persistent compilation cache", *options]
    session.run("pytest", *targets, *options, env=NO_SOURCE_TREE | env)


def installed_modules(session: nox.Session, dist: str) -> list[str]:
    """The installed files of a distribution that are Python modules."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(session.run("python", "-c", where, silent=True, env=NO_SOURCE_TREE).strip())
    names = zipfile.ZipFile(wheel(dist)).namelist()
    return [str(site / name) for name in names if name.endswith(".py")]


@nox.session(requires=["build"])
@nox.parametrize("dist", [nox.param(dist, id=dist) for dist in PROJECTS])
def unit(session: nox.Session, dist: str) -> None:
    """One package alone, from its wheel: tests, docstrings, README and CHANGELOG."""
    install(session, [dist], "test", *group("unit"))
    folder = PROJECTS[dist]["folder"].relative_to(ROOT)
    documents = [str(folder / name) for name in ("README.md", "CHANGELOG.md")]
    modules = Path(session.create_tmp()) / "modules.txt"
    modules.write_text("\n".join(installed_modules(session, dist)), encoding="utf-8")
    targets = [str(folder / "tests"), *documents, "--doctest-modules", f"@{modules}"]
    run_tests(session, *targets, **COMPILED_BEFORE, **UNIT_COMPILES)


@nox.session(default=False, requires=["build"])
def pillow(session: nox.Session) -> None:
    """The image functions against Pillow itself, on 10⁷ values each."""
    install(session, ["datarax-ops-image"], "test", *group("pillow"))
    folder = PROJECTS["datarax-ops-image"]["folder"] / "tests-pillow"
    # It takes minutes, so each function is named as soon as it is done.
    run_tests(session, str(folder.relative_to(ROOT)), "-v", PYTHONPATH=str(folder))


@nox.session(default=False, requires=["build"])
def peers(session: nox.Session) -> None:
    """What docs/coming-from.md says about other libraries, asked of these libraries."""
    install(session, ["datarax-ops-image"], "test", *group("peers"))
    folder = PROJECTS["datarax-ops-image"]["folder"] / "tests-peers"
    env = NO_SOURCE_TREE | {"KERAS_BACKEND": "jax", "NO_ALBUMENTATIONS_UPDATE": "1"}
    # Their warnings are theirs.
    options = session.posargs or ["-v", "-W", "ignore"]
    session.run("pytest", str(folder.relative_to(ROOT)), *options, env=env)


@nox.session(python=["3.11", "3.12", "3.13"], requires=["build"])
def integration(session: nox.Session) -> None:
    """All packages together on the CPU, on each interpreter that is present."""
    if session.python == "3.11":
        install(session, list(PROJECTS), "test", *group("integration"))
        run_tests(session, *INTEGRATION, **UNIT_COMPILES, **COMPILED_BEFORE)
        if not session.posargs:
            run_tests(session, *AS_USERS_COMPILE, **COMPILED_BEFORE)
        return
    install(session, list(PROJECTS), "test", *group("unit"))
    # From 3.12 on, all interpreters resolve the same versions of what we depend on.
    targets = ["tests-integration"] if session.python == "3.12" else ANY_VERSION
    left_out = [f"--ignore={path}" for path in ONCE]
    run_tests(session, *targets, *left_out, **QUICK_COMPILES, **COMPILED_BEFORE)


@nox.session(requires=["build"])
def lowest(session: nox.Session) -> None:
    """All packages, alone and in a training run, on the oldest versions that they declare."""
    oldest = ["-c", "constraints/lowest.txt"]
    install(session, list(PROJECTS), "test", *group("unit"), *oldest)
    # Breadth: what differs between versions differs in the first case of a test.
    flags = f"{QUICK_COMPILES['XLA_FLAGS']} {QUICK_FUSIONS}"
    env = {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT / "tools")}
    run_tests(session, *ANY_VERSION_UNIT, *ANY_VERSION, "-p", "first_cases", **env)


@nox.session(default=False, requires=["build"])
def thorough(session: nox.Session) -> None:
    """All tests with all their cases, compiled as users compile: for an hour before a release."""
    install(session, list(PROJECTS), "test", *group("integration"), *group("configs"))
    packages = [str(project["folder"] / "tests") for project in PROJECTS.values()]
    run_tests(session, *packages, *INTEGRATION, "-m", "")


def python_with_jax() -> str | None:
    """The first interpreter, of the one that runs nox and those on PATH, that has JAX and Flax."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    others = (shutil.which("python3", path=folder) for folder in folders)
    probe = "import importlib.util as u; exit(not (u.find_spec('jax') and u.find_spec('flax')))"
    for python in dict.fromkeys([sys.executable, *filter(None, others)]):
        if subprocess.run([python, "-c", probe], capture_output=True, check=False).returncode == 0:
            return python
    return None


# It builds all wheels anew, which others install.
@nox.session(venv_backend="none", **ON_ITS_OWN)
def integration_gpu(session: nox.Session) -> None:
    """The integration tests on an accelerator, with the machine's own JAX."""
    if not shutil.which("nvidia-smi") and not any(map(os.path.exists, ACCELERATORS)):
        session.skip("this machine shows no accelerator")
    python = python_with_jax()
    if python is None:
        session.skip("there is an accelerator, but no Python on PATH has JAX and Flax")
    # A folder on PYTHONPATH rather than an environment: the machine's Python may itself be
    # an environment, and another one on top of it would not see its packages.
    site = BUILD / "gpu"
    shutil.rmtree(site, ignore_errors=True)
    env = {"PYTHONPATH": str(site)}
    pip = [python, "-m", "pip", "install", "--target", str(site)]
    tools = ["hatchling", "hypothesis", "pytest", "sybil"]
    probe = f"import importlib.util as u; print(*(n for n in {tools} if not u.find_spec(n)))"
    missing = session.run(python, "-c", probe, external=True, silent=True).split()
    if missing:
        session.run(*pip, *missing, external=True)
    build_all(session, python, env)
    wheels = [str(wheel(dist)) for dist in PROJECTS]
    session.run(*pip, "--no-deps", *wheels, external=True)
    backend = "import jax; print(jax.default_backend())"
    if session.run(python, "-c", backend, external=True, env=env, silent=True).split()[-1] == "cpu":
        session.error("this machine shows an accelerator, but its JAX runs on the CPU")
    test = [python, "-m", "pytest", *INTEGRATION, *session.posargs]
    session.run(*test, external=True, env=env)


@nox.session(venv_backend="none", requires=["build"])
def downstream(session: nox.Session) -> None:
    """The project of somebody else, by its own nox file, with our wheels in place of an index."""
    copy = BUILD / "downstream"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / "tests-integration/downstream", copy)
    # uv would take a wheel of the same version from its cache.
    uv = f"find-links = ['{DIST}']\nreinstall-package = {list(PROJECTS)}\n"
    (copy / "uv.toml").write_text(uv, encoding="utf-8")
    env = NO_SOURCE_TREE | QUICK_COMPILES | {"PIP_FIND_LINKS": str(DIST)}
    with session.chdir(copy):
        session.run(sys.executable, "-m", "nox", *session.posargs, external=True, env=env)


@nox.session(requires=["build"])
def typecheck(session: nox.Session) -> None:
    """Basedpyright on all wheels merged into one folder, as users have them."""
    install(session, list(PROJECTS), "test", *group("typecheck"))
    merged = BUILD / "typecheck"
    shutil.rmtree(merged, ignore_errors=True)
    wheels = [str(wheel(dist)) for dist in PROJECTS]
    session.install("--target", str(merged), "--no-deps", *wheels)
    session.run("basedpyright")


@nox.session(requires=["build"])
def docs(session: nox.Session) -> None:
    """The documentation in build/docs, warnings as errors, with every public name in it."""
    install(session, list(PROJECTS), "progress", *group("docs"))
    strict = ["-E", "-n", "-W", "--keep-going", "-j", "auto"]
    session.run("sphinx-build", *strict, "docs", "build/docs", env=NO_SOURCE_TREE)
    sources = [str(project["folder"] / "src") for project in PROJECTS.values()]
    session.run("python", "tools/documented.py", "build/docs/objects.inv", *sources)
    session.log(f"open {BUILD / 'docs' / 'index.html'}")


# `integration-3.11` runs the same script for fewer epochs.
@nox.session(default=False, requires=["build"])
def demo(session: nox.Session) -> None:
    """The MixUp and CutMix tutorial; its figures go to build/demo."""
    extras = "progress,tfds" if "--tfds-dir" in " ".join(session.posargs) else "progress"
    install(session, list(PROJECTS), extras, *group("demo"))
    figures = BUILD / "demo"
    figures.mkdir(parents=True, exist_ok=True)
    script = ["examples/mixup_cutmix_tutorial.py", "--output-dir", str(figures)]
    session.run("python", *script, *session.posargs, env=NO_SOURCE_TREE | COMPILED_BEFORE)
    session.log(f"the figures are in {figures}:")
    for figure in sorted(figures.glob("*.png")):
        session.log(f"  {figure.name}")


@nox.session(default=False, requires=["build"])
def notebooks(session: nox.Session) -> None:
    """The examples, or those that are named, run as notebooks, as pages of the manual: minutes."""
    install(session, list(PROJECTS), "progress", *group("integration"))
    examples = session.posargs or sorted(map(str, ROOT.glob("examples/*.py")))
    session.run("python", "tools/notebooks.py", *examples, env=NO_SOURCE_TREE)


@contextmanager
def refusals(session: nox.Session) -> Iterator[None]:
    """Ends the session with the reason for which something is refused."""
    try:
        yield
    except RefusedError as reason:
        session.error(str(reason))


def folder_of(build: Build) -> Path:
    """The folder of a distribution, in the working tree or as a release had it."""
    return unpacked(ROOT, build, BUILD / "releases")


def wheel_of(session: nox.Session, build: Build) -> Path:
    """The wheel that the build session made, or one built of the commit of a release."""
    if build.commit is None:
        return wheel(build.dist)
    with session.chdir(folder_of(build)):
        session.run("python", "-m", "hatchling", "build", "-t", "wheel", silent=True)
    return next(folder_of(build).glob("dist/*.whl"))


@nox.session(requires=["build"])
def compat(session: nox.Session) -> None:
    """The newest packages with the oldest siblings, and the oldest dependants with the newest."""
    session.install(*group("build"))
    wanted = []
    with refusals(session):
        releases = released(ROOT)
        for pairing in pairings(working_tree(ROOT), releases):
            why = nothing_to_test(pairing, releases, folder_of)
            session.log(f"{pairing.question}: {f'nothing to test, {why}' if why else 'to test'}")
            wanted += [] if why else [pairing]
    for builds, held in merged(wanted):
        session.log(f"together: {', '.join(map(str, builds.values()))}")
        wheels = {dist: wheel_of(session, build) for dist, build in builds.items()}
        install(session, list(builds), "test", *group("unit"), wheels=wheels)
        tests = {str(folder_of(builds[pairing.tested]) / "tests") for pairing in held}
        options = ["-c", "pyproject.toml", "-p", "first_cases", "--maxfail=10"]
        env = COMPILED_BEFORE | UNIT_COMPILES | {"PYTHONPATH": str(ROOT / "tools")}
        run_tests(session, *sorted(tests), *options, **env)


def breakages(session: nox.Session, build: Build, last: Build) -> list[str]:
    """What is gone or changed in public names and signatures since a release, a line each."""
    folders = [str(folder_of(side) / "src") for side in (last, build)]
    said = session.run("python", "tools/api.py", *folders, silent=True, success_codes=[0, 1])
    return said.splitlines()


@nox.session
def api(session: nox.Session) -> None:
    """Public names and signatures against the last release: a break demands a minor version."""
    session.install(*group("api"))
    complaints = []
    with refusals(session):
        releases = released(ROOT)
        for dist, build in working_tree(ROOT).items():
            last = releases[dist][-1]
            broken = breakages(session, build, last)
            session.log(f"{build} against {last}: {len(broken)} names or signatures broken")
            least = least_version(last, bool(broken))
            if build.version < least:
                complaints += [*broken, f"So the version of {dist} must be {least} or higher."]
    if complaints:
        session.error("\n".join(complaints))


@nox.session(default=False, requires=["build"])
def tagged(session: nox.Session) -> None:
    """What a tag releases, checked and tested, in build/release: `-- datarax-core-v0.2.0`."""
    session.install("twine>=6")
    with refusals(session):
        dist = tagged_dist(" ".join(session.posargs), working_tree(ROOT))
    folder = BUILD / "release"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in DIST.glob(f"{wheel(dist).name.split('-py3')[0]}*"):
        shutil.copy(path, folder)
    session.run("twine", "check", "--strict", *map(str, folder.iterdir()))
    session.notify(f"unit({dist})", posargs=[])


@nox.session(default=False, requires=["build"])
def resume(session: nox.Session) -> None:
    """Two hundred random schedules of kill and resume over 1, 2 and 4 processes."""
    install(session, list(PROJECTS), "test", *group("integration"))
    env = COMPILED_BEFORE | {"SCHEDULES": "200"}
    test = ["pytest", "-s", "tests-integration/test_resume_schedules.py", *session.posargs]
    session.run(*test, env=NO_SOURCE_TREE | env)


# What others depend on comes first, so that `nox -s release -- minor` releases all packages.
@nox.session(default=False)
@nox.parametrize(
    "dist",
    [nox.param(dist, id=dist) for dist in sorted(PROJECTS, key=lambda d: len(with_siblings([d])))],
)
def release(session: nox.Session, dist: str) -> None:
    """Date the changelog, set the version, build, commit and tag: `-- minor` or `-- patch`."""
    session.install(*group("build"), *group("api"))
    with refusals(session):
        if git(ROOT, "status", "--porcelain"):
            raise RefusedError("the working tree has changes: commit or stash them first")
        tree, releases = working_tree(ROOT), released(ROOT)
        broken = breakages(session, tree[dist], releases[dist][-1])
        version = planned(dist, " ".join(session.posargs), tree, releases, broken)
        folder = PROJECTS[dist]["folder"]
        write(folder, version, f"{datetime.now(UTC):%Y-%m-%d}")
        with session.chdir(folder):
            session.run("python", "-m", "hatchling", "build", "-d", str(DIST), silent=True)
        git(ROOT, "commit", "--all", "--message", f"Release {dist} {version}")
        git(ROOT, "tag", "--annotate", f"{dist}-v{version}", "--message", f"{dist} {version}")
    session.log(f"{dist} {version} is in dist/; publish it with git push --follow-tags")
