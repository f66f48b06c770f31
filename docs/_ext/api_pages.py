"""API pages, one for each public module, made from the sources when the manual is built.

A module is public if its path has no underscore, and so is a name without one that the module
defines or exports (`from a import x as x`). `nox -s docs` compares what came out with Griffe's
opinion of what is public.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_origin

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
# Words of a guide that are also the names of functions are rarely meant as such.
LINKED_FUNCTIONS = ("datarax.batching",)
OTHER_FOLDERS = (
    "tests-integration",
    "tools",
    "benchmarks",
    "examples",
    "docs/figures",
    "docs/_ext",
)
NOTEBOOK_TITLE = "# %% [markdown]\n# # "
# Where each public name of a guide leads; filled when a build begins.
LINKS: dict[str, str] = {}


def public_modules() -> dict[str, dict[str, Path]]:
    """The public modules of each distribution and their files, by dotted name."""
    found: dict[str, dict[str, Path]] = {}
    for source in sorted(ROOT.glob("packages/*/src")):
        modules = found.setdefault(source.parent.name, {})
        for path in source.rglob("*.py"):
            parts = path.relative_to(source).with_suffix("").parts
            dotted = ".".join(parts).removesuffix(".__init__")
            if "._" not in dotted and public_names(path):
                modules[dotted] = path
    return {dist: dict(sorted(modules.items())) for dist, modules in found.items()}


def public_names(path: Path) -> list[str]:
    """What a module defines, in its own order, and then what it exports of private modules.

    What it exports of public ones is on their pages.
    """
    own: list[str] = []
    exported: list[str] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            own.append(node.name)
        elif isinstance(node, ast.Assign):
            own += [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            own.append(node.target.id)
        elif isinstance(node, ast.ImportFrom) and "._" in f"{node.module}":
            exported += [alias.name for alias in node.names if alias.asname == alias.name]
    names = dict.fromkeys([*own, *sorted(exported)])
    return [name for name in names if not name.startswith("_") and name != "logger"]


def documented(module: str, path: Path) -> dict[str, Any]:
    """The public names of a module that are more than type variables, with their values."""
    values = {name: getattr(importlib.import_module(module), name) for name in public_names(path)}
    return {name: value for name, value in values.items() if not isinstance(value, TypeVar)}


def directive(module: str, name: str, value: Any) -> str:
    """The autodoc directive of a name."""
    path = f"{module}.{name}"
    if inspect.isclass(value):
        bases = "   :show-inheritance:\n" if any(map(is_public, value.__bases__)) else ""
        return f".. autoclass:: {path}\n   :members:\n   :exclude-members: config_class\n{bases}"
    if inspect.isroutine(value):
        return f".. autofunction:: {path}\n"
    return f".. autodata:: {path}\n"


def is_public(base: type) -> bool:
    """Whether a base class says something to a reader: neither `object` nor private to us."""
    module = base.__module__
    return base is not object and not ("datarax" in module and "._" in module)


def page(module: str, names: dict[str, Any]) -> str:
    """The text of the page of a module."""
    title = module.replace(".", ".\u200b")
    body = "\n".join(directive(module, name, value) for name, value in names.items())
    return f"# {title}\n\n```{{eval-rst}}\n.. automodule:: {module}\n\n{body}```\n"


def index(names: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The text of the page that lists all modules and what is in them."""
    lines = [
        "# API\n",
        "Every public module, by the package that brings it. What has an underscore in its path",
        "is not here, and changes without notice.\n",
    ]
    for dist, modules in names.items():
        lines += [f"## {dist}\n", "| module | names |", "|---|---|"]
        for module, values in modules.items():
            linked = ", ".join(f"{{py:obj}}`{name} <{module}.{name}>`" for name in values)
            lines.append(f"| {{py:mod}}`{module}` | {linked} |")
        pages = "\n".join(f"{module.removeprefix('datarax.')} <{module}>" for module in modules)
        lines.append(f"\n```{{toctree}}\n:hidden:\n:maxdepth: 1\n\n{pages}\n```\n")
    lines.append("```{toctree}\n:hidden:\n\nfiles\n```\n")
    return "\n".join(lines)


def files() -> str:
    """The text of the page that says of every file what it is about, in its own first line."""
    lines = ["# Every file\n", "The first line of each Python file, public and private.\n"]
    for package in sorted(ROOT.glob("packages/*")):
        source = package / "src"
        lines.append(f"## {package.name}\n")
        for folder in sorted({path.parent for path in source.rglob("*.py")}):
            lines += table_of_files(f"### {folder.relative_to(source)}\n", folder)
        lines += table_of_files("### tests\n", package / "tests")
    for name in OTHER_FOLDERS:
        lines += table_of_files(f"## {name}\n", ROOT / name)
    return "\n".join(lines)


def table_of_files(title: str, folder: Path) -> list[str]:
    """The lines of a table of the Python files in a folder, below a title."""
    rows = [f"| `{path.name}` | {first_line(path)} |" for path in sorted(folder.glob("*.py"))]
    return [title, "| file | what it is |", "|---|---|", *rows, ""]


def first_line(path: Path) -> str:
    """The first line of a file's docstring, or its title if it is a notebook."""
    text = path.read_text(encoding="utf-8")
    is_notebook = text.startswith(NOTEBOOK_TITLE)
    about = text.removeprefix(NOTEBOOK_TITLE) if is_notebook else ast.get_docstring(ast.parse(text))
    return (about or "").partition("\n")[0].replace("|", "\\|")


def versions() -> str:
    """The table of the page of releases: which version works with which."""
    # From tools/, which only the repository has.
    sys.path.insert(0, str(ROOT / "tools"))
    compat, history = (importlib.import_module(name) for name in ("compat", "history"))
    return compat.table(history.working_tree(ROOT), history.released(ROOT)) + "\n"


def write_pages(app: Sphinx) -> None:
    """Writes the pages into `api/` beside the guides, and remembers what is public."""
    folder = Path(app.srcdir, "api")
    folder.mkdir(exist_ok=True)
    names = {
        dist: {module: documented(module, path) for module, path in modules.items()}
        for dist, modules in public_modules().items()
    }
    texts = {"index": index(names), "files": files(), "versions": versions()}
    for modules in names.values():
        texts |= {module: page(module, values) for module, values in modules.items()}
    for stale in folder.glob("*.md"):
        if stale.stem not in texts:
            stale.unlink()
    for name, text in texts.items():
        target = folder / f"{name}.md"
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
    LINKS.update(linkable(names))


def linkable(names: dict[str, dict[str, dict[str, Any]]]) -> Iterator[tuple[str, str]]:
    """Names that are links wherever a guide writes them as code, and where they lead."""
    for modules in names.values():
        for module, values in modules.items():
            yield module, module
            for name, value in values.items():
                is_word = name == name.lower() and module not in LINKED_FUNCTIONS
                if not is_word and not name.isupper() and callable(value):
                    yield name, f"{module}.{name}"


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """Makes links of the public names that a guide writes as code."""
    here = app.env.docname
    if here.startswith("api/"):
        return
    for literal in list(doctree.findall(nodes.literal)):
        path = LINKS.get(literal.astext())
        parents = (nodes.reference, nodes.title, pending_xref)
        if path is None or isinstance(literal.parent, parents):
            continue
        link = pending_xref(
            "", refdomain="py", reftype="obj", reftarget=path, refdoc=here, refexplicit=True
        )
        literal.replace_self(link)
        link += literal


def public_bases(_app: Sphinx, _name: str, _kind: type, _options: object, bases: list) -> None:
    """Leaves private classes out of "Bases:"."""
    bases[:] = [base for base in bases if is_public(get_origin(base) or base)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Hooks the steps into a build."""
    app.connect("builder-inited", write_pages)
    app.connect("doctree-read", link_names)
    app.connect("autodoc-process-bases", public_bases)
    return {"parallel_read_safe": True}
