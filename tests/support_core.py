"""Records, contacts, outcomes and responses for the tests of the core and of the dispatcher."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.records import SourceRecord
from stream_scorer.core.scoring.api_response import (
    Answered,
    Exchange,
    Forbidden,
    NotFound,
    RateLimitHeaders,
    Refused,
    TooLarge,
    Unavailable,
    Unexpected,
)
from stream_scorer.core.scoring.response_match import Verifier
from stream_scorer.core.scoring.response_policy import Policy
from stream_scorer.core.scoring.types import Contact, Reason, Rejected, RequestAudit, Scored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TOPIC = "contact-features"


def ids(prefix: str = "id") -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"{prefix}-{next(numbers)}"


def record(offset: int, partition: int = 0, value: bytes | None = b"value", topic: str = TOPIC) -> SourceRecord:
    return SourceRecord(topic, partition, offset, b"key", value, [])


def contact(
    contact_id: str,
    offset: int = 0,
    partition: int = 0,
    *,
    version: str | None = None,
    from_event: bool = False,
    body: bytes | None = None,
    source: SourceRecord | None = None,
) -> Contact:
    body = b'{"contactId":"%s","features":{}}' % contact_id.encode() if body is None else body
    source = record(offset, partition) if source is None else source
    return Contact(source, f"event-{offset}", contact_id, None, 0, version, from_event, (), body)


def facts(batch_id: str = "batch", status: int | None = 200) -> RequestAudit:
    return RequestAudit(batch_id, "model", None, 1, 0, 1, 1.0, 1, status, None)


def scored(of: SourceRecord, batch_id: str = "batch") -> Scored:
    return Scored(contact("c", source=of), facts(batch_id), 0.5, 0.3, 0.7, ())


def rejected(of: SourceRecord, request: RequestAudit | None = None) -> Rejected:
    return Rejected(of, (Reason.OUT_OF_RANGE.value,), "out of range", "c", 0, request=request)


def policy(**changes: Any) -> Policy:
    values: dict[str, Any] = {
        "model_id": "model",
        "verifier": Verifier(),
        "max_retries": 3,
        "backoff_base_s": 2.0,
        "max_backoff_s": 60.0,
    }
    return Policy(**values | changes)


# --- answers


def exchange(status: int | None = 200, quota: RateLimitHeaders | None = None) -> Exchange:
    return Exchange(1_000, 1_200, 200.0, status, "correlation", quota)


def result(contact_id: str, score: float = 0.5) -> dict[str, Any]:
    return {"contactId": contact_id, "score": score, "confidenceInterval": {"lower": score - 0.2, "upper": score + 0.2}}


def answered(contact_ids: Iterable[str], quota: RateLimitHeaders | None = None) -> Answered:
    return Answered(exchange(200, quota), [result(contact_id) for contact_id in contact_ids])


def refused(*named: str, status: int = 400) -> Refused:
    return Refused(exchange(status), frozenset(named), "invalid.value: no good")


def too_large() -> TooLarge:
    return TooLarge(exchange(413), "request.entity.too.large")


def not_found(*, platform_error: bool = True) -> NotFound:
    return NotFound(exchange(404), "the model is not known: check genesys.model_id", platform_error=platform_error)


def forbidden(status: int = 403, *, platform_error: bool = True) -> Forbidden:
    return Forbidden(exchange(status), "the client lacks the scope predictiveengagement:score", platform_error)


def unexpected(status: int = 302) -> Unexpected:
    return Unexpected(exchange(status), f"the API answered with status {status}")


def server_error(status: int = 503, retry_after_s: float | None = None) -> Unavailable:
    return Unavailable(
        exchange(status), HttpFailure.SERVER_ERROR, f"the API answered with status {status}", retry_after_s
    )


def rate_limited(retry_after_s: float | None = None) -> Unavailable:
    return Unavailable(exchange(429), HttpFailure.RATE_LIMITED, "too many requests", retry_after_s)


def no_connection() -> Unavailable:
    return Unavailable(exchange(None), HttpFailure.NO_CONNECTION, "no connection")


def no_token(status: int | None = 503, retry_after_s: float | None = None) -> Unavailable:
    return Unavailable(exchange(status), HttpFailure.NO_TOKEN, "no token: the login service fails", retry_after_s)


def timed_out() -> Unavailable:
    return Unavailable(exchange(None), HttpFailure.TIMEOUT, "no answer within 30 s")


def cut_off() -> Unavailable:
    return Unavailable(exchange(200), HttpFailure.CUT_OFF, "the answer was cut off")


def malformed() -> Unavailable:
    return Unavailable(exchange(200), HttpFailure.MALFORMED, "the body is not JSON")
