"""Receivers of callbacks for tests: one process for a whole run, as good as new for every test, or one of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.local.receiver import Receiver, ReceiverConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def _shared_receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def receiver(_shared_receiver: Receiver) -> Receiver:
    """A receiver with an empty delivery log and no faults. It may be stopped and started."""
    _shared_receiver.start()
    _shared_receiver.reset()
    return _shared_receiver


@pytest.fixture
def make_receiver() -> Iterator[Callable[..., Receiver]]:
    """Start a receiver of one's own with these fields of `ReceiverConfig`; it ends with the test."""
    started: list[Receiver] = []

    def make(**fields: Any) -> Receiver:
        started.append(Receiver(ReceiverConfig(**fields)))
        return started[-1].start()

    yield make
    for receiver in started:
        receiver.stop()
