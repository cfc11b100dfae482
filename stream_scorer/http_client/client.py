"""HTTP client: one exchange with one deadline, a bounded answer and one kind of error.

Boundary to requests: exceptions of requests, urllib3, ssl and sockets are translated by `classify` and go no further.
"""

from __future__ import annotations

import http.client
import os
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import requests
import requests.cookies
import urllib3.exceptions

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.errors import ApiUnavailable
from stream_scorer.fork import bind_to_process
from stream_scorer.http_client.connections import DeadlineAdapter
from stream_scorer.http_client.deadline import Watchdog
from stream_scorer.http_client.environment import proxy_variable
from stream_scorer.http_client.errors import AnswerTooLarge, classify, proxy_refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.http_client.connections import Dial

_READ_BYTES: Final = 64 * 1024
# The socket's own time-out is later than the watchdog's, so that the reason "deadline" comes first.
_SOCKET_GRACE_S: Final = 1.0
_OK: Final = range(200, 300)
# OSError and ValueError: sockets, TLS, and header values that cannot be encoded.
_FOREIGN: Final = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of an exchange, in Unix milliseconds UTC; ``latency_ms`` is monotonic and covers all of it."""

    started_at_ms: int
    finished_at_ms: int
    latency_ms: float


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Answer with its whole body, decompressed.

    The body of an answer that is not 2xx is empty if it could not be read, since its status suffices. Keys of
    ``headers`` are not case-sensitive.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    timing: Timing


class TransportFailure(ApiUnavailable):
    """The exchange has no usable answer.

    Attributes:
        kind: kind of the failure.
        message: one line without any secret; also ``str(failure)``.
        timing: times of the exchange.
        status: status of an answer whose body failed (always a 2xx); None: no answer.
        headers: its headers.
        is_sent: whether a part of the request may have reached the server.
    """

    def __init__(
        self,
        kind: HttpFailure,
        message: str,
        timing: Timing,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        is_sent: bool = True,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.timing = timing
        self.status = status
        self.headers: Mapping[str, str] = {} if headers is None else headers
        self.is_sent = is_sent


class Http:
    """HTTP client for any number of concurrent threads.

    Connections are kept and reused, but never by a forked process. Redirects are never followed, cookies never kept,
    and requests never repeated. Proxies and CA bundles are those of the environment, as for any program on requests;
    ``~/.netrc`` is not read.
    """

    def __init__(
        self,
        max_connections: int = 8,
        *,
        wall_clock: Callable[[], float] = time.time,
        dial: Dial | None = None,
    ) -> None:
        """Prepare the connections.

        Args:
            max_connections: limit of kept connections for each host; as many as there are concurrent requests.
            wall_clock: Unix seconds, for the times in `Timing`. Deadlines always use the real monotonic clock.
            dial: resolves and connects; None: urllib3 does. With it no proxies are used, since a proxy would hide the
                address that is connected to.
        """
        self._wall_clock = wall_clock
        self._max_connections = max_connections
        self._dial = dial
        self._watchdog = Watchdog()
        self._session = self._new_session()
        # Sessions of parent processes. Closing one could block on a lock that a thread of the parent held at the fork.
        self._inherited: list[_Session] = []
        bind_to_process(self)

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        timeout_s: float,
        max_answer_bytes: int,
    ) -> HttpAnswer:
        """Run one exchange within ``timeout_s``: resolving, connecting, TLS, sending, headers and body together.

        At most ``max_answer_bytes`` of the decompressed body are read; a longer one is a failure.

        Raises:
            TransportFailure: no answer, or a 2xx whose body was cut off, too large or could not be decompressed.
        """
        started = time.monotonic()
        started_at_ms = self._now_ms()
        response: requests.Response | None = None
        # Only the translation is kept: the error itself would hold the connection through its traceback.
        failed: tuple[HttpFailure, str] | None = None
        content = b""
        host = urlsplit(url).netloc.rpartition("@")[2]
        with self._watchdog.run_with_deadline(timeout_s) as deadline:
            try:
                response = self._session.request(
                    method,
                    url,
                    headers=dict(headers),
                    data=body,
                    timeout=timeout_s + _SOCKET_GRACE_S,
                    allow_redirects=False,
                    stream=True,
                )
                content = _read(response, max_answer_bytes)
                if deadline.cut_for is not None:  # without a length, a cut connection looks like the end of the body
                    failed = classify(ConnectionAbortedError(), deadline, host, timeout_s)
            except _FOREIGN as error:
                failed = classify(error, deadline, host, timeout_s)
            finally:
                if response is not None:
                    response.close()
        timing = Timing(started_at_ms, self._now_ms(), (time.monotonic() - started) * 1000.0)
        if response is not None and response.status_code == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            # Of plain http the proxy answers in the place of the server; it opens a tunnel for https, or fails.
            proxy = proxy_variable(url, os.environ) if self._dial is None else None
            if proxy is not None:
                raise TransportFailure(HttpFailure.NO_CONNECTION, proxy_refused(host, proxy), timing)
        if response is not None and (failed is None or response.status_code not in _OK):
            return HttpAnswer(response.status_code, response.headers, b"" if failed else content, timing)
        kind, message = failed or (HttpFailure.NO_CONNECTION, "")  # without a response there is a failure
        status, got = (None, None) if response is None else (response.status_code, response.headers)
        raise TransportFailure(kind, message, timing, status, got, is_sent=deadline.has_sent)

    def close(self) -> None:
        """Abort exchanges in flight and close all connections; later calls fail at once."""
        self._watchdog.close()
        self._session.close()

    def reset_after_fork(self) -> None:
        """Start with connections and deadlines of this process alone."""
        self._inherited.append(self._session)
        self._session = self._new_session()
        self._watchdog.reset_after_fork()

    def _new_session(self) -> _Session:
        if self._dial is None:
            return _Session(self._max_connections)
        return _DirectSession(self._max_connections, self._dial)

    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000.0)


class _Session(requests.Session):
    def __init__(self, max_connections: int, dial: Dial | None = None) -> None:
        super().__init__()
        self.headers.clear()
        self.headers["Accept-Encoding"] = "gzip"
        self.auth = _no_auth
        self.cookies.set_policy(_NoCookies())
        for scheme in ("https://", "http://"):
            self.mount(scheme, DeadlineAdapter(max_connections, dial))

    def merge_environment_settings(self, *args: Any, **kwargs: Any) -> Any:
        """Add http:// to a proxy without a scheme, as other programs do; requests takes its host for the scheme."""
        settings = super().merge_environment_settings(*args, **kwargs)
        proxies = settings["proxies"].items()
        settings["proxies"] = {name: proxy if "://" in proxy else f"http://{proxy}" for name, proxy in proxies if proxy}
        return settings

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """Return None, so that no answer is a redirect: requests would read its body without a limit."""
        return None


class _DirectSession(_Session):
    """Session that uses the CA bundle of the environment, but no proxy."""

    def merge_environment_settings(self, *args: Any, **kwargs: Any) -> Any:
        """Return the settings of the environment without proxies."""
        return {**super().merge_environment_settings(*args, **kwargs), "proxies": {}}


class _NoCookies(requests.cookies.cookielib.DefaultCookiePolicy):  # type: ignore[name-defined,misc]
    def __init__(self) -> None:
        super().__init__(allowed_domains=[])


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Return the request unchanged; without any ``auth``, requests would read ``~/.netrc``."""
    return request


def _read(response: requests.Response, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for part in response.iter_content(_READ_BYTES):
        size += len(part)
        if size > max_bytes:
            raise AnswerTooLarge(f"more than {max_bytes} bytes")
        parts.append(part)
    return b"".join(parts)
