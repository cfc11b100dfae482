"""What an attempt to deliver a callback leads to, and where one goes that cannot be delivered now.

A callback is tried in *rounds*: an attempt and a few quick ones after it, all in memory. A round that failed takes it
to the retry tier of that number; the tiers end, and with them the patience. A callback that waits for another reason
than a failed round (its campaign is in trouble or over its pace) goes to a tier too, and no round is counted.

A tier is a retry topic (`core.retry_topics`): its head may not block it for longer than the tier's own delay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from stream_scorer.core.callbacks.selection import Invalid
from stream_scorer.core.callbacks.types import Callback, CallbackOutcome, DeliveryKind
from stream_scorer.core.retry_topics import MAX_EXTRA_WAIT_S, NotDue, RetryDelays

if TYPE_CHECKING:
    from stream_scorer.core.callbacks.types import DeliveryAnswer
    from stream_scorer.core.records import SourceRecord

# The maximum of Avro's int; another program may write a callback with that many attempts.
_MOST_ATTEMPTS: Final = 2**31 - 1


class DeferReason(StrEnum):
    """Reason why a callback is written to a retry topic."""

    RETRY = "retry"
    RATE_LIMITED = "rate_limited"
    CAMPAIGN_FAILING = "campaign_failing"
    NOT_DUE = "not_due"


@dataclass(frozen=True, slots=True)
class DeliveryRules(RetryDelays):
    """How patient delivery is, in seconds; ``delays_s`` are those of the retry tiers.

    Attributes:
        quick_delays_s: how long a callback waits in memory before each further attempt of a round, more or less a
            quarter.
        patience_s: a ``Retry-After`` up to this is waited for in memory.
    """

    quick_delays_s: tuple[float, ...] = (0.5, 2.0)
    max_age_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A callback that is to be delivered now.

    Attributes:
        record: where it was read.
        callback: what is sent.
        tier: the retry tier it was read from; 0: it is fresh.
        rounds: failed rounds before this one.
        tries: attempts of this round so far.
        has_slot: whether its campaign's pace has room for it reserved.
        due: monotonic seconds; when the next attempt may be made.
        traceparent: the ``traceparent`` header of its next request; None: no header.
        began: monotonic seconds of its first attempt since it was read; None: there was none.
    """

    record: SourceRecord
    callback: Callback
    retry_level: int = 0
    rounds: int = 0
    attempts_in_round: int = 0
    has_slot: bool = False
    due: float = 0.0
    traceparent: str | None = None
    began: float | None = None

    def attempted_at(self, now: float) -> Delivery:
        """The same delivery, about to be tried."""
        return self if self.began is not None else replace(self, began=now)

    def under(self, traceparent: str) -> Delivery:
        """The same delivery, its next request below this span."""
        return replace(self, traceparent=traceparent)


class Completed(NamedTuple):
    """Final outcome of a callback. ``callback.attempts`` counts its requests; ``began`` is that of the `Delivery`."""

    record: SourceRecord
    callback: Callback
    outcome: CallbackOutcome
    finished_at_ms: int
    http_status: int | None
    latency_ms: float
    detail: str
    began: float | None = None

    @property
    def is_billable(self) -> bool:
        """A request was made for it, which should not be repeated."""
        return True


class DeferredDelivery(NamedTuple):
    """A callback that goes to a tier; ``rounds``: failed ones so far, ``began`` as `Delivery`'s."""

    record: SourceRecord
    callback: Callback
    retry_level: int
    rounds: int
    reason: DeferReason
    began: float | None = None

    @property
    def is_billable(self) -> bool:
        """Whether requests were made for it, which should not be repeated."""
        return self.reason is DeferReason.RETRY


DeliveryOutcome: TypeAlias = Completed | DeferredDelivery | Invalid


class RetryNow(NamedTuple):
    """The delivery stays in memory."""

    delivery: Delivery


class TargetDisabled(NamedTuple):
    """The receiver takes nothing any more; the delivery waits."""

    delivery: Delivery


def after_attempt(
    delivery: Delivery, answer: DeliveryAnswer, rules: DeliveryRules, *, now: float, now_ms: int, jitter: float
) -> Completed | DeferredDelivery | RetryNow | TargetDisabled:
    """Say what follows from the answer to an attempt.

    Args:
        delivery: the attempt's.
        answer: what came of it.
        rules: how patient to be.
        now: monotonic seconds.
        now_ms: Unix milliseconds.
        jitter: a random number in [0, 1).
    """
    callback = replace(delivery.callback, attempts=min(max(delivery.callback.attempts, 0) + 1, _MOST_ATTEMPTS))
    tried = replace(delivery, callback=callback, attempts_in_round=delivery.attempts_in_round + 1)
    match answer.kind:
        case DeliveryKind.DELIVERED:
            return _completed(tried, CallbackOutcome.DELIVERED, answer, now_ms)
        case DeliveryKind.REFUSED:
            return _completed(tried, CallbackOutcome.REFUSED, answer, now_ms)
        case DeliveryKind.SWITCHED_OFF:
            return TargetDisabled(replace(tried, attempts_in_round=delivery.attempts_in_round))
        case DeliveryKind.TRY_LATER:
            return _later(tried, answer, rules, now=now, now_ms=now_ms, jitter=jitter)


def defer_failing(delivery: Delivery, rules: DeliveryRules, now_ms: int) -> DeferredDelivery:
    """Put a callback off whose campaign is in trouble, so that others need not wait behind it.

    A round that has begun has failed with it, as long as a retry topic is left for it. Otherwise it goes to the retry
    topic after its present one: writing it again every minute has no use while the receiver fails.
    """
    cut = defer_shutdown(delivery, rules, now_ms)
    if cut is not None:
        return cut
    tier = min(max(delivery.rounds, delivery.retry_level + 1), rules.levels)
    return _deferred(delivery, tier, now_ms + _ms(rules.delay_s(tier)), DeferReason.CAMPAIGN_FAILING)


def defer_shutdown(delivery: Delivery, rules: DeliveryRules, now_ms: int) -> DeferredDelivery | None:
    """End a round that has begun without its quick attempts; None where none has, or where it is the last one."""
    rounds = delivery.rounds + 1
    if delivery.attempts_in_round == 0 or rounds > rules.levels:
        return None
    not_before_ms = now_ms + _ms(rules.delay_s(rounds))
    return _deferred(replace(delivery, rounds=rounds), rounds, not_before_ms, DeferReason.RETRY)


def defer_rate_limited(delivery: Delivery, rules: DeliveryRules, now_ms: int, wait_s: float) -> DeferredDelivery:
    """Put a callback off whose campaign is over its pace."""
    return _deferred(delivery, rules.level_for(wait_s), now_ms + _ms(wait_s), DeferReason.RATE_LIMITED)


def route(delivery: Delivery, rules: DeliveryRules, now_ms: int) -> Delivery | NotDue | DeferredDelivery:
    """Decide about a callback that was just read: deliver it, hold its partition, or write it to a tier again."""
    if delivery.retry_level == 0:
        return delivery
    not_before_ms = delivery.callback.not_before_ms
    step = rules.next_step(delivery.retry_level, not_before_ms, written_ms=delivery.record.timestamp_ms, now_ms=now_ms)
    if step is None or isinstance(step, NotDue):
        return delivery if step is None else step
    return _deferred(delivery, step.level, not_before_ms, DeferReason.NOT_DUE)


def give_up(postponed: DeferredDelivery, detail: str, now_ms: int) -> Completed:
    """End a callback that cannot be kept until later."""
    return Completed(
        postponed.record, postponed.callback, CallbackOutcome.GAVE_UP, now_ms, None, 0.0, detail, postponed.began
    )


def _later(
    tried: Delivery, answer: DeliveryAnswer, rules: DeliveryRules, *, now: float, now_ms: int, jitter: float
) -> Completed | DeferredDelivery | RetryNow:
    asked_s = answer.retry_after_s
    if tried.attempts_in_round <= len(rules.quick_delays_s) and (asked_s is None or asked_s <= rules.max_age_s):
        # A Retry-After of 0 or in the past asks for no pause: as if there were none.
        delay_s = (
            asked_s
            if asked_s and asked_s > 0
            else rules.quick_delays_s[tried.attempts_in_round - 1] * (0.75 + jitter / 2)
        )
        return RetryNow(replace(tried, due=now + delay_s))
    rounds = tried.rounds + 1
    if rounds > rules.levels:
        return _completed(tried, CallbackOutcome.GAVE_UP, answer, now_ms)
    wait_s = max(rules.delay_s(rounds), min(asked_s or 0.0, MAX_EXTRA_WAIT_S))
    failed = replace(tried, rounds=rounds)
    return _deferred(failed, rules.level_for(wait_s), now_ms + _ms(wait_s), DeferReason.RETRY)


def _completed(tried: Delivery, outcome: CallbackOutcome, answer: DeliveryAnswer, now_ms: int) -> Completed:
    detail = answer.message
    return Completed(
        tried.record, tried.callback, outcome, now_ms, answer.status, answer.latency_ms, detail, tried.began
    )


def _deferred(delivery: Delivery, tier: int, not_before_ms: int, why: DeferReason) -> DeferredDelivery:
    callback = replace(delivery.callback, not_before_ms=not_before_ms)
    return DeferredDelivery(delivery.record, callback, tier, delivery.rounds, why, delivery.began)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
