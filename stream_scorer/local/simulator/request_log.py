"""What was asked and what is paid for."""

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
    """The simulator's account at one moment, as ``GET /_simulator/stats`` gives it.

    Attributes:
        requests: finished requests by path (``token``, ``score``, ``outbound``, ``other``) and status; ``dropped`` is
            one as well.
        contacts_asked: contacts in the score requests that arrived, each time counted, whatever the answer was.
        contacts_scored: contacts scored, each time counted: what is paid for.
        contacts_distinct: different contact ids among them.
        contacts_repeated: contact ids that were scored more than once.
        quota_count: requests counted in the open window.
        quota_allowed: requests a window allows.
        quota_reset_s: whole seconds until the count starts again.
        in_flight: score requests being worked on.
        in_flight_max: the most there ever were at once.
        tokens_issued: tokens given out.
        first_request_at_ms: Unix milliseconds of the first token or score request; None before it.
        last_request_at_ms: the same of the last one.
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
        """Finished requests of one path with one status, or ``"dropped"``."""
        return self.requests.get(path, {}).get(str(status), 0)


@dataclass(slots=True)
class RequestLog:
    """Counts as the requests go by. Not thread-safe: it lives in the server's event loop."""

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
        """A token or score request has arrived."""
        if self.first_request_at_ms is None:
            self.first_request_at_ms = at_ms
        self.last_request_at_ms = at_ms

    def begun(self) -> None:
        """A score request is being worked on."""
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)

    def asked(self, body: bytes) -> None:
        """A score request has come in whole; its contacts are counted by their marks, which costs no parse."""
        self.contacts_asked += body.count(_CONTACT_MARK)

    def ended(self) -> None:
        """A score request is no longer worked on."""
        self.in_flight -= 1

    def finished(self, path: str, outcome: int | str) -> None:
        """A request ended with this status, or `DROPPED`."""
        self.requests[path][str(outcome)] += 1

    def paid(self, contact_ids: Iterable[str], count: int) -> None:
        """These contacts were scored, whatever becomes of the answer."""
        self.scored.update(contact_ids)
        self.contacts_scored += count

    def restarted(self) -> RequestLog:
        """An empty ledger that still knows how many requests are in flight."""
        return RequestLog(in_flight=self.in_flight, in_flight_max=self.in_flight)

    def stats(self, *, quota_count: int, quota_allowed: int, quota_reset_s: int) -> Stats:
        """The account as of now."""
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
