"""One line about a batch or an element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from datarax.core import specs
from datarax.core._thumbnails import readable


def summary(value: Any, trees: Sequence[str]) -> str:
    """A line about a batch or an element: rows, how many are valid, shapes and dtypes.

    Args:
      value: the batch or element.
      trees: names of its pytrees, of which the first is always shown.
    """
    kind = type(value).__name__
    try:
        parts = []
        if (mask := getattr(value, "valid_mask", None)) is not None:
            parts.append(f"{value.batch_size} rows")
            if readable(mask):
                parts.append(f"{int(np.asarray(mask).sum())} valid")
        for name in trees:
            tree = getattr(value, name)
            if name == trees[0] or jax.tree.leaves(tree):
                parts.append(f"{name}={specs.spec_text(tree)}")
        epoch = getattr(value, "epoch", None)
        if isinstance(epoch, Tracer) or readable(epoch):
            parts.append(f"epoch={epoch}")
        if mask is None and value.metadata is not None:
            parts.append(f"metadata={value.metadata!r}")
        return f"{kind}({', '.join(parts)})"
    except (AttributeError, TypeError, IndexError):
        # JAX fills pytrees with placeholders that have no shape.
        return f"{kind}({', '.join(f'{name}={getattr(value, name)!r}' for name in trees)})"
