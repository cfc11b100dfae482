"""A request: the contacts that are asked about together, and what has been tried with them so far.

A request keeps its ``batch_id`` through its retries. Whatever asks about other contacts (a half, the rest after some
were set aside, the unanswered once more, a probe) is a new request with an id of its own.

How a refused contact is found. A large request is halved, both halves are asked about side by side. Of a request
with up to ``_SEARCHED_AT_MOST`` contacts only the first half is asked about: if the API takes it, the refused one is
in the other half, which needs no request of its own to be halved in turn; if it does not, the other half waits, and all
that wait are asked about together in the end. That is the generalized binary splitting of group testing (F. K. Hwang,
"A method for detecting all defective members in a population by group testing", J. Am. Stat. Assoc. 67, 1972). One of a
thousand costs 16 requests at most, where plain halving takes 21; ten cost 105 at most, where it takes 151.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stream_scorer.core.events import Contact, Exchange, RequestFacts

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.batcher import Batch, Lane


_SEARCHED_AT_MOST = 128
_INSIDE = 0.11


@dataclass(frozen=True, slots=True)
class Request:
    """Contacts with distinct ids, of one lane, and the history of asking about them. Times are monotonic seconds.

    Attributes:
        batch_id: the id that audit and headers show.
        lane: the model version, and whether the events brought it.
        contacts: what is asked about, at least one.
        attempts: HTTP attempts made so far.
        first_asked_ms: Unix milliseconds of the first attempt; None before it.
        asked_since: when the first attempt began; None before it.
        round_since: when the present round of attempts began; None between rounds. For a lone contact it goes back to
            its first failure since others were last answered, over holds.
        not_before: when the next attempt is due.
        lone_failures: rounds that this one contact failed alone while others were answered.
        asked_before: whether the API has left these contacts out of an answer once already.
        isolating: whether it came from a request that was refused or failed, to find out by which contact.
        failing: whether the API failed it, or the request that it came from.
        other_half: if the API takes ``contacts``, it refuses one of these.
        later: what is to be asked about once this search has ended; it may be all right.
    """

    batch_id: str
    lane: Lane
    contacts: tuple[Contact, ...]
    attempts: int = 0
    first_asked_ms: int | None = None
    asked_since: float | None = None
    round_since: float | None = None
    round_attempts: int = 0
    not_before: float = 0.0
    lone_failures: int = 0
    asked_before: bool = False
    isolating: bool = False
    failing: bool = False
    other_half: tuple[Contact, ...] = ()
    later: tuple[Contact, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether it asks about a single contact."""
        return len(self.contacts) == 1

    @property
    def everyone(self) -> tuple[Contact, ...]:
        """The contacts that are asked about, and those whose turn comes after them."""
        return self.contacts + self.other_half + self.later if self.other_half or self.later else self.contacts

    def only(self, wanted: Callable[[Contact], bool]) -> Request | None:
        """The same request with the contacts that are still wanted; None if there are none."""
        kept, other, later = (tuple(filter(wanted, part)) for part in (self.contacts, self.other_half, self.later))
        if not kept:
            kept, other, later = other + later, (), ()
        return replace(self, contacts=kept, other_half=other, later=later) if kept else None

    def sent(self, now: float, now_ms: int) -> Request:
        """The same request with one more attempt under way."""
        return replace(
            self,
            attempts=self.attempts + 1,
            round_attempts=self.round_attempts + 1,
            first_asked_ms=now_ms if self.first_asked_ms is None else self.first_asked_ms,
            asked_since=now if self.asked_since is None else self.asked_since,
            round_since=now if self.round_since is None else self.round_since,
        )

    def again_at(self, not_before: float) -> Request:
        """The same request, its next attempt due at ``not_before``."""
        return replace(self, not_before=not_before)

    def failed(self) -> Request:
        """The same request after an attempt that the API failed."""
        return replace(self, failing=True)

    def fresh_round(self) -> Request:
        """The same request, its retries all there again: after a hold, or after a round that proved nothing.

        When it is due does not change: a ``Retry-After`` holds longer than a round. A lone contact keeps when its
        trouble began: if others are answered before it fails once more, the API works and it is the contact.
        """
        return replace(self, round_since=self.round_since if self.alone else None, round_attempts=0)

    def failed_alone(self) -> Request:
        """The same request about one contact after a round that failed while others were answered."""
        return replace(self, round_since=None, round_attempts=0, lone_failures=self.lone_failures + 1)

    def facts(self, model_id: str, exchange: Exchange) -> RequestFacts:
        """What the audit says of it, once ``exchange`` has finished contacts of it."""
        return RequestFacts(
            batch_id=self.batch_id,
            model_id=model_id,
            model_version=self.lane.model_version,
            request_contacts=len(self.contacts),
            started_at_ms=exchange.started_at_ms if self.first_asked_ms is None else self.first_asked_ms,
            finished_at_ms=exchange.finished_at_ms,
            latency_ms=exchange.latency_ms,
            attempts=self.attempts,
            api_status=exchange.status,
            correlation_id=exchange.correlation_id,
        )


def first_request(batch: Batch, new_id: Callable[[], str]) -> Request:
    """The request that asks about a batch for the first time."""
    return Request(new_id(), batch.lane, batch.contacts)


def part_of(
    request: Request,
    contacts: tuple[Contact, ...],
    new_id: Callable[[], str],
    *,
    asked_before: bool = False,
) -> Request:
    """A new request about some of the contacts of ``request``."""
    return Request(
        new_id(),
        request.lane,
        contacts,
        asked_before=asked_before or request.asked_before,
        isolating=not asked_before,
        failing=request.failing,
    )


def halves(request: Request, new_id: Callable[[], str]) -> tuple[Request, Request]:
    """Two new requests about the first and the second half of a request's contacts."""
    middle = len(request.contacts) // 2
    return (
        part_of(request, request.contacts[:middle], new_id),
        part_of(request, request.contacts[middle:], new_id),
    )


def narrowed(request: Request, new_id: Callable[[], str]) -> tuple[Request, ...]:
    """What is asked next to find the contact for which several were refused."""
    if len(request.contacts) > _SEARCHED_AT_MOST:
        return halves(request, new_id) + left(request, new_id)
    return (_first_half(request, request.contacts, request.other_half + request.later, new_id),)


def searched_on(request: Request, new_id: Callable[[], str]) -> tuple[Request, ...]:
    """What is asked next after the API took a request: the refused contact is in its other half, if it has one."""
    other = request.other_half
    if len(other) > 1:
        return (_first_half(request, other, request.later, new_id),)
    return (replace(part_of(request, other, new_id), later=request.later),) if other else left(request, new_id)


def left(request: Request, new_id: Callable[[], str]) -> tuple[Request, ...]:
    """What is left to ask about once the contacts of a request have their outcomes, or are asked about elsewhere."""
    waiting = request.other_half + request.later
    return (part_of(request, waiting, new_id),) if waiting else ()


def _first_half(
    request: Request, contacts: tuple[Contact, ...], later: tuple[Contact, ...], new_id: Callable[[], str]
) -> Request:
    middle = len(contacts) // 2
    return replace(part_of(request, contacts[:middle], new_id), other_half=contacts[middle:], later=later)


def set_aside(request: Request, amount: int, new_id: Callable[[], str]) -> tuple[Request, tuple[Request, ...]]:
    """A request without a few of its contacts, and a request about these, if one contact at least is left.

    They are taken from somewhere inside: bad contacts come first or last more often than by chance.
    """
    amount = min(amount, len(request.contacts) - 1)
    if amount <= 0:
        return request, ()
    first = min(int(len(request.contacts) * _INSIDE), len(request.contacts) - amount)
    kept = request.contacts[first : first + amount]
    rest = request.contacts[:first] + request.contacts[first + amount :]
    return replace(request, contacts=rest), (part_of(request, kept, new_id),)


def pieces(request: Request, max_contacts: int, new_id: Callable[[], str]) -> list[Request]:
    """New requests about at most ``max_contacts`` each, for a request that was never sent and is larger than that."""
    contacts = request.contacts
    cut = [
        replace(request, batch_id=new_id(), contacts=contacts[first : first + max_contacts], other_half=(), later=())
        for first in range(0, len(contacts), max_contacts)
    ]
    return [*cut, *left(request, new_id)]
