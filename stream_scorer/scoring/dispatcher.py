"""Dispatcher of scoring requests: selects the next request, sends it, and executes the decision on its response.

One thread owns this object. It takes requests from the queue when a slot, the quota and the spend limit permit, and
submits them to the pool. ``core.response_policy`` makes the decisions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.core.budget import Budget
from stream_scorer.core.events import Unavailable
from stream_scorer.core.request import Request, split
from stream_scorer.core.response_policy import Context, Decision, Policy, decide
from stream_scorer.scoring.half_open_probe import HalfOpenProbe
from stream_scorer.scoring.request_queue import RequestQueue
from stream_scorer.scoring.suspects import MAX_WAITING, Suspects
from stream_scorer.scoring.wait_reasons import WaitReason
from stream_scorer.scoring.witnesses import Witnesses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.clock import Clock
    from stream_scorer.core.batcher import Batcher
    from stream_scorer.core.events import Answer, Partition, SourceRecord
    from stream_scorer.core.ledger import Ledger
    from stream_scorer.scoring.circuit_breaker import CircuitBreaker
    from stream_scorer.scoring.observing import Observer
    from stream_scorer.scoring.ports import Pool, Quota, Trace

_TOO_MANY_REQUESTS = 429


class RequestDispatcher:
    """See the module docstring.

    Args:
        pool: sends requests, up to its size at once.
        batcher: contacts that have no request yet.
        ledger: receives outcomes; contains the contacts that still need one.
        quota: permits requests.
        breaker: the circuit breaker of the API; changed by the dispatcher only.
        policy: the settings of the table in contract section 5.
        clock: time, jitter and ids.
        observe: receives events for logs and metrics.
        trace: receives every attempt.
        max_contacts_per_minute: the spend limit (``scoring.max_contacts_per_minute``); None: unlimited.

    Attributes:
        fatal_error: one line for the operator if the worker has to stop; None otherwise.
    """

    def __init__(
        self,
        *,
        pool: Pool,
        batcher: Batcher,
        ledger: Ledger,
        quota: Quota,
        breaker: CircuitBreaker,
        policy: Policy,
        clock: Clock,
        observe: Observer,
        trace: Trace,
        max_contacts_per_minute: int | None = None,
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._quota = quota
        self._budget = Budget(max_contacts_per_minute)
        self._breaker = breaker
        self._policy = policy
        self._clock = clock
        self._observe = observe
        self._trace = trace
        self._queue = RequestQueue(
            batcher,
            ledger,
            may_close_early=quota.may_close_early,
            closed_early=quota.closed_early,
            new_id=clock.new_id,
        )
        self._probe = HalfOpenProbe(self._queue, breaker, clock.new_id)
        self._witnesses = Witnesses(self._queue, policy.max_retries, clock.new_id)
        self._in_flight: dict[str, Request] = {}
        self._suspects = Suspects()
        self._last_2xx_at: float | None = None
        self._retry_after = 0.0
        self.fatal_error: str | None = None

    # --- requests

    def send(self, *, started_only: bool = False) -> None:
        """Send the requests that may be sent now; ``started_only``: no new batch."""
        if self._breaker.open_state is None:
            self._witnesses.release_idle(self._in_flight.values())
        while self._has_slot:
            now = self._clock.monotonic()
            if self._quota.wait_s(now) > 0:
                return
            request = self._next_probe(now) if self._breaker.open_state else self._next(now, started_only=started_only)
            if request is None:
                return
            sent = request.sent(now, self._clock.unix_ms())
            self._in_flight[sent.batch_id] = sent
            self._quota.sent(now)
            self._budget.spend(len(sent.contacts), now)
            self._breaker.clear_throttle()
            self._pool.submit(sent)

    @property
    def _has_slot(self) -> bool:
        return len(self._in_flight) < self._pool.size and self.fatal_error is None

    def _next(self, now: float, *, started_only: bool) -> Request | None:
        """Return the next request; one over the spend limit blocks all others until it fits."""
        bisecting_slot = self._bisecting_in_flight < max(1, self._pool.size // 2)
        request = self._queue.take(now, bisecting_slot=bisecting_slot, started_only=started_only)
        if request is not None:
            request = self._witnesses.spare(request, self._in_flight.values())
            request = self._witnesses.before(request, now, self._last_2xx_at, self._in_flight)
        if request is None:
            return None
        ceiling = self._budget.ceiling
        if ceiling is not None and len(request.contacts) > ceiling:
            request, *rest = split(request, ceiling, self._clock.new_id)
            self._queue.put_first(rest)
        if self._budget.wait_s(len(request.contacts), now) > 0:
            self._queue.put_first([request])
            return None
        return request

    @property
    def _bisecting_in_flight(self) -> int:
        return sum(request.bisecting for request in self._in_flight.values())

    def _next_probe(self, now: float) -> Request | None:
        return self._probe.next(now) if self._budget.wait_s(1, now) == 0 else None

    # --- responses

    def handle_responses(self, wait_s: float = 0.0) -> None:
        """Execute the decisions on all responses that have arrived."""
        for request, answer in self._pool.answers(wait_s):
            del self._in_flight[request.batch_id]
            self._handle_response(request, answer)
        self._decide_suspects()

    def _handle_response(self, request: Request, answer: Answer) -> None:
        now = self._clock.monotonic()
        self._observe.response_received(request, answer, self._trace.exchanged(request, answer))
        self._learn(answer, now)
        context = Context(
            now,
            self._clock.unix_ms(),
            self._clock.jitter(),
            self._last_2xx_at,
            self._clock.new_id,
            self._witnesses.wanted(self._in_flight.values(), failed=1),
        )
        decision = decide(request, answer, self._policy, context)
        if decision.answered:
            self._last_2xx_at = now
            self._retry_after = 0.0
            self._suspects.accepted(request.key.model_version, now)
        if self._probe.is_current(request) and not self._probe.on_response(
            answer, decision, now, retry_after=self._retry_after
        ):
            self.fatal_error = self.fatal_error or decision.fatal_error
            self._trace.concluded(request)
        else:
            if not any(again.batch_id == request.batch_id for again in decision.requests):
                self._trace.concluded(request)
            self._execute(decision, now)

    def _learn(self, answer: Answer, now: float) -> None:
        """Update quota and probe times from a response."""
        if answer.exchange.quota is None:
            self._quota.answered()
        else:
            self._quota.learn(answer.exchange.quota, now)
        if not isinstance(answer, Unavailable) or not answer.retry_after_s:
            return
        until = now + answer.retry_after_s
        self._retry_after = max(self._retry_after, until)
        self._breaker.defer_probe(until)
        if answer.exchange.status == _TOO_MANY_REQUESTS:
            self._quota.block_until(until)

    def _execute(self, decision: Decision, now: float) -> None:
        for outcome in decision.outcomes:
            self._ledger.finish(outcome)
        for request in decision.requests:
            self._queue.put(request)
        self._queue.hold_out(decision.witnesses)
        self._suspects.add(decision.suspects)
        self._observe.unmatched_results(decision.unmatched_results)
        self.fatal_error = self.fatal_error or decision.fatal_error
        if decision.trip_reason is not None:
            self._trip(decision.trip_reason, now)

    def _trip(self, message: str, now: float, *, broken_contract: bool = False) -> None:
        self._breaker.trip(message, now, until=self._retry_after, broken_contract=broken_contract)

    def _decide_suspects(self) -> None:
        now, breaker = self._clock.monotonic(), self._breaker.open_state
        rejected = self._suspects.decide(now)
        if breaker is None:
            rejected += self._suspects.expire(now)
        for one in rejected:
            self._ledger.finish(one)
        # With a broken contract, a refusal is no evidence against a contact.
        acquitted = self._suspects.acquit(
            tolerated=0 if breaker is not None and breaker.broken_contract else MAX_WAITING
        )
        for suspect in acquitted:
            # Refused alone already: probe them after all contacts that were not.
            again = Request(self._clock.new_id(), suspect.key, (suspect.contact,), bisecting=True)
            self._queue.put_probed(again)
            self._probe.failed_alone()
        if acquitted:
            message = f"the API refuses every contact: {acquitted[-1].rejected.detail}"
            self._trip(message, now, broken_contract=True)

    # --- state

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        return len(self._in_flight)

    @property
    def waiting(self) -> int:
        """Number of queued requests, retries included."""
        return len(self._queue) + (self._probe.origin is not None)

    @property
    def all_probed(self) -> bool:
        """Whether all waiting contacts have failed as probes: only new contacts can prove more, so read some."""
        return self._probe.all_failed(self._clock.monotonic())

    def poll_timers(self) -> None:
        """Report why due requests were not sent, and throttle the circuit breaker if they wait for a known time."""
        now = self._clock.monotonic()
        reason = self.wait_reason(now)
        self._observe.wait_observed(reason)
        if reason is None or reason.throttle_reason is None:
            self._breaker.clear_throttle()
        else:
            until = now + max(self._quota.wait_s(now), self._budget_wait_s(now))
            self._breaker.throttle(reason.throttle_reason, reason.label, now, until)

    def wait_reason(self, now: float) -> WaitReason | None:
        """Return why due requests were not sent, after a `send`; None if none is waiting."""
        is_due = self._queue.is_due(now)
        if self.fatal_error is not None or not (is_due or self.waiting):
            return None
        if self._breaker.open_state is not None:
            return WaitReason.CIRCUIT_OPEN
        reason = self._quota.reason(now)
        # The Retry-After of a 429 applies to all requests, so it is not the backoff of the one that received it.
        if not is_due and reason != WaitReason.RETRY_AFTER:
            return WaitReason.BACKOFF
        if reason is not None:
            return WaitReason(reason)
        if self._budget_wait_s(now) > 0:
            return WaitReason.SPEND_LIMIT
        return WaitReason.PARTIAL_BATCH if self._has_slot else WaitReason.CONCURRENCY_LIMIT

    def _budget_wait_s(self, now: float) -> float:
        first, ceiling = self._queue.first, self._budget.ceiling
        if first is None or ceiling is None:
            return 0.0
        return self._budget.wait_s(min(len(first.contacts), ceiling), now)

    def may_finish(self, until: float) -> bool:
        """Return whether `send` with ``started_only`` can still send a request before ``until``."""
        return self._breaker.open_state is None and self.fatal_error is None and self._queue.is_started(until)

    def asked_records(self, partition: Partition) -> Iterator[SourceRecord]:
        """Yield the records of a partition that are in flight, queued or suspect."""
        for request in self._requests():
            for contact in request.all_contacts:
                if (contact.record.topic, contact.record.partition) == partition:
                    yield contact.record
        for suspect in self._suspects:
            if (suspect.contact.record.topic, suspect.contact.record.partition) == partition:
                yield suspect.contact.record

    def has_in_flight(self, partitions: set[Partition]) -> bool:
        """Return whether a request in flight contains a record of these partitions."""
        return any(
            (contact.record.topic, contact.record.partition) in partitions
            for request in self._in_flight.values()
            for contact in request.contacts
        )

    def _requests(self) -> Iterator[Request]:
        yield from self._in_flight.values()
        yield from self._queue
        if self._probe.origin is not None:
            yield self._probe.origin
