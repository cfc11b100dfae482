"""Genesys Cloud Outbound target: adds the contacts of a callback to a contact list, for dialling.

Each contact has an id that is the same at every attempt and for every score of that contact. So a repeated contact
updates the existing one, with the score that arrived last. The platform compares no times, and a callback from a retry
topic arrives late. The columns of its data are `COLUMNS`; the contact list must have them.

Errors of the configuration and not of a callback (credentials, scope, the list's id) switch the target off: callbacks
wait, and none is refused.
"""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import orjson

from stream_scorer.core.callbacks.types import DeliveryAnswer, DeliveryKind
from stream_scorer.genesys import wire
from stream_scorer.genesys.oauth import Token, TokenRefused, TokenUnavailable
from stream_scorer.http_client.client import TransportFailure
from stream_scorer.redaction.contacts import ContactRedactor
from stream_scorer.targets.payload import iso_time
from stream_scorer.targets.response_policy import ACCEPTED, classify_failure, classify_response, invalid_request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_scorer.core.callbacks.types import Callback, Score
    from stream_scorer.core.records import RateLimitHeaders
    from stream_scorer.genesys.oauth import TokenSource
    from stream_scorer.genesys.quota import Quota
    from stream_scorer.http_client.client import Http, HttpAnswer

SCOPE: Final = "outbound"
COLUMNS: Final = (
    *("contact_id", "event_id", "campaign_id", "score", "confidence_lower", "confidence_upper"),
    *("model_id", "model_version", "occurred_at", "scored_at"),
)
# The platform's limit of a request.
MAX_BODY_BYTES: Final = 512_000
# The answer repeats the added contacts, and is not read; an error's code is within much less.
MAX_ANSWER_BYTES: Final = 1024 * 1024
_UNAUTHORIZED: Final = 401
_OURS: Final = {
    _UNAUTHORIZED: "the API takes no token of this OAuth client; check genesys.client_id and genesys.region",
    403: f"the OAuth client needs the scope {SCOPE}, and its role the permission to add contacts",
    404: "there is no such contact list; check callbacks.contact_list_id",
}
_QUOTA_WAIT_S: Final = 61.0


class OutboundTarget:
    """Target for one contact list of Genesys Cloud.

    Attributes:
        name: ``genesys-outbound``, the API's address and the list's id.
        max_body_bytes: the API's limit of a request.
    """

    max_body_bytes = MAX_BODY_BYTES

    def __init__(
        self,
        http: Http,
        tokens: TokenSource,
        quota: Quota,
        base_url: str,
        contact_list_id: str,
        *,
        timeout_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the target; nothing is sent before the first `deliver`.

        Args:
            http: the connections; closed with the target.
            tokens: of an OAuth client with the scope `SCOPE`.
            quota: of that client, for this target only.
            base_url: of the API, ``https://api.<region>``.
            contact_list_id: the contact list.
            timeout_s: deadline of one exchange, in seconds.
            monotonic: monotonic seconds, for the quota.
            wall_clock: Unix seconds, for a ``Retry-After`` with a date.
        """
        base_url = base_url.rstrip("/")
        self.name = f"genesys-outbound {base_url}/contactlists/{contact_list_id}"
        self._url = f"{base_url}/api/v2/outbound/contactlists/{quote(contact_list_id, safe='')}/contacts?priority=true"
        self._list_id = contact_list_id
        self._ids = uuid.uuid5(uuid.NAMESPACE_URL, f"genesys-contact-list:{contact_list_id}")
        self._http = http
        self._tokens = tokens
        self._gate = _RateGate(quota, monotonic)
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._wall_clock = wall_clock

    def __repr__(self) -> str:
        return f"OutboundTarget(name={self.name!r})"

    def entry(self, score: Score) -> bytes:
        """Return one contact: id, list, and its data as texts, the only type of a contact list."""
        values = (
            *(score.contact_id, score.event_id, score.campaign_id or ""),
            *(repr(number) for number in (score.score, score.confidence_lower, score.confidence_upper)),
            *(score.model_id, score.model_version or "", iso_time(score.occurred_at_ms), iso_time(score.scored_at_ms)),
        )
        return orjson.dumps(
            {
                "id": str(uuid.uuid5(self._ids, score.contact_id)),
                "contactListId": self._list_id,
                "data": dict(zip(COLUMNS, values, strict=True)),
                "callable": True,
            }
        )

    def body(
        self,
        callback_id: str,  # noqa: ARG002 - the platform has no field for these four
        campaign_id: str | None,  # noqa: ARG002
        model_id: str,  # noqa: ARG002
        planned_at_ms: int,  # noqa: ARG002
        entries: Sequence[bytes],
    ) -> bytes:
        """Return the array of contacts."""
        return b"[" + b",".join(entries) + b"]"

    def allowance(self) -> int | None:
        """Return how many requests the quota has left."""
        return self._gate.remaining()

    def deliver(self, callback: Callback, _traceparent: str | None = None, /) -> DeliveryAnswer:
        """Make one attempt, once the quota allows it; no failure of network or platform is raised."""
        if callback.target != self.name:
            return invalid_request(f"its body was made for {callback.target!r}, and not for {self.name!r}")
        wait_s = self._gate.acquire(_QUOTA_WAIT_S)
        if wait_s > 0:
            message = "the request quota of the OAuth client (genesys.requests_per_minute) is used up"
            return DeliveryAnswer(DeliveryKind.TRY_LATER, message, None, 0.0, wait_s)
        answer, token = self._attempt(callback.body)
        if token is not None and answer.status == _UNAUTHORIZED:
            # Revoked or expired early: no contact was added, so one more request with a new token is not a second
            # attempt.
            self._tokens.invalidate(token)
            self._gate.sent()
            answer, _ = self._attempt(callback.body)
        if answer.retry_after_s is not None:
            self._gate.block_for(answer.retry_after_s)
        return answer

    def close(self) -> None:
        """Abort exchanges in flight, and close the connections."""
        self._gate.end()
        self._http.close()

    def _attempt(self, body: bytes) -> tuple[DeliveryAnswer, Token | None]:
        started = self._monotonic()
        token = self._tokens.token()
        if not isinstance(token, Token):
            self._gate.update(None)
            return _without_token(token, (self._monotonic() - started) * 1000.0), None
        headers = {
            "Authorization": f"Bearer {token.value}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "stream-scorer",
        }
        try:
            got = self._http.exchange(
                "POST",
                self._url,
                headers=headers,
                body=body,
                timeout_s=self._timeout_s,
                max_answer_bytes=MAX_ANSWER_BYTES,
            )
        except TransportFailure as failure:
            self._gate.update(wire.quota_reading(failure.headers))
            return classify_failure(failure), token
        self._gate.update(wire.quota_reading(got.headers))
        return self._reply_text(got, body), token

    def _reply_text(self, got: HttpAnswer, body: bytes) -> DeliveryAnswer:
        latency_ms = got.timing.latency_ms
        code = ""
        if got.status not in ACCEPTED:
            error = wire.parse_error(got.body, self._tokens.redact)
            code = wire.shown_code(error, ContactRedactor(body).hide_in_code)
        said = classify_response(got.status, got.headers, latency_ms, self._wall_clock(), code)
        if got.status in _OURS:
            message = f"{said.message}: {_OURS[got.status]}"
            return DeliveryAnswer(DeliveryKind.SWITCHED_OFF, message, got.status, latency_ms)
        return said


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
        return DeliveryAnswer(DeliveryKind.SWITCHED_OFF, trouble.message, None, latency_ms)
    return DeliveryAnswer(DeliveryKind.TRY_LATER, trouble.message, None, latency_ms, trouble.retry_after_s)
