"""States of the workers' circuit breakers, as lines for the reader of the demo."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.local.demo.monitor import WorkerState


class Phase(StrEnum):
    """State of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(slots=True)
class _Breaker:
    phase: Phase = Phase.CLOSED
    probes_failed: int = 0
    sent: int = 0


def _reason(state: WorkerState) -> str:
    """Return the first part of the reason that the worker is not ready for: the failure without its times."""
    return state.trouble.partition(";")[0] or "the API fails"


class CircuitView:
    """Observer of the circuit breaker of each worker.

    The metrics have whether it is open, and its probes. Half-open ends when its requests have their full size again: it
    has then sent more contacts than its growing requests hold (1 + 2 + 4 …), and more than one request is in flight.

    Args:
        max_contacts: ``scoring.max_contacts``.
    """

    def __init__(self, max_contacts: int) -> None:
        self._full = 2 * max_contacts
        self._breakers: dict[str, _Breaker] = {}

    def changes(self, worker: str, state: WorkerState) -> Iterator[str]:
        """Yield one line for each change since the last call."""
        breaker = self._breakers.setdefault(worker, _Breaker())
        if breaker.phase is not Phase.OPEN and state.is_open:
            breaker.phase, breaker.probes_failed = Phase.OPEN, state.probes_failed
            yield f"circuit breaker of {worker}: open, so only probes are sent ({_reason(state)})"
        elif breaker.phase is Phase.OPEN:
            yield from self._probes(worker, breaker, state)
        elif breaker.phase is Phase.HALF_OPEN and state.in_flight > 1 and state.sent - breaker.sent >= self._full:
            breaker.phase = Phase.CLOSED
            yield f"circuit breaker of {worker}: closed, requests are full again"

    def phase(self, worker: str) -> Phase:
        """Return the last observed state."""
        return self._breakers.setdefault(worker, _Breaker()).phase

    def _probes(self, worker: str, breaker: _Breaker, state: WorkerState) -> Iterator[str]:
        if state.probes_failed > breaker.probes_failed:
            breaker.probes_failed = state.probes_failed
            yield f"circuit breaker of {worker}: a probe, one contact alone, has failed; still open"
        if not state.is_open:
            breaker.phase, breaker.sent = Phase.HALF_OPEN, state.sent
            yield (
                f"circuit breaker of {worker}: half-open, a probe has its score; one request at a time, of 1 contact,"
                " then 2, 4, 8 …"
            )
