"""A `grain.IterDataset` without end, which can be picked up at any record that was reached."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from typing import Any, Self

from datarax.sources._ends import is_of_generator, stopped
from datarax.sources._grain_functions import raised_by, stopped_by, with_told_ends

logger = logging.getLogger("datarax.pipeline")

# Of how many places the state is kept: more than a pipeline reads ahead.
PLACES = 128


class GrainStream:
    """The records of a data set, again and again.

    Args:
      dataset: a `grain.IterDataset`.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = with_told_ends(dataset)
        self._states: OrderedDict[int, str] = OrderedDict()
        self._parked: Records | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # What is being read stays with the original.
        return type(self), (self._dataset,)

    def first(self) -> Any:
        """The first record."""
        iterator = iter(self._dataset)
        try:
            return _next(iterator)
        finally:
            _close(iterator)

    def state(self, place: int) -> str | None:
        """Grain's state after so many records, as a JSON text; None where it is not known."""
        return self._states.get(place)

    def resume(self, place: int, state: str) -> None:
        """Makes known what `state` gave for a place, perhaps in another process."""
        json.loads(state)
        self._keep(place, state)

    def records(self, place: int) -> Records:
        """The records from a place on: what follows after so many records.

        Where Grain's state is not known, the records before it are read once more.
        """
        parked, self._parked = self._parked, None
        if parked is not None:
            if parked.place == place:
                return parked
            parked.end()
        iterator, skipped = iter(self._dataset), place
        if place in self._states:
            iterator.set_state(json.loads(self._states[place]))
            skipped = 0
        stream = Records(self, self._dataset, iterator, place - skipped)
        if skipped:
            logger.info("reads %d records of a grain.IterDataset once more", skipped)
        for _ in range(skipped):
            next(stream)
        return stream

    def park(self, stream: Records) -> None:
        """Takes back what was read to its end; the next epoch goes on with it."""
        if self._parked is not None:
            self._parked.end()
        self._parked = stream

    def _keep(self, place: int, state: str) -> None:
        self._states[place] = state
        self._states.move_to_end(place)
        while len(self._states) > PLACES:
            self._states.popitem(last=False)


class Records:
    """Iterates over the records of a `GrainStream`.

    Args:
      stream: whose.
      dataset: what to begin again.
      iterator: Grain's.
      place: how many records came before.
    """

    def __init__(self, stream: GrainStream, dataset: Any, iterator: Any, place: int) -> None:
        self._stream, self._dataset, self._iterator = stream, dataset, iterator
        self.place = place

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            record = _next(self._iterator)
        except StopIteration:
            _close(self._iterator)
            self._iterator = iter(self._dataset)
            try:
                record = _next(self._iterator)
            except StopIteration:
                raise ValueError("the grain.IterDataset gives no record") from None
        self.place += 1
        return record

    def remember(self) -> None:
        """Keeps Grain's state: a batch ends here."""
        self._stream._keep(self.place, json.dumps(self._iterator.get_state()))

    def end(self) -> None:
        """Ends Grain's threads and processes."""
        _close(self._iterator)


def _next(iterator: Any) -> Any:
    try:
        return next(iterator)
    except StopIteration as error:
        name = raised_by(error.__traceback__)
        if name is None:
            raise
        raise stopped_by(name) from error
    except RuntimeError as error:
        if is_of_generator(error):
            raise stopped("the grain.IterDataset") from error.__cause__
        raise


def _close(iterator: Any) -> None:
    close = getattr(iterator, "close", None)
    if close is not None:
        close()
