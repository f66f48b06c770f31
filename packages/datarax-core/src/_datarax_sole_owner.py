"""Refuses to work beside the monolithic `datarax` distribution, which owns the same paths.

Installed after datarax-core, the monolith replaces its modules, and none of them could tell. So
Python imports this when it starts, by `datarax_core.pth`; the modules of datarax-core import it
too, for where `.pth` files are not read.
"""

import sys


class SoleOwner:
    """A finder of modules that finds none, but lets `datarax` be nothing else than a namespace."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raises an ImportError if `datarax` is not the namespace that the packages share."""
        if name == "datarax":
            from importlib.machinery import PathFinder

            found = PathFinder.find_spec(name)
            require_namespace(found.origin if found else None)


def require_namespace(intruder: str | None) -> None:
    """Raises an ImportError if there is an `__init__.py`, which a namespace has none of."""
    if intruder is None:
        return
    from importlib.metadata import distributions

    ours = {str(dist.name) for dist in distributions() if dist.name} | {"datarax-core"}
    names = " ".join(sorted(name for name in ours if name.startswith("datarax-")))
    raise ImportError(
        f"{intruder} belongs to the monolithic distribution `datarax`, which cannot be installed "
        "together with datarax-core because both own the package `datarax`; to keep the packages, "
        "run: python -m pip uninstall -y datarax && "
        f"python -m pip install --force-reinstall --no-deps {names}"
    )


if "datarax" in sys.modules:
    require_namespace(getattr(sys.modules["datarax"], "__file__", None))
else:
    sys.meta_path.insert(0, SoleOwner)
