"""Delivery policy: the next step after an attempt, and the retry topic of a callback that cannot be delivered now.

A callback is attempted in *rounds*: an attempt and a few quick ones after it, all in memory. After failed round n it
goes to retry topic n; after the last retry topic it is given up. A callback of a campaign that fails or exceeds its
rate limit goes to a retry topic too, but no round is counted for it.

The first record of a retry topic may not block it for longer than the topic's own delay (`core.retry_topics`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from stream_scorer.core.callbacks.selection import Invalid
from stream_scorer.core.callbacks.types import Callback, CallbackOutcome, DeliveryKind
from stream_scorer.core.retry_topics import MAX_EXTRA_WAIT_S, NotDue, RetryDelays

if TYPE_CHECKING:
    from stream_scorer.core.callbacks.types import DeliveryAnswer, RefusedContact
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
    """Delays of delivery, in seconds; ``delays_s``: those of the retry topics.

    Attributes:
        quick_delays_s: the wait in memory before each further attempt of a round, plus or minus a quarter.
        max_age_s: a ``Retry-After`` up to this is waited for in memory.
    """

    quick_delays_s: tuple[float, ...] = (0.5, 2.0)
    max_age_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A callback that is to be delivered now.

    Attributes:
        record: its source record.
        callback: the callback.
        retry_level: level of the retry topic it was read from; 0: it is new.
        rounds: failed rounds before this one.
        attempts_in_round: attempts of this round so far.
        has_slot: whether its campaign's rate limiter has a reservation for it.
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
        """Return the delivery with the time of its first attempt."""
        return self if self.began is not None else replace(self, began=now)

    def under(self, traceparent: str) -> Delivery:
        """Return the delivery with this span as the parent of its next request."""
        return replace(self, traceparent=traceparent)


class Completed(NamedTuple):
    """Final outcome of a callback. ``callback.attempts`` counts its requests; ``began`` is that of the `Delivery`.

    ``refused``: contacts that are refused alone; the others have the outcome.
    """

    record: SourceRecord
    callback: Callback
    outcome: CallbackOutcome
    finished_at_ms: int
    http_status: int | None
    latency_ms: float
    detail: str
    began: float | None = None
    refused: tuple[RefusedContact, ...] = ()

    @property
    def is_billable(self) -> bool:
        """Whether a request was sent for it, which should not be repeated."""
        return True


class DeferredDelivery(NamedTuple):
    """A callback that goes to a retry topic; ``rounds``: failed rounds so far; ``began``: that of the `Delivery`."""

    record: SourceRecord
    callback: Callback
    retry_level: int
    rounds: int
    reason: DeferReason
    began: float | None = None

    @property
    def is_billable(self) -> bool:
        """Whether requests were sent for it, which should not be repeated."""
        return self.reason is DeferReason.RETRY


DeliveryOutcome: TypeAlias = Completed | DeferredDelivery | Invalid


class RetryNow(NamedTuple):
    """The delivery stays in memory."""

    delivery: Delivery


class TargetDisabled(NamedTuple):
    """The target is disabled; the delivery waits."""

    delivery: Delivery


def after_attempt(
    delivery: Delivery, answer: DeliveryAnswer, rules: DeliveryRules, *, now: float, now_ms: int, jitter: float
) -> Completed | DeferredDelivery | RetryNow | TargetDisabled:
    """Return the next step after an attempt.

    Args:
        delivery: the delivery of the attempt.
        answer: the result of the attempt.
        rules: delays and retry topics.
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
    """Defer a callback of a failing campaign, so that it does not block other campaigns.

    A round that has begun has failed with it, as long as a retry topic is left for it. Otherwise it goes to the retry
    topic after its present one: writing it again every minute has no use while the receiver fails.
    """
    cut = defer_shutdown(delivery, rules, now_ms)
    if cut is not None:
        return cut
    tier = min(max(delivery.rounds, delivery.retry_level + 1), rules.levels)
    return _deferred(delivery, tier, now_ms + _ms(rules.delay_s(tier)), DeferReason.CAMPAIGN_FAILING)


def defer_shutdown(delivery: Delivery, rules: DeliveryRules, now_ms: int) -> DeferredDelivery | None:
    """End a round that has begun, without its quick attempts; None if none has begun, or it is the last round."""
    rounds = delivery.rounds + 1
    if delivery.attempts_in_round == 0 or rounds > rules.levels:
        return None
    not_before_ms = now_ms + _ms(rules.delay_s(rounds))
    return _deferred(replace(delivery, rounds=rounds), rounds, not_before_ms, DeferReason.RETRY)


def defer_rate_limited(delivery: Delivery, rules: DeliveryRules, now_ms: int, wait_s: float) -> DeferredDelivery:
    """Defer a callback of a campaign that exceeds its rate limit."""
    return _deferred(delivery, rules.level_for(wait_s), now_ms + _ms(wait_s), DeferReason.RATE_LIMITED)


def route(delivery: Delivery, rules: DeliveryRules, now_ms: int) -> Delivery | NotDue | DeferredDelivery:
    """Route a callback that was just read: deliver it, pause its partition, or write it to a retry topic again."""
    if delivery.retry_level == 0:
        return delivery
    not_before_ms = delivery.callback.not_before_ms
    step = rules.next_step(delivery.retry_level, not_before_ms, written_ms=delivery.record.timestamp_ms, now_ms=now_ms)
    if step is None or isinstance(step, NotDue):
        return delivery if step is None else step
    return _deferred(delivery, step.level, not_before_ms, DeferReason.NOT_DUE)


def give_up(postponed: DeferredDelivery, detail: str, now_ms: int) -> Completed:
    """Return the final outcome of a callback that cannot be deferred."""
    return Completed(
        postponed.record, postponed.callback, CallbackOutcome.GAVE_UP, now_ms, None, 0.0, detail, postponed.began
    )


def _later(
    tried: Delivery, answer: DeliveryAnswer, rules: DeliveryRules, *, now: float, now_ms: int, jitter: float
) -> Completed | DeferredDelivery | RetryNow:
    asked_s = answer.retry_after_s
    if tried.attempts_in_round <= len(rules.quick_delays_s) and (asked_s is None or asked_s <= rules.max_age_s):
        # A Retry-After of 0 or in the past is ignored.
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
        tried.record,
        tried.callback,
        outcome,
        now_ms,
        answer.status,
        answer.latency_ms,
        detail,
        tried.began,
        answer.refused,
    )


def _deferred(delivery: Delivery, tier: int, not_before_ms: int, why: DeferReason) -> DeferredDelivery:
    callback = replace(delivery.callback, not_before_ms=not_before_ms)
    return DeferredDelivery(delivery.record, callback, tier, delivery.rounds, why, delivery.began)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
