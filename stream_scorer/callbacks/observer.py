"""Observers of the callback loops: what planner and deliverer add to `LoopObserver`.

Log events are about a loop or a campaign, never one per callback.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from stream_scorer.core.callbacks.delivery_policy import Completed, DeferredDelivery
from stream_scorer.core.callbacks.types import DeliveryKind
from stream_scorer.core.trace_context import parse_traceparent
from stream_scorer.runtime import instruments
from stream_scorer.runtime.loop_observer import LoopObserver

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stream_scorer.core.callbacks.delivery_policy import Delivery, DeliveryOutcome
    from stream_scorer.core.callbacks.selection import Plan
    from stream_scorer.core.callbacks.types import DeliveryAnswer


class _CallbackLoopObserver(LoopObserver):
    def _blockage_changed(self, cause: str, *, is_blocked: bool) -> None:
        labels = {"reason": cause, **self._of_loop}
        self._metrics.set(instruments.CALLBACKS_CIRCUIT_BREAKER_OPEN, int(is_blocked), labels)

    def _committed(self, records: int) -> None:
        self._metrics.add(instruments.SENT, records, self._of_loop)

    def _processed(self, seconds: float) -> None:
        self._metrics.record(instruments.PROCESS_DURATION, seconds, self._of_loop)

    def _finished(self, callbacks: int, outcome: str) -> None:
        self._metrics.add(instruments.CALLBACKS_FINISHED, callbacks, {"outcome": outcome})

    def _invalid(self, reason: str) -> None:
        self._metrics.add(instruments.RECORDS_INVALID, 1, {"reason": reason})


class PlannerObserver(_CallbackLoopObserver):
    """Observer of the planner."""

    loop: ClassVar[str] = "planner"

    def planned(self, plan: Plan, *, records: int, took_s: float) -> None:
        """Count a committed plan; ``took_s``: time since its first score was read."""
        self._committed(records)
        self._processed(took_s)
        if plan.callbacks:
            contacts = sum(len(callback.contact_ids) for callback in plan.callbacks)
            self._metrics.add(instruments.CALLBACKS_PLANNED, len(plan.callbacks))
            self._metrics.add(instruments.CALLBACK_CONTACTS, contacts)
        if plan.expired:
            self._finished(len(plan.expired), "expired")
        for unusable in plan.unusable:
            self._invalid(unusable.reason)


class DelivererObserver(_CallbackLoopObserver):
    """Observer of the deliverer."""

    loop: ClassVar[str] = "deliverer"
    # Of the target's breaker, and since when; None: it is closed. Set in the loop's thread.
    _opened: tuple[str, float] | None = None

    def attempted(self, answer: DeliveryAnswer) -> None:
        """Record the end of an attempt."""
        labels: dict[str, str | int] = {"result": answer.kind}
        if answer.status is not None:
            labels["http.response.status_code"] = answer.status
        self._metrics.record(instruments.DELIVERY_DURATION, answer.latency_ms / 1000, labels)

    def campaign_health_changed(self, delivery: Delivery, answer: DeliveryAnswer) -> None:
        """Log that the deliveries of a campaign have begun or ceased to fail."""
        callback, context = delivery.callback, parse_traceparent((delivery.traceparent or "").encode())
        fields = {
            "campaign_id": callback.campaign_id,
            "callback_id": callback.callback_id,
            "trace_id": f"{context.trace_id:032x}" if context is not None and context.sampled else None,
        }
        if answer.kind is DeliveryKind.TRY_LATER:
            self._log.warning("campaign deliveries failing", **fields, status=answer.status, detail=answer.message)
        elif answer.kind is not DeliveryKind.SWITCHED_OFF:
            self._log.info("campaign deliveries recovered", **fields)

    def rate_limited(self, campaign_id: str | None) -> None:
        """Log that a campaign has more callbacks than its rate limit allows."""
        self._log.warning("campaign rate limited", campaign_id=campaign_id, limit="callbacks.max_per_minute")

    def breaker_changed(self, message: str | None) -> None:
        """Log that the target's breaker has opened, or closed (None)."""
        labels = {"reason": "target", **self._of_loop}
        self._metrics.set(instruments.CALLBACKS_CIRCUIT_BREAKER_OPEN, int(message is not None), labels)
        before, self._opened = self._opened, None if message is None else (message, self._monotonic())
        if message is not None:
            self._log.warning("circuit opened", reason=f"target switched off: {message}")
        elif before is not None:
            self._log.info("circuit closed", after_s=round(self._monotonic() - before[1], 1))

    def committed(self, outcomes: Iterable[DeliveryOutcome], *, records: int) -> None:
        """Count committed outcomes and their records."""
        self._committed(records)
        ended: Counter[str] = Counter()
        postponed: Counter[tuple[int, str]] = Counter()
        for outcome in outcomes:
            match outcome:
                case Completed():
                    ended[outcome.outcome.value.lower()] += 1
                    self._contacts_refused(outcome)
                case DeferredDelivery():
                    postponed[outcome.retry_level, outcome.reason.value] += 1
                case _:
                    self._invalid(outcome.reason)
                    continue
            if outcome.began is not None:
                self._processed(self._monotonic() - outcome.began)
        for name, amount in ended.items():
            self._finished(amount, name)
        for (level, reason), amount in postponed.items():
            self._metrics.add(instruments.CALLBACKS_DEFERRED, amount, {"retry_topic": level, "reason": reason})

    def _contacts_refused(self, ended: Completed) -> None:
        for reason, contacts in Counter(one.reason for one in ended.refused).items():
            self._metrics.add(instruments.CALLBACK_CONTACTS_REFUSED, contacts, {"reason": reason})
            callback = ended.callback
            self._log.warning(
                "contacts refused",
                campaign_id=callback.campaign_id,
                callback_id=callback.callback_id,
                contacts=contacts,
                reason=reason,
                detail=next(one.detail for one in ended.refused if one.reason == reason),
            )

    def state(self, *, in_flight: int, waiting: Mapping[str, int], uncommitted: int) -> None:
        """Set the gauges, a few times a second; ``waiting``: callbacks by what they wait for."""
        self._metrics.set(instruments.DELIVERIES_IN_FLIGHT, in_flight)
        for reason, amount in waiting.items():
            self._metrics.set(instruments.CALLBACKS_WAITING, amount, {"reason": reason})
        self._metrics.set(instruments.CALLBACKS_UNCOMMITTED, uncommitted)

    def _not_ready(self) -> str | None:
        reason = super()._not_ready()
        if reason is None and self._opened is not None:
            return f"circuit open: target switched off: {self._opened[0]}"
        return reason
