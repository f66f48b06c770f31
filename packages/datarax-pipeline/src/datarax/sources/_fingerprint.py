"""What tells the records of a source from others, without reading all of them."""

from __future__ import annotations

import datetime
import decimal
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from datarax.core.specs import as_leaf

if TYPE_CHECKING:
    from datarax.core.element_batch import Element
    from datarax.sources._source import DataSourceModule


# What shows itself the same in every process.
_TEXTS = (str, bytes, datetime.date, datetime.time, datetime.timedelta, decimal.Decimal)
_NUMBERS = (type(None), bool, int, float, complex)


def hashed(arrays: Sequence[np.ndarray]) -> str:
    """A short hash of arrays, their shapes and dtypes."""
    found = hashlib.blake2b(digest_size=6)
    for array in arrays:
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def sampled(source: DataSourceModule[Any]) -> dict[str, str]:
    """The fields of the first record, and a hash of it, the middle and the last one.

    A text is empty if a record cannot be read; that of the content is too if a record differs from
    one time to the next, as where a data set itself makes draws.
    """
    if source.sequential or not len(source):
        return {"fields": "", "content": ""}
    numbers = sorted({0, len(source) // 2, len(source) - 1})
    try:
        once, again = (source.read_elements(np.asarray(numbers)) for _ in range(2))
        contents = [[_content(element) for element in elements] for elements in (once, again)]
        content = _hash_of("".join(contents[0])) if contents[0] == contents[1] else ""
        return {"fields": _fields(once[0]), "content": content}
    except Exception:
        # Whoever reads it for a batch is told what is wrong with it.
        return {"fields": "", "content": ""}


def _leaves(element: Element) -> tuple[list[str], list[np.ndarray]]:
    leaves, _ = tree_flatten_with_path(element.data)
    paths = [keystr(path, simple=True, separator=".") for path, _ in leaves]
    return paths, [_array(leaf) for _, leaf in leaves]


def _array(leaf: Any) -> np.ndarray:
    """A leaf as an array whose bytes are the same in every process.

    Of what a pipeline carries as metadata, texts and times count by what they say, other objects by
    their class alone: what they show of themselves may be their address.
    """
    if isinstance(leaf, _TEXTS):
        return np.asarray(_text(leaf))
    if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "OSUmM":
        if leaf.dtype.kind == "O":
            return np.asarray([_text(entry) for entry in np.ravel(leaf).tolist()], str)
        return np.asarray(leaf)
    try:
        array = as_leaf("leaf", leaf)
    except (TypeError, ValueError):
        return np.asarray(_text(leaf))
    return np.asarray(array if isinstance(array, np.ndarray) else _host(array))


def _text(value: Any) -> str:
    kind = type(value).__qualname__
    return f"{kind} {value!r}" if isinstance(value, _TEXTS + _NUMBERS) else kind


def _host(array: jax.Array) -> Any:
    is_key = jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(array) if is_key else array


def _content(element: Element) -> str:
    return hashed(_leaves(element)[1])


def _fields(element: Element) -> str:
    """Names, dtypes and ranks, which ragged records have in common; a hash where they are many."""
    paths, arrays = _leaves(element)
    text = ", ".join(
        f"{path} {_kind(array)} rank {array.ndim}"
        for path, array in zip(paths, arrays, strict=True)
    )
    return text if len(text) <= 400 else f"{len(paths)} fields, {_hash_of(text)}"


def _kind(array: np.ndarray) -> str:
    """The dtype; of texts, which differ in length, that they are texts."""
    return "text" if array.dtype.kind in "SU" else str(array.dtype)


def _hash_of(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
