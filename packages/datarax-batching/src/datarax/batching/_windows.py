"""Windows of consecutive records, with all samples of their time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_map_with_path

from datarax.batching import _ragged
from datarax.batching._errors import WrongRecordError
from datarax.batching._layout import Layout
from datarax.batching._sorting import SortingStream
from datarax.core._batch_spec import canonical_dtype, require_fields
from datarax.core.element_batch import Batch, Element
from datarax.core.specs import as_leaf

if TYPE_CHECKING:
    from datarax.batching._multirate import MultiRateBatcher


def mask_name(rate: int) -> str:
    """The field that says which samples of this rate are data."""
    return f"rate_{rate}_mask"


def sample_shape(name: str, shape: tuple[int, ...], rate: int) -> tuple[int, ...]:
    """The shape of one sample of a field whose record has this shape.

    Raises:
      ValueError: if the record does not have as many samples as the rate says.
    """
    if rate == 1:
        return shape
    if shape[:1] != (rate,):
        raise ValueError(f"{name} must have {rate} samples on axis 0, its rate, got shape {shape}")
    return shape[1:]


class WindowStream(SortingStream):
    """Batches of windows."""

    def __init__(
        self, batcher: MultiRateBatcher, elements: Any, batch_size: int, remainder: str
    ) -> None:
        self._batcher, self._config, self._size = batcher, batcher.config, batch_size
        super().__init__(batcher, elements, ("window", "windows"), remainder)
        self._sizes = {"windows": batch_size}
        # Where the next window starts, and the last record that is in a window already.
        self._marks = [0, -1]
        self._layouts: tuple[Layout, Layout] | None = None
        self._rates: dict[str, int] = {}

    def _config_of_waiting(self) -> dict[str, str]:
        names = ("steps", "rates", "hop", "pad_values")
        return {name: repr(getattr(self._config, name)) for name in names}

    def _accept(self, element: Element, number: int) -> list[str]:
        self._check(element, number)
        window = self._groups["window"]
        if len(window) and window.numbers[-1] != number - 1:
            self._break_off()
        if not len(window) and number > self._marks[0]:
            # Behind a record that was refused.
            self._marks[0] = number
        if number < self._marks[0]:
            return []
        window.add(element, number)
        if len(window) < self._config.steps:
            return []
        self._cut()
        return ["windows"] if len(self._groups["windows"]) == self._size else []

    def _check(self, element: Element, number: int) -> None:
        owner = f"data of record {number}"
        if self._layouts is None:
            fields = require_fields(owner, element.data)
            layouts = Layout("data", fields, number), Layout("state", element.state, number)
            for layout in layouts:
                _require_numbers(layout, number)
            rates = self._batcher._rates(owner, fields)
            leaves = zip(layouts[0].paths, layouts[0].specs, rates.values(), strict=True)
            for path, spec, rate in leaves:
                sample_shape(f"{path} of record {number}", spec.shape, rate)
            self._layouts, self._rates = layouts, rates
        for layout, tree in zip(self._layouts, (element.data, element.state), strict=True):
            try:
                layout.checked_columns([tree], [number])
            except WrongRecordError as error:
                raise error.reason from None

    def _cut(self) -> None:
        """Makes a window of the records at hand, and keeps those that the next one shares."""
        window, config = self._groups["window"], self._config
        trees = [element.data for element in window.elements]
        data = tree_map_with_path(lambda path, *leaves: self._joined(path, leaves), *trees)
        for rate in set(self._rates.values()):
            data[mask_name(rate)] = np.arange(config.steps * rate) < len(window) * rate
        states = jax.tree.map(
            lambda *leaves: _ragged.padded(_stacked(leaves, 1), config.steps, np.int8(0)),
            *(element.state for element in window.elements),
        )
        entries = tuple(element.metadata for element in window.elements)
        entries += (None,) * (config.steps - len(window))
        metadata = None if entries.count(None) == len(entries) else entries
        self._groups["windows"].add(Element(data, states, metadata), window.numbers[0])
        hop = config.hop or config.steps
        self._marks = [window.numbers[0] + hop, window.numbers[-1]]
        shared = [number >= self._marks[0] for number in window.numbers].count(True)
        for _ in range(len(window) - shared):
            window.remove(0)

    def _joined(self, path: Any, leaves: tuple[Any, ...]) -> np.ndarray:
        name = keystr(path, simple=True, separator=".")
        array = _stacked(leaves, self._rates[name])
        value = _ragged.step_value(name, name, self._config.pad_values, array.dtype)
        return _ragged.padded(array, self._config.steps * self._rates[name], value)

    def _deliver(self, name: str) -> Batch:
        windows = self._groups[name]
        masks = tuple(mask_name(rate) for rate in set(self._rates.values()))
        batch = self._batch(name, windows, self._size, masks)
        count = min(len(windows), self._size)
        self._batcher._count_records(count, 0)
        windows.remove(0, count)
        return batch

    def _rest(self) -> list[str]:
        window, windows = self._groups["window"], self._groups["windows"]
        if self._remainder == "drop":
            self._break_off()
            self._leave_out_groups(["windows"])
            return []
        if len(window) and window.numbers[-1] > self._marks[1]:
            self._cut()
            self._marks[0] = self._marks[1] + 1
        window.clear()
        return ["windows"] if len(windows) else []

    def _break_off(self) -> None:
        """Leaves a window out, which counts if it has records that no other one had."""
        window = self._groups["window"]
        if len(window) and window.numbers[-1] > self._marks[1]:
            self._leave_out(1)
        window.clear()


def _require_numbers(layout: Layout, number: int) -> None:
    for path, spec in zip(layout.paths, layout.specs, strict=True):
        if jnp.issubdtype(spec.dtype, jax.dtypes.extended):
            raise TypeError(
                f"{path} of record {number} must be numbers to be put in windows, got {spec.dtype}"
            )


def _stacked(leaves: tuple[Any, ...], rate: int) -> np.ndarray:
    arrays = [np.asarray(as_leaf("leaf", leaf)) for leaf in leaves]
    join = np.stack if rate == 1 else np.concatenate
    return join(arrays).astype(canonical_dtype(arrays[0].dtype), copy=False)
