"""The five distributions, installed from their wheels, form one `datarax` namespace."""

import ast
import importlib
import re
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

SIBLINGS = {
    "datarax-core": set(),
    "datarax-batching": {"datarax-core"},
    "datarax-ops-batch": {"datarax-core"},
    "datarax-ops-image": {"datarax-core"},
    "datarax-pipeline": {"datarax-batching", "datarax-core"},
}
DOCUMENTED = {
    "datarax.batching": "datarax-batching",
    "datarax.core.batcher": "datarax-batching",
    "datarax.core.checkpoint": "datarax-core",
    "datarax.core.config": "datarax-core",
    "datarax.core.element_batch": "datarax-core",
    "datarax.core.modality": "datarax-ops-image",
    "datarax.core.module": "datarax-core",
    "datarax.core.operator": "datarax-core",
    "datarax.core.statistics": "datarax-core",
    "datarax.core.structural": "datarax-core",
    "datarax.operators": "datarax-core",
    "datarax.operators.batch_mix_operator": "datarax-ops-batch",
    "datarax.operators.composite_operator": "datarax-core",
    "datarax.operators.element_operator": "datarax-core",
    "datarax.operators.map_operator": "datarax-core",
    "datarax.operators.modality.image.patch_dropout_operator": "datarax-ops-image",
    "datarax.operators.multi_modal_operator": "datarax-core",
    "datarax.operators.probabilistic_operator": "datarax-core",
    "datarax.operators.repeat_operator": "datarax-core",
    "datarax.operators.selector_operator": "datarax-core",
    "datarax.pipeline": "datarax-pipeline",
    "datarax.sources": "datarax-pipeline",
}
# A documented name that core resolves lazily, because its class belongs to another package.
LENT_NAMES = {("datarax-core", "datarax.operators.batch_mix_operator")}


def modules(name):
    """The modules of an installed distribution and their files, by dotted name."""
    files = [file for file in distribution(name).files if file.suffix == ".py"]
    dotted = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files]
    return dict(zip(dotted, (Path(file.locate()) for file in files), strict=True))


def imported(path):
    """The absolute names that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def requirements(name):
    """What an installed distribution asks for, extras included."""
    return [Requirement(line) for line in distribution(name).requires]


@pytest.mark.parametrize("module", DOCUMENTED)
def test_documented_module_comes_from_its_distribution(module):
    """Every documented path imports, from the file of the distribution that owns it."""
    path = modules(DOCUMENTED[module])[module]
    assert Path(importlib.import_module(module).__file__).samefile(path)


@pytest.mark.parametrize("level", ["datarax", "datarax.core", "datarax.operators.modality"])
def test_shared_level_is_a_namespace(level):
    """No distribution puts an `__init__.py` where all of them have modules."""
    assert getattr(importlib.import_module(level), "__file__", None) is None


def test_no_file_has_two_owners():
    """No two distributions install the same file, or removing one would break the other."""
    files = [file for name in SIBLINGS for file in distribution(name).files]
    assert len(files) == len({str(file) for file in files})


@pytest.mark.parametrize("name", SIBLINGS)
def test_siblings_are_pinned_compatibly(name):
    """A package depends on the siblings that the arrows allow, pinned to a compatible release."""
    runtime = [line for line in requirements(name) if not line.marker]
    pins = {line.name: line.specifier for line in runtime if line.name.startswith("datarax")}
    assert set(pins) == SIBLINGS[name]
    assert all(str(pin).startswith("~=") for pin in pins.values())
    assert all(pin.contains(distribution(sibling).version) for sibling, pin in pins.items())


@pytest.mark.parametrize("name", SIBLINGS)
def test_imports_follow_the_arrows(name):
    """No module imports a sibling that its distribution does not depend on."""
    owners = {module: owner for owner in SIBLINGS for module in modules(owner)}
    allowed = SIBLINGS[name] | {name}
    for path in modules(name).values():
        for target in imported(path):
            owner = owners.get(target, name)
            assert owner in allowed or (name, target) in LENT_NAMES, f"{path} imports {target}"


@pytest.mark.parametrize("name", SIBLINGS)
def test_imports_are_declared(name):
    """What a package imports is the standard library or among its own requirements."""
    declared = {re.sub(r"[-_.]+", "-", line.name).lower() for line in requirements(name)} | {name}
    owners = packages_distributions()
    for path in modules(name).values():
        for target in {target.partition(".")[0] for target in imported(path)}:
            if target in sys.stdlib_module_names or target == "datarax":
                continue
            found = {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners.get(target, [])}
            assert not found or found & declared, f"{path} imports {target}"


def site_with_intruder(folder, later):
    """A folder with core's files and a monolith's, whichever is `later` over the other."""
    core = {
        file: Path(file.locate()).read_text(encoding="utf-8")
        for file in distribution("datarax-core").files
        if file.suffix == ".py"
    }
    owned = ("__init__", "core/__init__", "core/config", "core/element_batch", "operators/__init__")
    monolith = {Path(f"datarax/{name}.py"): "" for name in owned}
    monolith[Path("datarax/__init__.py")] = "import datarax.core.config"
    installs = [core, monolith] if later == "monolith" else [monolith, core]
    for files in installs:
        for file, text in files.items():
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    return folder


def message_of(module, site):
    """The last line on standard error of an import from this folder; one traceback, or none."""
    packages = [path for path in sys.path if path.endswith("-packages")]
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import {module}"],
        env={"JAX_PLATFORMS": "cpu", "PYTHONPATH": ":".join([str(site), *packages])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.count("Traceback") <= 1
    return done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize(
    ("later", "module"),
    [
        ("core", "datarax"),
        ("core", "datarax.operators"),
        ("monolith", "datarax.core.statistics"),
    ],
)
def test_core_refuses_to_work_beside_the_monolith(tmp_path, later, module):
    """A module of core that is reached says what conflicts and how to repair it."""
    site = site_with_intruder(tmp_path, later)
    message = message_of(module, site)
    assert message.startswith(f"ImportError: {site}/datarax/__init__.py belongs to the monolithic")
    assert "python -m pip uninstall -y datarax && python -m pip install --force-reinst" in message
    assert "cannot be installed together" in message


def test_a_monolith_installed_later_is_not_seen_by_what_it_replaced(tmp_path):
    """As the READMEs say, nothing of core runs in an import of a module that core lost."""
    assert message_of("datarax.core.config", site_with_intruder(tmp_path, "monolith")) == ""


def test_without_a_monolith_nothing_is_refused(tmp_path):
    """The check leaves a healthy installation alone."""
    site = site_with_intruder(tmp_path, "core")
    (site / "datarax" / "__init__.py").unlink()
    (site / "datarax" / "core" / "__init__.py").unlink()
    assert message_of("datarax.core.statistics", site) == ""
