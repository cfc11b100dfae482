"""The API's answer to a request, and what follows from it: the table of contract section 5 as one function a row.

Pure: what the table needs to know of the world stands in ``Circumstances``. A reaction says which contacts are
finished, what is to be asked next, and whether the worker holds or stops.
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
from stream_scorer.core.request import Request, halves, left, narrowed, part_of, searched_on, set_aside
from stream_scorer.core.verifying import match

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stream_scorer.core.batcher import Lane
    from stream_scorer.core.verifying import Verifier

# A 2xx that leaves out more than half of this many contacts is an outage in disguise, not a statement about contacts.
# But for those that were left out before: of them no answer is what was to be expected.
_MIN_CONTACTS_FOR_SHARE = 10
_LONE_FAILURES_LIMIT = 3


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that the table depends on. Durations are seconds."""

    model_id: str
    verifier: Verifier
    max_retries: int
    backoff_base_s: float
    max_backoff_s: float


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else is known at the moment of the answer. ``now`` is monotonic seconds, ``now_ms`` Unix milliseconds.

    ``jitter`` is a random number in [0, 1). ``last_2xx_at`` is when the API last answered any other request, in the
    time of ``now``; None if it never did. ``witnesses_wanted``: how many contacts to keep back as witnesses.
    """

    now: float
    now_ms: int
    jitter: float
    last_2xx_at: float | None
    new_id: Callable[[], str]
    witnesses_wanted: int = 0


@dataclass(frozen=True, slots=True)
class Suspect:
    """A contact that was refused alone: rejected as soon as its model version is seen to accept another one."""

    lane: Lane
    contact: Contact
    rejected: Rejected
    since: float


@dataclass(frozen=True, slots=True)
class Reaction:
    """What follows from an answer.

    Attributes:
        outcomes: the contacts that are finished.
        requests: what is to be asked next, in this order.
        witnesses: contacts that are to be asked about, one by one, only when a 2xx is needed as evidence.
        suspects: the contacts refused alone that wait for a 2xx of their model version.
        hold: why no request but a probe may be sent for now; None: no need.
        hold_until: not even a probe before this time (monotonic seconds).
        stop: the one line for the operator if the worker has to stop.
        answered: whether this was a 2xx, which proves that the API works.
        unknown_results: results about contacts nobody asked about.
    """

    outcomes: tuple[Outcome, ...] = ()
    requests: tuple[Request, ...] = ()
    witnesses: tuple[Request, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    hold: str | None = None
    hold_until: float = 0.0
    stop: str | None = None
    answered: bool = False
    unknown_results: int = 0


def react(request: Request, answer: Answer, rules: Rules, at: Circumstances) -> Reaction:  # noqa: PLR0911 - one a row
    """Applies the table of contract section 5 to one answer."""
    match answer:
        case Answered():
            return _on_results(request, answer, rules, at)
        case Refused():
            return _on_refusal(request, answer, rules, at)
        case TooLarge():
            return _on_too_large(request, answer, rules, at)
        case NotFound():
            return _on_not_found(request, answer, rules, at)
        case Unavailable():
            return _on_unavailable(request, answer, rules, at)
        case Unexpected():
            return Reaction(requests=(request.fresh_round(),), hold=answer.message)
        case Forbidden():
            return Reaction(requests=(request.fresh_round(),), stop=answer.message)


def _on_results(request: Request, answer: Answered, rules: Rules, at: Circumstances) -> Reaction:
    found = match([contact.contact_id for contact in request.contacts], answer.results)
    asked = len(request.contacts)
    if asked >= _MIN_CONTACTS_FOR_SHARE and len(found.results) * 2 < asked and not request.asked_before:
        line = f"the API answered {len(found.results)} of {asked} contacts"
        return _on_unavailable(request, Unavailable(answer.exchange, Trouble.MALFORMED, line), rules, at)
    facts = request.facts(rules.model_id, answer.exchange)
    review_reasons = rules.verifier.review_reasons
    outcomes: list[Outcome] = []
    unanswered: list[Contact] = []
    for contact in request.contacts:
        result = found.results.get(contact.contact_id)
        if result is None:
            unanswered.append(contact)
        else:
            outcomes.append(Scored(contact, facts, *result, review_reasons(*result)))
    again: tuple[Request, ...] = ()
    if unanswered and not request.asked_before:
        again = (part_of(request, tuple(unanswered), at.new_id, asked_before=True),)
    elif unanswered:
        detail = "the API answered twice without a usable result for this contact"
        outcomes += _reject(unanswered, Reason.NO_RESULT, detail, facts, at)
    again += searched_on(request, at.new_id)
    return Reaction(tuple(outcomes), again, answered=True, unknown_results=found.unknown)


def _on_refusal(request: Request, answer: Refused, rules: Rules, at: Circumstances) -> Reaction:
    named = tuple(c for c in request.contacts if c.contact_id in answer.named)
    bad = request.contacts if request.alone else named
    if not bad:
        return Reaction(requests=narrowed(request, at.new_id))
    facts = request.facts(rules.model_id, answer.exchange)
    detail = f"the API refused this contact with status {answer.exchange.status}: {answer.message}"
    rejections = _reject(bad, Reason.REFUSED_BY_API, detail, facts, at)
    suspects = tuple(Suspect(request.lane, c, r, at.now) for c, r in zip(bad, rejections, strict=True))
    refused = {contact.contact_id for contact in bad}
    rest = request.only(lambda contact: contact.contact_id not in refused)
    return Reaction(requests=(part_of(request, rest.everyone, at.new_id),) if rest else (), suspects=suspects)


def _on_too_large(request: Request, answer: TooLarge, rules: Rules, at: Circumstances) -> Reaction:
    if not request.alone:
        return Reaction(requests=halves(request, at.new_id) + left(request, at.new_id))
    facts = request.facts(rules.model_id, answer.exchange)
    detail = "a request with this contact alone is over the API's size limit"
    rejected = tuple(_reject(request.contacts, Reason.TOO_LARGE, detail, facts, at))
    return Reaction(rejected, left(request, at.new_id))


def _on_not_found(request: Request, answer: NotFound, rules: Rules, at: Circumstances) -> Reaction:
    if answer.model_missing or not request.lane.version_from_event:
        return Reaction(requests=(request.fresh_round(),), stop=answer.message)
    facts = request.facts(rules.model_id, answer.exchange)
    detail = "the API does not know the model version that came with the event"
    rejected = tuple(_reject(request.contacts, Reason.UNKNOWN_MODEL_VERSION, detail, facts, at))
    return Reaction(rejected, left(request, at.new_id))


def _on_unavailable(request: Request, answer: Unavailable, rules: Rules, at: Circumstances) -> Reaction:
    request = request.failed()
    retry_after_s = answer.retry_after_s
    if request.round_attempts <= rules.max_retries:
        delay_s = next_delay_s(
            request.round_attempts,
            base_s=rules.backoff_base_s,
            max_s=rules.max_backoff_s,
            retry_after_s=retry_after_s,
            jitter=at.jitter,
        )
        return Reaction(requests=(request.again_at(at.now + delay_s),))
    not_before = at.now + (retry_after_s or 0.0)
    # Whoever only waits for the end of a search need not wait for the end of this trouble.
    waiting = left(request, at.new_id)
    request = replace(request, other_half=(), later=())
    if answer.trouble.proves_outage or not _others_were_answered(request, at):
        again = request.fresh_round().again_at(not_before)
        return Reaction(requests=(again, *waiting), hold=answer.message, hold_until=not_before)
    reaction = _on_poison(request, answer, not_before, rules, at)
    return replace(reaction, requests=reaction.requests + waiting)


def _others_were_answered(request: Request, at: Circumstances) -> bool:
    """Whether the API worked while it failed this request.

    Halving only costs requests, so for a batch a 2xx since its very first attempt is enough. A lone contact is near its
    rejection, and an outage must never reject one: there the 2xx has to fall between two failures of this contact that
    no other 2xx was counted for.
    """
    since = request.round_since if request.alone else request.asked_since
    return since is not None and at.last_2xx_at is not None and at.last_2xx_at > since


def _on_poison(request: Request, answer: Unavailable, not_before: float, rules: Rules, at: Circumstances) -> Reaction:
    """The request failed a whole round while others were answered: one of its contacts may be what breaks the API."""
    if not request.alone:
        # Where nothing else is being asked, they are all that can show whether a lone contact fails or the API does.
        rest, witnesses = set_aside(request, at.witnesses_wanted, at.new_id)
        halved = halves(rest, at.new_id) if not rest.alone else (part_of(rest, rest.contacts, at.new_id),)
        return Reaction(requests=tuple(half.again_at(not_before) for half in halved), witnesses=witnesses)
    failures = request.lone_failures + 1
    if failures < _LONE_FAILURES_LIMIT:
        return Reaction(requests=(request.failed_alone().again_at(not_before),))
    facts = request.facts(rules.model_id, answer.exchange)
    detail = f"the API failed {failures} rounds for this contact alone while it answered others: {answer.message}"
    return Reaction(tuple(_reject(request.contacts, Reason.REFUSED_BY_API, detail, facts, at)))


def _reject(
    contacts: Iterable[Contact],
    reason: Reason,
    detail: str,
    facts: RequestFacts,
    at: Circumstances,
) -> list[Rejected]:
    return [
        Rejected(
            contact.record,
            (reason.value,),
            detail,
            contact.contact_id,
            at.now_ms,
            request=facts,
            api_status=facts.api_status,
        )
        for contact in contacts
    ]
