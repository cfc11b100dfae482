"""Half-open probe: sends one waiting contact alone while the circuit breaker is open, and uses its response.

A contact that the API can never score must not block all others, so a failed probe is queued behind all contacts that
were not tried yet. Once every waiting contact has failed, only new contacts can distinguish an outage from an invalid
contact.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_scorer.core.events import Answered, Refused, Scored, Unavailable
from stream_scorer.core.request import remaining, subset

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.events import Answer
    from stream_scorer.core.request import Request
    from stream_scorer.core.response_policy import Decision
    from stream_scorer.scoring.circuit_breaker import BreakerState, CircuitBreaker
    from stream_scorer.scoring.request_queue import RequestQueue


class HalfOpenProbe:
    """See the module docstring. Times are monotonic seconds.

    Args:
        queue: requests whose contacts are probed.
        breaker: the circuit breaker; reset here when a probe succeeds.
        new_id: creates batch ids.
    """

    def __init__(self, queue: RequestQueue, breaker: CircuitBreaker, new_id: Callable[[], str]) -> None:
        self._queue = queue
        self._breaker = breaker
        self._new_id = new_id
        self._batch_id: str | None = None
        self._failed = 0
        self.origin: Request | None = None

    def next(self, now: float) -> Request | None:
        """Return the next probe if one is due and none is in flight; ``origin`` is then its original request."""
        state = self._breaker.open_state
        if state is None or self.origin is not None or now < state.next_probe_at:
            return None
        self.origin = self._queue.take_for_probe(now)
        if self.origin is None:
            return None
        probe = subset(self.origin, self.origin.contacts[:1], self._new_id)
        self._batch_id = probe.batch_id
        return probe

    def is_current(self, request: Request) -> bool:
        """Return whether this request is the probe in flight."""
        return self.origin is not None and request.batch_id == self._batch_id

    def on_response(self, answer: Answer, decision: Decision, now: float, *, retry_after: float) -> bool:
        """Evaluate the response to the probe; True if it closed the breaker, and its decision is to be executed.

        Args:
            answer: response to the probe.
            decision: the decision on it with a closed breaker.
            now: monotonic seconds.
            retry_after: no probe before this time.
        """
        origin, state = self.origin, self._breaker.open_state
        if origin is None or state is None:
            raise AssertionError("response to a probe that was never sent")
        self.origin = None
        if not _proves_recovery(answer, decision, state):
            # The contact moves to the end of its request, so the next probe of it tries another one. Contacts deferred
            # to the end of its search are probed before it.
            contacts = origin.contacts[1:] + origin.contacts[:1]
            self._queue.put_probed(replace(origin, contacts=contacts, deferred_half=(), deferred=()))
            for waiting in remaining(origin, self._new_id):
                self._queue.put(waiting)
            self._failed += 1
            self._breaker.probe_failed(_failure_message(answer, state), now, until=retry_after)
            return False
        self._failed = 0
        self._breaker.reset()
        if state.broken_contract:
            self._queue.rebatch(now)
        rest = origin.filter(lambda contact: contact is not origin.contacts[0])
        if rest is not None:
            self._queue.put_first([rest])
        self._queue.restart()
        return True

    def failed_alone(self) -> None:
        """Count a contact that was refused alone before the breaker opened as a failed probe."""
        self._failed += 1

    def all_failed(self, now: float) -> bool:
        """Return whether at least as many probes have failed as contacts are waiting."""
        waiting = self._queue.contacts(now) + (0 if self.origin is None else len(self.origin.all_contacts))
        return self._breaker.open_state is not None and self._failed >= waiting


def _failure_message(answer: Answer, state: BreakerState) -> str:
    """Return why the probe failed. Refusals of a broken contract share the first message, whatever the contact."""
    if isinstance(answer, Answered):
        return "the API answers, but omits the contact of the probe"
    if state.broken_contract and isinstance(answer, Refused):
        return state.first_message
    return answer.message


def _proves_recovery(answer: Answer, decision: Decision, state: BreakerState) -> bool:
    """Return whether the response to a probe proves that the API works.

    A 2xx that omits the contact proves nothing, since an outage can look like that. Nor does one more refusal while
    the contract is broken.
    """
    if isinstance(answer, Answered):
        return any(isinstance(outcome, Scored) for outcome in decision.outcomes)
    if isinstance(answer, Unavailable) or decision.trip_reason is not None or decision.fatal_error is not None:
        return False
    return not (state.broken_contract and decision.suspects)
