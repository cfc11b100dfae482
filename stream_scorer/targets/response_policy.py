"""What the status of an answer means for a callback: the same for every target that is asked over HTTP.

The status is the answer. The body of a 2xx means nothing, so it may be anything: it is read up to a limit, to keep the
connection in use, and what goes wrong with it changes nothing. Who said 2xx has the callback; a receiver whose every
answer drips on without end would else get each callback until its tiers end.
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
    """Say what an answer means.

    Args:
        status: its status.
        headers: its headers, found in any spelling.
        latency_ms: how long it took.
        now_s: Unix seconds, for a ``Retry-After`` with a date.
        code: the platform's word for an error, where it has one.
    """
    text = f"{_status_text(status)}{f' {code}' if code else ''}"
    if status in ACCEPTED:
        return DeliveryAnswer(DeliveryKind.DELIVERED, text, status, latency_ms)
    if status in _REDIRECTS:
        # Not even shown where to: a redirect may carry what the sender is known by.
        return DeliveryAnswer(DeliveryKind.REFUSED, f"{text}: redirects are not followed", status, latency_ms)
    if status == HTTPStatus.GONE:
        message = f"{text}: the receiver takes no callbacks here any more"
        return DeliveryAnswer(DeliveryKind.SWITCHED_OFF, message, status, latency_ms)
    if status in _REFUSALS and status not in _LATER:
        return DeliveryAnswer(DeliveryKind.REFUSED, text, status, latency_ms)
    # 408, 429, 5xx, and numbers that mean nothing: what is not understood must not end a callback.
    after_s = retry_after_s(headers.get("Retry-After"), now_s)
    return DeliveryAnswer(DeliveryKind.TRY_LATER, text, status, latency_ms, after_s)


def classify_failure(failure: TransportFailure) -> DeliveryAnswer:
    """Say what an exchange without a usable answer means."""
    latency_ms = failure.timing.latency_ms
    if failure.status is None:
        return DeliveryAnswer(DeliveryKind.TRY_LATER, failure.message, None, latency_ms)
    message = f"{_status_text(failure.status)}; its body counts for nothing: {failure.message}"
    return DeliveryAnswer(DeliveryKind.DELIVERED, message, failure.status, latency_ms)


def invalid_request(why: str) -> DeliveryAnswer:
    """Say that a callback is such that no attempt could ever be made."""
    return DeliveryAnswer(DeliveryKind.REFUSED, f"the callback cannot be sent: {why}", None, 0.0)


def _status_text(status: int) -> str:
    """A status as people read it; the receiver's own words for it are not passed on."""
    try:
        return f"HTTP {status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return f"HTTP {status}"
