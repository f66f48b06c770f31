"""Reading ahead in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

from datarax.pipeline._threads import end_of
from datarax.pipeline._transfers import transferring
from datarax.sources._ends import stopped

In = TypeVar("In")
Out = TypeVar("Out")


class Prefetcher(Generic[Out]):
    """Iterates over items that a thread prepares, a few ahead of the consumer.

    An error comes after all items before it. The thread ends with the items, with an error, or with
    `close`, and then closes the generator that it read from.

    Args:
      items: what to prepare; run in the thread.
      prepare: called with each item, in the thread.
      size: how many prepared items may wait.
      release: makes a read of `items` return that waits for other processes; None: nothing does.
    """

    def __init__(
        self,
        items: Generator[In, None, None],
        prepare: Callable[[In], Out],
        size: int,
        release: Callable[[], None] | None = None,
    ) -> None:
        self._release = release
        self._changed = threading.Condition()
        self._ready: deque[tuple[bool, Any]] = deque()
        self._closed = False
        self._reading = True
        self._thread = threading.Thread(
            target=self._run, args=(items, prepare, size), name="datarax-prefetch", daemon=True
        )
        self._thread.start()

    def __iter__(self) -> Iterator[Out]:
        return self

    def __next__(self) -> Out:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._closed)
            if not self._ready:
                raise StopIteration
            is_item, value = self._ready.popleft()
            self._changed.notify_all()
        if is_item:
            return value
        self.close()
        raise StopIteration if value is None else value

    def close(self) -> None:
        """Drops what is ready and waits for the thread to end, unless it is stuck in a read."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        end_of([self._thread], lambda: self._reading, self._release)

    @transferring
    def _run(
        self, items: Generator[In, None, None], prepare: Callable[[In], Out], size: int
    ) -> None:
        end: BaseException | None = None
        try:
            while self._wait_for_room(size):
                try:
                    item = next(items)
                except StopIteration:
                    break
                self._put(True, prepare(item))
        except StopIteration as error:
            # Raised again as it is, it would be the end of the epoch.
            end = stopped("bringing a batch to the device")
            end.__cause__ = error
        except BaseException as error:
            end = error
        finally:
            # What is left to do takes as long as it takes, such as to end processes.
            self._reading = False
            items.close()
        self._put(False, end)

    def _wait_for_room(self, size: int) -> bool:
        """Whether there is room for one more; False if the consumer has gone."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._ready) < size or self._closed)
            return not self._closed

    def _put(self, is_item: bool, value: Any) -> None:
        with self._changed:
            if not self._closed:
                self._ready.append((is_item, value))
                self._changed.notify_all()
