"""Specs: what records and batches look like, without their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax.tree_util import keystr, tree_leaves_with_path, tree_map_with_path

from datarax.core._batch_spec import leaf_spec
from datarax.core.element_batch import Batch, Element
from datarax.core.specs import spec_text


def record_spec(element: Element | Mapping[str, Any]) -> Any:
    """The spec of one record's data, as `batch_spec` takes it.

    Args:
      element: the record, an `Element` or a dict of fields.

    Returns:
      A pytree of `jax.ShapeDtypeStruct`s with the dtypes that batches have: Python numbers and
      64-bit arrays are narrowed as JAX does it.

    Raises:
      TypeError: for leaves that are not numbers.

    >>> record_spec(Element({"label": 3}))
    {'label': ShapeDtypeStruct(shape=(), dtype=int32)}
    """
    if not isinstance(element, Element | Mapping):
        raise TypeError(
            "element must be an Element or a dict of fields, got "
            f"{type(element).__name__}; wrap it: Element(data)"
        )
    data = element.data if isinstance(element, Element) else dict(element)
    return tree_map_with_path(lambda path, leaf: leaf_spec(f"data{keystr(path)}", leaf), data)


def check_batch(batch: Batch | Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    """Checks that a batch looks as its spec says.

    Args:
      batch: a `Batch` whose data is a dict, or what its `as_dict()` returned.
      spec: what `batch_spec` returned.

    Raises:
      TypeError: if `spec` is not a dict.
      ValueError: listing every difference in structure, shape or dtype by its path.

    >>> import numpy as np
    >>> from datarax.core.batcher import BatcherModule
    >>> from datarax.core.config import StructuralConfig
    >>> batch = Batch.from_arrays({"x": np.zeros((4, 3), np.float32)})
    >>> batcher = BatcherModule(StructuralConfig())
    >>> check_batch(batch, batcher.batch_spec(record_spec(batch.element(0)), batch_size=4))
    """
    if not isinstance(spec, Mapping):
        raise TypeError(f"spec must be a dict as batch_spec returns it, got {type(spec).__name__}")
    fields = batch.as_dict() if isinstance(batch, Batch) else dict(batch)
    actual = {keystr(path): leaf for path, leaf in tree_leaves_with_path(fields)}
    expected = {
        keystr(path): leaf_spec(f"spec{keystr(path)}", leaf)
        for path, leaf in tree_leaves_with_path(dict(spec))
    }
    differences = []
    for path in sorted(actual.keys() | expected.keys()):
        wanted = spec_text(expected[path]) if path in expected else "nothing"
        came = spec_text(actual[path]) if path in actual else "nothing"
        if wanted != came:
            differences.append(f"{path}: expected {wanted}, got {came}")
    structures = jax.tree.structure(dict(spec)), jax.tree.structure(fields)
    if not differences and structures[0] != structures[1]:
        differences.append(f"structure: expected {structures[0]}, got {structures[1]}")
    if differences:
        raise ValueError("batch does not fit its spec:\n  " + "\n  ".join(differences))
