"""Delivery policy: the next step after an attempt, and the retry topic of a callback that cannot be delivered now.

A callback is attempted in *rounds*: an attempt and a few quick ones after it, all in memory. After failed round n it
goes to retry topic n; after the round of the last retry topic it ends: refused if the last response was a 4xx or 3xx,
otherwise given up. A callback of a campaign that fails or exceeds its rate limit goes to a retry topic too, but no
round is counted for it. Neither is one while a circuit breaker is open. `MAX_AGE_MS` after its plan a callback ends,
whatever the breakers.

The first record of a retry topic may not block it for longer than the topic's own delay (`core.retry_topics`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from stream_scorer.core.callbacks.selection import Invalid
from stream_scorer.core.callbacks.types import Callback, CallbackOutcome, DeliveryKind
from stream_scorer.core.retry_topics import MAX_EXTRA_WAIT_S, NotDue, RetryDelays

if TYPE_CHECKING:
    from stream_scorer.core.callbacks.types import DeliveryAnswer, RefusedContact
    from stream_scorer.core.records import SourceRecord

# The maximum of Avro's int; another program may write a callback with that many attempts.
_MOST_ATTEMPTS: Final = 2**31 - 1


MAX_AGE_MS: Final = 7 * 86_400_000
# While a breaker is open, a callback waits so long at most in its retry topic: after a long outage it is due soon.
_LONGEST_BLOCKED_S: Final = 600.0
# A failed probe is a probe again after this time at most.
_LONGEST_PROBE_WAIT_S: Final = 60.0
_REFUSALS: Final = range(300, 500)


class DeferReason(StrEnum):
    """Reason why a callback is written to a retry topic."""

    RETRY = "retry"
    RATE_LIMITED = "rate_limited"
    CAMPAIGN_FAILING = "campaign_failing"
    CIRCUIT_OPEN = "circuit_open"
    HELD = "held"
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
        last_status: HTTP status of the last response to it, in any round; None: there was none, or no response.
        is_unanswered: whether an attempt for it, in any round, may have reached the receiver and got no response.
        may_be_repeat: whether a former owner of its partition may have sent it without committing the response.
        was_held: whether a worker has held it since the start of this one, because its body did not fit.
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
    last_status: int | None = None
    is_unanswered: bool = False
    may_be_repeat: bool = False
    was_held: bool = False

    def attempted_at(self, now: float) -> Delivery:
        """Return the delivery with the time of its first attempt."""
        return self if self.began is not None else replace(self, began=now)

    def under(self, traceparent: str) -> Delivery:
        """Return the delivery with this span as the parent of its next request."""
        return replace(self, traceparent=traceparent)


class Completed(NamedTuple):
    """Final outcome of a callback. ``callback.attempts`` counts its requests; ``began`` is that of the `Delivery`.

    ``refused``: contacts that are refused alone; the others have the outcome. The last two are those of the `Delivery`.
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
    is_unanswered: bool = False
    may_be_repeat: bool = False

    @property
    def needed_request(self) -> bool:
        """Whether a request was sent for it, which should not be repeated."""
        return True


class DeferredDelivery(NamedTuple):
    """A callback that goes to a retry topic; ``rounds``: failed so far; the last five are those of the `Delivery`."""

    record: SourceRecord
    callback: Callback
    retry_level: int
    rounds: int
    reason: DeferReason
    began: float | None = None
    last_status: int | None = None
    is_unanswered: bool = False
    may_be_repeat: bool = False
    was_held: bool = False

    @property
    def needed_request(self) -> bool:
        """Whether requests were sent for it, which should not be repeated."""
        return self.reason is DeferReason.RETRY or self.began is not None


DeliveryOutcome: TypeAlias = Completed | DeferredDelivery | Invalid


class RetryNow(NamedTuple):
    """The delivery stays in memory."""

    delivery: Delivery


def accept_conflict(delivery: Delivery, answer: DeliveryAnswer, *, is_accepting: bool) -> DeliveryAnswer:
    """Return the answer; a webhook's 409 is an acceptance if an earlier attempt, which was accepted, got no response.

    Whether a former owner has made such an attempt is not known. Then it is an acceptance only while the receiver
    accepts others of the campaign (``is_accepting``): it may answer 409 to everything.
    """
    has_earlier = delivery.is_unanswered or (delivery.may_be_repeat and is_accepting)
    if not (answer.is_conflict and has_earlier):
        return answer
    message = f"{answer.message}: an earlier attempt, without a response, was accepted"
    return replace(answer, kind=DeliveryKind.DELIVERED, message=message)


def after_attempt(
    delivery: Delivery,
    answer: DeliveryAnswer,
    rules: DeliveryRules,
    *,
    now: float,
    now_ms: int,
    jitter: float,
    is_blocked: bool = False,
) -> Completed | DeferredDelivery | RetryNow:
    """Return the next step after an attempt.

    Args:
        delivery: the delivery of the attempt.
        answer: the result of the attempt.
        rules: delays and retry topics.
        now: monotonic seconds.
        now_ms: Unix milliseconds.
        jitter: a random number in [0, 1).
        is_blocked: whether the campaign's circuit breaker or the target's is open now: no round is counted.
    """
    if answer.kind is DeliveryKind.HELD:
        return hold(delivery, rules, now_ms)
    if answer.kind is DeliveryKind.NOT_SENT:
        return defer_rate_limited(delivery, rules, now_ms, min(answer.retry_after_s or 0.0, MAX_EXTRA_WAIT_S))
    callback = replace(delivery.callback, attempts=min(max(delivery.callback.attempts, 0) + 1, _MOST_ATTEMPTS))
    tried = replace(
        delivery,
        callback=callback,
        attempts_in_round=delivery.attempts_in_round + 1,
        last_status=answer.status,
        is_unanswered=delivery.is_unanswered or answer.is_unanswered,
        was_held=False,
    )
    if answer.kind is DeliveryKind.DELIVERED:
        return _completed(tried, CallbackOutcome.DELIVERED, answer, now_ms)
    if answer.kind is DeliveryKind.REFUSED and answer.status is None:
        return _completed(tried, CallbackOutcome.REFUSED, answer, now_ms)
    if is_blocked or answer.kind is DeliveryKind.SWITCHED_OFF:
        return defer_blocked(tried, rules, now_ms)
    return _later(tried, answer, rules, now=now, now_ms=now_ms, jitter=jitter)


def defer_blocked(delivery: Delivery, rules: DeliveryRules, now_ms: int) -> DeferredDelivery:
    """Defer a callback because of an open circuit breaker, without a counted round.

    One that was just attempted goes to the first retry topic, so that it is a probe again soon. The others go to the
    topic after their present one, up to a delay of ten minutes: they cost few records, and are due soon after a long
    outage.
    """
    if delivery.attempts_in_round:
        level, longest_s = 1, _LONGEST_PROBE_WAIT_S
    else:
        level = min(delivery.retry_level + 1, rules.level_for(_LONGEST_BLOCKED_S))
        longest_s = _LONGEST_BLOCKED_S
    wait_s = min(rules.delay_s(level), longest_s)
    return _deferred(delivery, level, now_ms + _ms(wait_s), DeferReason.CIRCUIT_OPEN)


def hold(delivery: Delivery, rules: DeliveryRules, now_ms: int) -> DeferredDelivery:
    """Move a callback whose body does not fit the target to the last retry topic, without a counted round."""
    return _deferred(delivery, rules.levels, now_ms + _ms(rules.delay_s(rules.levels)), DeferReason.HELD)


def expire(delivery: Delivery, now_ms: int) -> Completed | None:
    """Return the final outcome of a callback that was planned too long ago; None if it was not."""
    if now_ms - delivery.callback.planned_at_ms < MAX_AGE_MS:
        return None
    return Completed(
        delivery.record,
        delivery.callback,
        _final_outcome(delivery.last_status),
        now_ms,
        delivery.last_status,
        0.0,
        "it was not delivered within 7 days",
        delivery.began,
        is_unanswered=delivery.is_unanswered,
        may_be_repeat=delivery.may_be_repeat,
    )


def defer_failing(delivery: Delivery, rules: DeliveryRules, now_ms: int) -> DeferredDelivery:
    """Defer a callback of a failing campaign, so that it does not block other campaigns.

    It goes to the retry topic after its present one: writing it again every minute has no use while the receiver fails.
    A round that has begun does not count. Otherwise every worker that starts during an outage would count one before a
    circuit breaker opens, and some restarts would refuse callbacks.
    """
    level = min(max(delivery.rounds, delivery.retry_level + 1), rules.levels)
    return _deferred(delivery, level, now_ms + _ms(rules.delay_s(level)), DeferReason.CAMPAIGN_FAILING)


def defer_rate_limited(delivery: Delivery, rules: DeliveryRules, now_ms: int, wait_s: float) -> DeferredDelivery:
    """Defer a callback of a campaign that exceeds its rate limit."""
    return _deferred(delivery, rules.level_for(wait_s), now_ms + _ms(wait_s), DeferReason.RATE_LIMITED)


def route(
    delivery: Delivery, rules: DeliveryRules, now_ms: int, started_ms: int = 0
) -> Delivery | NotDue | DeferredDelivery | Completed:
    """Route a callback that was just read: deliver it, pause its partition, write it to a retry topic again, or end it.

    ``started_ms``: start of the worker, in Unix milliseconds. A callback that was held before it is due: it may fit the
    present settings.
    """
    if (ended := expire(delivery, now_ms)) is not None:
        return ended
    if delivery.was_held and delivery.record.timestamp_ms < started_ms:
        return replace(delivery, was_held=False)
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
        postponed.record,
        postponed.callback,
        CallbackOutcome.GAVE_UP,
        now_ms,
        None,
        0.0,
        detail,
        postponed.began,
        is_unanswered=postponed.is_unanswered,
        may_be_repeat=postponed.may_be_repeat,
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
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        # The receiver limits its rate, which is no failure of the callback: no round is counted.
        wait_s = max(rules.delay_s(1), min(asked_s or 0.0, MAX_EXTRA_WAIT_S))
        return defer_rate_limited(tried, rules, now_ms, wait_s)
    rounds = tried.rounds + 1
    if rounds > rules.levels:
        return _completed(tried, _final_outcome(answer.status), answer, now_ms)
    wait_s = max(rules.delay_s(rounds), min(asked_s or 0.0, MAX_EXTRA_WAIT_S))
    failed = replace(tried, rounds=rounds)
    return _deferred(failed, rules.level_for(wait_s), now_ms + _ms(wait_s), DeferReason.RETRY)


def _final_outcome(last_status: int | None) -> CallbackOutcome:
    refused = last_status is not None and last_status in _REFUSALS
    return CallbackOutcome.REFUSED if refused else CallbackOutcome.GAVE_UP


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
        tried.is_unanswered,
        tried.may_be_repeat,
    )


def _deferred(delivery: Delivery, level: int, not_before_ms: int, why: DeferReason) -> DeferredDelivery:
    callback = replace(delivery.callback, not_before_ms=not_before_ms)
    return DeferredDelivery(
        delivery.record,
        callback,
        level,
        delivery.rounds,
        why,
        delivery.began,
        delivery.last_status,
        delivery.is_unanswered,
        delivery.may_be_repeat,
        delivery.was_held,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
