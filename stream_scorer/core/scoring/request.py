"""A request: the contacts that are sent together, and the attempts made with them so far.

A request keeps its ``batch_id`` through its retries. One with other contacts (a half, the rest after some were named,
the unanswered contacts, a control) is a new request with a new id.

Bisection. A large request that fails is split in two, and both halves are sent. Of a request with up to
``_BISECTED_AT_MOST`` contacts only the first half is sent. If it succeeds, the failing contact is in the second half,
which is divided without a separate request. If it fails, the second half is postponed. All postponed contacts are sent
in the end: together, or in groups if too many have failed. That is the generalized binary splitting
of group testing (F. K. Hwang, "A method for detecting all defective members in a population by group testing", J. Am.
Stat. Assoc. 67, 1972). One contact of a thousand costs 16 requests at most (plain halving: 21), ten cost 105 at most
(151). Once failing contacts were found, the next group has ln 2 / p contacts for the share p found so far: if all fail,
each is sent alone, at one request instead of eight.

Contacts are sorted by partition, and a request is divided at the border of two partitions first. So the partitions
without a failing contact proceed after the fewest requests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stream_scorer.core.records import Partition
from stream_scorer.core.scoring.types import Contact, RequestAudit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stream_scorer.core.scoring.api_response import Exchange
    from stream_scorer.core.scoring.batcher import Batch, BatchKey


_BISECTED_AT_MOST = 128
_BEST_GROUP = 0.69
# A request of so many groups fails with a probability of seven eighths.
_LIKELY_TO_FAIL = 3


@dataclass(frozen=True, slots=True)
class Request:
    """Contacts with distinct ids, of one model version, and the history of sending them. Times are monotonic seconds.

    Attributes:
        batch_id: the id in audit and headers.
        key: the model version, and whether the events contain it.
        contacts: the contacts that are sent, at least one.
        batched_at: when the batch of its contacts was opened.
        attempts: HTTP attempts made so far.
        first_sent_ms: Unix milliseconds of the first attempt; None before it.
        sent_at: when the last attempt began, or that of the request it is a part of; None before the first.
        failures: failed attempts that count against ``genesys.max_retries``; halves inherit them.
        not_before: when the next attempt is due, by ``Retry-After`` or backoff.
        backoff_until: the same by backoff alone: it counts once a request that was sent later has succeeded.
        lone_failures: failures of this single contact in its last round, each between two successes of others; None:
            it is not in its last round, or was not yet sent alone there.
        retried_unanswered: whether the API has left these contacts out of a response once already.
        bisecting: whether it is a part of a failed request, to find the contact that causes the failure. Also set for
            the contacts of a partition that is kept apart for a bisection.
        is_control: whether it sends a contact again that has its score: a success proves that the API works.
        named: contacts that the API's error named: they are sent once more, together, if ``contacts`` succeed.
        was_named: whether these contacts were named, and the same request without them succeeded.
        sibling: if ``contacts`` succeed, one of these fails.
        postponed: contacts that are sent after this bisection; all of them may succeed.
        cleared: number of contacts that this bisection has found to succeed.
        found: number of contacts that it has found to fail.
    """

    batch_id: str
    key: BatchKey
    contacts: tuple[Contact, ...]
    batched_at: float = 0.0
    attempts: int = 0
    first_sent_ms: int | None = None
    sent_at: float | None = None
    failures: int = 0
    not_before: float = 0.0
    backoff_until: float = 0.0
    lone_failures: int | None = None
    retried_unanswered: bool = False
    bisecting: bool = False
    is_control: bool = False
    named: tuple[Contact, ...] = ()
    was_named: bool = False
    sibling: tuple[Contact, ...] = ()
    postponed: tuple[Contact, ...] = ()
    cleared: int = 0
    found: int = 0

    @property
    def is_single(self) -> bool:
        """Whether it has a single contact."""
        return len(self.contacts) == 1

    @property
    def is_deferred(self) -> bool:
        """Whether its contacts were read from a retry topic; requests never mix them with other contacts."""
        return bool(self.contacts[0].record.origin) and not self.is_control

    @property
    def all_contacts(self) -> tuple[Contact, ...]:
        """The contacts that are sent, and those that are sent after them."""
        return self.contacts + self.sibling + self.postponed + self.named

    def filter(self, wanted: Callable[[Contact], bool]) -> Request | None:
        """Return the same request with the contacts that are still wanted; None if there are none."""
        kept, sibling, postponed, named = (
            tuple(filter(wanted, part)) for part in (self.contacts, self.sibling, self.postponed, self.named)
        )
        if not kept:
            kept, sibling, postponed, named = sibling + postponed + named, (), (), ()
        return replace(self, contacts=kept, sibling=sibling, postponed=postponed, named=named) if kept else None

    def sent(self, now: float, now_ms: int) -> Request:
        """Return the same request with one more attempt in flight."""
        first_sent_ms = now_ms if self.first_sent_ms is None else self.first_sent_ms
        return replace(self, attempts=self.attempts + 1, first_sent_ms=first_sent_ms, sent_at=now)

    def due_at(self, not_before: float, backoff_until: float) -> Request:
        """Return the same request, to be sent again at ``not_before``."""
        return replace(self, not_before=not_before, backoff_until=backoff_until)

    def facts(self, model_id: str, exchange: Exchange) -> RequestAudit:
        """Return its audit data after ``exchange`` has finished contacts of it."""
        return RequestAudit(
            batch_id=self.batch_id,
            model_id=model_id,
            model_version=self.key.model_version,
            request_contacts=len(self.contacts),
            started_at_ms=exchange.started_at_ms if self.first_sent_ms is None else self.first_sent_ms,
            finished_at_ms=exchange.finished_at_ms,
            latency_ms=exchange.latency_ms,
            attempts=self.attempts,
            api_status=exchange.status,
            correlation_id=exchange.correlation_id,
        )


def first_request(batch: Batch, new_id: Callable[[], str]) -> Request:
    """Return the request that sends a batch for the first time."""
    return Request(new_id(), batch.key, by_partition(batch.contacts), batch.opened_at, bisecting=batch.apart)


def by_partition(contacts: Iterable[Contact]) -> tuple[Contact, ...]:
    """Return the contacts sorted by partition, otherwise in their order."""
    return tuple(sorted(contacts, key=_place_of_partition))


def control_request(key: BatchKey, contact: Contact, batch_id: str) -> Request:
    """Return a request that sends a scored contact again, for the model version of ``key``."""
    return Request(batch_id, key, (contact,), is_control=True)


def subset(request: Request, contacts: tuple[Contact, ...], new_id: Callable[[], str]) -> Request:
    """Return a new request with some of the contacts of a request that failed."""
    return Request(
        new_id(),
        request.key,
        contacts,
        request.batched_at,
        sent_at=request.sent_at,
        failures=request.failures,
        retried_unanswered=request.retried_unanswered,
        bisecting=True,
    )


def unanswered(request: Request, contacts: tuple[Contact, ...], new_id: Callable[[], str]) -> Request:
    """Return a new request with the contacts that a response left out."""
    return Request(new_id(), request.key, contacts, request.batched_at, retried_unanswered=True)


def split_in_two(request: Request, new_id: Callable[[], str]) -> tuple[Request, ...]:
    """Return two new requests with the first and the second half of a request's contacts."""
    middle = _middle(request.contacts)
    return (
        subset(request, request.contacts[:middle], new_id),
        subset(request, request.contacts[middle:], new_id),
    )


def bisect(request: Request, new_id: Callable[[], str]) -> tuple[Request, ...]:
    """Return the next requests to find the failing contact of a failed request."""
    if len(request.contacts) > _BISECTED_AT_MOST:
        return split_in_two(request, new_id) + remaining(request, new_id)
    return (_first_half(request, request.contacts, request.sibling + request.postponed, new_id),)


def continue_search(request: Request, new_id: Callable[[], str]) -> tuple[Request, ...]:
    """Return the next requests after a success: the failing contact is in the sibling, if there is one."""
    request = replace(request, cleared=request.cleared + len(request.contacts))
    sibling = request.sibling
    if len(sibling) > 1:
        return (_first_half(request, sibling, request.postponed, new_id),)
    if sibling:
        return (_with_search(subset(request, sibling, new_id), request, postponed=request.postponed),)
    return remaining(request, new_id)


def remaining(request: Request, new_id: Callable[[], str]) -> tuple[Request, ...]:
    """Return the request with the remaining contacts of a bisection.

    It has all of them. If it is likely to fail by the share found so far, only the first group is sent.
    """
    waiting = request.sibling + request.postponed
    group = _best_group(request) if request.found > 1 else len(waiting)
    if _LIKELY_TO_FAIL * group > len(waiting):
        group = len(waiting)
    if not waiting:
        return ()
    return (_with_search(subset(request, waiting[:group], new_id), request, postponed=waiting[group:]),)


def one_by_one(request: Request, new_id: Callable[[], str]) -> tuple[Request, ...]:
    """Return a request for each contact of a request."""
    return tuple(subset(request, (contact,), new_id) for contact in request.all_contacts)


def take_first(request: Request, most: int, new_id: Callable[[], str]) -> tuple[Request, Request]:
    """Split a request that is too large: one with the first ``most`` contacts, and one with the rest."""
    rest = request.contacts[most:] + request.sibling + request.postponed + request.named
    first = replace(request, batch_id=new_id(), contacts=request.contacts[:most], sibling=(), postponed=(), named=())
    return first, replace(first, batch_id=new_id(), contacts=rest)


def _first_half(
    request: Request, contacts: tuple[Contact, ...], postponed: tuple[Contact, ...], new_id: Callable[[], str]
) -> Request:
    at = _middle(contacts)
    if request.found:
        at = min(len(contacts) // 2, _best_group(request))
    first = subset(request, contacts[:at], new_id)
    return replace(_with_search(first, request, postponed=postponed), sibling=contacts[at:])


def _best_group(request: Request) -> int:
    """Return the size of the next group, by the share of failing contacts that the bisection has found."""
    return max(1, round(_BEST_GROUP * (request.cleared + request.found) / request.found))


def _with_search(request: Request, of: Request, *, postponed: tuple[Contact, ...] = ()) -> Request:
    """Return a part of a bisected request with what the bisection has found."""
    return replace(request, postponed=postponed, cleared=of.cleared, found=of.found)


def _middle(contacts: tuple[Contact, ...]) -> int:
    """Return the index to divide at: the border of two partitions nearest to the middle, otherwise the middle."""
    middle = len(contacts) // 2
    if _partition(contacts[0]) == _partition(contacts[-1]):
        return middle
    borders = [at for at in range(1, len(contacts)) if _partition(contacts[at]) != _partition(contacts[at - 1])]
    return min(borders, key=lambda border: abs(border - middle))


def _place_of_partition(contact: Contact) -> tuple[str, int]:
    return contact[0][:2]  # topic and partition of its record; attribute access is too slow here


def _partition(contact: Contact) -> Partition:
    return Partition(contact.record.topic, contact.record.partition)
