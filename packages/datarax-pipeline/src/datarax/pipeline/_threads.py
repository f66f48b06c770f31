"""Threads that work on items side by side; results come in the order of the items."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

logger = logging.getLogger("datarax.pipeline")

# How many seconds closing waits for threads, one of which may be reading from what does not answer.
PATIENCE = 1.0


def end_of(
    threads: Iterable[threading.Thread],
    may_be_stuck: Callable[[], bool] = lambda: True,
    release: Callable[[], None] | None = None,
) -> None:
    """Waits until threads that were told to end have ended, but not for those that are stuck.

    Args:
      threads: all of them.
      may_be_stuck: whether they may be in a read that does not return.
      release: makes such a read return, where there is a way.
    """
    last = time.monotonic() + PATIENCE
    for thread in threads:
        # What is no longer used may be closed by whichever thread ran the garbage collector.
        if thread is threading.current_thread():
            continue
        while thread.is_alive() and (time.monotonic() < last or not may_be_stuck()):
            thread.join(0.05)
        if thread.is_alive() and release is not None:
            release()
            thread.join(PATIENCE)
        if thread.is_alive():
            logger.warning(
                "%s is still busy, perhaps with a read that does not return, and is left to end by "
                "itself",
                thread.name,
            )


class Threads:
    """A pool of threads for one function.

    Args:
      function: called in one of the threads.
      count: how many threads.
    """

    def __init__(self, function: Callable[[Any], Any], count: int) -> None:
        self._function = function
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"datarax-record-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def map(self, items: Iterable[In], ahead: int) -> Generator[Any, None, None]:
        """Results of the function, in the order of the items.

        Args:
          items: what to call it with.
          ahead: how many items may be worked on, or be done, before they are asked for.
        """
        waiting: deque[Future[Any]] = deque()
        remaining = iter(items)
        for item in remaining:
            waiting.append(self._submitted(item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def close(self) -> None:
        """Ends the threads, after what each is doing."""
        self._closed = True
        for _ in self._threads:
            self._tasks.put(None)
        end_of(self._threads)

    def _submitted(self, item: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.put((future, item))
        return future

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None and not self._closed:
            future, item = task
            try:
                future.set_result(self._function(item))
            except BaseException as error:
                future.set_exception(error)
            # Not held until the next task comes.
            del task, future, item
