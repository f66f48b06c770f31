"""A progress bar over the batches of an epoch."""

from __future__ import annotations

from typing import Any


def require_tqdm() -> Any:
    """The module `tqdm.auto`.

    Raises:
      ImportError: if it is not installed, with the command that installs it.
    """
    try:
        from tqdm import auto
    except ImportError as error:
        raise ImportError(
            "progress=True needs tqdm; run python -m pip install 'datarax-pipeline[progress]'"
        ) from error
    return auto
