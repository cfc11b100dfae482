"""Probes: during a hold one waiting contact at a time is asked about alone, and its answer is used.

A contact that the API can never answer must not hold up all others, so a probe that failed goes behind all that were
not tried yet. If every contact that waits has failed, only others can tell an outage from a bad contact.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_scorer.core.events import Answered, Refused, Scored, Unavailable
from stream_scorer.core.request import left, part_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.events import Answer
    from stream_scorer.core.request import Request
    from stream_scorer.core.response_policy import Reaction
    from stream_scorer.scoring.circuit_breaker import Hold, Holding
    from stream_scorer.scoring.request_queue import Backlog


class Prober:
    """See the module's text. Times are monotonic seconds.

    Args:
        backlog: where the requests wait whose contacts are tried.
        holding: the state of holding; ended here when a probe succeeds.
        new_id: makes batch ids.
    """

    def __init__(self, backlog: Backlog, holding: Holding, new_id: Callable[[], str]) -> None:
        self._backlog = backlog
        self._holding = holding
        self._new_id = new_id
        self._batch_id: str | None = None
        self._failed = 0
        self.origin: Request | None = None

    def next(self, now: float) -> Request | None:
        """The next probe, if one is due and none is under way. ``origin`` is then the request it was taken from."""
        hold = self._holding.current
        if hold is None or self.origin is not None or now < hold.next_probe_at:
            return None
        self.origin = self._backlog.take_for_probe(now)
        if self.origin is None:
            return None
        probe = part_of(self.origin, self.origin.contacts[:1], self._new_id)
        self._batch_id = probe.batch_id
        return probe

    def sent(self, request: Request) -> bool:
        """Whether this request is the probe under way."""
        return self.origin is not None and request.batch_id == self._batch_id

    def conclude(self, answer: Answer, reaction: Reaction, now: float, *, retry_after: float) -> bool:
        """Takes the answer to the probe; True: the hold is over, and what follows from the answer is to be carried out.

        Args:
            answer: to the probe.
            reaction: what it would lead to without a hold.
            now: the time.
            retry_after: no probe before this time.
        """
        origin, hold = self.origin, self._holding.current
        if origin is None or hold is None:
            raise AssertionError("the answer to a probe that was never sent")
        self.origin = None
        if not _proves_recovery(answer, reaction, hold):
            # The contact goes to the end of its request, so that the next probe of it tries another one; and whoever
            # waits for the end of the search for it is tried before.
            contacts = origin.contacts[1:] + origin.contacts[:1]
            self._backlog.put_probed(replace(origin, contacts=contacts, other_half=(), later=()))
            for waiting in left(origin, self._new_id):
                self._backlog.put(waiting)
            self._failed += 1
            self._holding.probe_failed(_why(answer, hold), now, until=retry_after)
            return False
        self._failed = 0
        self._holding.end()
        if hold.broken_contract:
            self._backlog.batch_anew(now)
        rest = origin.only(lambda contact: contact is not origin.contacts[0])
        if rest is not None:
            self._backlog.put_first([rest])
        self._backlog.start_anew()
        return True

    def failed_alone(self) -> None:
        """A contact that goes into a hold has failed as a probe would: it was refused alone."""
        self._failed += 1

    def tried_all(self, now: float) -> bool:
        """Whether as many probes have failed in this hold as contacts wait that may be asked about."""
        waiting = self._backlog.contacts(now) + (0 if self.origin is None else len(self.origin.everyone))
        return self._holding.current is not None and self._failed >= waiting


def _why(answer: Answer, hold: Hold) -> str:
    """Why the API is not back. A refusal is what a broken contract is about, whatever its words for this contact."""
    if isinstance(answer, Answered):
        return "the API answers, but leaves out the contact that was asked about"
    if hold.broken_contract and isinstance(answer, Refused):
        return hold.began_with
    return answer.message


def _proves_recovery(answer: Answer, reaction: Reaction, hold: Hold) -> bool:
    """Whether the answer to a probe shows that the API works again.

    A 2xx that leaves the contact out proves nothing: that is how an outage in disguise looks. Nor does one more
    refusal, where the API is held to refuse everybody.
    """
    if isinstance(answer, Answered):
        return any(isinstance(outcome, Scored) for outcome in reaction.outcomes)
    if isinstance(answer, Unavailable) or reaction.hold is not None or reaction.stop is not None:
        return False
    return not (hold.broken_contract and reaction.suspects)
