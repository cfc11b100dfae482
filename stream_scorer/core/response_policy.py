"""Response policy: the decision for each response of the API, one function per row of the table in contract section 5.

Pure: time, jitter and the state of other requests are passed in as a ``Context``. A decision contains the finished
contacts, the next requests, and whether the circuit breaker opens or the worker stops.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stream_scorer.core.backoff import next_delay_s
from stream_scorer.core.events import (
    Answer,
    Answered,
    Contact,
    Forbidden,
    NotFound,
    Outcome,
    Reason,
    Refused,
    Rejected,
    RequestFacts,
    Scored,
    TooLarge,
    Trouble,
    Unavailable,
    Unexpected,
)
from stream_scorer.core.request import Request, bisect, continue_search, hold_out, remaining, split_in_two, subset
from stream_scorer.core.verifying import match

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stream_scorer.core.batcher import BatchKey
    from stream_scorer.core.verifying import Verifier

# A 2xx that omits more than half of this many contacts is treated as an outage. Contacts that were omitted before are
# exempt: another omission is expected for them.
_MIN_CONTACTS_FOR_SHARE = 10
_LONE_FAILURES_LIMIT = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of the table. Durations are seconds."""

    model_id: str
    verifier: Verifier
    max_retries: int
    backoff_base_s: float
    max_backoff_s: float


@dataclass(frozen=True, slots=True)
class Context:
    """The state at the time of the response. ``now`` is monotonic seconds, ``now_ms`` Unix milliseconds.

    ``jitter`` is a random number in [0, 1). ``last_2xx_at`` is the last 2xx of any other request, in the time of
    ``now``; None if there was none. ``witnesses_wanted``: how many contacts to hold out as witnesses.
    """

    now: float
    now_ms: int
    jitter: float
    last_2xx_at: float | None
    new_id: Callable[[], str]
    witnesses_wanted: int = 0


@dataclass(frozen=True, slots=True)
class Suspect:
    """A contact that was refused alone: rejected once its model version has accepted another one."""

    key: BatchKey
    contact: Contact
    rejected: Rejected
    since: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision for one response.

    Attributes:
        outcomes: the finished contacts.
        requests: the next requests, in this order.
        witnesses: contacts to send one by one, only when a 2xx is needed as evidence.
        suspects: the contacts refused alone that wait for a 2xx of their model version.
        trip_reason: message with which to open the circuit breaker; None if it stays closed.
        trip_until: no probe before this time (monotonic seconds).
        fatal_error: one line for the operator if the worker has to stop.
        answered: whether this was a 2xx, which proves that the API works.
        unmatched_results: number of results whose contact was not in the request.
    """

    outcomes: tuple[Outcome, ...] = ()
    requests: tuple[Request, ...] = ()
    witnesses: tuple[Request, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    trip_reason: str | None = None
    trip_until: float = 0.0
    fatal_error: str | None = None
    answered: bool = False
    unmatched_results: int = 0


def decide(request: Request, answer: Answer, policy: Policy, context: Context) -> Decision:  # noqa: PLR0911 - one per row
    """Apply the table of contract section 5 to one response."""
    match answer:
        case Answered():
            return _on_results(request, answer, policy, context)
        case Refused():
            return _on_refusal(request, answer, policy, context)
        case TooLarge():
            return _on_too_large(request, answer, policy, context)
        case NotFound():
            return _on_not_found(request, answer, policy, context)
        case Unavailable():
            return _on_unavailable(request, answer, policy, context)
        case Unexpected():
            return Decision(requests=(request.fresh_round(),), trip_reason=answer.message)
        case Forbidden():
            return Decision(requests=(request.fresh_round(),), fatal_error=answer.message)


def _on_results(request: Request, answer: Answered, policy: Policy, context: Context) -> Decision:
    found = match([contact.contact_id for contact in request.contacts], answer.results)
    asked = len(request.contacts)
    if asked >= _MIN_CONTACTS_FOR_SHARE and len(found.results) * 2 < asked and not request.retried_unanswered:
        line = f"the API answered {len(found.results)} of {asked} contacts"
        return _on_unavailable(request, Unavailable(answer.exchange, Trouble.MALFORMED, line), policy, context)
    facts = request.facts(policy.model_id, answer.exchange)
    review_reasons = policy.verifier.review_reasons
    outcomes: list[Outcome] = []
    unanswered: list[Contact] = []
    for contact in request.contacts:
        result = found.results.get(contact.contact_id)
        if result is None:
            unanswered.append(contact)
        else:
            outcomes.append(Scored(contact, facts, *result, review_reasons(*result)))
    again: tuple[Request, ...] = ()
    if unanswered and not request.retried_unanswered:
        again = (subset(request, tuple(unanswered), context.new_id, retried_unanswered=True),)
    elif unanswered:
        detail = "the API answered twice without a usable result for this contact"
        outcomes += _reject(unanswered, Reason.NO_RESULT, detail, facts, context)
    again += continue_search(request, context.new_id)
    return Decision(tuple(outcomes), again, answered=True, unmatched_results=found.unknown)


def _on_refusal(request: Request, answer: Refused, policy: Policy, context: Context) -> Decision:
    named = tuple(c for c in request.contacts if c.contact_id in answer.named)
    bad = request.contacts if request.is_single else named
    if not bad:
        return Decision(requests=bisect(request, context.new_id))
    facts = request.facts(policy.model_id, answer.exchange)
    detail = f"the API refused this contact with status {answer.exchange.status}: {answer.message}"
    rejections = _reject(bad, Reason.REFUSED_BY_API, detail, facts, context)
    suspects = tuple(Suspect(request.key, c, r, context.now) for c, r in zip(bad, rejections, strict=True))
    refused = {contact.contact_id for contact in bad}
    rest = request.filter(lambda contact: contact.contact_id not in refused)
    return Decision(requests=(subset(request, rest.all_contacts, context.new_id),) if rest else (), suspects=suspects)


def _on_too_large(request: Request, answer: TooLarge, policy: Policy, context: Context) -> Decision:
    if not request.is_single:
        return Decision(requests=split_in_two(request, context.new_id) + remaining(request, context.new_id))
    facts = request.facts(policy.model_id, answer.exchange)
    detail = "a request with this contact alone is over the API's size limit"
    rejected = tuple(_reject(request.contacts, Reason.TOO_LARGE, detail, facts, context))
    return Decision(rejected, remaining(request, context.new_id))


def _on_not_found(request: Request, answer: NotFound, policy: Policy, context: Context) -> Decision:
    if answer.model_missing or not request.key.version_from_event:
        return Decision(requests=(request.fresh_round(),), fatal_error=answer.message)
    facts = request.facts(policy.model_id, answer.exchange)
    detail = "the API does not know the model version that came with the event"
    rejected = tuple(_reject(request.contacts, Reason.UNKNOWN_MODEL_VERSION, detail, facts, context))
    return Decision(rejected, remaining(request, context.new_id))


def _on_unavailable(request: Request, answer: Unavailable, policy: Policy, context: Context) -> Decision:
    request = request.failed()
    retry_after_s = answer.retry_after_s
    if request.round_attempts <= policy.max_retries:
        delay_s = next_delay_s(
            request.round_attempts,
            base_s=policy.backoff_base_s,
            max_s=policy.max_backoff_s,
            retry_after_s=retry_after_s,
            jitter=context.jitter,
        )
        return Decision(requests=(request.again_at(context.now + delay_s),))
    not_before = context.now + (retry_after_s or 0.0)
    # Contacts deferred to the end of a search do not wait for this failure to end.
    waiting = remaining(request, context.new_id)
    request = replace(request, deferred_half=(), deferred=())
    if answer.trouble.proves_outage or not _others_were_answered(request, context):
        again = request.fresh_round().again_at(not_before)
        return Decision(requests=(again, *waiting), trip_reason=answer.message, trip_until=not_before)
    decision = _on_poison(request, answer, not_before, policy, context)
    return replace(decision, requests=decision.requests + waiting)


def _others_were_answered(request: Request, context: Context) -> bool:
    """Return whether the API worked while it failed this request.

    A split only costs requests, so for several contacts any 2xx since the first attempt is enough. A single contact is
    near its rejection, and an outage must never reject one: the 2xx must fall between two failures of this contact
    for which no other 2xx was counted.
    """
    since = request.round_since if request.is_single else request.asked_since
    return since is not None and context.last_2xx_at is not None and context.last_2xx_at > since


def _on_poison(request: Request, answer: Unavailable, not_before: float, policy: Policy, context: Context) -> Decision:
    """Decide on a request that failed a whole round while others were answered: one of its contacts may be at fault."""
    if not request.is_single:
        # Without other requests, only held-out contacts can prove whether a single contact fails or the API does.
        rest, witnesses = hold_out(request, context.witnesses_wanted, context.new_id)
        if rest.is_single:
            halved: tuple[Request, ...] = (subset(rest, rest.contacts, context.new_id),)
        else:
            halved = split_in_two(rest, context.new_id)
        return Decision(requests=tuple(half.again_at(not_before) for half in halved), witnesses=witnesses)
    failures = request.lone_failures + 1
    if failures < _LONE_FAILURES_LIMIT:
        return Decision(requests=(request.failed_alone().again_at(not_before),))
    facts = request.facts(policy.model_id, answer.exchange)
    detail = f"the API failed {failures} rounds for this contact alone while it answered others: {answer.message}"
    return Decision(tuple(_reject(request.contacts, Reason.REFUSED_BY_API, detail, facts, context)))


def _reject(
    contacts: Iterable[Contact],
    reason: Reason,
    detail: str,
    facts: RequestFacts,
    context: Context,
) -> list[Rejected]:
    return [
        Rejected(
            contact.record,
            (reason.value,),
            detail,
            contact.contact_id,
            context.now_ms,
            request=facts,
            api_status=facts.api_status,
        )
        for contact in contacts
    ]
