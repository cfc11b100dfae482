"""Translation of all errors of an exchange: those of requests, urllib3, ssl and sockets.

Texts of foreign errors are discarded, because they may quote URLs and headers. Only the operating system's own text is
kept ("Connection refused").
"""

from __future__ import annotations

import http.client
import re
import ssl
from typing import TYPE_CHECKING, Final

import requests.exceptions
import urllib3.exceptions

from stream_scorer.core.http_failure import HttpFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stream_scorer.http_client.deadline import Deadline


class AnswerTooLarge(ValueError):
    """The decompressed body exceeds the limit."""


class AddressBlocked(OSError):
    """The address is not permitted by ``dial``. The text is the service's own, so it is kept."""


def classify(error: Exception, deadline: Deadline, host: str, timeout_s: float) -> tuple[HttpFailure, str]:
    """Return the kind of any error of an exchange, and one line about it."""
    if deadline.cut_for in _ENDED:
        return HttpFailure.NO_CONNECTION, f"the exchange with {host} {_ENDED[deadline.cut_for]}"
    if deadline.cut_for == "deadline" and not deadline.connected:
        # No byte was sent, so no contact can be the cause: it does not count as a time-out of an answer.
        return HttpFailure.NO_CONNECTION, f"no connection to {host} within {timeout_s:g} s"
    causes = tuple(causes_of(error))
    barred = next((one for one in causes if isinstance(one, AddressBlocked)), None)
    if barred is not None:
        return HttpFailure.NO_CONNECTION, f"no connection to {host}: {barred}"
    # Decided before the table, since requests wraps these two into errors with other meanings as well.
    if deadline.cut_for == "deadline" or any(isinstance(one, urllib3.exceptions.ReadTimeoutError) for one in causes):
        return HttpFailure.TIMEOUT, f"no complete answer from {host} within {timeout_s:g} s"
    if any(isinstance(one, http.client.HTTPException) and not isinstance(one, _CUT_OFF) for one in causes):
        return HttpFailure.MALFORMED, f"{host} does not answer in HTTP"
    kind, text = next((kind, text) for known, kind, text in TRANSLATIONS if isinstance(error, known))
    if text is _BUILT and deadline.connected:
        # The same classes are raised for answers; a request that cannot be built fails before connecting.
        kind, text = HttpFailure.MALFORMED, _UNREADABLE
    return kind, text.format(host=host) + system_words(causes)


def proxy_refused(host: str, variable: str) -> str:
    """Return the text for a proxy that answers 407, with the variable or setting that holds its URL."""
    return f"the proxy to {host} does not accept the user and password of {variable}: HTTP 407"


_ENDED: Final[dict[str, str]] = {
    "closed": "was ended: the client was closed",
    "forked": "belongs to the process that this one was forked from",
}
# The proxy's status for CONNECT is only in http.client's text: 407 is a wrong user or password.
_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d{3})\b", re.ASCII)
_CUT_OFF: Final = (http.client.RemoteDisconnected, http.client.IncompleteRead)
_BUILT: Final = (
    "the request to {host} cannot be built; check its URL (genesys.base_url, genesys.login_url or callbacks.url)"
    " and the proxy settings"
)
_UNREADABLE: Final = "the answer of {host} cannot be read: its headers are malformed or contradict each other"

# The first matching class counts, so special ones precede general ones.
TRANSLATIONS: Final[tuple[tuple[type[Exception], HttpFailure, str], ...]] = (
    (AnswerTooLarge, HttpFailure.MALFORMED, "the answer of {host} is too large"),
    (requests.exceptions.ConnectTimeout, HttpFailure.NO_CONNECTION, "no connection to {host} in time"),
    (requests.exceptions.ReadTimeout, HttpFailure.TIMEOUT, "no complete answer from {host} in time"),
    (requests.exceptions.Timeout, HttpFailure.TIMEOUT, "no complete answer from {host} in time"),
    (
        requests.exceptions.ProxyError,
        HttpFailure.NO_CONNECTION,
        "the proxy to {host} (HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) does not connect",
    ),
    (requests.exceptions.SSLError, HttpFailure.NO_CONNECTION, "no TLS connection to {host}"),
    (requests.exceptions.ConnectionError, HttpFailure.NO_CONNECTION, "the connection to {host} failed or was lost"),
    (requests.exceptions.ChunkedEncodingError, HttpFailure.MALFORMED, "the answer of {host} was cut off"),
    (requests.exceptions.ContentDecodingError, HttpFailure.MALFORMED, "the answer of {host} cannot be decompressed"),
    (requests.exceptions.InvalidProxyURL, HttpFailure.NO_CONNECTION, _BUILT),
    (requests.exceptions.InvalidURL, HttpFailure.NO_CONNECTION, _BUILT),
    (requests.exceptions.InvalidSchema, HttpFailure.NO_CONNECTION, _BUILT),
    (requests.exceptions.MissingSchema, HttpFailure.NO_CONNECTION, _BUILT),
    (requests.exceptions.URLRequired, HttpFailure.NO_CONNECTION, _BUILT),
    (requests.exceptions.InvalidHeader, HttpFailure.NO_CONNECTION, _BUILT),
    (requests.exceptions.UnrewindableBodyError, HttpFailure.NO_CONNECTION, _BUILT),
    # Redirects, retries and JSON of requests are not used; if one occurs nonetheless, there is no usable answer.
    (requests.exceptions.TooManyRedirects, HttpFailure.MALFORMED, "{host} redirects"),
    (requests.exceptions.RetryError, HttpFailure.NO_CONNECTION, "the connection to {host} failed"),
    (requests.exceptions.StreamConsumedError, HttpFailure.MALFORMED, "the answer of {host} cannot be read"),
    (requests.exceptions.JSONDecodeError, HttpFailure.MALFORMED, "the answer of {host} cannot be read"),
    (requests.exceptions.InvalidJSONError, HttpFailure.MALFORMED, "the answer of {host} cannot be read"),
    (requests.exceptions.HTTPError, HttpFailure.SERVER_ERROR, "{host} reports an error"),
    (urllib3.exceptions.DecodeError, HttpFailure.MALFORMED, "the answer of {host} cannot be decompressed"),
    (urllib3.exceptions.HTTPError, HttpFailure.NO_CONNECTION, "the connection to {host} failed or was lost"),
    (http.client.HTTPException, HttpFailure.MALFORMED, "{host} does not answer in HTTP"),
    (TimeoutError, HttpFailure.TIMEOUT, "no complete answer from {host} in time"),
    (OSError, HttpFailure.NO_CONNECTION, "the connection to {host} failed or was lost"),
    (ValueError, HttpFailure.NO_CONNECTION, _BUILT),
    (Exception, HttpFailure.NO_CONNECTION, "the exchange with {host} failed"),
)


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, from the outside in; requests and urllib3 hide causes in arguments."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        inside = (getattr(found, "reason", None), *reversed(found.args), found.__cause__, found.__context__)
        found = next((one for one in inside if isinstance(one, BaseException) and id(one) not in seen), None)


def system_words(causes: tuple[BaseException, ...]) -> str:
    """Return the text of the operating system or of the certificate verification for an error; empty: there is none."""
    for cause in reversed(causes):
        if isinstance(cause, OSError) and (refused := _TUNNEL.match(str(cause))):
            return f": HTTP {refused[1]}"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f": {cause.verify_message}"
        if isinstance(cause, http.client.RemoteDisconnected):
            return ": closed without an answer"
        if isinstance(cause, ssl.SSLError):  # the reason is a fixed word; the text around it is the library's
            reason = getattr(cause, "reason", None)
            return f": {reason.replace('_', ' ').lower()}" if isinstance(reason, str) else ""
        if isinstance(cause, OSError) and isinstance(cause.strerror, str) and cause.strerror:
            return f": {cause.strerror}"
    return ""
