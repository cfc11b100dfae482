"""Dispatcher of scoring requests: selects the next request and handles its response.

One thread owns it. `send` takes requests from the queue while a slot, the quota and the spend limit are free.
`handle_responses` turns results into outcomes and hands failures to the `FailureHandler`. The rules for a response are
in `core.scoring.response_policy`, those for a contact that failed alone in `scoring.deferral`, those for an outage in
`scoring.version_state` and `scoring.half_open_probe`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from stream_scorer.core.rate_limiter import WINDOW_S, RateLimiter, SlidingWindow
from stream_scorer.core.records import Partition, key_of
from stream_scorer.core.scoring.backoff import next_delay_s
from stream_scorer.core.scoring.batcher import BatchKey
from stream_scorer.core.scoring.request import Request, take_first
from stream_scorer.core.scoring.response_policy import (
    FailureKind,
    Results,
    after_results,
    classify,
    unanswered_twice,
)
from stream_scorer.scoring.control_contacts import ControlContacts
from stream_scorer.scoring.failure_handler import FailureHandler
from stream_scorer.scoring.half_open_probe import HalfOpenProbe
from stream_scorer.scoring.pending_decisions import LAST_ROUND_WINDOW_S
from stream_scorer.scoring.request_queue import Gate, RequestQueue
from stream_scorer.scoring.version_state import NEVER, Phase, VersionStates
from stream_scorer.scoring.wait_reasons import WaitReason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.core.records import SourceRecord
    from stream_scorer.core.scoring.api_response import ApiResponse
    from stream_scorer.core.scoring.batcher import Batcher
    from stream_scorer.core.scoring.response_policy import Failure, Policy
    from stream_scorer.core.scoring.types import Contact
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.runtime.worker_pool import WorkerPool
    from stream_scorer.scoring.circuit_breaker import CircuitBreaker
    from stream_scorer.scoring.deferral import Deferral
    from stream_scorer.scoring.observer import Observer
    from stream_scorer.scoring.pending_decisions import PendingDecision
    from stream_scorer.scoring.ports import OutcomeLedger, Quota, Trace
    from stream_scorer.scoring.version_state import VersionState

_FAILURES_IN_ROW: Final = 8
# How long a failure waits for other failures, so that they share one of the few controls.
_CONTROL_SHARED_S: Final = 2.0
# The gap between two controls of such failures: without it a few dozen bad contacts use up the controls of a minute.
_CONTROL_GAP_S: Final = 0.5
_FORGET_EVERY_S: Final = 60.0


class RequestDispatcher:
    """See the module docstring.

    Args:
        pool: sends requests, up to its size at once.
        batcher: the contacts that were never sent.
        deferred: the contacts that were read from a retry topic.
        ledger: takes the outcomes, and has the contacts without one.
        quota: when a request may be sent.
        breaker: the circuit breaker of the API, as it is reported.
        policy: the settings of the table in contract section 5.
        deferral: defers or rejects a contact that failed alone.
        clock: time and jitter.
        observe: log events and metrics.
        trace: spans of every attempt.
        max_contacts: ``scoring.max_contacts``.
        max_contacts_per_minute: ``scoring.max_contacts_per_minute``; None: no limit.
    """

    def __init__(
        self,
        *,
        pool: WorkerPool[Request, ApiResponse],
        batcher: Batcher,
        deferred: Batcher,
        ledger: OutcomeLedger,
        quota: Quota,
        breaker: CircuitBreaker,
        policy: Policy,
        deferral: Deferral,
        clock: Clock,
        observe: Observer,
        trace: Trace,
        max_contacts: int,
        max_contacts_per_minute: int | None = None,
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._quota = quota
        self._spend_limit = RateLimiter(max_contacts_per_minute)
        self._breaker = breaker
        self._policy = policy
        self._deferral = deferral
        self._clock = clock
        self._observe = observe
        self._trace = trace
        self._queue = RequestQueue(
            batcher,
            deferred,
            ledger,
            may_send_partial_batch=quota.may_send_partial_batch,
            sent_partial_batch=quota.sent_partial_batch,
            new_id=clock.new_id,
        )
        self._versions = VersionStates(max_contacts)
        self._controls = ControlContacts(clock.new_id)
        self._probe = HalfOpenProbe(
            queue=self._queue,
            controls=self._controls,
            breaker=breaker,
            versions=self._versions,
            new_id=clock.new_id,
            max_retry_after_s=policy.max_retry_after_s,
        )
        self._failures = FailureHandler(
            queue=self._queue,
            ledger=ledger,
            versions=self._versions,
            breaker=breaker,
            probe=self._probe,
            policy=policy,
            deferral=deferral,
            clock=clock,
            observe=observe,
        )
        self._control_ids: dict[str | None, str] = {}
        self._success_wanted: set[BatchKey] = set()
        self._controlled_at = NEVER
        self._in_flight: dict[str, Request] = {}
        self._bisect_sent = SlidingWindow()
        self._major_sent_at = NEVER
        self._rate_limited = 0
        self._has_results = False
        self._draining = False
        self._forgot_at = NEVER
        self.fatal_error: str | None = None

    # --- in: contacts

    def add(self, contact: Contact, now: float) -> None:
        """Accept a contact and find its outcome; ``now``: monotonic seconds."""
        state = self._versions.get(contact.model_version, now)
        if self._breaker.open_state is not None:
            self._failures.join_open_breaker(state, now)
        if contact.held and not self._deferral.admits(contact):
            self._ledger.finish(self._deferral.uncounted(contact))
        elif not (state.is_open and self._failures.is_deferring(state)):
            self._queue.add(contact, now)
        elif not self._probe.offer(contact, now):
            self._ledger.finish(self._deferral.uncounted(contact))

    # --- out: requests

    def send(self, *, started_only: bool = False) -> None:
        """Send what may be sent now.

        Args:
            started_only: no new batch, and no backoff while others succeed: the worker stops or partitions are revoked.
        """
        self._draining = started_only
        self._failures.decide_pending()
        self._failures.defer_open_versions()
        self._queue.keep_apart(self._divided_partitions())
        while self._has_slot:
            now = self._clock.monotonic()
            if self._quota.wait_s(now) > 0:
                return
            request = self._next(now, started_only=started_only)
            if request is None:
                return
            sent = request.sent(now, self._clock.unix_ms())
            self._in_flight[sent.batch_id] = sent
            self._quota.sent(now)
            if sent.bisecting or sent.is_deferred:
                self._bisect_sent.add_now(now)
            elif not sent.is_control:
                self._major_sent_at = now
            self._spend_limit.acquire(now, len(sent.contacts))
            self._breaker.clear_throttle()
            self._pool.submit(sent)

    @property
    def _has_slot(self) -> bool:
        return len(self._in_flight) < self._pool.size and self.fatal_error is None

    def _next(self, now: float, *, started_only: bool) -> Request | None:
        if self._spend_limit.wait_s(now) == 0:
            request = self._next_control(now) or self._probe.next(now)
            if request is not None:
                if not request.is_control:
                    self._versions.use(request.key.model_version, now)
                return request
        if self._breaker.open_state is not None:
            return None
        request = self._queue.take(now, self._gate(now, started_only=started_only))
        return None if request is None else self._within_limits(request, now)

    def _within_limits(self, request: Request, now: float) -> Request | None:
        """Return the part of a request that batch size and spend limit allow now; put the rest first in the queue."""
        state = self._versions.use(request.key.model_version, now)
        in_flight = (one for one in self._in_flight.values() if one.key.model_version == request.key.model_version)
        size = state.batch_size.next_size(now, max((len(one.contacts) for one in in_flight), default=0))
        ceiling = self._spend_limit.limit
        most = size if ceiling is None else min(size, ceiling)
        if len(request.contacts) > most:
            request, rest = take_first(request, most, self._clock.new_id)
            self._queue.put_first([rest])
        if self._spend_limit.wait_s(now, len(request.contacts)) > 0:
            self._queue.put_first([request])
            return None
        return request

    def _gate(self, now: float, *, started_only: bool = False) -> Gate:
        bisecting = sum(one.bisecting or one.is_deferred for one in self._in_flight.values())
        self._success_wanted.clear()
        return Gate(
            is_due=lambda request: self._is_due(request, now),
            allows=self._allows,
            sizes={
                state.model_version: state.batch_size.size
                for state in self._versions
                if state.batch_size.size < state.batch_size.maximum
            },
            started_only=started_only,
            bisect_slot=bisecting < max(1, self._pool.size // 2),
            bisect_quota=started_only or self._has_bisect_quota(now),
        )

    def _has_bisect_quota(self, now: float) -> bool:
        """Return whether bisections and deferred contacts may use the quota: up to half of it while others need it.

        The requests that wait now are not enough to decide: later ones would find the quota of the minute used up.
        """
        return now - self._major_sent_at > WINDOW_S or 2 * self._bisect_sent.total(now) < self._quota.allowed()

    def _allows(self, key: BatchKey) -> bool:
        """Return whether a request for a version may be sent: one at a time while its breaker is half-open."""
        now = self._clock.monotonic()
        state = self._versions.get(key.model_version, now)
        if state.phase is Phase.HALF_OPEN:
            return not any(one.key.model_version == key.model_version for one in self._in_flight.values())
        return not state.is_open

    def _is_due(self, request: Request, now: float) -> bool:
        if not self._allows(request.key):
            return False
        state = self._versions.get(request.key.model_version, now)
        later = request.sent_at is not None and state.succeeded_sent_at > request.sent_at
        due_at = request.backoff_until if later else request.not_before
        if due_at > now and not (self._draining and later):
            return False
        if request.lone_failures is None:
            return True
        key = self._evidence_key(request.key, state)
        if now - self._others_succeeded_at(request.key, state) <= LAST_ROUND_WINDOW_S:
            return True
        self._success_wanted.add(key)
        return False

    def _evidence_key(self, key: BatchKey, state: VersionState) -> BatchKey:
        """Return the version for which a success is evidence; any version if this one has never succeeded."""
        return BatchKey(None, version_from_event=False) if self._is_unproven(key, state) else key

    def _others_succeeded_at(self, key: BatchKey, state: VersionState) -> float:
        if self._is_unproven(key, state):
            return self._versions.others_succeeded_at(key.model_version)
        return state.succeeded_at

    @staticmethod
    def _is_unproven(key: BatchKey, state: VersionState) -> bool:
        return key.version_from_event and state.succeeded_at == NEVER

    def _failing_partitions(self) -> set[Partition]:
        """Return the partitions whose contacts are divided, or wait for evidence after a failure."""
        return self._divided_partitions() | {
            Partition(one.record.topic, one.record.partition)
            for pending in self._failures.pending
            for one in pending.request.contacts
        }

    def _divided_partitions(self) -> set[Partition]:
        return self._queue.divided_partitions | {
            Partition(one.record.topic, one.record.partition)
            for request in (*(p.request for p in self._failures.pending), *self._in_flight.values())
            if request.bisecting
            for one in request.contacts
        }

    # --- controls

    def _next_control(self, now: float) -> Request | None:
        """Return the next control: a waiting contact that has not failed, otherwise one with a score."""
        pending = [one for one in self._failures.wanting_control() if not self._is_shared_soon(one, now)]
        wanted = {one.target: one.request.key for one in pending if not one.is_unknown_version}
        wanted |= {key.model_version: key for key in self._success_wanted}
        wanted |= {
            state.model_version: BatchKey(state.model_version, version_from_event=False)
            for state in self._versions
            if state.failures_in_row >= _FAILURES_IN_ROW and not state.is_open
        }
        # A result of any version decides about unknown ones.
        if not (wanted or self._control_ids.keys() - {None}):
            wanted = {one.target: one.request.key for one in pending}
        for target, key in wanted.items():
            if target in self._control_ids:
                self._failures.pending.control_sent(target, self._control_ids[target])
                continue
            request = self._control_for(target, key, now)
            if request is not None:
                self._control_ids[target] = request.batch_id
                self._controlled_at = now
                self._failures.pending.control_sent(target, request.batch_id)
                return request
        return None

    def _is_shared_soon(self, pending: PendingDecision, now: float) -> bool:
        """Return whether other requests of the version may soon succeed, or fail and share the control.

        Divided contacts and those in a retry round wait for that. An outage of the whole API is detected without this
        wait.
        """
        if not (pending.request.is_deferred or pending.request.bisecting):
            return False
        if now - self._controlled_at < _CONTROL_GAP_S:
            return True
        if pending.is_unknown_version or now - pending.failed_at >= _CONTROL_SHARED_S:
            return False
        version = pending.request.key.model_version
        return any(
            request.key.model_version == version and not request.is_control for request in self._in_flight.values()
        ) or any(request.key.model_version == version and self._is_due(request, now) for request in self._queue)

    def _control_for(self, target: str | None, key: BatchKey, now: float) -> Request | None:
        if not (self._draining or self._versions.get(target, now).waiting_control_failed):
            waiting = self._queue.take_contact(
                target, self._failures.failed_alone, never_failed=True, avoid=self._failing_partitions()
            )
            if waiting is not None:
                return waiting
        control = self._controls.take(key._replace(model_version=target), now)
        if control is not None or not self._controls.is_empty:
            return control
        return self._failures.first_of_failed(target, now)

    # --- in: responses

    def handle_responses(self, wait_s: float = 0.0) -> None:
        """Take the responses that have arrived and carry out their decisions."""
        for request, response in self._pool.answers(wait_s):
            del self._in_flight[request.batch_id]
            self._handle(request, response)
        self._failures.decide_pending()
        self._forget_idle()

    def _handle(self, request: Request, response: ApiResponse) -> None:
        now = self._clock.monotonic()
        self._observe.response_received(request, response, self._trace.response_received(request, response))
        self._learn_quota(response, now)
        self._failures.pending.responded(request.batch_id)
        was_control = self._control_ended(request)
        is_probe = self._probe.ended(request.batch_id)
        result = classify(request, response, self._policy)
        if isinstance(result, Results):
            self._succeeded(request, result, response, now, is_probe=is_probe)
        elif result.kind is FailureKind.RATE_LIMITED:
            self._on_rate_limit(request, result, now, was_control=was_control)
        else:
            self._failed(request, result, now, was_control=was_control, is_probe=is_probe)
        if not any(again.batch_id == request.batch_id for again in self._requests()):
            self._trace.request_finished(request)

    def _succeeded(
        self, request: Request, results: Results, response: ApiResponse, now: float, *, is_probe: bool
    ) -> None:
        self._rate_limited = 0
        self._has_results = True
        state = self._versions.get(request.key.model_version, now)
        was_open, api_was_open = state.is_open, self._breaker.open_state is not None
        state.record_success(len(request.contacts), request.sent_at or now, now, is_control=request.is_control)
        if was_open and api_was_open:
            self._failures.recover()
        elif was_open:
            state.opened_alone = False
            self._observe.version_breaker_changed(state.model_version, None, opened=self._versions.opened)
        if is_probe:
            self._probe.succeeded()
        if request.is_control:
            return
        may_have_failed = bool(self._failures.failed_alone) or request.is_deferred or request.was_named
        for scored in results.scored:
            if may_have_failed:
                self._failures.answered(scored.contact, was_named=request.was_named)
            self._ledger.finish(scored)
        self._deferral.finished(len(results.scored))
        self._controls.record_scored(results.scored[-1].contact)
        self._observe.unmatched_results(results.unmatched)
        for again in after_results(request, results, self._failures.context(now)):
            self._queue.put(again)
        decision = unanswered_twice(request, results, response.exchange, self._policy)
        if decision.failed:
            self._failures.carry_out(request, decision)

    def _on_rate_limit(self, request: Request, failure: Failure, now: float, *, was_control: bool) -> None:
        """Pause all requests after a 429; it is a failure neither of a contact nor of a control."""
        self._rate_limited += 1
        backoff_s = next_delay_s(
            self._rate_limited,
            base_s=self._policy.backoff_base_s,
            max_s=self._policy.max_backoff_s,
            jitter=self._clock.jitter(),
        )
        asked_s = failure.retry_after_s
        until = now + (backoff_s if asked_s is None else min(asked_s, self._policy.max_retry_after_s))
        self._quota.block_until(until)
        if was_control:
            self._failures.pending.control_ended(request.batch_id, failed=False)
        if not request.is_control:
            self._failures.put_back(request.due_at(until, until))

    def _failed(self, request: Request, failure: Failure, now: float, *, was_control: bool, is_probe: bool) -> None:
        request = replace(request, failures=request.failures + 1)
        state = self._versions.get(request.key.model_version, now)
        if failure.kind.is_size and request.sent_at is not None:
            is_certain = failure.kind is FailureKind.TOO_LARGE
            state.batch_size.record_too_large(len(request.contacts), request.sent_at, now, is_certain=is_certain)
        if failure.is_fatal and not self._has_results:
            self.fatal_error = self.fatal_error or failure.message
        if not request.is_deferred:
            state.failures_in_row += 1
        if request.is_single and not request.is_control:
            record = request.contacts[0].record
            self._failures.failed_alone[key_of(record)] = record
        # A waiting contact may be as bad as the failed ones: then a contact that has its score decides.
        decides = was_control and (request.is_control or self._controls.is_empty)
        if was_control:
            self._failures.pending.control_ended(request.batch_id, failed=decides)
            state.waiting_control_failed = not decides
        if is_probe:
            self._probe.failed(request, failure, now)
        if not request.is_control:
            if is_probe or state.is_open or self.fatal_error is not None:
                self._failures.put_back(request)
            else:
                self._failures.handle(request, failure, now, self._in_flight.values(), was_control=decides)
        if decides and state.failures_in_row >= _FAILURES_IN_ROW and not state.is_open:
            self._failures.trip([state], failure, now)

    def _control_ended(self, request: Request) -> bool:
        for target, batch_id in list(self._control_ids.items()):
            if batch_id == request.batch_id:
                del self._control_ids[target]
                if request.is_control:
                    self._observe.control_sent()
                return True
        return False

    def _learn_quota(self, response: ApiResponse, now: float) -> None:
        if response.exchange.quota is None:
            self._quota.answered()
        else:
            self._quota.update(response.exchange.quota, now)

    def _forget_idle(self) -> None:
        now = self._clock.monotonic()
        if now - self._forgot_at >= _FORGET_EVERY_S:
            self._forgot_at = now
            for state in self._versions.forget_idle(now, self._queue.versions()):
                if state.is_open:
                    self._observe.version_breaker_changed(state.model_version, None, opened=self._versions.opened)
            self._failures.forget_unowned()

    # --- state for the worker

    @property
    def in_flight(self) -> int:
        """Requests in flight."""
        return len(self._in_flight)

    @property
    def contacts_in_flight(self) -> int:
        """Contacts of the requests in flight."""
        return sum(len(request.contacts) for request in self._in_flight.values())

    @property
    def waiting(self) -> int:
        """Requests that wait to be sent or decided."""
        return len(self._queue) + len(self._failures.pending)

    @property
    def batched(self) -> int:
        """Contacts that wait in batches."""
        return self._queue.batched

    @property
    def all_probed(self) -> bool:
        """Whether all contacts that were read have failed as probes, so that more should be read."""
        return self._probe.all_failed

    def poll_timers(self) -> None:
        """Record why waiting requests were not sent; throttle the breaker if only time ends the wait."""
        now = self._clock.monotonic()
        reason = self.wait_reason(now)
        self._observe.wait_observed(reason)
        if reason is None or reason.throttle_reason is None:
            self._breaker.clear_throttle()
        else:
            until = now + max(self._quota.wait_s(now), self._spend_wait_s(now))
            self._breaker.throttle(reason.throttle_reason, reason.label, now, until)

    def wait_reason(self, now: float) -> WaitReason | None:
        """Return why waiting requests were not sent; None: nothing waits. Call it after `send`."""
        is_due = self._queue.is_due(now, self._gate(now))
        if self.fatal_error is not None or not (is_due or self.waiting or self._breaker.open_state):
            return None
        if self._breaker.open_state is not None:
            return WaitReason.CIRCUIT_OPEN
        reason = self._quota.reason(now)
        # The pause of a 429 counts for all requests, although only its own waits for it.
        if not is_due and reason != WaitReason.RETRY_AFTER:
            return WaitReason.BACKOFF
        if reason is not None:
            return WaitReason(reason)
        if self._spend_wait_s(now) > 0:
            return WaitReason.SPEND_LIMIT
        return WaitReason.PARTIAL_BATCH if self._has_slot else WaitReason.CONCURRENCY_LIMIT

    def _spend_wait_s(self, now: float) -> float:
        first, ceiling = self._queue.first, self._spend_limit.limit
        if first is None or ceiling is None:
            return 0.0
        return self._spend_limit.wait_s(now, min(len(first.contacts), ceiling))

    def may_finish(self, until: float) -> bool:
        """Return whether `send` with ``started_only`` can finish contacts in progress before the deadline."""
        if self._breaker.open_state is not None or self.fatal_error is not None:
            return False
        pending = self._failures.pending
        if any(one.awaited or one.control for one in pending):
            return True
        in_last_round = any(request.lone_failures is not None for request in self._queue)
        if (len(pending) or in_last_round) and self._controls.next_at(self._clock.monotonic()) <= until:
            return True
        draining, self._draining = self._draining, True
        try:
            return any(self._is_due(request, until) for request in self._queue)
        finally:
            self._draining = draining

    def requested_records(self, partition: Partition) -> Iterator[SourceRecord]:
        """Yield the records of a partition whose contacts are in flight or will be sent again."""
        for request in self._requests():
            if not request.is_control:
                for contact in request.all_contacts:
                    if (contact.record.topic, contact.record.partition) == partition:
                        yield contact.record

    def has_in_flight(self, partitions: set[Partition]) -> bool:
        """Return whether a request in flight has a record of these partitions."""
        return any(
            (contact.record.topic, contact.record.partition) in partitions
            for request in self._in_flight.values()
            if not request.is_control
            for contact in request.contacts
        )

    def drop_unowned(self) -> None:
        """Drop the batched contacts of revoked partitions."""
        self._queue.drop_unowned()
        self._probe.drop_unowned()

    def _requests(self) -> Iterator[Request]:
        yield from self._in_flight.values()
        yield from self._queue
        for pending in self._failures.pending:
            yield pending.request
        if self._probe.offered is not None:
            yield self._probe.offered
