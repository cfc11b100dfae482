"""A signal during the wait for responses must not block the loop."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from stream_scorer.runtime.worker_pool import WorkerPool

if TYPE_CHECKING:
    from collections.abc import Iterator


def never_called(job: object) -> object:
    raise AssertionError(job)


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """The observations of a signal whose handler takes longer than the rest of the wait."""
    seen: list[int] = []

    def obey(number: int, _frame: object) -> None:
        seen.append(number)
        time.sleep(0.25)  # longer than the wait it interrupts

    before = signal.signal(signal.SIGVTALRM, obey)
    yield seen
    signal.signal(signal.SIGVTALRM, before)


@pytest.mark.timeout(20)
def test_a_signal_during_the_wait(signals: list[int]) -> None:
    pool = WorkerPool(never_called, 1, "test")
    sender = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGVTALRM))
    sender.start()
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        assert pool.answers(0.2) == []
    assert signals == [signal.SIGVTALRM]
    pool.close()
