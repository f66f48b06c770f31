"""What of a pipeline and of its iterator is saved: numbers and short texts, which JSON can hold."""

from __future__ import annotations

import base64
import copy
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx

from datarax.core.operator import OperatorModule
from datarax.core.state import Statistics, read_state, variables, write_state
from datarax.pipeline import _fingerprint
from datarax.pipeline._host import HostWork
from datarax.sources import DataSourceModule
from datarax.sources._source import ShuffleKey

# Of the layout. Versions 0.1 and 0.2 of the package saved arrays, and no number.
LAYOUT = 3

# Larger Variables of stages, such as tables and parameters, are not in the state, but their shapes.
_LARGEST = 64


@dataclass(frozen=True)
class Place:
    """Where in its epochs an iterator is.

    Attributes:
      epoch: from 0.
      position: how many records of the epoch were read for batches that are delivered, by all hosts
        together.
      waiting: positions before that whose records a batcher still has, ascending.
    """

    epoch: int
    position: int = 0
    waiting: tuple[int, ...] = ()


class Values:
    """The small Variables of stages: random keys, counts, probabilities.

    Args:
      stages: the operators.
    """

    def __init__(self, stages: Sequence[OperatorModule[Any]]) -> None:
        self._holder = nnx.List(stages)
        self._small = [
            (path, variable)
            for path, variable in variables(self._holder)
            if not isinstance(variable, Statistics) and _size(variable) <= _LARGEST
        ]
        # Of keys, which cannot be read without a computation on their device, and never change.
        self._words: dict[int, tuple[Any, bytes]] = {}

    def text(self) -> str:
        """All values, in base 64."""
        packed = b"".join(self._bytes(variable) for _, variable in self._small)
        return base64.b64encode(zlib.compress(packed, 1)).decode()

    def restorer(self, text: str) -> Any:
        """A function that sets all values.

        Raises:
          ValueError: if the text is of other Variables.
        """
        try:
            packed = zlib.decompress(base64.b64decode(text, validate=True))
        except (ValueError, zlib.error) as error:
            raise ValueError(f"values: {error}") from error
        if len(packed) != sum(_size(variable) for _, variable in self._small):
            raise ValueError("values: they are of other Variables")
        state, first = read_state(self._holder), 0
        for path, _ in self._small:
            node: Any = state
            for name in path[:-1]:
                node = node[name]
            leaves, structure = jax.tree.flatten(node[path[-1]])
            for number, leaf in enumerate(leaves):
                array = np.asarray(leaf)
                part = packed[first : first + array.nbytes]
                leaves[number] = np.frombuffer(part, array.dtype).reshape(array.shape)
                first += array.nbytes
            node[path[-1]] = jax.tree.unflatten(structure, leaves)
        return lambda: write_state(self._holder, state)

    def _bytes(self, variable: nnx.Variable[Any]) -> bytes:
        value = variable.get_raw_value()
        if not isinstance(variable, nnx.RngKey):
            return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(value))
        kept = self._words.get(id(variable))
        if kept is None or kept[0] is not value:
            kept = value, np.asarray(jax.random.key_data(value)).tobytes()
            self._words[id(variable)] = kept
        return kept[1]


def _size(variable: nnx.Variable[Any]) -> int:
    sizes = [
        leaf.size * leaf.dtype.itemsize if hasattr(leaf, "dtype") else np.asarray(leaf).nbytes
        for leaf in map(_plain, jax.tree.leaves(variable.get_raw_value()))
    ]
    return sum(sizes)


def _plain(leaf: Any) -> Any:
    is_key = isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf


class Description:
    """What a pipeline reads and does, apart from where it is.

    Args:
      source: the source.
      stages: the operators.
      batcher: the name of the batcher's class; "" without one.
      work: what is done with each record, if anything.
    """

    def __init__(
        self,
        source: DataSourceModule[Any],
        stages: Sequence[OperatorModule[Any]],
        batcher: str,
        work: HostWork | None,
    ) -> None:
        self._keys = {
            "shuffle_key": source.shuffle_key,
            "transform_key": None if work is None else work.key,
        }
        self._values = Values(stages)
        transforms = work.transforms if work else ()
        self._lists = {
            "stages": [_fingerprint.of_operator(stage) for stage in stages],
            "transforms": [_fingerprint.of_function(each.function) for each in transforms],
        }
        self._same = {
            "source": source.fingerprint(),
            **{name: _fingerprint.listed(entries) for name, entries in self._lists.items()},
            "batcher": batcher,
        }

    def read(self, **numbers: int | str) -> dict[str, Any]:
        """The state, with some numbers of what it is the state of."""
        keys = {name: _text_of_key(key) for name, key in self._keys.items()}
        values = {"values": self._values.text()}
        return {"layout": LAYOUT, **numbers, **keys, **values, **copy.deepcopy(self._same)}

    def restorer(
        self, state: Any, owner: str, numbers: Sequence[str]
    ) -> tuple[Any, dict[str, Any]]:
        """Checks a state.

        Args:
          state: what `read` gave.
          owner: what the errors call it, "pipeline" or "iterator".
          numbers: the names of the numbers that it must have.

        Returns:
          A function that sets what the state holds beside these numbers, and the numbers.

        Raises:
          TypeError: if it is not a dict.
          ValueError: if it is not of a pipeline like this, listing every difference.
        """
        if not isinstance(state, Mapping):
            raise TypeError(
                f"state must be a dict as get_state() returns it, got {type(state).__name__}"
            )
        if state.get("layout") != LAYOUT:
            found = f"has layout {state['layout']!r}" if "layout" in state else _older(state)
            raise ValueError(
                f"state {found}, but this version of datarax-pipeline reads layout {LAYOUT}; go on "
                "with the version that saved it, or start an epoch anew"
            )
        expected = self.read(**dict.fromkeys(numbers, 0)) | {
            name: _fingerprint.listed(entries, state.get(name))
            for name, entries in self._lists.items()
        }
        differences = list(_differences(expected, state, numbers))
        restore, words = None, {}
        if not differences:
            try:
                restore = self._values.restorer(str(state["values"]))
                words = {n: _key_of_text(n, str(state[n]), key) for n, key in self._keys.items()}
            except ValueError as error:
                differences = [str(error)]
        if restore is None or differences:
            lines = "\n  ".join(differences)
            raise ValueError(
                f"state does not fit the {owner}; build it with the source and the stages that it "
                f"was saved with. Differences:\n  {lines}"
            )

        def write() -> None:
            restore()
            for name, key in self._keys.items():
                if key is not None:
                    key.set_value(words[name])

        return write, {name: state[name] for name in numbers}


def _text_of_key(key: ShuffleKey | None) -> str:
    return "" if key is None else np.asarray(key.get_value(), "<u4").tobytes().hex()


def _key_of_text(name: str, text: str, key: ShuffleKey | None) -> np.ndarray:
    expected = _text_of_key(key)
    if len(text) != len(expected):
        raise ValueError(f"{name}: expected {len(expected)} hexadecimal digits, got {text!r}")
    return np.frombuffer(bytes.fromhex(text), "<u4").astype(np.uint32)


def _older(state: Mapping[str, Any]) -> str:
    if {"epoch", "source_length"} <= state.keys() or {"epoch", "record"} <= state.keys():
        return "was saved by version 0.1 or 0.2"
    return f"is none of a pipeline: it has the entries {sorted(state)}"


def _differences(
    expected: Mapping[str, Any], state: Mapping[str, Any], numbers: Sequence[str]
) -> Any:
    """A line for each entry that is missing, not expected, of the wrong kind or another one."""
    present, saved = dict(_flat(expected)), dict(_flat(state))
    for path in dict.fromkeys([*present, *saved]):
        if path not in saved:
            what = "a value" if path in numbers else repr(present[path])
            yield f"{path}: expected {what}, got nothing"
        elif path not in present:
            yield f"{path}: not expected, got {saved[path]!r}"
        elif path in numbers and path not in ("waiting", "stream") and not _is_count(saved[path]):
            yield f"{path}: expected a number from 0, got {saved[path]!r}"
        elif "/" in path or path == "batcher":
            came, here = str(saved[path]), str(present[path])
            # An entry is empty where a source cannot tell.
            of_code = path.startswith(("stages/", "transforms/"))
            same = _fingerprint.alike(came, here) if of_code else came == here
            if came and here and not same:
                yield f"{path}: expected {here!r}, got {came!r}"


def _is_count(value: Any) -> bool:
    array = np.asarray(value)
    return array.shape == () and array.dtype.kind in "iu" and int(array) >= 0


def _flat(tree: Any, path: str = "") -> Any:
    for name, child in tree.items():
        if isinstance(child, Mapping):
            yield from _flat(child, f"{path}{name}/")
        else:
            yield f"{path}{name}", child


def text_of_positions(positions: Sequence[int]) -> str:
    """Ascending positions as a short text."""
    if not positions:
        return ""
    steps = np.diff(np.asarray(positions, np.int64), prepend=0).astype("<i8")
    return base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode()


def positions_of_text(text: str) -> tuple[int, ...]:
    """What `text_of_positions` made a text of."""
    if not text:
        return ()
    steps = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), "<i8")
    return tuple(np.cumsum(steps).tolist())
