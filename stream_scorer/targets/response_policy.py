"""Decision on each response to a callback, for all targets over HTTP.

The status alone decides. The body of a 2xx has no meaning and may be anything. It is read up to a limit, to keep the
connection usable, and an error in it is ignored. A receiver that has answered 2xx has the callback. Otherwise a
receiver whose answers never end would receive each callback again until its last retry.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from stream_scorer.core.callbacks.types import DeliveryAnswer, DeliveryKind
from stream_scorer.http_client.retry_after import retry_after_s

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.http_client.client import TransportFailure

ACCEPTED: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_REFUSALS: Final = range(400, 500)
_LATER: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


def classify_response(
    status: int, headers: Mapping[str, str], latency_ms: float, now_s: float, code: str = ""
) -> DeliveryAnswer:
    """Return the result of a delivery by its response.

    Args:
        status: the status.
        headers: the headers, with keys that are not case-sensitive.
        latency_ms: duration of the exchange.
        now_s: Unix seconds, for a ``Retry-After`` with a date.
        code: the platform's error code; empty: none.
    """
    text = f"{_status_text(status)}{f' {code}' if code else ''}"
    if status in ACCEPTED:
        return DeliveryAnswer(DeliveryKind.DELIVERED, text, status, latency_ms)
    if status in _REDIRECTS:
        # The location is not shown: a redirect may carry credentials of the sender.
        return DeliveryAnswer(DeliveryKind.REFUSED, f"{text}: redirects are not followed", status, latency_ms)
    if status == HTTPStatus.GONE:
        message = f"{text}: the receiver takes no callbacks here any more"
        return DeliveryAnswer(DeliveryKind.SWITCHED_OFF, message, status, latency_ms)
    if status in _REFUSALS and status not in _LATER:
        return DeliveryAnswer(DeliveryKind.REFUSED, text, status, latency_ms)
    # 408, 429, 5xx, and unknown statuses: a response without a known meaning must not end a callback.
    after_s = retry_after_s(headers.get("Retry-After"), now_s)
    return DeliveryAnswer(DeliveryKind.TRY_LATER, text, status, latency_ms, after_s)


def classify_failure(failure: TransportFailure) -> DeliveryAnswer:
    """Return the result of a delivery without a usable answer."""
    latency_ms = failure.timing.latency_ms
    if failure.status is None:
        return DeliveryAnswer(DeliveryKind.TRY_LATER, failure.message, None, latency_ms)
    message = f"{_status_text(failure.status)}; its body is ignored: {failure.message}"
    return DeliveryAnswer(DeliveryKind.DELIVERED, message, failure.status, latency_ms)


def invalid_request(why: str) -> DeliveryAnswer:
    """Return the result for a callback that no attempt could ever deliver."""
    return DeliveryAnswer(DeliveryKind.REFUSED, f"the callback cannot be sent: {why}", None, 0.0)


def _status_text(status: int) -> str:
    """Return a status with its standard phrase; the receiver's own phrase is discarded."""
    try:
        return f"HTTP {status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return f"HTTP {status}"
