"""The progress bar, on request."""

import sys

import numpy as np
import pytest

from datarax.pipeline import Pipeline

RECORDS = [{"x": np.float32(i)} for i in range(10)]


@pytest.fixture
def bars(monkeypatch):
    """Every bar that is made, as tqdm draws it into memory."""
    auto = pytest.importorskip("tqdm.auto")
    made = []

    class Bar(auto.tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, file=_Silent(), **kwargs)
            self.is_closed = False
            made.append(self)

        def close(self):
            self.is_closed = True
            super().close()

    monkeypatch.setattr(auto, "tqdm", Bar)
    return made


class _Silent:
    def write(self, text):
        pass

    def flush(self):
        pass


def test_a_bar_counts_the_batches_of_each_epoch(bars):
    """Each epoch has a bar of its own, with name, number and total, closed at the end."""
    pipeline = Pipeline(source=RECORDS, batch_size=4, progress=True, name="train")
    for _ in range(2):
        list(pipeline)
    assert [bar.desc for bar in bars] == ["train 0", "train 1"]
    assert [(bar.n, bar.total, bar.is_closed) for bar in bars] == [(3, 3, True)] * 2


def test_a_bar_continues_after_a_resume(bars):
    """A resumed epoch starts its bar at the batches that were done before."""
    pipeline = Pipeline(source=RECORDS, batch_size=4, progress=True)
    first = iter(pipeline)
    next(first)
    second = iter(pipeline)
    second.set_state(first.get_state())
    list(second)
    assert bars[1].desc == "epoch 0"
    assert (bars[1].initial, bars[1].n) == (1, 3)
    first.close()


def test_a_bar_is_closed_when_the_consumer_stops(bars):
    """Leaving the loop closes the bar."""
    for _ in Pipeline(source=RECORDS, batch_size=4, progress=True):
        break
    assert bars[0].is_closed


def test_no_bar_unless_asked_for(bars):
    """By default nothing is drawn."""
    list(Pipeline(source=RECORDS, batch_size=4))
    assert bars == []


def test_progress_without_tqdm_says_what_to_install(monkeypatch):
    """The error comes when the pipeline is made and names the extra."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"pip install 'datarax-pipeline\[progress\]'"):
        Pipeline(source=RECORDS, batch_size=4, progress=True)
