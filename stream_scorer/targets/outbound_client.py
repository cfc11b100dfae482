"""Requests to the Outbound API of Genesys Cloud: addresses, token, quota, and the class of each response."""

from __future__ import annotations

import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

import orjson

from stream_scorer.core.callbacks.types import DeliveryAnswer, DeliveryKind
from stream_scorer.genesys import wire
from stream_scorer.genesys.oauth import Token, TokenRefused, TokenUnavailable
from stream_scorer.http_client.client import TransportFailure
from stream_scorer.redaction.contacts import ContactRedactor
from stream_scorer.targets.response_policy import ACCEPTED, OUTBOUND_REMEDIES, classify_failure, classify_response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_scorer.core.scoring.api_response import RateLimitHeaders
    from stream_scorer.genesys.oauth import TokenSource
    from stream_scorer.genesys.request_quota import Quota
    from stream_scorer.http_client.client import Http, HttpAnswer

SCOPE: Final = "outbound"
# The answer repeats the added contacts, and is not read; an error's code is within much less.
MAX_ANSWER_BYTES: Final = 1024 * 1024
# Of contacts that are read: their columns, and what the platform stores about them.
_MAX_CONTACTS_BYTES: Final = 8 * 1024 * 1024
# Statuses whose cause is the configuration, with their remedies.
OURS: Final = {
    HTTPStatus.UNAUTHORIZED: "the API takes no token of this OAuth client; check genesys.client_id and genesys.region",
    403: f"the OAuth client needs the scope {SCOPE}, and its role the permissions to view and add contacts",
    404: "there is no such contact list; check callbacks.contact_list_id and callbacks.contact_lists",
}
_QUOTA_WAIT_S: Final = 61.0


class OutboundAnswer(NamedTuple):
    """Answer of one request: its class, and the body of a 2xx that was read whole."""

    answer: DeliveryAnswer
    body: bytes | None = None

    @property
    def is_delivered(self) -> bool:
        return self.answer.kind is DeliveryKind.DELIVERED


class OutboundClient:
    """Client of the Outbound API. No failure of network or platform is raised.

    Args:
        http: the connections; closed with the client.
        tokens: of an OAuth client with the scope `SCOPE`.
        quota: of that client, for this target only.
        base_url: of the API, ``https://api.<region>``, without a slash at its end.
        timeout_s: deadline of one exchange, in seconds.
        monotonic: monotonic seconds, for the quota.
        wall_clock: Unix seconds, for a ``Retry-After`` with a date.
    """

    def __init__(
        self,
        http: Http,
        tokens: TokenSource,
        quota: Quota,
        base_url: str,
        *,
        timeout_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._tokens = tokens
        self._gate = _RateGate(quota, monotonic)
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._wall_clock = wall_clock

    def remaining(self) -> int:
        """Return how many requests the quota has left."""
        return self._gate.remaining()

    def close(self) -> None:
        """Abort exchanges in flight, and close the connections."""
        self._gate.end()
        self._http.close()

    def read_list(self, list_id: str) -> OutboundAnswer:
        """Read the attributes of a contact list."""
        return self._send("GET", self._url(list_id), None)

    def add_contacts(self, list_id: str, body: bytes, *, do_not_queue: bool) -> OutboundAnswer:
        """Add contacts, or replace their columns; new ones are dialled next.

        Args:
            list_id: the contact list.
            body: JSON array of contacts.
            do_not_queue: whether contacts that the list has keep their position in the dial queue.
        """
        query = "priority=true&doNotQueue=true" if do_not_queue else "priority=true"
        return self._send("POST", f"{self._url(list_id)}/contacts?{query}", body)

    def read_contacts(self, list_id: str, ids: Sequence[str]) -> OutboundAnswer:
        """Read the contacts with these ids; those that the list does not have are left out."""
        return self._send("POST", f"{self._url(list_id)}/contacts/bulk", orjson.dumps(ids), _MAX_CONTACTS_BYTES)

    def _url(self, list_id: str) -> str:
        return f"{self._base_url}/api/v2/outbound/contactlists/{quote(list_id, safe='')}"

    def _send(
        self, method: str, url: str, body: bytes | None, max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> OutboundAnswer:
        """Send one request, once the quota allows it, and once more with a new token after a 401."""
        wait_s = self._gate.acquire(_QUOTA_WAIT_S)
        if wait_s > 0:
            message = "the request quota of the OAuth client (genesys.requests_per_minute) is used up"
            return OutboundAnswer(DeliveryAnswer(DeliveryKind.NOT_SENT, message, None, 0.0, wait_s))
        got, token = self._attempt(method, url, body, max_answer_bytes)
        if token is not None and got.answer.status == HTTPStatus.UNAUTHORIZED:
            # Revoked or expired early: no contact was added, so one more request with a new token is not a second
            # attempt.
            self._tokens.invalidate(token)
            self._gate.sent()
            got, _ = self._attempt(method, url, body, max_answer_bytes)
        if got.answer.retry_after_s is not None:
            self._gate.block_for(got.answer.retry_after_s)
        return got

    def _attempt(
        self, method: str, url: str, body: bytes | None, max_answer_bytes: int
    ) -> tuple[OutboundAnswer, Token | None]:
        started = self._monotonic()
        token = self._tokens.token()
        if not isinstance(token, Token):
            self._gate.update(None)
            return OutboundAnswer(_without_token(token, (self._monotonic() - started) * 1000.0)), None
        headers = {
            "Authorization": f"Bearer {token.value}",
            "Accept": "application/json",
            "User-Agent": "stream-scorer",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            got = self._http.exchange(
                method,
                url,
                headers=headers,
                body=body or b"",
                timeout_s=self._timeout_s,
                max_answer_bytes=max_answer_bytes,
            )
        except TransportFailure as failure:
            self._gate.update(wire.quota_reading(failure.headers))
            return OutboundAnswer(classify_failure(failure, OUTBOUND_REMEDIES)), token
        self._gate.update(wire.quota_reading(got.headers))
        return OutboundAnswer(self._classify(got, body or b""), got.body), token

    def _classify(self, got: HttpAnswer, body: bytes) -> DeliveryAnswer:
        latency_ms = got.timing.latency_ms
        code = ""
        if got.status not in ACCEPTED:
            error = wire.parse_error(got.body, self._tokens.redact)
            code = wire.shown_code(error, ContactRedactor(body).hide_in_code)
        answer = classify_response(
            got.status, got.headers, latency_ms, self._wall_clock(), code=code, remedies=OUTBOUND_REMEDIES
        )
        if got.status in OURS:
            message = f"{answer.message}: {OURS[got.status]}"
            return DeliveryAnswer(DeliveryKind.REFUSED, message, got.status, latency_ms, remedy=OURS[got.status])
        return answer


class _RateGate:
    """Gate that blocks threads until the quota allows their request. Every admitted request gets an answer."""

    def __init__(self, quota: Quota, monotonic: Callable[[], float]) -> None:
        self._quota = quota
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._ended = False

    def acquire(self, limit_s: float) -> float:
        """Wait for the quota and count a request; return the wait instead if it is longer than the limit."""
        give_up = self._monotonic() + limit_s
        with self._changed:
            while (wait_s := self._quota.wait_s(now := self._monotonic())) > 0:
                if self._ended or now + wait_s > give_up:
                    return wait_s
                self._changed.wait(wait_s)
            self._quota.sent(now)
            return 0.0

    def remaining(self) -> int:
        """Return how many requests may be sent now."""
        with self._changed:
            return self._quota.remaining(self._monotonic())

    def sent(self) -> None:
        """Count a request that was not admitted by `acquire`."""
        with self._changed:
            self._quota.sent(self._monotonic())

    def update(self, reading: RateLimitHeaders | None) -> None:
        """Record an answer with this reading or without one, or a request that gets no answer."""
        with self._changed:
            if reading is None:
                self._quota.answered()
            else:
                self._quota.update(reading, self._monotonic())
            self._changed.notify_all()

    def block_for(self, seconds: float) -> None:
        """Send nothing for this time, by ``Retry-After``."""
        with self._changed:
            self._quota.block_until(self._monotonic() + seconds)

    def end(self) -> None:
        """Release all waiting threads."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _without_token(trouble: TokenRefused | TokenUnavailable, latency_ms: float) -> DeliveryAnswer:
    if isinstance(trouble, TokenRefused):
        remedy = "check genesys.client_id and genesys.client_secret"
        return DeliveryAnswer(DeliveryKind.TRY_LATER, trouble.message, None, latency_ms, remedy=remedy)
    return DeliveryAnswer(DeliveryKind.TRY_LATER, trouble.message, None, latency_ms, trouble.retry_after_s)
