"""Webhook target: one signed POST an attempt. `stream_scorer.targets.response_policy` has the meaning of responses."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from stream_scorer.core.trace_context import TRACEPARENT
from stream_scorer.errors import CheckFailed
from stream_scorer.http_client.client import Http, TransportFailure
from stream_scorer.targets.body_fit import fits_webhook
from stream_scorer.targets.payload import PayloadTarget
from stream_scorer.targets.response_policy import (
    classify_failure,
    classify_response,
    invalid_request,
    made_for_another_target,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.callbacks.types import Callback, DeliveryAnswer
    from stream_scorer.targets.signature import Signer
    from stream_scorer.targets.ssrf_guard import Guard

TIMEOUT_S: Final = 15.0
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_CONNECTIONS: Final = 32
# Valid in a header; the service's own ids are UUIDs, but anyone with the right may write to a topic.
_SENDABLE_ID: Final = re.compile(r"[\x21-\x7e]{1,256}")


class WebhookTarget(PayloadTarget):
    """Target for a campaign manager that receives Standard Webhooks.

    Attributes:
        name: ``webhook`` and the URL's scheme, host and port. Without path and query, which often identify the sender.
        max_body_bytes: see `stream_scorer.targets.payload`.
    """

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
        """Prepare the target; nothing is sent before the first `deliver`.

        Args:
            url: the receiver; checked by `stream_scorer.targets.ssrf_guard.guard_for`.
            signer: signs bodies.
            guard: resolves and connects.
            timeout_s: deadline of one attempt: resolving, connecting, TLS, sending and the whole answer.
            max_connections: limit of kept connections; as many as there are concurrent attempts.
            wall_clock: Unix seconds, for the signature and a ``Retry-After`` with a date.
        """
        parts = urlsplit(url)
        self.name = f"webhook {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._url = url
        self._signer = signer
        self._timeout_s = timeout_s
        self._wall_clock = wall_clock
        self._http = Http(max_connections, wall_clock=wall_clock, dial=guard.connect)

    def __repr__(self) -> str:
        return f"WebhookTarget(name={self.name!r})"

    def reach(self) -> str:
        """Return the answer of the receiver's host to ``HEAD /``, as one line; nothing is delivered.

        Raises:
            CheckFailed: there is none: name, address, connection or TLS.
        """
        parts = urlsplit(self._url)
        try:
            got = self._http.exchange(
                "HEAD",
                f"{parts.scheme}://{parts.netloc}/",
                headers={"User-Agent": "stream-scorer"},
                body=b"",
                timeout_s=self._timeout_s,
                max_answer_bytes=MAX_ANSWER_BYTES,
            )
        except TransportFailure as failure:
            raise CheckFailed(f"{self.name}: {failure.message}") from None
        return f"{self.name} answers (HTTP {got.status} to HEAD /; nothing was delivered)"

    def deliver(self, callback: Callback, traceparent: str | None = None, /) -> DeliveryAnswer:
        """Make one attempt of at most ``timeout_s``; no failure of network or receiver is raised."""
        if not fits_webhook(callback.target):
            return made_for_another_target(callback)
        if not _SENDABLE_ID.fullmatch(callback.callback_id):
            return invalid_request("its id cannot stand in a header")
        try:
            signature = self._signer.headers(
                callback.callback_id, callback.body, datetime.fromtimestamp(self._wall_clock(), UTC)
            )
        except UnicodeDecodeError:
            return invalid_request("its body is not UTF-8, so its signature could not be verified")
        headers = {"Content-Type": "application/json", "User-Agent": "stream-scorer", **signature}
        if traceparent is not None:
            headers[TRACEPARENT] = traceparent
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
            answer = classify_failure(failure)
            return replace(answer, is_unanswered=answer.status is None and failure.is_sent)
        answer = classify_response(got.status, got.headers, got.timing.latency_ms, self._wall_clock())
        return replace(answer, is_conflict=got.status == HTTPStatus.CONFLICT)

    def close(self) -> None:
        """Abort exchanges in flight, and close the connections."""
        self._http.close()
