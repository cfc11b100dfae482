"""The webhook: one signed POST an attempt, and what its answer means.

The status is the answer. The body of the answer means nothing, so it may be anything: it is read up to a limit, to keep
the connection in use, and what goes wrong with it changes nothing for a 2xx. A receiver that said 2xx has the callback,
and one whose every answer drips on without end would else get each callback until its tiers end.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from stream_scorer.core.callbacks import DeliveryAnswer, DeliveryKind
from stream_scorer.genesys.transport import Http, TransportFailure
from stream_scorer.genesys.wire import retry_after_s
from stream_scorer.targets.bodies import MAX_BODY_BYTES, body_of, entry_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_scorer.core.callbacks import Callback, Score
    from stream_scorer.targets.guard import Guard
    from stream_scorer.targets.signing import Signer

TIMEOUT_S: Final = 10.0
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_CONNECTIONS: Final = 32
# What may stand in a header; our own ids are UUIDs, but anyone may write to a topic.
_SENDABLE_ID: Final = re.compile(r"[\x21-\x7e]{1,256}")
_ACCEPTED: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_LATER: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_REFUSALS: Final = range(400, 500)


class WebhookTarget:
    """A campaign manager that takes Standard Webhooks.

    Attributes:
        name: ``webhook`` and the URL's scheme, host and port. Neither path nor query: often they are what a sender is
            known by.
        max_body_bytes: see `stream_scorer.targets.bodies`.
    """

    max_body_bytes = MAX_BODY_BYTES

    def __init__(
        self,
        url: str,
        signer: Signer,
        guard: Guard,
        *,
        timeout_s: float = TIMEOUT_S,
        max_connections: int = MAX_CONNECTIONS,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing is sent before the first `deliver`.

        Args:
            url: where to; checked by `stream_scorer.targets.guard.guard_for`.
            signer: the secrets.
            guard: connects.
            timeout_s: deadline of one attempt: resolving, connecting, TLS, sending and the whole answer.
            max_connections: connections kept; as many as there are attempts at once.
            wall_clock: Unix seconds, for the signature and a ``Retry-After`` with a date.
        """
        parts = urlsplit(url)
        self.name = f"webhook {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._url = url
        self._signer = signer
        self._timeout_s = timeout_s
        self._wall_clock = wall_clock
        self._http = Http(max_connections, wall_clock=wall_clock, dial=guard.dial)

    def __repr__(self) -> str:
        return f"WebhookTarget(name={self.name!r})"

    def entry(self, score: Score) -> bytes:
        """One contact as it stands in a body."""
        return entry_of(score)

    def body(
        self, callback_id: str, campaign_id: str | None, model_id: str, planned_at_ms: int, entries: Sequence[bytes]
    ) -> bytes:
        """The body of a callback: contract section 7."""
        return body_of(callback_id, campaign_id, model_id, planned_at_ms, entries)

    def deliver(self, callback: Callback) -> DeliveryAnswer:
        """Make one attempt: at most ``timeout_s`` long, never raises for the network's or the receiver's sake."""
        if not _SENDABLE_ID.fullmatch(callback.callback_id):
            return _unsendable("its id cannot stand in a header")
        try:
            signature = self._signer.headers(
                callback.callback_id, callback.body, datetime.fromtimestamp(self._wall_clock(), UTC)
            )
        except UnicodeDecodeError:
            return _unsendable("its body is not UTF-8, so nobody could verify a signature of it")
        headers = {"Content-Type": "application/json", "User-Agent": "stream-scorer", **signature}
        try:
            got = self._http.exchange(
                "POST",
                self._url,
                headers=headers,
                body=callback.body,
                timeout_s=self._timeout_s,
                max_answer_bytes=MAX_ANSWER_BYTES,
            )
        except TransportFailure as failure:
            if failure.status is not None:  # a 2xx then, whose body could not be read
                message = f"{status_text(failure.status)}; its body counts for nothing: {failure.message}"
                return DeliveryAnswer(DeliveryKind.DELIVERED, message, failure.status, failure.timing.latency_ms)
            return DeliveryAnswer(DeliveryKind.TRY_LATER, failure.message, None, failure.timing.latency_ms)
        return meaning_of(got.status, got.headers, got.timing.latency_ms, self._wall_clock())

    def close(self) -> None:
        """Cut what is under way, and close the connections."""
        self._http.close()


def meaning_of(status: int, headers: Mapping[str, str], latency_ms: float, now_s: float) -> DeliveryAnswer:
    """Say what the status of an answer means for a callback; ``now_s``: Unix seconds."""
    text = status_text(status)
    if status in _ACCEPTED:
        return DeliveryAnswer(DeliveryKind.DELIVERED, text, status, latency_ms)
    if status in _REDIRECTS:
        # Not even shown where to: a redirect may carry what the sender is known by.
        return DeliveryAnswer(DeliveryKind.REFUSED, f"{text}: redirects are not followed", status, latency_ms)
    if status == HTTPStatus.GONE:
        message = f"{text}: the receiver has switched this callback URL off"
        return DeliveryAnswer(DeliveryKind.SWITCHED_OFF, message, status, latency_ms)
    if status in _REFUSALS and status not in _LATER:
        return DeliveryAnswer(DeliveryKind.REFUSED, text, status, latency_ms)
    # 408, 429, 5xx, and numbers that mean nothing: what is not understood must not end a callback.
    after_s = retry_after_s(headers.get("Retry-After"), now_s)
    return DeliveryAnswer(DeliveryKind.TRY_LATER, text, status, latency_ms, after_s)


def status_text(status: int) -> str:
    """Return a status as people read it; the receiver's own words for it are not passed on."""
    try:
        return f"HTTP {status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return f"HTTP {status}"


def _unsendable(why: str) -> DeliveryAnswer:
    return DeliveryAnswer(DeliveryKind.REFUSED, f"the callback cannot be sent: {why}", None, 0.0)
