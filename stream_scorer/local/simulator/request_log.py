"""Record of requests and of scored, and so billed, contacts."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

DROPPED = "dropped"
_CONTACT_MARK = b'"contactId":'


@dataclass(frozen=True, slots=True)
class Stats:
    """Snapshot of the record, as ``GET /_simulator/stats`` returns it.

    Attributes:
        requests: finished requests by path (those of a fault, and ``other``) and status, which may be
            ``dropped``.
        contacts_asked: contacts in received score requests, repeats included, whatever the answer.
        contacts_scored: scored contacts, repeats included: the billed number.
        contacts_distinct: distinct ids of scored contacts.
        contacts_repeated: contact ids that were scored more than once.
        quota_count: requests in the open window.
        quota_allowed: requests that a window allows.
        quota_reset_s: whole seconds until the count restarts.
        in_flight: score requests in flight.
        in_flight_max: highest value of ``in_flight``.
        tokens_issued: number of issued tokens.
        first_request_at_ms: Unix milliseconds of the first token or score request; None before it.
        last_request_at_ms: the same for the last one.
    """

    requests: dict[str, dict[str, int]]
    contacts_asked: int
    contacts_scored: int
    contacts_distinct: int
    contacts_repeated: int
    quota_count: int
    quota_allowed: int
    quota_reset_s: int
    in_flight: int
    in_flight_max: int
    tokens_issued: int
    first_request_at_ms: int | None
    last_request_at_ms: int | None

    def requests_with(self, path: str, status: int | str) -> int:
        """Return the number of finished requests of one path with one status, or ``"dropped"``."""
        return self.requests.get(path, {}).get(str(status), 0)


@dataclass(slots=True)
class RequestLog:
    """Counters of requests and contacts. Not thread-safe: used in the server's event loop only."""

    scored: Counter[str] = field(default_factory=Counter)
    contacts_asked: int = 0
    contacts_scored: int = 0
    requests: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    in_flight: int = 0
    in_flight_max: int = 0
    tokens_issued: int = 0
    first_request_at_ms: int | None = None
    last_request_at_ms: int | None = None

    def arrived(self, at_ms: int) -> None:
        """Record the arrival of a token or score request."""
        if self.first_request_at_ms is None:
            self.first_request_at_ms = at_ms
        self.last_request_at_ms = at_ms

    def begun(self) -> None:
        """Count a score request as in flight."""
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)

    def asked(self, body: bytes) -> None:
        """Count the contacts of a received score request by their keys, without parsing it."""
        self.contacts_asked += body.count(_CONTACT_MARK)

    def ended(self) -> None:
        """Remove a score request from those in flight."""
        self.in_flight -= 1

    def finished(self, path: str, outcome: int | str) -> None:
        """Count a finished request with its status, or `DROPPED`."""
        self.requests[path][str(outcome)] += 1

    def paid(self, contact_ids: Iterable[str], count: int) -> None:
        """Count scored contacts, whatever happens to the answer."""
        self.scored.update(contact_ids)
        self.contacts_scored += count

    def restarted(self) -> RequestLog:
        """Return an empty record with the same requests in flight."""
        return RequestLog(in_flight=self.in_flight, in_flight_max=self.in_flight)

    def stats(self, *, quota_count: int, quota_allowed: int, quota_reset_s: int) -> Stats:
        """Return a snapshot of the record."""
        return Stats(
            requests={path: dict(outcomes) for path, outcomes in self.requests.items()},
            contacts_asked=self.contacts_asked,
            contacts_scored=self.contacts_scored,
            contacts_distinct=len(self.scored),
            contacts_repeated=sum(times > 1 for times in self.scored.values()),
            quota_count=quota_count,
            quota_allowed=quota_allowed,
            quota_reset_s=quota_reset_s,
            in_flight=self.in_flight,
            in_flight_max=self.in_flight_max,
            tokens_issued=self.tokens_issued,
            first_request_at_ms=self.first_request_at_ms,
            last_request_at_ms=self.last_request_at_ms,
        )
