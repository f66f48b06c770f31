"""Refuses to run beside the monolithic `datarax` distribution, which owns the same paths.

Imported first, for its effect, by the modules at the root of this package.
"""

import sys
from importlib.metadata import distributions

# A namespace has no file of its own, so an `__init__.py` here is another distribution's.
_intruder = getattr(sys.modules["datarax"], "__file__", None)

if _intruder is not None:
    _ours = {str(dist.name) for dist in distributions() if dist.name} | {"datarax-core"}
    _names = " ".join(sorted(name for name in _ours if name.startswith("datarax-")))
    raise ImportError(
        f"{_intruder} belongs to the monolithic distribution `datarax`, which cannot be installed "
        f"together with datarax-core because both own the package `datarax`; to keep the packages, "
        f"run: python -m pip uninstall -y datarax && "
        f"python -m pip install --force-reinstall --no-deps {_names}"
    )
