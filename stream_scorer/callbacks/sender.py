"""Sender of callbacks: sends the deliveries that the dispatcher selects, and carries out the response policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from stream_scorer.core.callbacks.delivery_policy import RetryNow, TargetDisabled, after_attempt
from stream_scorer.core.callbacks.types import DeliveryKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stream_scorer.callbacks.dispatcher import Dispatcher
    from stream_scorer.callbacks.observer import DelivererObserver
    from stream_scorer.callbacks.target_breaker import TargetBreaker
    from stream_scorer.callbacks.trace_headers import DelivererTrace
    from stream_scorer.core.callbacks.delivery_policy import Delivery, DeliveryOutcome, DeliveryRules
    from stream_scorer.core.callbacks.types import DeliveryAnswer
    from stream_scorer.core.exactly_once.offset_ledger import OffsetLedger
    from stream_scorer.core.records import Partition
    from stream_scorer.runtime.clock import Clock


_ANY_NUMBER = 1_000_000
_TOO_MANY_REQUESTS: Final = 429
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
        breaker: open while the receiver is switched off.
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
        breaker: TargetBreaker,
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
        self._breaker = breaker
        self._ledger = ledger
        self._rules = rules
        self._clock = clock
        self._observe = observe
        self._trace = trace
        self._finish = finish

    def add(self, delivery: Delivery) -> None:
        """Add a callback that was read."""
        self._dispatcher.add(delivery, self._clock.monotonic())

    def send(self) -> None:
        """Send the deliveries that may be sent now; while the breaker is open, a probe."""
        now = self._clock.monotonic()
        if self._breaker.message is not None:
            self._probe(now)
            return
        allowance = self._allowance()
        # Which requests in flight are counted already is not known: the last few of a quota wait for their responses.
        limit = _ANY_NUMBER if allowance is None else allowance - self._dispatcher.in_flight
        turn = self._dispatcher.next_round(now, self._clock.unix_ms(), limit)
        for delivery in turn.send:
            self._submit(delivery, now)
        for postponed in turn.deferred:
            self._finish(postponed)
        for campaign_id in turn.rate_limited:
            self._observe.rate_limited(campaign_id)

    def evict(self, few: int) -> None:
        """Defer all waiting callbacks of failing campaigns with more than ``few`` of them."""
        for diverted in self._dispatcher.defer_degraded(self._clock.monotonic(), self._clock.unix_ms(), few):
            self._finish(diverted)

    def collect(self, wait_s: float) -> None:
        """Handle the responses that have arrived, after a wait of up to ``wait_s`` for the first."""
        for delivery, answer in self._pool.answers(wait_s):
            self._observe.attempted(answer)
            self._trace.attempted(delivery, answer)
            now, failed = self._clock.monotonic(), answer.kind is DeliveryKind.TRY_LATER
            if self._dispatcher.on_response(delivery, now, failed=failed, leave_alone_s=_leave_alone_s(answer)):
                self._observe.campaign_health_changed(delivery, answer)
            self._after_attempt(delivery, answer)

    def drop_unowned(self) -> None:
        """Discard the waiting callbacks of revoked partitions."""
        self._dispatcher.drop(self._ledger.is_pending)
        if self._breaker.probe is not None and not self._ledger.is_pending(self._breaker.probe.record):
            self._breaker.probe = None

    # --- state

    @property
    def in_flight(self) -> int:
        """Number of requests in flight."""
        return self._dispatcher.in_flight

    @property
    def is_breaker_open(self) -> bool:
        """Whether the receiver is switched off."""
        return self._breaker.message is not None

    def is_sending(self, partitions: Iterable[Partition]) -> bool:
        """Return whether a callback of one of these partitions is in flight."""
        return any(self._dispatcher.in_flight_records(partition) for partition in partitions)

    # --- private

    def _probe(self, now: float) -> None:
        if self._dispatcher.in_flight or not self._breaker.is_probe_due(now):
            return
        delivery = self._breaker.probe or self._dispatcher.any_waiting()
        if delivery is not None:
            self._breaker.probe_sent(delivery, now)
            self._dispatcher.mark_in_flight(delivery, now)
            self._submit(delivery, now)

    def _submit(self, delivery: Delivery, now: float) -> None:
        self._pool.submit(self._trace.attempting(delivery.attempted_at(now)))

    def _after_attempt(self, delivery: Delivery, answer: DeliveryAnswer) -> None:
        now = self._clock.monotonic()
        was_probe = self._breaker.is_probe(delivery)
        step = after_attempt(
            delivery, answer, self._rules, now=now, now_ms=self._clock.unix_ms(), jitter=self._clock.jitter()
        )
        if was_probe and not isinstance(step, TargetDisabled):
            self._breaker.reset()
            self._observe.breaker_changed(None)
        match step:
            case RetryNow(again):
                self._requeue(again, now)
            case TargetDisabled(again):
                if self._breaker.trip(answer.message, now):
                    self._observe.breaker_changed(answer.message)
                self._requeue(again, now)
            case _:
                self._finish(step)

    def _requeue(self, delivery: Delivery, now: float) -> None:
        """Put a callback back into memory if its partition is still assigned."""
        if not self._ledger.is_pending(delivery.record):
            self._ledger.drop(delivery.record)
        elif self._breaker.message is not None and self._breaker.probe is None:
            self._breaker.probe = delivery
        else:
            self._dispatcher.add(delivery, now)


def _leave_alone_s(answer: DeliveryAnswer) -> float:
    """Return how long the receiver demands a pause; 0: it demands none."""
    if answer.kind is not DeliveryKind.TRY_LATER:
        return 0.0
    if answer.retry_after_s is not None and answer.retry_after_s > 0:
        return answer.retry_after_s
    return _UNNAMED_PAUSE_S if answer.status == _TOO_MANY_REQUESTS else 0.0
