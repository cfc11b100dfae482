"""Sender of callbacks: sends the deliveries that the dispatcher selects, and carries out the response policy.

While a circuit breaker is open, the callbacks that it blocks become probe candidates or go to the retry topics.
"""

from __future__ import annotations

import itertools
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from stream_scorer.callbacks.probe_candidates import ProbeCandidates
from stream_scorer.core.callbacks.retry_policy import RetryNow, accept_conflict, after_attempt, defer_blocked
from stream_scorer.core.callbacks.types import DeliveryKind
from stream_scorer.core.records import Partition, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stream_scorer.callbacks.dispatcher import Dispatcher
    from stream_scorer.callbacks.observer import DelivererObserver
    from stream_scorer.callbacks.trace_headers import DelivererTrace
    from stream_scorer.core.callbacks.circuit_breaker import CircuitBreakers
    from stream_scorer.core.callbacks.retry_policy import Delivery, DeliveryOutcome, DeliveryRules
    from stream_scorer.core.callbacks.types import DeliveryAnswer
    from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
    from stream_scorer.core.records import RecordKey
    from stream_scorer.runtime.clock import Clock


_ANY_NUMBER = 1_000_000
# Pause after a 429 without `Retry-After`.
_UNNAMED_PAUSE_S: Final = 1.0


class DeliveryPool(Protocol):
    """See ``runtime.worker_pool.WorkerPool``."""

    def submit(self, delivery: Delivery) -> None:
        """Start an attempt."""

    def answers(self, wait_s: float = 0.0) -> list[tuple[Delivery, DeliveryAnswer]]:
        """Return the attempts that have ended."""


class Sender:
    """See the module docstring. Owned by the deliverer's thread.

    Args:
        dispatcher: the deliveries that wait or are in flight.
        pool: sends the requests.
        allowance: how many attempts the target may make now; see ``callbacks.ports.Target``.
        breakers: of the campaigns and the target.
        ledger: has the records that are still assigned.
        rules: delays and retry topics.
        clock: time and jitter.
        observe: log events and metrics.
        trace: spans of every attempt.
        finish: takes the outcome of a callback.
    """

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        pool: DeliveryPool,
        allowance: Callable[[], int | None],
        breakers: CircuitBreakers,
        ledger: OffsetLedger[DeliveryOutcome],
        rules: DeliveryRules,
        clock: Clock,
        observe: DelivererObserver,
        trace: DelivererTrace,
        finish: Callable[[DeliveryOutcome], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._pool = pool
        self._allowance = allowance
        self._breakers = breakers
        self._candidates = ProbeCandidates()
        self._probes: set[RecordKey] = set()
        self._ledger = ledger
        self._rules = rules
        self._clock = clock
        self._observe = observe
        self._trace = trace
        self._finish = finish

    def add(self, delivery: Delivery) -> None:
        """Add a callback that was read."""
        now = self._clock.monotonic()
        partition = Partition(delivery.record.topic, delivery.record.partition)
        self._breakers.seen(delivery.callback.campaign_id, partition, now)
        self._dispatcher.add(delivery, now)

    def send(self) -> None:
        """Send the deliveries that may be sent now, and the probes that are due."""
        now = self._clock.monotonic()
        allowance = self._allowance()
        # Which requests in flight are counted already is not known: the last few of a quota wait for their responses.
        limit = _ANY_NUMBER if allowance is None else allowance - self._dispatcher.in_flight
        turn = self._dispatcher.next_round(now, self._clock.unix_ms(), limit)
        for delivery in turn.send:
            self._breakers.sent(delivery.callback.campaign_id, now)
            self._submit(delivery, now)
        has_room = limit > len(turn.send)
        for delivery in turn.blocked:
            self._set_aside(delivery, now, has_room=has_room)
        if has_room:
            self._probe(now)
        for postponed in turn.deferred:
            self._finish(postponed)
        for campaign_id in turn.rate_limited:
            self._observe.rate_limited(campaign_id)

    def evict(self, few: int) -> None:
        """Defer all waiting callbacks of failing campaigns with more than ``few`` of them, and as many candidates."""
        if len(self._candidates) > few:
            for released in self._candidates.release(lambda _: False):
                self._finish(defer_blocked(released, self._rules, self._clock.unix_ms()))
        for diverted in self._dispatcher.defer_degraded(self._clock.monotonic(), self._clock.unix_ms(), few):
            self._finish(diverted)

    def collect(self, wait_s: float) -> None:
        """Handle the responses that have arrived, after a wait of up to ``wait_s`` for the first."""
        for delivery, response in self._pool.answers(wait_s):
            answer = accept_conflict(
                delivery, response, is_accepting=self._breakers.is_accepting(delivery.callback.campaign_id)
            )
            self._observe.attempted(answer)
            self._trace.attempted(delivery, answer)
            now = self._clock.monotonic()
            failed = self._failed(delivery, answer)
            if self._dispatcher.on_response(delivery, now, failed=failed, leave_alone_s=_leave_alone_s(answer)):
                self._observe.campaign_failing(delivery, answer)
            self._update_breakers(delivery, answer, now)
            self._after_attempt(delivery, answer, now)

    def forget_idle(self) -> None:
        """Discard the state of idle campaigns."""
        now = self._clock.monotonic()
        self._dispatcher.evict_idle(now)
        self._breakers.forget(now, self._ledger.is_partition_assigned)

    def report_breakers(self) -> None:
        """Record the state of the circuit breakers."""
        self._observe.breakers(self._breakers.target(), self._breakers.campaigns())

    def drop_unowned(self) -> None:
        """Discard the waiting callbacks of revoked partitions."""
        self._dispatcher.drop(self._ledger.is_pending)
        self._candidates.drop(self._ledger.is_pending)

    # --- state

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        return self._dispatcher.in_flight

    @property
    def probe_candidates(self) -> int:
        """Number of callbacks that wait to be sent as a probe."""
        return len(self._candidates)

    def oldest_planned_ms(self, default: int) -> int:
        """Return when the oldest callback in memory was planned, in Unix milliseconds."""
        deliveries = itertools.chain(self._dispatcher.deliveries(), self._candidates)
        return min((one.callback.planned_at_ms for one in deliveries), default=default)

    def is_sending(self, partitions: Iterable[Partition]) -> bool:
        """Return whether a callback of one of these partitions is in flight."""
        return any(self._dispatcher.in_flight_records(partition) for partition in partitions)

    # --- private

    def _set_aside(self, delivery: Delivery, now: float, *, has_room: bool) -> None:
        """Keep a blocked callback as a probe candidate, or defer it; ``has_room``: whether a probe may be sent now."""
        campaign_id = delivery.callback.campaign_id
        if not self._breakers.is_switched_off(campaign_id):
            displaced = self._candidates.offer(delivery)
        elif has_room and self._breakers.is_probe_due(campaign_id, now) and self._admits_probe(campaign_id, now):
            self._send_probe(delivery, now)
            return
        else:
            displaced = delivery
        if displaced is not None:
            self._finish(defer_blocked(displaced, self._rules, self._clock.unix_ms()))

    def _probe(self, now: float) -> None:
        """Send a probe if one is due."""
        first = self._dispatcher.awaiting_first_probe(now)
        for campaign_id in self._breakers.next_probes([*first, *self._candidates.campaigns], now):
            if self._admits_probe(campaign_id, now):
                waiting = self._dispatcher.take_first if campaign_id in first else self._candidates.take
                self._send_probe(waiting(campaign_id), now)
                return

    def _admits_probe(self, campaign_id: str | None, now: float) -> bool:
        return self._dispatcher.admits_probe(campaign_id, now)

    def _send_probe(self, delivery: Delivery, now: float) -> None:
        self._breakers.sent(delivery.callback.campaign_id, now, is_probe=True)
        self._probes.add(key_of(delivery.record))
        self._dispatcher.mark_in_flight(delivery, now)
        self._submit(delivery, now)

    def _submit(self, delivery: Delivery, now: float) -> None:
        self._pool.submit(self._trace.attempting(delivery.attempted_at(now)))

    def _update_breakers(self, delivery: Delivery, answer: DeliveryAnswer, now: float) -> None:
        campaign_id, key = delivery.callback.campaign_id, key_of(delivery.record)
        if key in self._probes:
            self._probes.discard(key)
            self._breakers.probe_ended(campaign_id, now, was_sent=answer.is_about_target)
        if self._awaits_acceptance(delivery, answer):
            return
        if self._breakers.responded(campaign_id, delivery.callback.callback_id, answer, now):
            self.report_breakers()
        for released in self._candidates.release(lambda one: self._are_probes(one, now)):
            self._dispatcher.add(released, now)

    def _are_probes(self, campaign_id: str | None, now: float) -> bool:
        """Return whether callbacks of a campaign are kept to be sent as probes; not during a long pause."""
        return self._breakers.needs_candidates(campaign_id) and not self._dispatcher.is_paused(campaign_id, now)

    def _awaits_acceptance(self, delivery: Delivery, answer: DeliveryAnswer) -> bool:
        """Return whether a 409 may become an acceptance at a quick attempt, when others of the campaign are accepted.

        After a crash, the first requests are all repeats: they must not open the breaker of a receiver that works.
        """
        is_blocked = self._breakers.blocks(delivery.callback.campaign_id)
        is_last = delivery.attempts_in_round >= len(self._rules.quick_delays_s)
        return answer.is_conflict and delivery.may_be_repeat and not is_blocked and not is_last

    def _failed(self, delivery: Delivery, answer: DeliveryAnswer) -> bool | None:
        """Return whether an attempt failed; None: that is not known yet, or it shows nothing about the target."""
        if answer.kind is DeliveryKind.DELIVERED:
            return False
        return None if not answer.is_about_target or self._awaits_acceptance(delivery, answer) else True

    def _after_attempt(self, delivery: Delivery, answer: DeliveryAnswer, now: float) -> None:
        step = after_attempt(
            delivery,
            answer,
            self._rules,
            now=now,
            now_ms=self._clock.unix_ms(),
            jitter=self._clock.jitter(),
            is_blocked=self._breakers.blocks(delivery.callback.campaign_id),
        )
        if not isinstance(step, RetryNow):
            self._finish(step)
        elif self._ledger.is_pending(delivery.record):
            self._dispatcher.add(step.delivery, now)
        else:
            self._ledger.drop(delivery.record)  # its partition is not assigned any more


def _leave_alone_s(answer: DeliveryAnswer) -> float:
    """Return how long the receiver demands a pause; 0: it demands none."""
    if answer.kind not in (DeliveryKind.TRY_LATER, DeliveryKind.REFUSED):
        return 0.0
    if answer.retry_after_s is not None and answer.retry_after_s > 0:
        return answer.retry_after_s
    return _UNNAMED_PAUSE_S if answer.status == HTTPStatus.TOO_MANY_REQUESTS else 0.0
