"""What the records of a stream have in common, and their arrays side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import jax
from jax.tree_util import keystr, tree_flatten_with_path

from datarax.batching._errors import WrongRecordError
from datarax.core._batch_spec import canonical_dtype, leaf_spec
from datarax.core.specs import as_leaf, spec_text

Column = Sequence[Any]


class Layout:
    """The structure, shapes and dtypes that all records share.

    Args:
      name: what of a record it describes, "data" or "state".
      tree: that part of the first record.
      number: the record's number in the stream.

    Raises:
      TypeError: for leaves that are not numbers.
      ValueError: for an integer that does not fit its type.
    """

    def __init__(self, name: str, tree: Any, number: int) -> None:
        self.name, self.number = name, number
        leaves, self.structure = tree_flatten_with_path(tree)
        self.paths = [name + keystr(path) for path, _ in leaves]
        self.specs = [
            leaf_spec(f"{path} of record {number}", leaf)
            for path, (_, leaf) in zip(self.paths, leaves, strict=True)
        ]
        self._gather = _gatherer(tree)

    def columns(self, trees: Column) -> list[Column] | None:
        """For each leaf, that of every tree; None if their nodes are not plainly alike."""
        columns: list[Column] = []
        return columns if self._gather(trees, columns) else None

    def checked_columns(self, trees: Column, numbers: Sequence[int]) -> list[list[Any]]:
        """The same for any kind of node, with every record checked and every leaf an array.

        Args:
          trees: that part of each record.
          numbers: their numbers in the stream.

        Raises:
          WrongRecordError: for the first record that differs in structure, shape or dtype, has
            leaves that are not numbers, or numbers that do not fit.
        """
        columns: list[list[Any]] = [[] for _ in self.specs]
        for position, (tree, number) in enumerate(zip(trees, numbers, strict=True)):
            try:
                leaves = self._checked_leaves(tree, number)
            except (TypeError, ValueError) as error:
                raise WrongRecordError(position, error) from error
            for column, leaf in zip(columns, leaves, strict=True):
                column.append(leaf)
        return columns

    def _checked_leaves(self, tree: Any, number: int) -> list[Any]:
        leaves, structure = jax.tree.flatten(tree)
        if structure != self.structure:
            expected = jax.tree.unflatten(self.structure, self.specs)
            raise ValueError(
                f"{self.name} of record {number} differs in structure from record {self.number}: "
                f"{_structure_difference(expected, tree)}; give all records the same fields"
            )
        arrays = [
            as_leaf(f"{path} of record {number}", leaf)
            for path, leaf in zip(self.paths, leaves, strict=True)
        ]
        for path, array, expected in zip(self.paths, arrays, self.specs, strict=True):
            if array.shape != expected.shape or canonical_dtype(array.dtype) != expected.dtype:
                raise ValueError(
                    f"{path} of record {number} must be {spec_text(expected)} like record "
                    f"{self.number}, got {spec_text(leaf_spec(path, array))}; resize, cast or "
                    "bucket it first"
                )
        return [
            array if isinstance(array, jax.Array) else array.astype(expected.dtype, copy=False)
            for array, expected in zip(arrays, self.specs, strict=True)
        ]


def _structure_difference(expected: Any, actual: Any) -> str:
    wanted, came = (
        [keystr(path) or "a leaf" for path, _ in tree_flatten_with_path(tree)[0]]
        for tree in (expected, actual)
    )
    missing = [path for path in wanted if path not in came]
    extra = [path for path in came if path not in wanted]
    if not missing and not extra:
        return f"expected {jax.tree.structure(expected)}, got {jax.tree.structure(actual)}"
    parts = [f"{', '.join(missing)} missing"] if missing else []
    parts += [f"{', '.join(extra)} not expected"] if extra else []
    return f"{' and '.join(parts)}; expected leaves {wanted}, got {came}"


def all_of_type(values: Column, kind: type) -> bool:
    """Whether every value is of this very type; comparing identities is the fastest way."""
    return list(map(type, values)).count(kind) == len(values)


Gather = Callable[[Column, list[Column]], bool]


def _gatherer(tree: Any) -> Gather:
    """A function that appends the leaves' columns, in the order of `jax.tree.leaves`.

    One pass over all records for each node costs a fraction of flattening every record.
    """
    kind = type(tree)
    if kind is dict:
        children = [(itemgetter(key), _gatherer(tree[key])) for key in sorted(tree)]
    elif kind is list or kind is tuple:
        children = [(itemgetter(i), _gatherer(child)) for i, child in enumerate(tree)]
    elif jax.tree_util.all_leaves([tree]):
        return _append_leaf
    else:
        return _give_up
    size = len(children)

    def gather(trees: Column, columns: list[Column]) -> bool:
        if not all_of_type(trees, kind):
            return False
        try:
            for get, below in children:
                if not below(list(map(get, trees)), columns):
                    return False
        except LookupError:
            return False
        # None lacks a child; one with more would make the sum larger.
        return sum(map(len, trees)) == size * len(trees)

    return gather


def _append_leaf(trees: Column, columns: list[Column]) -> bool:
    columns.append(trees)
    return True


def _give_up(trees: Column, columns: list[Column]) -> bool:
    return False
