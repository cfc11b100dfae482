"""Connection to the API: `GenesysAuthManager` provides tokens, `ScoreClient` sends requests."""

from __future__ import annotations

import io
import logging
import os
import random
import threading
import time
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Self

import requests
from requests.structures import CaseInsensitiveDict

from stream_scorer.core.charset import decode_text
from stream_scorer.core.scoring.api_response import Forbidden, Unavailable
from stream_scorer.core.scoring.backoff import next_delay_s
from stream_scorer.errors import ApiRefused, ApiUnavailable, ClientClosed
from stream_scorer.fork import bind_to_process
from stream_scorer.genesys.client import ScoreEndpoint, check_url
from stream_scorer.genesys.oauth import Token, TokenRefused, TokenSource
from stream_scorer.genesys.request_quota import Quota
from stream_scorer.http_client.client import Http
from stream_scorer.http_client.environment import check_http_environment
from stream_scorer.library.environment import address, check_present, secret_argument, text_argument
from stream_scorer.library.messages import api_error, in_library_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.scoring.api_response import ApiResponse, Exchange
    from stream_scorer.http_client.client import HttpAnswer
    from stream_scorer.library.payload import ScoringPayload

# How often a wait for the quota is looked at again: responses of other threads may shorten it.
_QUOTA_RECHECK_S: Final = 0.5
_log = logging.getLogger("stream_scorer")


class GenesysAuthManager:
    """Token source of one OAuth client, shared by all threads; renews each token before its end."""

    def __init__(
        self,
        client_id: str | None = None,
        client_secret: str | None = None,
        base_url: str | None = None,
        *,
        region: str | None = None,
        login_url: str | None = None,
        timeout_s: float = 15.0,
        max_connections: int = 8,
    ) -> None:
        """Check the arguments; no token is fetched before the first request.

        Args:
            client_id: id of an OAuth client with the grant "client credentials"; None: ``GENESYS_CLIENT_ID``.
            client_secret: its secret; no repr, log or error shows it. Surrounding blanks and invisible marks are
                removed. None: ``GENESYS_CLIENT_SECRET``, or the file that ``GENESYS_CLIENT_SECRET_FILE`` names, which
                is read before each token request.
            base_url: URL of the API. ``https://api.<region>`` implies ``https://login.<region>`` for tokens; any other
                host serves them itself. None: that of ``region``, else ``GENESYS_BASE_URL``.
            region: region of Genesys Cloud, such as ``mypurecloud.de``; None: ``GENESYS_REGION``, else
                ``mypurecloud.com``.
            login_url: URL of the login service, if it is neither; None: ``GENESYS_LOGIN_URL``, unless ``base_url`` or
                ``region`` is passed.
            timeout_s: deadline for fetching a token, in seconds.
            max_connections: limit of kept connections; as many as there are concurrent requests.

        Raises:
            SettingsError: id or secret is missing, or not text; the secret has quotation marks or several lines; a URL
                is not http or https with a host; the region is unknown; a proxy or certificate variable is invalid, and
                named.
        """
        check_present(client_id=client_id, client_secret=client_secret)
        self.client_id = text_argument("client_id", client_id)
        secret = secret_argument(client_secret)
        self.base_url, login = address(base_url, region, login_url)
        check_http_environment((self.base_url, login), os.environ)
        self.http = Http(max_connections)
        self.tokens = TokenSource(self.http, login, self.client_id, secret, timeout_s=timeout_s)
        self.auth_url = self.tokens.url
        self._closed = threading.Event()
        bind_to_process(self)

    def __repr__(self) -> str:
        closed = ", closed" if self._closed.is_set() else ""
        return f"GenesysAuthManager(client_id={self.client_id!r}, auth_url={self.auth_url!r}{closed})"

    def reset_after_fork(self) -> None:
        """Replace the event in a forked process; a thread of the parent may hold its lock."""
        was_closed = self._closed.is_set()
        self._closed = threading.Event()
        if was_closed:
            self._closed.set()

    def get_token(self) -> str:
        """Return a valid token.

        Raises:
            ApiRefused: id or secret is wrong.
            ApiUnavailable: the login service fails; a later attempt may succeed.
            ClientClosed: `close` was called.
        """
        self.check_open()
        outcome = self.tokens.token()
        if isinstance(outcome, Token):
            return outcome.value
        kind = ApiRefused if isinstance(outcome, TokenRefused) else ApiUnavailable
        raise api_error(kind, outcome.message, outcome.exchange)

    def get_headers(self) -> dict[str, str]:
        """Return the headers of a request to the API, token included; raises as `get_token`."""
        return {
            "Authorization": f"Bearer {self.get_token()}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }

    def close(self) -> None:
        """Close the connections, which a `ScoreClient` with this manager uses too; waits of other threads end."""
        self._closed.set()
        self.http.close()

    def check_open(self) -> None:
        """Check that a request may be sent.

        Raises:
            ClientClosed: `close` was called.
        """
        if self._closed.is_set():
            raise ClientClosed("the client is closed: create a new one, or close it after its last use")

    def wait(self, seconds: float) -> None:
        """Wait for a number of seconds, or until `close` is called."""
        self._closed.wait(seconds)

    def __enter__(self) -> Self:
        self.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ScoreResponse(requests.Response):
    """`requests.Response` (``json()``, ``status_code``, ``raise_for_status()`` …) with the latency of its exchange.

    Attributes:
        latency_ms: milliseconds of the last exchange, without earlier attempts and waiting.
    """

    latency_ms: float

    def __repr__(self) -> str:
        return f"<ScoreResponse [{self.status_code}] {self.latency_ms:.1f} ms>"

    @classmethod
    def of(cls, answer: HttpAnswer, url: str) -> ScoreResponse:
        """Convert an answer."""
        response = cls()
        response.status_code = answer.status
        response.headers = CaseInsensitiveDict(answer.headers)
        response.url = url
        response.encoding = "utf-8"
        response.raw = io.BytesIO(_in_utf8(answer.body))
        response.elapsed = timedelta(milliseconds=answer.timing.latency_ms)
        response.latency_ms = answer.timing.latency_ms
        return response


def _in_utf8(body: bytes) -> bytes:
    """Return a body in UTF-8 without byte order marks, the only JSON that `requests` reads; the response is billed."""
    try:
        return decode_text(body).encode()
    except UnicodeError:
        return body


class ScoreClient:
    """Client of the score endpoint, with quota and retries; safe for threads."""

    def __init__(
        self,
        auth: GenesysAuthManager,
        base_url: str | None = None,
        *,
        timeout_s: float = 30.0,
        requests_per_minute: int = 300,
        max_retries: int = 3,
        backoff_base_s: float = 2.0,
        max_backoff_s: float = 60.0,
        max_wait_s: float = 600.0,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """Check the arguments; no request is sent.

        Args:
            auth: provides the tokens; its connections are used too.
            base_url: URL of the API, ``https://api.<region>``; None: that of ``auth``.
            timeout_s: deadline of one exchange, in seconds.
            requests_per_minute: limit, kept by waiting; the API's own headers may lower it.
            max_retries: maximum number of retries of a request after 408, 429, 5xx, time-outs and lost connections.
            backoff_base_s: see `stream_scorer.core.scoring.backoff`.
            max_backoff_s: as ``backoff_base_s``.
            max_wait_s: longest ``Retry-After`` that is waited for, in seconds.
            sleep: waits for a number of seconds; None: `GenesysAuthManager.wait`, which `close` ends.

        Raises:
            SettingsError: as for `GenesysAuthManager`.
        """
        if base_url is None:
            base_url = auth.base_url
        check_url("base_url", base_url)
        check_http_environment((base_url,), os.environ)
        self.auth = auth
        self.base_url = base_url
        self.max_retries = max_retries
        self.backoff_base_s = backoff_base_s
        self.max_backoff_s = max_backoff_s
        self.max_wait_s = max_wait_s
        self._timeout_s = timeout_s
        self.sleep = auth.wait if sleep is None else sleep
        self._quota = Quota(requests_per_minute)
        self._quota_lock = threading.Lock()
        bind_to_process(self)

    def __repr__(self) -> str:
        return f"ScoreClient(base_url={self.base_url!r}, auth={self.auth!r})"

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked process; the copied quota count stays, which only lowers its rate."""
        self._quota_lock = threading.Lock()

    def submit_score_batch(self, payload: ScoringPayload, model_id: str) -> ScoreResponse:
        """Send one request with retries and return the last response, whatever its status.

        Args:
            payload: contacts of one request; `ScoringPayload.chunk` creates such payloads.
            model_id: the model that scores.

        Raises:
            ValueError: more contacts than ``batch_limit``; a feature cannot be written as JSON.
            ApiRefused: the login service rejects id and secret.
            ApiUnavailable: all retries failed.
            ClientClosed: the client was closed.
        """
        self.auth.check_open()
        if len(payload.contacts) > payload.batch_limit:
            given = len(payload.contacts)
            raise ValueError(
                f"{given} contacts are more than one request may hold ({payload.batch_limit}): use chunk()"
            )
        body = payload.body()
        attempt = 0
        while True:
            attempt += 1
            answer, got = self.ask(body, model_id, len(payload.contacts))
            if not isinstance(answer, Unavailable) or attempt > self.max_retries or self.asks_too_long(answer):
                break
            delay_s = self.delay_s(attempt, answer)
            self.log_retry(answer.message, answer.exchange, attempt, delay_s)
            self.sleep(delay_s)
        if got is not None:
            return ScoreResponse.of(got, self._endpoint(model_id).url)
        if isinstance(answer, Forbidden):
            raise api_error(ApiRefused, answer.message, answer.exchange)
        message = answer.message if isinstance(answer, Unavailable) else "no answer"
        raise api_error(ApiUnavailable, message, answer.exchange)

    def ask(self, body: bytes, model_id: str, contacts: int) -> tuple[ApiResponse, HttpAnswer | None]:
        """Send a body with ``contacts`` contacts once the quota allows it; returns as `ScoreEndpoint.send`."""
        while (wait_s := self.turn_in_s()) > 0.0:
            self.sleep(wait_s)
        return self.send(body, model_id, contacts)

    def turn_in_s(self) -> float:
        """Count a request, which must be sent now, if the quota allows it.

        Returns:
            0.0: it is counted; otherwise the seconds to wait before another call, fewer if a response arrives before.

        Raises:
            ClientClosed: the client was closed.
        """
        self.auth.check_open()
        now = time.monotonic()
        with self._quota_lock:
            wait_s = self._quota.wait_s(now)
            if wait_s <= 0.0:
                self._quota.sent(now)
            return min(wait_s, _QUOTA_RECHECK_S)

    def send(self, body: bytes, model_id: str, contacts: int) -> tuple[ApiResponse, HttpAnswer | None]:
        """Send a body whose request is counted; otherwise as `ask`."""
        answer, got = self._endpoint(model_id).send(body, contacts)
        if isinstance(answer, Unavailable):
            self.auth.check_open()  # closed by another thread: the exchange was aborted, and a retry would be as well
        if answer.exchange.error_text:
            _log.debug("error text received: HTTP %s: %s", answer.exchange.status, answer.exchange.error_text)
        now = time.monotonic()
        with self._quota_lock:
            if answer.exchange.quota is None:
                self._quota.answered()
            else:
                self._quota.update(answer.exchange.quota, now)
            if (
                isinstance(answer, Unavailable)
                and answer.exchange.status == HTTPStatus.TOO_MANY_REQUESTS
                and answer.retry_after_s
            ):
                self._quota.block_until(now + min(answer.retry_after_s, self.max_wait_s))
        return answer, got

    def log_retry(self, message: str, exchange: Exchange, failures: int, delay_s: float) -> None:
        """Log a request that is repeated, whole or in parts, after so many failures; no contact is named."""
        _log.warning(
            "request retried: in %.1f s, after failure %d: %s (status_code %s, correlation_id %s)",
            *(max(0.0, delay_s), failures, in_library_words(message), exchange.status, exchange.correlation_id),
        )

    def asks_too_long(self, answer: Unavailable) -> bool:
        """Return whether the API requests a pause longer than ``max_wait_s``."""
        return (answer.retry_after_s or 0.0) > self.max_wait_s

    def delay_s(self, attempt: int, answer: Unavailable) -> float:
        """Return the delay in seconds after ``attempt`` failed attempts."""
        return next_delay_s(
            attempt,
            base_s=self.backoff_base_s,
            max_s=self.max_backoff_s,
            retry_after_s=answer.retry_after_s,
            jitter=random.random(),  # noqa: S311 - spreads load, protects nothing  # nosec B311
        )

    def _endpoint(self, model_id: str) -> ScoreEndpoint:
        return ScoreEndpoint(self.auth.http, self.auth.tokens, self.base_url, model_id, timeout_s=self._timeout_s)
