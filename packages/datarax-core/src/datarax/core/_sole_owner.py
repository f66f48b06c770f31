"""Imported first where core begins: refuses to work on the files of the monolithic `datarax`."""

import datarax

# The packages share `datarax` as a namespace, which has no file. The monolith has an `__init__.py`.
if getattr(datarax, "__file__", None) is not None:
    raise ImportError(
        f"{datarax.__file__} belongs to the monolithic distribution `datarax`, which cannot be "
        "installed together with datarax-core because both own the package `datarax`; to keep the "
        "packages, run: python -m pip uninstall -y datarax && python -m pip install "
        "--force-reinstall --no-deps datarax-core (and each other datarax package that you use)"
    )
