"""Results of one HTTP exchange with the scoring API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from stream_scorer.core.http_failure import HttpFailure


@dataclass(frozen=True, slots=True)
class RateLimitHeaders:
    """The ``inin-ratelimit-*`` headers of one response: requests counted, requests allowed, seconds until the reset."""

    count: int
    allowed: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Exchange:
    """The facts of one HTTP exchange. Times are Unix milliseconds, UTC; ``latency_ms`` is monotonic.

    ``earlier``: the exchange before it in the same attempt, whose token was rejected. ``error_text``: free text of the
    error body, without secrets and without the request's ids and values; for logs at `debug` only.
    """

    started_at_ms: int
    finished_at_ms: int
    latency_ms: float
    status: int | None = None
    correlation_id: str | None = None
    quota: RateLimitHeaders | None = None
    earlier: Exchange | None = None
    error_text: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """2xx with the expected JSON: the items of ``results``, not validated."""

    exchange: Exchange
    results: list[Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """400 or 422. ``named``: the ids in ``details[].entityId``; empty if the body has none."""

    exchange: Exchange
    named: frozenset[str]
    message: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """413."""

    exchange: Exchange
    message: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """404: the model, or the model version that was sent. ``model_missing``: it is certain that it is the model.

    ``platform_error``: the body is the platform's own error, so the response is not from a gateway or proxy.
    """

    exchange: Exchange
    message: str
    model_missing: bool = False
    platform_error: bool = False


@dataclass(frozen=True, slots=True)
class Unavailable:
    """408, 429, 5xx, no connection, time-out, or a 2xx without the expected JSON; also of the token endpoint.

    ``ignored_retry_after``: a ``Retry-After`` that is not obeyed, one line; empty: there was none.
    """

    exchange: Exchange
    failure: HttpFailure
    message: str
    retry_after_s: float | None = None
    ignored_retry_after: str = ""


@dataclass(frozen=True, slots=True)
class Unexpected:
    """3xx, or a 4xx that nothing above covers: its meaning is unknown, so the circuit breaker opens and names it."""

    exchange: Exchange
    message: str


@dataclass(frozen=True, slots=True)
class Forbidden:
    """401 with a new token, 403, or the token endpoint's 400 or 401: the worker stops. ``message``: what to check.

    ``platform_error``: the body is the platform's own error, so the response is not from a gateway or proxy.
    """

    exchange: Exchange
    message: str
    platform_error: bool = False


ApiResponse: TypeAlias = Answered | Refused | TooLarge | NotFound | Unavailable | Unexpected | Forbidden
