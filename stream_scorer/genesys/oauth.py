"""Token source by OAuth client credentials: one request for all threads, cached, and renewed before expiry."""

from __future__ import annotations

import base64
import math
import re
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from stream_scorer.core.scoring.api_response import Exchange
from stream_scorer.errors import SettingsError
from stream_scorer.fork import bind_to_process
from stream_scorer.genesys import wire
from stream_scorer.http_client.client import HttpAnswer, TransportFailure
from stream_scorer.http_client.retry_after import retry_after_s
from stream_scorer.redaction.credentials import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.http_client.client import Http

RENEW_EARLY_S: Final = 60.0
# The platform allows 5 minutes to 48 hours. An invalid number counts as the minimum, a larger one as the maximum.
_LEAST_LIFE_S: Final = 300.0
_MOST_LIFE_S: Final = 48 * 3600.0
_MAX_ANSWER_BYTES: Final = 64 * 1024
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_REFUSED: Final = (400, 401)
_REMEDY: Final = "check genesys.client_id, genesys.client_secret and genesys.region"
_NOT_THE_PLATFORM: Final = wire.NOT_THE_PLATFORM.format(setting="genesys.login_url")

ReadSecret: TypeAlias = "Callable[[], str]"
"""Returns the client's current secret; raises `SettingsError` with one line for operators if it cannot be read."""


@dataclass(frozen=True, slots=True)
class Token:
    """Bearer token; its value is in no repr. ``renew_at`` in monotonic seconds."""

    value: str
    renew_at: float

    def __repr__(self) -> str:
        return f"Token(renew_at={self.renew_at})"


@dataclass(frozen=True, slots=True)
class TokenRefused:
    """The login service answers 400 or 401: id or secret are wrong, and a retry does not help.

    ``platform_error``: the body is an OAuth error, so the answer is not from a gateway or proxy.
    """

    exchange: Exchange
    message: str
    platform_error: bool = False


@dataclass(frozen=True, slots=True)
class TokenUnavailable:
    """Any other failure of the login service, or an unreadable secret; temporary, like a 5xx of the API.

    ``ignored_retry_after``: a ``Retry-After`` that is not obeyed, one line; empty: there was none.
    """

    exchange: Exchange
    message: str
    retry_after_s: float | None = None
    ignored_retry_after: str = ""


TokenOutcome: TypeAlias = Token | TokenRefused | TokenUnavailable


class TokenSource:
    """Tokens of one OAuth client, for any number of threads.

    A token is renewed ``min(60 s, half its life)`` before ``expires_in`` has passed. While one thread requests a token,
    the others wait for its result, a token or a failure. They do not repeat a request that has just failed.

    A secret given as a function is read before each request, so a new secret needs no restart.
    """

    def __init__(
        self,
        http: Http,
        login_url: str,
        client_id: str,
        client_secret: str | ReadSecret,
        *,
        timeout_s: float = 15.0,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the source; nothing is requested before the first `token`.

        Args:
            http: the connections.
            login_url: base URL of the login service, ``https://login.<region>``.
            client_id: of an OAuth client with the grant "client credentials".
            client_secret: not shown in any repr, log or error; a function is called before each request.
            timeout_s: deadline of a request, in seconds.
            monotonic: monotonic seconds, for the life of the token.
            wall_clock: Unix seconds, for a ``Retry-After`` with a date.

        Raises:
            SettingsError: id or secret is not valid text.
        """
        self.url = f"{login_url.rstrip('/')}/oauth/token"
        self.client_id = client_id
        self._http = http
        self._redactor = Redactor(client_id)
        if isinstance(client_secret, str):
            secret = client_secret
            self._read_secret: ReadSecret = lambda: secret
            self._authorize()
        else:
            self._read_secret = client_secret
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._fetches = 0
        self._last: TokenOutcome | None = None
        bind_to_process(self)

    def __repr__(self) -> str:
        return f"TokenSource(url={self.url!r}, client_id={self.client_id!r})"

    def token(self) -> TokenOutcome:
        """Return a token valid for a while, requested now if there is none. No network failure is raised."""
        fetches_seen = self._fetches
        with self._lock:
            last = self._last
            if isinstance(last, Token):
                if self._monotonic() < last.renew_at:
                    return last
            elif last is not None and self._fetches != fetches_seen:
                return last  # the request that this thread has waited for
            self._last = self._fetch()
            self._fetches += 1
            return self._last

    def invalidate(self, token: Token) -> None:
        """Discard a token that the API refuses; one requested meanwhile is kept."""
        with self._lock:
            if isinstance(self._last, Token) and self._last.value == token.value:
                self._last = None

    def reset_after_fork(self) -> None:
        """Discard the parent's token; its lock may be held by a thread that does not exist in this process."""
        self._lock = threading.Lock()
        self._last = None

    def redact(self, text: str) -> str:
        """Return foreign text without the secret and recent tokens, in case it quotes them."""
        return self._redactor(text)

    def _authorize(self) -> str:
        """Return the ``Basic`` header with the current secret, which is redacted from then on."""
        secret = self._read_secret()
        try:
            basic = base64.b64encode(f"{self.client_id}:{secret}".encode()).decode()
        except UnicodeEncodeError:
            raise SettingsError("genesys.client_id or genesys.client_secret is not valid Unicode") from None
        self._redactor.learn_secret(secret)
        return f"Basic {basic}"

    def _fetch(self) -> TokenOutcome:
        try:
            authorization = self._authorize()
        except SettingsError as error:
            now_ms = int(self._wall_clock() * 1000.0)
            return TokenUnavailable(Exchange(now_ms, now_ms, 0.0), f"no token: {error}")
        asked_at = self._monotonic()  # the life counts from before the request, as the safe side
        try:
            answer = self._http.exchange(
                "POST",
                self.url,
                headers={
                    "Authorization": authorization,
                    "Content-Type": "application/x-www-form-urlencoded",
                    "Accept": "application/json",
                },
                body=b"grant_type=client_credentials",
                timeout_s=self._timeout_s,
                max_answer_bytes=_MAX_ANSWER_BYTES,
            )
        except TransportFailure as failure:
            exchange = wire.exchange_of(failure.timing, failure.status, failure.headers, self.redact)
            return TokenUnavailable(exchange, f"no token: {failure.message}")
        return self._read(answer, asked_at)

    def _read(self, answer: HttpAnswer, asked_at: float) -> TokenOutcome:
        exchange = wire.exchange_of(answer.timing, answer.status, answer.headers, self.redact)
        is_success = 200 <= answer.status < 300  # noqa: PLR2004
        error = wire.ErrorBody("", "", frozenset()) if is_success else wire.parse_error(answer.body, self.redact)
        exchange = replace(exchange, error_text=error.text)
        code = f" ({error.code})" if error.code else ""
        if answer.status in _REFUSED:
            platform_error = wire.is_oauth_refusal(error)
            return TokenRefused(
                exchange,
                f"the login service refuses OAuth client {self.client_id!r} with HTTP {answer.status}"
                f"{code}: {_REMEDY if platform_error else _NOT_THE_PLATFORM}",
                platform_error,
            )
        if not is_success:
            value, now_s = answer.headers.get("Retry-After"), self._wall_clock()
            return TokenUnavailable(
                exchange,
                f"no token: the login service answers HTTP {answer.status}{code}",
                retry_after_s(value, now_s),
                wire.ignored_retry_after(value, now_s, self.redact),
            )
        granted = _granted(answer.body)
        if granted is None:
            message = f"no token: {self.url} answers HTTP {answer.status} without a bearer token"
            return TokenUnavailable(exchange, message)
        value, life_s = granted
        self._redactor.learn(value)
        return Token(value, asked_at + life_s - min(RENEW_EARLY_S, life_s / 2.0))


def _granted(body: bytes) -> tuple[str, float] | None:
    try:
        answer = wire.read_json(body)
    except ValueError:
        return None
    if not isinstance(answer, dict):
        return None
    value, kind = answer.get("access_token"), answer.get("token_type", "bearer")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        return None  # it is a header's value: no spaces, no control characters
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return None
    return value, _life_s(answer.get("expires_in"))


def _life_s(expires_in: Any) -> float:
    if isinstance(expires_in, str):  # some identity providers write the number as a string
        try:
            expires_in = float(expires_in)
        except ValueError:
            return _LEAST_LIFE_S
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float):
        return _LEAST_LIFE_S
    if not math.isfinite(expires_in) or expires_in <= 0:
        return _LEAST_LIFE_S
    return min(float(expires_in), _MOST_LIFE_S)
