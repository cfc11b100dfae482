"""Client of the scoring API, without exceptions: contacts in, one `ApiResponse` out.

One call is one attempt. The caller decides on retry, bisection and circuit breaker
(`stream_scorer.core.scoring.response_policy`), and owns the clock and the quota. The client repeats a request only
after a 401, with a new token.
"""

from __future__ import annotations

import time
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.scoring.api_response import (
    Answered,
    Forbidden,
    NotFound,
    Refused,
    TooLarge,
    Unavailable,
    Unexpected,
)
from stream_scorer.core.scoring.model_check import ModelConfirmed, judge_model_check
from stream_scorer.errors import SettingsError
from stream_scorer.genesys import wire
from stream_scorer.genesys.oauth import Token, TokenRefused, TokenSource, TokenUnavailable
from stream_scorer.http_client.client import Http, HttpAnswer, TransportFailure
from stream_scorer.http_client.retry_after import retry_after_s
from stream_scorer.redaction.contacts import ContactRedactor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_scorer.core.scoring.api_response import ApiResponse, Exchange
    from stream_scorer.core.scoring.model_check import ModelCheck
    from stream_scorer.core.scoring.request import Request
    from stream_scorer.genesys.oauth import ReadSecret, TokenOutcome

SCOPE: Final = "predictiveengagement:score"
_KNOWN_FOR_S: Final = 600.0
_FORBIDDEN: Final = {
    HTTPStatus.UNAUTHORIZED: "the API takes no token of OAuth client '{client}'; check the client and genesys.region",
    403: f"OAuth client '{{client}}' needs the scope {SCOPE}",
}
_NOT_THE_PLATFORM: Final = wire.NOT_THE_PLATFORM.format(setting="genesys.base_url")
_TROUBLES: Final = {408: HttpFailure.TIMEOUT, 429: HttpFailure.RATE_LIMITED}


class ScoreEndpoint:
    """Score endpoint of one model; connections and tokens may be shared with other users."""

    def __init__(
        self,
        http: Http,
        tokens: TokenSource,
        base_url: str,
        model_id: str,
        *,
        timeout_s: float = 30.0,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the endpoint; nothing is sent before the first `send`.

        Args:
            http: the connections.
            tokens: the tokens of an OAuth client with the scope `SCOPE`.
            base_url: of the API, ``https://api.<region>``.
            model_id: the scoring model.
            timeout_s: deadline of the whole exchange, in seconds.
            wall_clock: Unix seconds, for a ``Retry-After`` with a date.

        Raises:
            SettingsError: the URL is not http or https with a host, or the model id is empty.
        """
        check_url("genesys.base_url", base_url)
        if not model_id:
            raise SettingsError("genesys.model_id is empty: set it to the id of the Predictive Engagement model")
        self.url = base_url.rstrip("/") + wire.score_path(model_id)
        self.model_id = model_id
        self._http = http
        self._tokens = tokens
        self._timeout_s = timeout_s
        self._wall_clock = wall_clock

    def send(self, body: bytes, contacts: int) -> tuple[ApiResponse, HttpAnswer | None]:
        """Send a body and return its result; no failure of the API or the network is raised.

        Args:
            body: `wire.build_body` of the contacts.
            contacts: their number; it limits the length of the answer (`wire.answer_limit`).

        Returns:
            The result, and the API's HTTP answer. The answer is None if there was none, or only the login service's.
        """
        answer, got, token = self._attempt(body, contacts)
        if token is not None and answer.exchange.status == HTTPStatus.UNAUTHORIZED:
            # Revoked or expired early: no contact was scored, so one more request with a new token is not billed twice.
            self._tokens.invalidate(token)
            turned_away = answer.exchange
            answer, got, _ = self._attempt(body, contacts)
            answer = replace(answer, exchange=replace(answer.exchange, earlier=turned_away))
        return answer, got

    def _attempt(self, body: bytes, contacts: int) -> tuple[ApiResponse, HttpAnswer | None, Token | None]:
        token = self._tokens.token()
        if isinstance(token, TokenRefused):
            return Forbidden(token.exchange, token.message, token.platform_error), None, None
        if isinstance(token, TokenUnavailable):
            unavailable = Unavailable(
                token.exchange, HttpFailure.NO_TOKEN, token.message, token.retry_after_s, token.ignored_retry_after
            )
            return unavailable, None, None
        headers = {
            "Authorization": f"Bearer {token.value}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "stream-scorer",
        }
        redactor = ContactRedactor(body)
        try:
            got = self._http.exchange(
                "POST",
                self.url,
                headers=headers,
                body=body,
                timeout_s=self._timeout_s,
                max_answer_bytes=wire.answer_limit(contacts),
            )
        except TransportFailure as failure:
            exchange = self._exchange(failure, failure.status, redactor)
            return Unavailable(exchange, failure.kind, failure.message), None, token
        exchange = self._exchange(got, got.status, redactor)
        if 200 <= got.status < 300:  # noqa: PLR2004
            return _accepted(got, exchange), got, token
        return self._rejected(got, exchange, redactor), got, token

    def _exchange(self, got: HttpAnswer | TransportFailure, status: int | None, redactor: ContactRedactor) -> Exchange:
        exchange = wire.exchange_of(got.timing, status, got.headers, self._tokens.redact)
        if exchange.correlation_id is not None and redactor.is_quoted(exchange.correlation_id):
            return replace(exchange, correlation_id=None)
        return exchange

    def _rejected(self, answer: HttpAnswer, exchange: Exchange, redactor: ContactRedactor) -> ApiResponse:
        status = answer.status
        error = wire.parse_error(answer.body, self._tokens.redact, redactor.hide_in_text)
        exchange = replace(exchange, error_text=error.text)
        code = wire.shown_code(error, redactor.hide_in_code)
        message = f"HTTP {status}{f' {code}' if code else ''}"
        if status in (400, 422):
            return Refused(exchange, error.named, message)
        platform_error = wire.is_platform_refusal(status, error)
        if status in _FORBIDDEN:
            remedy = _FORBIDDEN[status].format(client=self._tokens.client_id) if platform_error else _NOT_THE_PLATFORM
            return Forbidden(exchange, f"{message}: {remedy}", platform_error)
        if status == 404:  # noqa: PLR2004
            remedy = (
                f"this API has no model {self.model_id!r} (genesys.model_id), or the model not this version"
                " (genesys.model_version)"
            )
            message = f"{message}: {remedy if platform_error else _NOT_THE_PLATFORM}"
            return NotFound(exchange, message, platform_error=platform_error)
        if status == 413:  # noqa: PLR2004
            return TooLarge(exchange, message)
        if status in _TROUBLES or 500 <= status < 600:  # noqa: PLR2004
            value, now_s = answer.headers.get("Retry-After"), self._wall_clock()
            return Unavailable(
                exchange,
                _TROUBLES.get(status, HttpFailure.SERVER_ERROR),
                message,
                retry_after_s(value, now_s),
                wire.ignored_retry_after(value, now_s, self._tokens.redact),
            )
        return Unexpected(exchange, f"{message}: the score endpoint is not known to give this status")


class ScoringClient:
    """Client of one model's score endpoint, for any number of concurrent threads."""

    def __init__(
        self,
        base_url: str,
        login_url: str,
        client_id: str,
        client_secret: str | ReadSecret,
        model_id: str,
        *,
        timeout_s: float = 30.0,
        token_timeout_s: float = 15.0,
        max_connections: int = 8,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare the client; nothing is sent before the first `ask`.

        Args:
            base_url: of the API, ``https://api.<region>``.
            login_url: of the login service, ``https://login.<region>``.
            client_id: of an OAuth client with the scope `SCOPE`.
            client_secret: not shown in any repr, log or error; a function is called before each token request.
            model_id: the scoring model.
            timeout_s: deadline of the whole exchange with the API, in seconds.
            token_timeout_s: deadline of a token request, in seconds.
            max_connections: limit of kept connections; as many as there are concurrent requests.
            monotonic: monotonic seconds, for the life of the token.
            wall_clock: Unix seconds, for the times of an exchange and a ``Retry-After`` with a date.

        Raises:
            SettingsError: a URL is not http or https with a host, or the model id is empty.
        """
        check_url("genesys.login_url", login_url)
        self._monotonic = monotonic
        self._known_at: float | None = None
        self._http = Http(max_connections, wall_clock=wall_clock)
        self._tokens = TokenSource(
            self._http,
            login_url,
            client_id,
            client_secret,
            timeout_s=token_timeout_s,
            monotonic=monotonic,
            wall_clock=wall_clock,
        )
        self._endpoint = ScoreEndpoint(
            self._http, self._tokens, base_url, model_id, timeout_s=timeout_s, wall_clock=wall_clock
        )

    def __repr__(self) -> str:
        return f"ScoringClient(url={self._endpoint.url!r}, tokens={self._tokens!r})"

    def score(self, request: Request) -> ApiResponse:
        """Score the contacts of a request; see `ask`."""
        return self.ask([contact.body for contact in request.contacts], request.key.model_version)

    def ask(self, parts: Sequence[bytes], model_version: str | None) -> ApiResponse:
        """Score contacts by one exchange with the API. Blocks up to the deadlines; raises for no failure of the API.

        Args:
            parts: `wire.encode_contact` of each contact.
            model_version: the version to request; None: the platform's choice.
        """
        answer = self.send(wire.build_body(parts, model_version), len(parts))
        if isinstance(answer, Answered):
            self._known_at = self._monotonic()
        if isinstance(answer, NotFound) and model_version is not None and not self._model_exists:
            return self._ask_for_model(answer)
        return answer

    def send(self, body: bytes, contacts: int) -> ApiResponse:
        """Send a finished body with this number of contacts; otherwise as `ask`."""
        answer, _ = self.exchange(body, contacts)
        return answer

    def exchange(self, body: bytes, contacts: int) -> tuple[ApiResponse, HttpAnswer | None]:
        """Send a finished body, and return the API's HTTP answer, too; see `ScoreEndpoint.send`."""
        return self._endpoint.send(body, contacts)

    def check_login(self) -> TokenOutcome:
        """Return the present token, requested now if there is none; a failure is a value. Blocks as `ask`."""
        return self._tokens.token()

    def check(self) -> ModelCheck:
        """Check token and model by one request without contacts, which is not billed. Blocks as `ask`; never raises."""
        check = judge_model_check(self.send(wire.build_body((), None), 0))
        if isinstance(check, ModelConfirmed):
            self._known_at = self._monotonic()
        return check

    @property
    def _model_exists(self) -> bool:
        return self._known_at is not None and self._monotonic() - self._known_at < _KNOWN_FOR_S

    def _ask_for_model(self, answer: NotFound) -> ApiResponse:
        """Return the meaning of a 404 for a model without a recent result, by one more request.

        Otherwise a mistyped model id would look like a thousand events with a wrong version. The request has no
        contacts and no version, and is not billed: an existing model refuses an empty request.
        """
        check = self.send(wire.build_body((), None), 0)
        if isinstance(check, NotFound):
            return replace(answer, model_missing=True)
        if isinstance(check, Unavailable | Forbidden | Unexpected):
            return check
        self._known_at = self._monotonic()
        return answer

    def close(self) -> None:
        """Close the connections; a request in flight ends at once as unavailable."""
        self._http.close()


def check_url(key: str, url: str) -> None:
    """Check that a setting is a base URL.

    Raises:
        SettingsError: it is not http or https with a host, or has more parts than that; names ``key``.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and "@" not in parts.netloc and not parts.query and not parts.fragment
        good = good and url.isprintable() and " " not in url  # urlsplit drops them
    except (ValueError, AttributeError):
        good = False
    if not good:  # the URL is not shown: it may hold a password
        raise SettingsError(f"{key} must have the form https://host, without user, password, query or blanks")


def _accepted(answer: HttpAnswer, exchange: Exchange) -> ApiResponse:
    try:
        return Answered(exchange, wire.parse_results(answer.body))
    except wire.MalformedAnswer as malformed:
        return Unavailable(exchange, HttpFailure.MALFORMED, f"HTTP {answer.status}, but {malformed}")
