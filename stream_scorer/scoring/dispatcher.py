"""Asks the API: which request goes next, when, and what its answer leads to.

One thread owns this object. It takes requests from the backlog when a slot, the quota and the budget are free, and
hands them to the pool. What an answer means is decided by ``core.response_policy``; here it is only carried out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.core.budget import Budget
from stream_scorer.core.events import Unavailable
from stream_scorer.core.request import Request, pieces
from stream_scorer.core.response_policy import Circumstances, Reaction, Rules, react
from stream_scorer.scoring.half_open_probe import Prober
from stream_scorer.scoring.request_queue import Backlog
from stream_scorer.scoring.suspects import MAX_WAITING, Suspects
from stream_scorer.scoring.wait_reasons import Wait
from stream_scorer.scoring.witnesses import Witnesses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.clock import Clock
    from stream_scorer.core.batcher import Batcher
    from stream_scorer.core.events import Answer, Partition, SourceRecord
    from stream_scorer.core.ledger import Ledger
    from stream_scorer.scoring.circuit_breaker import Holding
    from stream_scorer.scoring.observing import Observer
    from stream_scorer.scoring.ports import Pool, Quota, Trace

_TOO_MANY_REQUESTS = 429


class Asker:
    """See the module's text.

    Args:
        pool: sends requests, so many at once.
        batcher: where contacts that were not asked about yet stand.
        ledger: gets the outcomes, and knows which contacts still need one.
        quota: says when a request may go out.
        holding: the state of holding; changed here only.
        rules: of the table in contract section 5.
        clock: time and chance.
        observe: is told what happens.
        trace: is told of every attempt.
        max_contacts_per_minute: the spend ceiling (``scoring.max_contacts_per_minute``); None: there is none.
    """

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
        trace: Trace,
        max_contacts_per_minute: int | None = None,
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._quota = quota
        self._budget = Budget(max_contacts_per_minute)
        self._holding = holding
        self._rules = rules
        self._clock = clock
        self._observe = observe
        self._trace = trace
        self._backlog = Backlog(
            batcher,
            ledger,
            may_close_early=quota.may_close_early,
            closed_early=quota.closed_early,
            new_id=clock.new_id,
        )
        self._prober = Prober(self._backlog, holding, clock.new_id)
        self._witnesses = Witnesses(self._backlog, rules.max_retries, clock.new_id)
        self._in_flight: dict[str, Request] = {}
        self._suspects = Suspects()
        self._last_2xx_at: float | None = None
        self._retry_after = 0.0
        self.stop_reason: str | None = None

    # --- out

    def send(self, *, begun_only: bool = False) -> None:
        """Sends what may be sent now; ``begun_only``: no new batch."""
        if self._holding.current is None:
            self._witnesses.release_idle(self._in_flight.values())
        while self._has_slot:
            now = self._clock.monotonic()
            if self._quota.wait_s(now) > 0:
                return
            request = self._next_probe(now) if self._holding.current else self._next(now, begun_only=begun_only)
            if request is None:
                return
            sent = request.sent(now, self._clock.unix_ms())
            self._in_flight[sent.batch_id] = sent
            self._quota.sent(now)
            self._budget.spend(len(sent.contacts), now)
            self._holding.resume()
            self._pool.submit(sent)

    @property
    def _has_slot(self) -> bool:
        return len(self._in_flight) < self._pool.size and self.stop_reason is None

    def _next(self, now: float, *, begun_only: bool) -> Request | None:
        """The request that goes next; one that is over the budget waits, and everything else behind it."""
        isolating_slot = self._isolating_in_flight < max(1, self._pool.size // 2)
        request = self._backlog.take(now, isolating_slot=isolating_slot, begun_only=begun_only)
        if request is not None:
            request = self._witnesses.spare(request, self._in_flight.values())
            request = self._witnesses.before(request, now, self._last_2xx_at, self._in_flight)
        if request is None:
            return None
        ceiling = self._budget.ceiling
        if ceiling is not None and len(request.contacts) > ceiling:
            request, *rest = pieces(request, ceiling, self._clock.new_id)
            self._backlog.put_first(rest)
        if self._budget.wait_s(len(request.contacts), now) > 0:
            self._backlog.put_first([request])
            return None
        return request

    @property
    def _isolating_in_flight(self) -> int:
        return sum(request.isolating for request in self._in_flight.values())

    def _next_probe(self, now: float) -> Request | None:
        return self._prober.next(now) if self._budget.wait_s(1, now) == 0 else None

    # --- in

    def collect(self, wait_s: float = 0.0) -> None:
        """Takes the answers that have arrived and carries out what follows from them."""
        for request, answer in self._pool.answers(wait_s):
            del self._in_flight[request.batch_id]
            self._react(request, answer)
        self._decide_suspects()

    def _react(self, request: Request, answer: Answer) -> None:
        now = self._clock.monotonic()
        self._observe.exchanged(request, answer, self._trace.exchanged(request, answer))
        self._learn(answer, now)
        at = Circumstances(
            now,
            self._clock.unix_ms(),
            self._clock.jitter(),
            self._last_2xx_at,
            self._clock.new_id,
            self._witnesses.wanted(self._in_flight.values(), failed=1),
        )
        reaction = react(request, answer, self._rules, at)
        if reaction.answered:
            self._last_2xx_at = now
            self._retry_after = 0.0
            self._suspects.accepted(request.lane.model_version, now)
        if self._prober.sent(request) and not self._prober.conclude(
            answer, reaction, now, retry_after=self._retry_after
        ):
            self.stop_reason = self.stop_reason or reaction.stop
            self._trace.concluded(request)
        else:
            if not any(again.batch_id == request.batch_id for again in reaction.requests):
                self._trace.concluded(request)
            self._carry_out(reaction, now)

    def _learn(self, answer: Answer, now: float) -> None:
        """What an answer says of when to ask again."""
        if answer.exchange.quota is None:
            self._quota.answered()
        else:
            self._quota.learn(answer.exchange.quota, now)
        if not isinstance(answer, Unavailable) or not answer.retry_after_s:
            return
        until = now + answer.retry_after_s
        self._retry_after = max(self._retry_after, until)
        self._holding.put_off(until)
        if answer.exchange.status == _TOO_MANY_REQUESTS:
            self._quota.block_until(until)

    def _carry_out(self, reaction: Reaction, now: float) -> None:
        for outcome in reaction.outcomes:
            self._ledger.finish(outcome)
        for request in reaction.requests:
            self._backlog.put(request)
        self._backlog.keep(reaction.witnesses)
        self._suspects.add(reaction.suspects)
        self._observe.unknown_results(reaction.unknown_results)
        self.stop_reason = self.stop_reason or reaction.stop
        if reaction.hold is not None:
            self._hold(reaction.hold, now)

    def _hold(self, reason: str, now: float, *, broken_contract: bool = False) -> None:
        self._holding.begin(reason, now, until=self._retry_after, broken_contract=broken_contract)

    def _decide_suspects(self) -> None:
        now, hold = self._clock.monotonic(), self._holding.current
        rejected = self._suspects.decide(now)
        if hold is None:
            rejected += self._suspects.expire(now)
        for one in rejected:
            self._ledger.finish(one)
        # Once the contract is known to be broken, a refusal says nothing about anybody.
        acquitted = self._suspects.acquit(tolerated=0 if hold is not None and hold.broken_contract else MAX_WAITING)
        for suspect in acquitted:
            # Refused alone already: as probes they come after all who were not.
            again = Request(self._clock.new_id(), suspect.lane, (suspect.contact,), isolating=True)
            self._backlog.put_probed(again)
            self._prober.failed_alone()
        if acquitted:
            reason = f"the API refuses every contact: {acquitted[-1].rejected.detail}"
            self._hold(reason, now, broken_contract=True)

    # --- what others need to know

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self._in_flight)

    @property
    def waiting(self) -> int:
        """Requests that wait to be sent, again or for the first time."""
        return len(self._backlog) + (self._prober.origin is not None)

    @property
    def probed_all(self) -> bool:
        """Whether a hold has probed as often as contacts wait: only others can tell more, so some should be read."""
        return self._prober.tried_all(self._clock.monotonic())

    def look(self) -> None:
        """Says why what waits was not sent just now: into the sums, and to ``holding`` where only time helps."""
        now = self._clock.monotonic()
        wait = self.wait(now)
        self._observe.kept_back(wait)
        if wait is None or wait.cause is None:
            self._holding.resume()
        else:
            until = now + max(self._quota.wait_s(now), self._budget_wait_s(now))
            self._holding.pause(wait.cause, wait.said, now, until)

    def wait(self, now: float) -> Wait | None:
        """Why what waits was not sent just now, to be asked after `send`; None: nothing waits that could be sent."""
        is_due = self._backlog.is_due(now)
        if self.stop_reason is not None or not (is_due or self.waiting):
            return None
        if self._holding.current is not None:
            return Wait.HOLDING
        reason = self._quota.reason(now)
        # A 429's time counts for everybody, so it is no matter of the one request that got it and waits for it too.
        if not is_due and reason != Wait.RETRY_AFTER:
            return Wait.BACKOFF
        if reason is not None:
            return Wait(reason)
        if self._budget_wait_s(now) > 0:
            return Wait.BUDGET
        return Wait.PACE if self._has_slot else Wait.NO_SLOT

    def _budget_wait_s(self, now: float) -> float:
        first, ceiling = self._backlog.first, self._budget.ceiling
        if first is None or ceiling is None:
            return 0.0
        return self._budget.wait_s(min(len(first.contacts), ceiling), now)

    def may_finish(self, until: float) -> bool:
        """Whether `send` with ``begun_only`` can do anything before then for contacts that were asked about already."""
        return self._holding.current is None and self.stop_reason is None and self._backlog.is_begun(until)

    def asked_records(self, partition: Partition) -> Iterator[SourceRecord]:
        """The records of a partition about which the API is asked now, or will be again."""
        for request in self._requests():
            for contact in request.everyone:
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
        yield from self._backlog
        if self._prober.origin is not None:
            yield self._prober.origin
