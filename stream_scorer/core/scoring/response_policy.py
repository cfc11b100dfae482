"""The API's response to a request, and the decision that follows: the table of contract section 5.

Pure. A status code alone never decides. `classify` turns a response into results or into a `Failure`. `at_once` returns
the decision that needs no evidence, or None. With evidence, `while_others_succeed` or `while_none_succeed` decides. A
contact that fails alone is returned in ``failed``: its outcome (a retry topic, a rejection) depends on its rounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.scoring.api_response import Answered, Forbidden, NotFound, Refused, TooLarge, Unavailable
from stream_scorer.core.scoring.backoff import next_delay_s
from stream_scorer.core.scoring.request import (
    Request,
    bisect,
    continue_search,
    one_by_one,
    remaining,
    split_in_two,
    subset,
    unanswered,
)
from stream_scorer.core.scoring.response_match import match
from stream_scorer.core.scoring.types import Contact, Reason, RequestAudit, Scored

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.scoring.api_response import ApiResponse, Exchange
    from stream_scorer.core.scoring.response_match import Verifier


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings that the table depends on. Durations are seconds.

    ``named_refusals``: refusals in a row after which contacts that the API named are rejected.
    """

    model_id: str
    verifier: Verifier
    max_retries: int
    backoff_base_s: float
    max_backoff_s: float
    max_retry_after_s: float = 900.0
    named_refusals: int = 1


@dataclass(frozen=True, slots=True)
class Context:
    """Time, jitter and id factory at the moment of the response.

    ``now`` is monotonic seconds, ``now_ms`` Unix milliseconds; ``jitter`` is a random number in [0, 1).
    """

    now: float
    now_ms: int
    jitter: float
    new_id: Callable[[], str]


class FailureKind(StrEnum):
    """A row of the table.

    ``LOGIN_UNAVAILABLE``: the login service returned no token, so nothing was sent to the score endpoint.
    """

    REFUSED = "refused"
    TOO_LARGE = "too_large"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CUT_OFF = "cut_off"
    NO_RESULT = "no_result"
    UNKNOWN_VERSION = "unknown_version"
    RATE_LIMITED = "rate_limited"
    LOGIN_UNAVAILABLE = "login_unavailable"

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self not in (FailureKind.REFUSED, FailureKind.TOO_LARGE, FailureKind.UNKNOWN_VERSION)

    @property
    def is_size(self) -> bool:
        """Whether a smaller request may succeed."""
        return self in (FailureKind.TOO_LARGE, FailureKind.TIMEOUT, FailureKind.CUT_OFF)


_KINDS = {
    HttpFailure.RATE_LIMITED: FailureKind.RATE_LIMITED,
    HttpFailure.TIMEOUT: FailureKind.TIMEOUT,
    HttpFailure.CUT_OFF: FailureKind.CUT_OFF,
    HttpFailure.NO_TOKEN: FailureKind.LOGIN_UNAVAILABLE,
}
_REASONS = {
    FailureKind.TOO_LARGE: Reason.TOO_LARGE,
    FailureKind.NO_RESULT: Reason.NO_RESULT,
    FailureKind.UNKNOWN_VERSION: Reason.UNKNOWN_MODEL_VERSION,
}
_DETAILS = {
    Reason.TOO_LARGE: "the API refuses a request with this contact alone for its size",
    Reason.NO_RESULT: "the API answers without a usable result for this contact",
    Reason.UNKNOWN_MODEL_VERSION: "the API does not know the model version that came with the event",
    Reason.REFUSED_BY_API: "the API fails or refuses this contact alone",
}


class Failure(NamedTuple):
    """A request that failed.

    Attributes:
        kind: the row of the table.
        exchange: the HTTP exchange.
        message: one line without secrets.
        named: the contact ids in the error body.
        retry_after_s: the ``Retry-After`` of the response, in seconds; None: it has none.
        is_fatal: whether the platform itself refuses the credentials, scope or model.
    """

    kind: FailureKind
    exchange: Exchange
    message: str
    named: frozenset[str] = frozenset()
    retry_after_s: float | None = None
    is_fatal: bool = False

    @property
    def reason(self) -> Reason:
        """The reason of a rejection for this failure."""
        return _REASONS.get(self.kind, Reason.REFUSED_BY_API)


class Results(NamedTuple):
    """A 2xx with at least one usable result."""

    scored: tuple[Scored, ...]
    unanswered: tuple[Contact, ...]
    unmatched: int


class FailedContact(NamedTuple):
    """A contact that failed alone, or that the API named repeatedly (``is_proven``).

    ``facts``: of its last request; None: its record could not be decoded, so there was no request.
    """

    contact: Contact
    reason: Reason
    status: int | None
    detail: str
    facts: RequestAudit | None
    is_proven: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision after a response.

    Attributes:
        requests: the next requests, in this order.
        failed: the contacts that failed alone.
        trip: why the circuit breaker of the model version opens; None: it does not.
    """

    requests: tuple[Request, ...] = ()
    failed: tuple[FailedContact, ...] = ()
    trip: str | None = None


def classify(request: Request, response: ApiResponse, policy: Policy) -> Results | Failure:  # noqa: PLR0911 - one a row
    """Return the results of a response, or the failure with its row of the table."""
    match response:
        case Answered():
            return _results(request, response, policy)
        case Refused(exchange, named, message):
            ours = {contact.contact_id for contact in request.contacts}
            return Failure(FailureKind.REFUSED, exchange, message, named & ours)
        case TooLarge(exchange, message):
            return Failure(FailureKind.TOO_LARGE, exchange, message)
        case NotFound(exchange=exchange, message=message):
            is_version = request.key.version_from_event and response.platform_error and not response.model_missing
            kind = FailureKind.UNKNOWN_VERSION if is_version else FailureKind.REFUSED
            return Failure(kind, exchange, message, is_fatal=response.platform_error and not is_version)
        case Forbidden(exchange=exchange, message=message):
            return Failure(FailureKind.REFUSED, exchange, message, is_fatal=response.platform_error)
        case Unavailable(exchange, trouble, message, retry_after_s):
            kind = _KINDS.get(trouble, FailureKind.SERVER_ERROR)
            if exchange.status == HTTPStatus.REQUEST_TIMEOUT:
                kind = FailureKind.SERVER_ERROR
            return Failure(kind, exchange, message, retry_after_s=retry_after_s)
        case _:
            return Failure(FailureKind.REFUSED, response.exchange, response.message)


def after_results(request: Request, results: Results, context: Context) -> tuple[Request, ...]:
    """Return the next requests after a 2xx with results: those of the bisection, and one with the named contacts."""
    requests = continue_search(request, context.new_id)
    if request.named:
        requests += (replace(subset(request, request.named, context.new_id), failures=0, was_named=True),)
    if results.unanswered and not (request.retried_unanswered or request.is_deferred):
        requests += (unanswered(request, results.unanswered, context.new_id),)
    return requests


def unanswered_twice(request: Request, results: Results, exchange: Exchange, policy: Policy) -> Decision:
    """Return the contacts without a result in a 2xx for the second time; in a retry round for the first."""
    if not results.unanswered or not (request.retried_unanswered or request.is_deferred):
        return Decision()
    failure = Failure(FailureKind.NO_RESULT, exchange, "HTTP 2xx without a usable result")
    return Decision(failed=_failed(request, results.unanswered, failure, policy))


def at_once(request: Request, failure: Failure, policy: Policy, context: Context) -> Decision | None:
    """Return the decision that needs no evidence; None if evidence is needed.

    ``request`` counts the failure already. The first retry, a smaller request and a repeat of named contacts are right
    whether other requests succeed or not. A failure of the login service or a 429 is no failure of a contact.
    """
    kind = failure.kind
    if kind is FailureKind.RATE_LIMITED:
        return Decision(requests=(_again(request, failure, policy, context),))
    if request.was_named and failure.named and request.failures < policy.named_refusals:
        return Decision(requests=_named_once_more(request, failure, context))
    if kind.is_size and not request.is_single and request.failures <= max(1, policy.max_retries):
        return Decision(requests=_smaller(request, failure, policy, context))
    if kind in (FailureKind.SERVER_ERROR, FailureKind.CUT_OFF) and request.failures <= min(1, policy.max_retries):
        return Decision(requests=(_again(request, failure, policy, context),))
    if kind is FailureKind.LOGIN_UNAVAILABLE and request.failures <= policy.max_retries:
        return Decision(requests=(_again(request, failure, policy, context),))
    return None


def while_others_succeed(request: Request, failure: Failure, policy: Policy, context: Context) -> Decision:
    """Return the decision if the API scored another contact of the version after the request was sent."""
    kind, new_id = failure.kind, context.new_id
    if kind is FailureKind.LOGIN_UNAVAILABLE:
        return Decision(requests=(_again(replace(request, failures=1), failure, policy, context),))
    if kind is FailureKind.UNKNOWN_VERSION:
        return Decision(failed=_failed(request, request.all_contacts, failure, policy))
    if kind is FailureKind.NO_RESULT:
        if not (request.retried_unanswered or request.is_deferred):
            again = unanswered(request, request.contacts, new_id)
            return Decision(requests=(again, *_left(request, new_id)))
        return Decision(_left(request, new_id), _failed(request, request.contacts, failure, policy))
    if request.is_deferred and not request.is_single:
        return Decision(requests=one_by_one(request, new_id))
    return _divide(request, failure, policy, context)


def while_none_succeed(request: Request, failure: Failure, policy: Policy, context: Context) -> Decision:
    """Return the decision if a control failed too: a retry, or the circuit breaker of the version opens."""
    if failure.kind.is_size and not request.is_single and failure.kind is not FailureKind.TIMEOUT:
        return Decision(requests=_smaller(request, failure, policy, context))
    if failure.kind.is_retryable and request.failures <= policy.max_retries:
        return Decision(requests=(_again(request, failure, policy, context),))
    return Decision(trip=failure.message)


def _results(request: Request, response: Answered, policy: Policy) -> Results | Failure:
    found = match([contact.contact_id for contact in request.contacts], response.results)
    if not found.results:
        message = f"HTTP {response.exchange.status} without a usable result for any of {len(request.contacts)} contacts"
        return Failure(FailureKind.NO_RESULT, response.exchange, message)
    facts = request.facts(policy.model_id, response.exchange)
    review_reasons = policy.verifier.review_reasons
    scored, left_out = [], []
    for contact in request.contacts:
        result = found.results.get(contact.contact_id)
        if result is None:
            left_out.append(contact)
        else:
            scored.append(Scored(contact, facts, *result, review_reasons(*result)))
    return Results(tuple(scored), tuple(left_out), found.unknown)


def _divide(request: Request, failure: Failure, policy: Policy, context: Context) -> Decision:
    """Return the parts of a request that isolate the contact that causes its failure."""
    new_id = context.new_id
    named = tuple(contact for contact in request.contacts if contact.contact_id in failure.named)
    if request.was_named and named:
        return _named_again(request, named, failure, policy, context)
    if named and len(named) < len(request.contacts):
        rest = tuple(contact for contact in request.contacts if contact.contact_id not in failure.named)
        without = replace(subset(request, rest, new_id), named=request.named + named)
        return Decision(requests=(without, *remaining(request, new_id)))
    if request.is_single:
        left = _left(replace(request, found=request.found + 1), new_id)
        return Decision(left, _failed(request, request.contacts, failure, policy))
    if failure.kind.is_size:
        return Decision(requests=_parts(request, failure, context))
    return Decision(requests=bisect(request, new_id) + _named_before(request, new_id))


def _named_again(
    request: Request, named: tuple[Contact, ...], failure: Failure, policy: Policy, context: Context
) -> Decision:
    proven = tuple(one._replace(is_proven=True) for one in _failed(request, named, failure, policy))
    return Decision(_not_named(request, failure, context), proven)


def _named_once_more(request: Request, failure: Failure, context: Context) -> tuple[Request, ...]:
    """Return a request with the contacts that were named again, its refusals counted, and one with the rest."""
    others = _not_named(request, failure, context)
    if not others:
        return (request,)
    named = tuple(contact for contact in request.contacts if contact.contact_id in failure.named)
    return (replace(subset(request, named, context.new_id), was_named=True), *others)


def _not_named(request: Request, failure: Failure, context: Context) -> tuple[Request, ...]:
    rest = tuple(contact for contact in request.contacts if contact.contact_id not in failure.named)
    return (replace(subset(request, rest, context.new_id), failures=0),) if rest else ()


def _failed(
    request: Request, contacts: tuple[Contact, ...], failure: Failure, policy: Policy
) -> tuple[FailedContact, ...]:
    facts, status = request.facts(policy.model_id, failure.exchange), failure.exchange.status
    reason = failure.reason
    detail = _DETAILS[reason] + (f": {failure.message}" if reason is Reason.REFUSED_BY_API else "")
    return tuple(FailedContact(contact, reason, status, detail, facts) for contact in contacts)


def _again(request: Request, failure: Failure, policy: Policy, context: Context) -> Request:
    return request.due_at(*_due(request.failures, failure, policy, context))


def _smaller(request: Request, failure: Failure, policy: Policy, context: Context) -> tuple[Request, ...]:
    """Return the halves of a request: immediately after a 413, with backoff after a time-out or a cut response."""
    due = (0.0, 0.0) if failure.kind is FailureKind.TOO_LARGE else _due(request.failures, failure, policy, context)
    halves = tuple(half.due_at(*due) for half in split_in_two(request, context.new_id))
    return halves + _left(request, context.new_id)


def _parts(request: Request, failure: Failure, context: Context) -> tuple[Request, ...]:
    """Return the halves of a request, or its quarters once a half has timed out: each attempt lasts its time-out."""
    parts = split_in_two(request, context.new_id)
    if failure.kind is FailureKind.TIMEOUT and request.failures > 1:
        parts = tuple(
            part for half in parts for part in ((half,) if half.is_single else split_in_two(half, context.new_id))
        )
    return parts + _left(request, context.new_id)


def _left(request: Request, new_id: Callable[[], str]) -> tuple[Request, ...]:
    """Return the requests besides the failed contacts: the rest of the bisection, and the named contacts."""
    return remaining(request, new_id) + _named_before(request, new_id)


def _named_before(request: Request, new_id: Callable[[], str]) -> tuple[Request, ...]:
    """Return a request with the contacts named before: the request without them failed, so it proves nothing."""
    return (subset(request, request.named, new_id),) if request.named else ()


def _due(failures: int, failure: Failure, policy: Policy, context: Context) -> tuple[float, float]:
    backoff_s = next_delay_s(
        max(1, failures), base_s=policy.backoff_base_s, max_s=policy.max_backoff_s, jitter=context.jitter
    )
    backoff_until = context.now + backoff_s
    if failure.retry_after_s is None:
        return backoff_until, backoff_until
    return context.now + min(failure.retry_after_s, policy.max_retry_after_s), backoff_until
