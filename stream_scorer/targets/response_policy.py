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

    from stream_scorer.core.callbacks.types import Callback
    from stream_scorer.http_client.client import TransportFailure

# What an operator can do, by status and by the hundreds; 0: there was no response. ``message`` has the response itself.
WEBHOOK_REMEDIES: Final = {
    0: "check the receiver, its certificate, and the network to it",
    401: "compare callbacks.secret with the receiver's",
    403: "compare callbacks.secret with the receiver's, and look for a firewall before it",
    404: "check the path of callbacks.url",
    405: "check the path of callbacks.url",
    408: "find out why the receiver is slow",
    410: "the receiver wants no more of this campaign: end the campaign, or switch it on at the receiver",
    413: "raise the receiver's body limit to 20 kB, or lower callbacks.max_contacts",
    429: "lower callbacks.max_per_minute, or raise the receiver's limit",
    3: "set callbacks.url to the final address: redirects are not followed",
    4: "the receiver's log has the reason",
    5: "check the receiver",
}
OUTBOUND_REMEDIES: Final = {
    0: "check genesys.region, and the network and the proxy to the API",
    410: "check the contact list of the campaign",
    413: "lower callbacks.max_contacts",
    429: "lower genesys.requests_per_minute",
    3: "check genesys.region: redirects are not followed",
    4: "the error code has the reason",
    5: "check the platform's status page",
}

ACCEPTED: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_REFUSALS: Final = range(400, 500)
_LATER: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


def classify_response(
    status: int,
    headers: Mapping[str, str],
    latency_ms: float,
    now_s: float,
    *,
    code: str = "",
    remedies: Mapping[int, str] = WEBHOOK_REMEDIES,
) -> DeliveryAnswer:
    """Return the result of a delivery by its response.

    Args:
        status: the status.
        headers: the headers, with keys that are not case-sensitive.
        latency_ms: duration of the exchange.
        now_s: Unix seconds, for a ``Retry-After`` with a date.
        code: the platform's error code; empty: none.
        remedies: what an operator can do at this target.
    """
    text = f"{_status_text(status)}{f' {code}' if code else ''}"
    if status in ACCEPTED:
        return DeliveryAnswer(DeliveryKind.DELIVERED, text, status, latency_ms)
    remedy = remedies.get(status, remedies.get(status // 100, ""))
    after_s = retry_after_s(headers.get("Retry-After"), now_s)
    if status in _REDIRECTS:
        # The location is not shown: a redirect may carry credentials of the sender.
        text, kind = f"{text}: redirects are not followed", DeliveryKind.REFUSED
    elif status == HTTPStatus.GONE:
        text, kind, after_s = f"{text}: the receiver has switched this campaign off", DeliveryKind.SWITCHED_OFF, None
    elif status in _REFUSALS and status not in _LATER:
        kind = DeliveryKind.REFUSED
    else:
        kind = DeliveryKind.TRY_LATER
    return DeliveryAnswer(kind, text, status, latency_ms, after_s, remedy)


def classify_failure(failure: TransportFailure, remedies: Mapping[int, str] = WEBHOOK_REMEDIES) -> DeliveryAnswer:
    """Return the result of a delivery without a usable answer."""
    latency_ms = failure.timing.latency_ms
    if failure.status is None:
        return DeliveryAnswer(DeliveryKind.TRY_LATER, failure.message, None, latency_ms, remedy=remedies[0])
    message = f"{_status_text(failure.status)}; its body is ignored: {failure.message}"
    return DeliveryAnswer(DeliveryKind.DELIVERED, message, failure.status, latency_ms)


def invalid_request(why: str) -> DeliveryAnswer:
    """Return the result for a callback that no attempt could ever deliver."""
    return DeliveryAnswer(DeliveryKind.REFUSED, f"the callback cannot be sent: {why}", None, 0.0)


def made_for_another_target(callback: Callback) -> DeliveryAnswer:
    """Return the result for a callback whose body does not fit the target: it is held until the setting returns."""
    return DeliveryAnswer(DeliveryKind.HELD, f"its body was made for {callback.target!r}", None, 0.0)


def _status_text(status: int) -> str:
    """Return a status with its standard phrase; the receiver's own phrase is discarded."""
    try:
        return f"HTTP {status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return f"HTTP {status}"
