"""Handler of failures: what a failed request leads to, at once or when its evidence is there.

It owns the failures that wait for evidence, and opens and half-opens the circuit breakers. A contact that failed alone
gets its outcome here: a retry topic, or at last a rejection (`scoring.deferral`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stream_scorer.core.records import key_of
from stream_scorer.core.scoring.request import subset, take_first
from stream_scorer.core.scoring.response_policy import (
    Context,
    FailureKind,
    at_once,
    while_none_succeed,
    while_others_succeed,
)
from stream_scorer.core.scoring.types import Deferred
from stream_scorer.scoring.pending_decisions import PendingDecision, PendingDecisions
from stream_scorer.scoring.version_state import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_scorer.core.records import RecordKey, SourceRecord
    from stream_scorer.core.scoring.request import Request
    from stream_scorer.core.scoring.response_policy import Decision, FailedContact, Failure, Policy
    from stream_scorer.core.scoring.types import Contact, Outcome
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.scoring.circuit_breaker import CircuitBreaker
    from stream_scorer.scoring.deferral import Deferral
    from stream_scorer.scoring.half_open_probe import HalfOpenProbe
    from stream_scorer.scoring.observer import Observer
    from stream_scorer.scoring.ports import OutcomeLedger
    from stream_scorer.scoring.request_queue import RequestQueue
    from stream_scorer.scoring.version_state import VersionState, VersionStates


class FailureHandler:
    """See the module docstring. Times are monotonic seconds.

    Args:
        queue: takes the requests that follow.
        ledger: takes the outcomes.
        versions: successes, batch sizes and breakers of the model versions.
        breaker: of the API.
        probe: of open breakers.
        policy: the settings of the table in contract section 5.
        deferral: defers or rejects a contact that failed alone.
        clock: time and jitter.
        observe: log events and metrics.

    Attributes:
        pending: the failures that wait for evidence.
        failed_alone: the records that have failed alone and have no outcome yet.
    """

    def __init__(
        self,
        *,
        queue: RequestQueue,
        ledger: OutcomeLedger,
        versions: VersionStates,
        breaker: CircuitBreaker,
        probe: HalfOpenProbe,
        policy: Policy,
        deferral: Deferral,
        clock: Clock,
        observe: Observer,
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._versions = versions
        self._breaker = breaker
        self._probe = probe
        self._policy = policy
        self._deferral = deferral
        self._clock = clock
        self._observe = observe
        self.pending = PendingDecisions(versions)
        self.failed_alone: dict[RecordKey, SourceRecord] = {}

    # --- a failure

    def handle(
        self, request: Request, failure: Failure, now: float, in_flight: Iterable[Request], *, was_control: bool
    ) -> None:
        """Decide about a failed request, or keep it until there is evidence.

        Args:
            request: the request, its failure counted.
            failure: the failure of the request.
            now: the time.
            in_flight: the requests that may be the evidence.
            was_control: whether it was the control of other failures: then it is also its own evidence.
        """
        pending = PendingDecision(request, failure, now, is_last_round=request.lone_failures is not None)
        self.pending.add(pending, in_flight)
        if was_control:
            pending.awaited.clear()
            pending.control, pending.control_failed = request.batch_id, True
        if pending.is_last_round or (request.is_deferred and not request.is_single):
            return
        if failure.kind.is_size and self.pending.evidence(pending):
            return
        decision = at_once(request, failure, self._policy, self.context(now))
        if decision is not None:
            self.pending.remove(pending)
            self.carry_out(request, decision)

    def wanting_control(self) -> list[PendingDecision]:
        """Return the failures that wait for a control, without contacts of revoked partitions."""
        found = []
        for pending in self.pending.wanting_control():
            wanted = self._queue.still_wanted(pending.request)
            if wanted is None:
                self.pending.remove(pending)
            else:
                pending.request = wanted
                found.append(pending)
        return found

    def first_of_failed(self, target: str | None, now: float) -> Request | None:
        """Return the first contact of a failed request as a control if there is no other control.

        If only single contacts are left, two failures are evidence against the API. One alone is retried, or waits for
        the next contact that is read.
        """
        pending = [one for one in self.wanting_control() if one.target == target]
        for one in pending:
            if not one.request.is_single:
                first, one.request = take_first(one.request, 1, self._clock.new_id)
                return replace(first, bisecting=True)
        if len(pending) > 1:
            for one in pending:
                one.control_failed = True
            self.decide_pending()
            return None
        for one in pending:
            if one.failure.kind.is_retryable:
                self.pending.remove(one)
                retried = replace(one.request, failures=min(one.request.failures, self._policy.max_retries))
                self.carry_out(retried, while_none_succeed(retried, one.failure, self._policy, self.context(now)))
        return None

    # --- decisions

    def decide_pending(self) -> None:
        """Decide about the failures that have evidence."""
        now = self._clock.monotonic()
        if self._breaker.open_state is not None:
            return
        for pending, others_succeed in self.pending.decided(now):
            if pending not in self.pending:
                continue  # another decision has opened the breaker of its version
            self.pending.remove(pending)
            if others_succeed:
                self._on_others_succeed(pending, now)
            else:
                self._on_none_succeed(pending, now)

    def _on_others_succeed(self, pending: PendingDecision, now: float) -> None:
        request = pending.request
        if not pending.is_last_round or pending.failure.kind is FailureKind.LOGIN_UNAVAILABLE:
            decision = while_others_succeed(request, pending.failure, self._policy, self.context(now))
            if pending.is_unknown_version:
                self._fail_version(request.key.model_version, now)
            self.carry_out(request, decision)
            return
        failures = (request.lone_failures or 0) + 1
        if failures < self._deferral.lone_failures:
            self._queue.put(replace(request, lone_failures=failures, not_before=now, backoff_until=now))
            return
        decision = while_others_succeed(
            replace(request, retried_unanswered=True), pending.failure, self._policy, self.context(now)
        )
        for failed in decision.failed:
            self.finish(self._deferral.reject(failed))

    def _on_none_succeed(self, pending: PendingDecision, now: float) -> None:
        request, failure = pending.request, pending.failure
        state = self._versions.get(request.key.model_version, now)
        if request.is_deferred:
            for contact in request.all_contacts:
                self.finish(self._deferral.uncounted(contact))
            return
        if failure.kind is FailureKind.UNKNOWN_VERSION:
            self.put_back(request)
            self.trip(list(self._versions), failure, now)
            return
        decision = while_none_succeed(request, failure, self._policy, self.context(now))
        if decision.trip is None and state.phase is not Phase.HALF_OPEN:
            self.carry_out(request, decision)
            return
        self.put_back(request)
        self.trip([state], failure, now)

    def carry_out(self, request: Request, decision: Decision) -> None:
        """Queue the requests of a decision; defer or reject the contacts that failed alone."""
        for again in decision.requests:
            self._queue.put(again)
        for failed in decision.failed:
            self._fail(request, failed)

    def _fail(self, request: Request, failed: FailedContact) -> None:
        """Defer a contact that failed alone, or reject it."""
        contact = failed.contact
        if failed.is_proven and not self._deferral.fails_at_random:
            self.finish(self._deferral.reject(failed))
        elif self._deferral.is_held(contact):
            self.finish(self._deferral.failed_again(contact))
        elif not self._deferral.is_last_round(contact):
            self.finish(self._deferral.counted(contact))
        else:
            alone = subset(request, (contact,), self._clock.new_id)
            self._queue.put(replace(alone, failures=0, lone_failures=0))

    def _fail_version(self, model_version: str | None, now: float) -> None:
        """Defer all contacts of a version that is unknown to the platform."""
        requests = self._queue.drain(model_version) + self.pending.drain(model_version)
        for request in requests:
            if request.lone_failures is not None:
                self._queue.put(request)  # its failures stay counted: new contacts of the version do not reset them
        contacts = [one for request in requests if request.lone_failures is None for one in request.all_contacts]
        for contact in contacts + self._queue.drain_batches(model_version):
            if self._deferral.is_last_round(contact):
                self._queue.add(contact, now)
            else:
                self.finish(self._deferral.counted(contact))

    def finish(self, outcome: Outcome) -> None:
        """Record the outcome of a contact that failed."""
        self.failed_alone.pop(key_of(outcome.record), None)
        self._ledger.finish(outcome)
        if not isinstance(outcome, Deferred):
            self._deferral.finished(1)

    # --- circuit breaker

    def trip(self, states: list[VersionState], failure: Failure, now: float) -> None:
        """Open the breakers of versions: their contacts go back to the batches, and bisections are dropped."""
        returned: list[Request] = []
        for state in states:
            state.trip(failure.message, now)
            state.failures_in_row = 0
            version = state.model_version
            returned += self._queue.drain(version) + self.pending.drain(version)
        self._queue.put_back(returned)
        until = 0.0
        if failure.retry_after_s is not None:
            until = now + min(failure.retry_after_s, self._policy.max_retry_after_s)
        if self._versions.api_open_reason(now, self._waiting_versions()) is not None:
            self._breaker.trip(failure.message, now, until=until)
            return
        self._probe.defer_until(until, now)
        for state in states:
            state.opened_alone = True
            self._observe.version_breaker_changed(state.model_version, failure.message, opened=self._versions.opened)

    def defer_open_versions(self) -> None:
        """Defer the contacts of a version whose breaker is open while requests for other versions succeed.

        If no request was sent for ten minutes to the last version without an open breaker, the API's breaker opens.
        """
        open_versions = [state for state in self._versions if state.is_open]
        if self._breaker.open_state is not None or not open_versions:
            return
        now = self._clock.monotonic()
        reason = self._versions.api_open_reason(now, self._waiting_versions())
        if reason is not None:
            self._breaker.trip(reason, now)
            return
        waiting = self._queue.batched_versions()
        for state in open_versions:
            if state.model_version in waiting and self.is_deferring(state):
                for contact in self._queue.drain_batches(state.model_version):
                    self.finish(self._deferral.uncounted(contact))

    def is_deferring(self, state: VersionState) -> bool:
        """Return whether contacts of a version go to the retry topics, without a counted round."""
        return (
            state.is_open
            and self._breaker.open_state is None
            and self._versions.others_succeeded_at(state.model_version) > state.opened_at
        )

    def join_open_breaker(self, state: VersionState, now: float) -> None:
        """Open the breaker of an idle version while the API's breaker is open: only open versions are probed."""
        api = self._breaker.open_state
        if api is not None and not state.is_open:
            state.trip(api.message, now)

    def recover(self) -> None:
        """Reset the API's breaker; those of all versions become half-open."""
        self._breaker.reset()
        for state in self._versions:
            if state.is_open:
                state.half_open()
        for state in self._versions:
            if state.opened_alone:
                state.opened_alone = False
                self._observe.version_breaker_changed(state.model_version, None, opened=self._versions.opened)

    def _waiting_versions(self) -> set[str | None]:
        return self._queue.versions() | {one.request.key.model_version for one in self.pending}

    def put_back(self, request: Request) -> None:
        """Put back a request that proved nothing: into the queue, or into the batches while its breaker is open."""
        now = self._clock.monotonic()
        if not self._versions.get(request.key.model_version, now).is_open:
            self._queue.put(request)
        else:
            self._queue.put_back([request])

    def context(self, now: float) -> Context:
        """Return the time, jitter and id factory for the response policy."""
        return Context(now, self._clock.unix_ms(), self._clock.jitter(), self._clock.new_id)

    def answered(self, contact: Contact, *, was_named: bool) -> None:
        """Record the score of a contact if it had failed before."""
        had_failed = bool(self.failed_alone) and self.failed_alone.pop(key_of(contact.record), None) is not None
        if had_failed or contact.rounds or was_named:
            self._deferral.answered_after_failure(contact)

    def forget_unowned(self) -> None:
        """Drop the failures of records that are not pending any more."""
        failed = self.failed_alone.items()
        self.failed_alone = {key: record for key, record in failed if self._ledger.is_pending(record)}
