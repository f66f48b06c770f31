"""The checks of this project: `python -m nox`."""

import nox

nox.options.default_venv_backend = "uv|virtualenv"


@nox.session
def tests(session: nox.Session) -> None:
    """The tests, on the wheel and on what it depends on."""
    project = nox.project.load_toml("pyproject.toml")
    session.install(".", *nox.project.dependency_groups(project, "test"))
    session.run("pytest", *session.posargs)
