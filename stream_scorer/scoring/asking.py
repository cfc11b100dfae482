"""Asks the API: which request goes next, when, and what its answer leads to.

One thread owns this object. It keeps the requests that wait (retries, halves, repeated questions), takes batches from the
batcher when a slot and the quota are free, and hands everything to the pool. What an answer means is decided by
``core.reacting``; here it is only carried out.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from stream_scorer.core.events import Answered, Unavailable
from stream_scorer.core.reacting import Circumstances, Reaction, Rules, Suspect, react
from stream_scorer.core.requests import Request, first_request, part_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.core.batching import Batcher, Lane
    from stream_scorer.core.events import Answer, Outcome, Partition, QuotaReading, SourceRecord
    from stream_scorer.core.ledger import Ledger
    from stream_scorer.scoring.clock import Clock
    from stream_scorer.scoring.holding import Holding
    from stream_scorer.scoring.observing import Observer

_TOO_MANY_REQUESTS = 429
_ACCEPTED_FOR_S = 600.0
_SUSPECT_WAITS_S = 60.0
_MAX_SUSPECTS = 8


class Pool(Protocol):
    """See ``scoring.pool.RequestPool``."""

    size: int

    def submit(self, request: Request) -> None:
        """Starts an attempt."""

    def answers(self, wait_s: float = 0.0) -> list[tuple[Request, Answer]]:
        """The attempts that have ended."""


class Quota(Protocol):
    """See ``genesys.quota.Quota``. Times are monotonic seconds."""

    def wait_s(self, now: float) -> float:
        """Seconds until a request may be sent."""

    def may_close_early(self, now: float) -> bool:
        """Whether a batch that is not full is worth a request now."""

    def remaining(self, now: float) -> int:
        """Requests that may be sent now at once."""

    def sent(self, now: float) -> None:
        """A request goes out."""

    def learn(self, reading: QuotaReading, now: float) -> None:
        """What the API says of the quota."""

    def block_until(self, until: float) -> None:
        """The API said not to come back before."""


@dataclass(frozen=True, slots=True)
class _Probe:
    request: Request
    origin: Request


class Asker:
    """See the module's text."""

    def __init__(
        self,
        *,
        pool: Pool,
        batcher: Batcher,
        ledger: Ledger,
        quota: Quota,
        holding: Holding,
        rules: Rules,
        clock: Clock,
        observe: Observer,
    ) -> None:
        self._pool = pool
        self._batcher = batcher
        self._ledger = ledger
        self._quota = quota
        self._holding = holding
        self._rules = rules
        self._clock = clock
        self._observe = observe
        self._waiting: deque[Request] = deque()
        self._isolating: deque[Request] = deque()
        self._in_flight: dict[str, Request] = {}
        self._probe: _Probe | None = None
        self._suspects: list[Suspect] = []
        self._accepted_at: dict[Lane, float] = {}
        self._last_2xx_at: float | None = None
        self._isolating_turn = False
        self.stop_reason: str | None = None

    # --- out

    def send(self) -> None:
        """Sends what may be sent now."""
        while len(self._in_flight) < self._pool.size and self.stop_reason is None:
            now = self._clock.monotonic()
            if self._quota.wait_s(now) > 0:
                return
            request = self._next_probe(now) if self._holding.current else self._next(now)
            if request is None:
                return
            sent = request.sent(now, self._clock.unix_ms())
            self._in_flight[sent.batch_id] = sent
            self._quota.sent(now)
            self._pool.submit(sent)

    def _next(self, now: float) -> Request | None:
        """Requests that isolate a refused contact take every other turn at most while anything else can be sent."""
        self._isolating_turn = not self._isolating_turn
        if self._isolating_turn:
            return self._due(self._isolating, now) or self._due(self._waiting, now) or self._next_batch(now)
        return self._due(self._waiting, now) or self._next_batch(now) or self._due(self._isolating, now)

    def _next_batch(self, now: float) -> Request | None:
        batch = self._batcher.take_full()
        if batch is None and self._quota.may_close_early(now):
            batch = self._batcher.take_due(now)
        return None if batch is None else first_request(batch, self._clock.new_id)

    def _due(self, waiting: deque[Request], now: float) -> Request | None:
        for _ in range(len(waiting)):
            request = waiting.popleft()
            if request.not_before > now:
                waiting.append(request)
                continue
            wanted = self._still_wanted(request)
            if wanted is not None:
                return wanted
        return None

    def _still_wanted(self, request: Request) -> Request | None:
        """The request without the contacts whose partitions went to another worker, which asks about them itself."""
        wanted = tuple(contact for contact in request.contacts if self._ledger.is_pending(contact.record))
        if len(wanted) == len(request.contacts):
            return request
        for contact in request.contacts:
            if not self._ledger.is_pending(contact.record):
                self._ledger.abandon(contact.record)
        return replace(request, contacts=wanted) if wanted else None

    def _next_probe(self, now: float) -> Request | None:
        hold = self._holding.current
        if hold is None or self._probe is not None or now < hold.next_probe_at:
            return None
        origin = self._first_waiting()
        if origin is None:
            return None
        probe = part_of(origin, origin.contacts[:1], self._clock.new_id)
        self._probe = _Probe(probe, origin)
        return probe

    def _first_waiting(self) -> Request | None:
        for waiting in (self._waiting, self._isolating):
            while waiting:
                wanted = self._still_wanted(waiting.popleft())
                if wanted is not None:
                    return wanted
        batch = self._batcher.take_any()
        return None if batch is None else first_request(batch, self._clock.new_id)

    # --- in

    def collect(self, wait_s: float = 0.0) -> None:
        """Takes the answers that have arrived and carries out what follows from them."""
        for request, answer in self._pool.answers(wait_s):
            del self._in_flight[request.batch_id]
            self._react(request, answer)
        self._resolve_suspects()

    def _react(self, request: Request, answer: Answer) -> None:
        now = self._clock.monotonic()
        self._observe.exchanged(request, answer)
        if answer.exchange.quota is not None:
            self._quota.learn(answer.exchange.quota, now)
        if isinstance(answer, Unavailable) and answer.exchange.status == _TOO_MANY_REQUESTS and answer.retry_after_s:
            self._quota.block_until(now + answer.retry_after_s)
        at = Circumstances(now, self._clock.unix_ms(), self._clock.jitter(), self._last_2xx_at, self._clock.new_id)
        reaction = react(request, answer, self._rules, at)
        if isinstance(answer, Answered) and reaction.answered:
            self._last_2xx_at = now
            self._accepted_at[request.lane] = now
        if self._probe is not None and self._probe.request.batch_id == request.batch_id:
            self._on_probe(self._probe, answer, reaction, now)
        else:
            self._carry_out(reaction, now)

    def _carry_out(self, reaction: Reaction, now: float) -> None:
        for outcome in reaction.outcomes:
            self._ledger.finish(outcome)
        for request in reaction.requests:
            (self._isolating if request.isolating else self._waiting).append(request)
        self._suspects += reaction.suspects
        self._observe.unknown_results(reaction.unknown_results)
        if reaction.stop is not None:
            self.stop_reason = reaction.stop
        if reaction.hold is not None and self._holding.begin(reaction.hold, now, until=reaction.hold_until):
            self._observe.holding(self._holding.current)

    def _on_probe(self, probe: _Probe, answer: Answer, reaction: Reaction, now: float) -> None:
        hold = self._holding.current
        still_refused = bool(reaction.suspects) and hold is not None and hold.broken_contract
        self._probe = None
        if isinstance(answer, Unavailable) or reaction.hold is not None or still_refused or reaction.stop is not None:
            # The contact goes to the end of its request, so that the next probe tries another one: a contact that the
            # API can never answer must not hold up all others.
            contacts = probe.origin.contacts[1:] + probe.origin.contacts[:1]
            self._waiting.append(replace(probe.origin, contacts=contacts))
            reason = hold.reason if hold is not None and still_refused else _message_of(answer)
            retry_after_s = answer.retry_after_s if isinstance(answer, Unavailable) else None
            self._holding.probe_failed(reason, now, until=now + (retry_after_s or 0.0))
            self.stop_reason = reaction.stop or self.stop_reason
            return
        rest = probe.origin.contacts[1:]
        if rest:
            self._waiting.appendleft(replace(probe.origin, contacts=rest))
        self._holding.end()
        self._observe.holding(None)
        self._waiting = deque(request.fresh_round() for request in self._waiting)
        self._isolating = deque(request.fresh_round() for request in self._isolating)
        self._carry_out(reaction, now)

    def _resolve_suspects(self) -> None:
        """Rejects who was refused alone once the model version has shown that it accepts others."""
        if not self._suspects:
            return
        now = self._clock.monotonic()
        undecided: list[Suspect] = []
        for suspect in self._suspects:
            accepted_at = self._accepted_at.get(suspect.lane)
            accepts = accepted_at is not None and now - accepted_at <= _ACCEPTED_FOR_S
            if accepts or now - suspect.since >= _SUSPECT_WAITS_S:
                self._ledger.finish(suspect.rejected)
            else:
                undecided.append(suspect)
        self._suspects = undecided
        if len(undecided) > _MAX_SUSPECTS:
            # Nothing is accepted and everything refused: the contract is broken, not the contacts. They are asked again.
            self._suspects = []
            for suspect in undecided:
                request = Request(self._clock.new_id(), suspect.lane, (suspect.contact,), isolating=True)
                self._isolating.append(request)
            reason = f"the API refuses every contact: {undecided[-1].rejected.detail}"
            if self._holding.begin(reason, now, broken_contract=True):
                self._observe.holding(self._holding.current)

    # --- what others need to know

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._in_flight)

    @property
    def waiting(self) -> int:
        """Requests that wait to be sent, again or for the first time."""
        return len(self._waiting) + len(self._isolating) + (self._probe is not None)

    @property
    def quota_remaining(self) -> int:
        """Requests that may still be sent at once."""
        return self._quota.remaining(self._clock.monotonic())

    @property
    def contacts_in_flight(self) -> int:
        """Contacts in the requests under way."""
        return sum(len(request.contacts) for request in self._in_flight.values())

    def asked_records(self, partition: Partition) -> Iterator[SourceRecord]:
        """The records of a partition about which the API is asked now, or will be again."""
        for request in self._requests():
            for contact in request.contacts:
                if (contact.record.topic, contact.record.partition) == partition:
                    yield contact.record
        for suspect in self._suspects:
            if (suspect.contact.record.topic, suspect.contact.record.partition) == partition:
                yield suspect.contact.record

    def has_in_flight(self, partitions: set[Partition]) -> bool:
        """Whether a request that is under way right now asks about a record of these partitions."""
        return any(
            (contact.record.topic, contact.record.partition) in partitions
            for request in self._in_flight.values()
            for contact in request.contacts
        )

    def _requests(self) -> Iterator[Request]:
        yield from self._in_flight.values()
        yield from self._waiting
        yield from self._isolating
        if self._probe is not None:
            yield self._probe.origin


def _message_of(answer: Answer) -> str:
    return "the API left out the contact" if isinstance(answer, Answered) else answer.message
