"""Observers of the callback loops: what planner and deliverer add to `LoopObserver`.

Log events are about a loop or a campaign, never one per callback.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar, Final

from stream_scorer.core.callbacks.circuit_breaker import BreakerStatus
from stream_scorer.core.callbacks.retry_policy import Completed, DeferReason, DeferredDelivery
from stream_scorer.core.trace_context import parse_traceparent
from stream_scorer.runtime import metric_definitions
from stream_scorer.runtime.loop_observer import LoopObserver
from stream_scorer.runtime.metric_definitions import CALLBACK_RETRY_LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from stream_scorer.core.callbacks.circuit_breaker import Blocked
    from stream_scorer.core.callbacks.retry_policy import Delivery, DeliveryOutcome
    from stream_scorer.core.callbacks.selection import Plan
    from stream_scorer.core.callbacks.types import DeliveryAnswer
    from stream_scorer.core.desk.progress import Report
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.runtime.loop_observer import Log
    from stream_scorer.runtime.metric_definitions import Metrics

_MAX_NOTES: Final = 20
# In a metric of their own.
_MAX_CAMPAIGNS: Final = 100
_STATUS_TEXT: Final = {
    BreakerStatus.OPEN: "circuit open",
    BreakerStatus.HALF_OPEN: "circuit half-open",
    BreakerStatus.SWITCHED_OFF: "switched off",
}


class _CallbackLoopObserver(LoopObserver):
    def _blockage_changed(self, cause: str, *, is_blocked: bool) -> None:
        if cause == "kafka":
            self._membership_changed()
        else:
            self._set_breaker(cause, is_open=is_blocked)

    def _membership_changed(self) -> None:
        unready = self._membership.unready_reason() or ""
        self._set_breaker("kafka", is_open="kafka" in self._blocked or unready.startswith("kafka: "))

    def _set_breaker(self, reason: str, *, is_open: bool) -> None:
        labels = {"reason": reason, **self._of_loop}
        self._metrics.set(metric_definitions.CALLBACKS_CIRCUIT_BREAKER_OPEN, int(is_open), labels)

    def _committed(self, records: int) -> None:
        self._metrics.add(metric_definitions.SENT, records, self._of_loop)

    def _processed(self, seconds: float) -> None:
        self._metrics.record(metric_definitions.PROCESS_DURATION, seconds, self._of_loop)

    def _ended(self, callbacks: int, outcome: str) -> None:
        self._metrics.add(metric_definitions.CALLBACKS_FINISHED, callbacks, {"outcome": outcome})

    def _invalid(self, reason: str) -> None:
        self._metrics.add(metric_definitions.RECORDS_INVALID, 1, {"reason": reason})


class PlannerObserver(_CallbackLoopObserver):
    """Observer of the planner."""

    loop: ClassVar[str] = "planner"
    finished: ClassVar[Sequence[str]] = ("scores_read",)
    others: ClassVar[Sequence[str]] = ("planned", "expired")

    def consumed(self, records: int, *, poll_s: float) -> None:
        """Count the scores of a poll, with its duration."""
        super().consumed(records, poll_s=poll_s)
        self._finished({"scores_read": records})

    def _progress_fields(self, report: Report) -> dict[str, int | float | None]:
        return {
            "rate_per_s": report.rate_per_s,
            "scores_read": report.outcomes["scores_read"],
            "planned": report.outcomes["planned"],
            "expired": report.outcomes["expired"],
            "lag": report.lag,
        }

    def planned(self, plan: Plan, *, records: int, took_s: float) -> None:
        """Count a committed plan; ``took_s``: time since its first score was read."""
        self._committed(records)
        self._processed(took_s)
        if plan.callbacks:
            contacts = sum(len(callback.contact_ids) for callback in plan.callbacks)
            self._metrics.add(metric_definitions.CALLBACKS_PLANNED, len(plan.callbacks))
            self._metrics.add(metric_definitions.CALLBACK_CONTACTS, contacts)
        if plan.expired:
            self._ended(len(plan.expired), "expired")
        self._finished({"planned": len(plan.callbacks), "expired": len(plan.expired)})
        for unusable in plan.unusable:
            self._invalid(unusable.reason)


class DelivererObserver(_CallbackLoopObserver):
    """Observer of the deliverer.

    Args:
        target: see `callbacks.ports.Target`.
        target_of: see there; None: one name.
        waiting_topics: the retry topics: what is there is no backlog.
    """

    loop: ClassVar[str] = "deliverer"
    finished: ClassVar[Sequence[str]] = ("delivered", "refused", "gave_up", "expired")
    others: ClassVar[Sequence[str]] = ("deferred",)

    def __init__(
        self,
        log: Log,
        metrics: Metrics,
        clock: Clock,
        standby_after_s: float = 0.0,
        *,
        target: str = "",
        target_of: Callable[[str | None], str] | None = None,
        waiting_topics: Iterable[str] = (),
    ) -> None:
        super().__init__(log, metrics, clock, standby_after_s)
        self._waiting_topics = frozenset(waiting_topics)
        self._target_name = target
        self._target_of = target_of or (lambda _: target)
        # Set in the loop's thread, read by the admin server's.
        self._target: Blocked | None = None
        self._campaigns: list[Blocked] = []
        self._held = 0
        self._campaign_series: set[frozenset[tuple[str, str | int]]] = set()

    def attempted(self, answer: DeliveryAnswer) -> None:
        """Record the end of an attempt."""
        labels: dict[str, str | int] = {"result": answer.kind}
        if answer.status is not None:
            labels["http.response.status_code"] = answer.status
        self._metrics.record(metric_definitions.DELIVERY_DURATION, answer.latency_ms / 1000, labels)

    def campaign_failing(self, delivery: Delivery, answer: DeliveryAnswer) -> None:
        """Log that the deliveries of a campaign have begun to fail."""
        callback, context = delivery.callback, parse_traceparent((delivery.traceparent or "").encode())
        self._log.warning(
            "campaign deliveries failing",
            campaign_id=callback.campaign_id,
            callback_id=callback.callback_id,
            target=callback.target,
            trace_id=f"{context.trace_id:032x}" if context is not None and context.sampled else None,
            status=answer.status,
            detail=answer.message,
            remedy=answer.remedy,
        )

    def campaign_recovered(self, campaign_id: str | None) -> None:
        """Log that no delivery of a campaign has failed for a minute."""
        self._log.info("campaign deliveries recovered", campaign_id=campaign_id, target=self._target_of(campaign_id))

    def rate_limited(self, campaign_id: str | None) -> None:
        """Log that a campaign has more callbacks than its rate limit allows."""
        self._log.warning("campaign rate limited", campaign_id=campaign_id, limit="callbacks.max_per_minute")

    def breakers(self, target: Blocked | None, campaigns: list[Blocked]) -> None:
        """Record the breakers that are not closed; log that the target's has opened or closed."""
        if campaigns != self._campaigns:
            self._measure_campaigns(campaigns)
        before, self._target, self._campaigns = self._target, target, campaigns
        self._set_breaker("target", is_open=target is not None)
        if target is not None and before is None:
            self._log.warning(
                "circuit opened",
                target=self._target_name,
                status=target.http_status,
                reason=target.message,
                remedy=target.remedy,
            )
        elif target is None and before is not None:
            after_s = round(self._monotonic() - before.since, 1)
            self._log.info("circuit closed", target=self._target_name, after_s=after_s)

    def _measure_campaigns(self, campaigns: list[Blocked]) -> None:
        switched_off = sum(one.status is BreakerStatus.SWITCHED_OFF for one in campaigns)
        for status, amount in (("switched_off", switched_off), ("open", len(campaigns) - switched_off)):
            self._metrics.set(metric_definitions.CAMPAIGNS_BLOCKED, amount, {"status": status})
        before = self._campaign_series
        self._campaign_series = {
            frozenset(
                {
                    "campaign_id": one.campaign_id or "",
                    "target": self._target_of(one.campaign_id),
                    "status": "switched_off" if one.status is BreakerStatus.SWITCHED_OFF else "open",
                    "http.response.status_code": one.http_status or 0,
                    "remedy": one.remedy,
                }.items()
            )
            for one in campaigns[:_MAX_CAMPAIGNS]
        }
        for series in before - self._campaign_series:
            self._metrics.remove(metric_definitions.CAMPAIGN_BLOCKED, dict(series))
        for series in self._campaign_series - before:
            self._metrics.set(metric_definitions.CAMPAIGN_BLOCKED, 1, dict(series))

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
                    self._held += outcome.reason is DeferReason.HELD and not outcome.was_held
                case _:
                    self._invalid(outcome.reason)
                    continue
            if outcome.began is not None:
                self._processed(self._monotonic() - outcome.began)
        self._metrics.set(metric_definitions.CALLBACKS_HELD, self._held)
        for name, amount in ended.items():
            self._ended(amount, name)
        for (level, reason), amount in postponed.items():
            self._metrics.add(metric_definitions.CALLBACKS_DEFERRED, amount, {"retry_topic": level, "reason": reason})
        self._finished({**ended, "deferred": sum(postponed.values())})

    def _progress_fields(self, report: Report) -> dict[str, int | float | None]:
        return {
            "rate_per_s": report.rate_per_s,
            "delivered": report.outcomes["delivered"],
            "refused": report.outcomes["refused"],
            "gave_up": report.outcomes["gave_up"],
            "expired": report.outcomes["expired"],
            "deferred": report.outcomes["deferred"],
            "lag": report.lag,
        }

    def _contacts_refused(self, ended: Completed) -> None:
        for reason, contacts in Counter(one.reason for one in ended.refused).items():
            self._metrics.add(metric_definitions.CALLBACK_CONTACTS_REFUSED, contacts, {"reason": reason})
            callback = ended.callback
            self._log.warning(
                "contacts refused",
                campaign_id=callback.campaign_id,
                callback_id=callback.callback_id,
                contacts=contacts,
                reason=reason,
                detail=next(one.detail for one in ended.refused if one.reason == reason),
            )

    def undelivered(self, oldest_age_s: float, in_retry_topics: Mapping[int, int]) -> None:
        """Record the age of the oldest undelivered callback, and how many wait in each retry topic, by level."""
        self._metrics.set(metric_definitions.OLDEST_UNDELIVERED_AGE, max(oldest_age_s, 0.0))
        for level in CALLBACK_RETRY_LEVELS:
            self._metrics.set(metric_definitions.IN_RETRY_TOPIC, in_retry_topics.get(level, 0), {"retry_topic": level})

    def state(self, *, in_flight: int, waiting: Mapping[str, int], uncommitted: int) -> None:
        """Set the gauges, once a second; ``waiting``: callbacks by what they wait for."""
        self._metrics.set(metric_definitions.DELIVERIES_IN_FLIGHT, in_flight)
        for reason, amount in waiting.items():
            self._metrics.set(metric_definitions.CALLBACKS_WAITING, amount, {"reason": reason})
        self._metrics.set(metric_definitions.CALLBACKS_UNCOMMITTED, uncommitted)

    def _not_ready(self) -> str | None:
        reason = super()._not_ready()
        if reason is None and (target := self._target) is not None:
            return f"circuit open: {self._target_name}: {_failure(target)}"
        return reason

    def readiness_notes(self) -> list[str]:
        """Return what waits although the loop is ready, one line each."""
        blocked = self._campaigns
        notes = [
            f"{self.loop}: campaign {one.campaign_id!r}: {_STATUS_TEXT[one.status]}: {_failure(one)}"
            for one in blocked[:_MAX_NOTES]
        ]
        if len(blocked) > _MAX_NOTES:
            notes.append(f"{self.loop}: {len(blocked) - _MAX_NOTES} more campaigns are blocked")
        if self._held:
            notes.append(
                f"{self.loop}: {self._held} callbacks are held: their bodies were made for another target or other"
                " columns; set callbacks.target, the contact list or its columns back to deliver them"
            )
        return notes


def _failure(blocked: Blocked) -> str:
    return f"{blocked.message}; {blocked.remedy}" if blocked.remedy else blocked.message
