"""Check of token and model by a request without contacts."""

from __future__ import annotations

import pytest

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.scoring.api_response import (
    Answered,
    Exchange,
    Forbidden,
    NotFound,
    Refused,
    TooLarge,
    Unavailable,
    Unexpected,
)
from stream_scorer.core.scoring.model_check import ModelConfirmed, ModelRefused, ModelUnavailable, judge_model_check


def exchange(status: int | None) -> Exchange:
    return Exchange(1, 2, 1.0, status)


@pytest.mark.parametrize(
    "answer",
    [
        Refused(exchange(400), frozenset(), "m"),
        Refused(exchange(422), frozenset(), "m"),
        Answered(exchange(200), []),
        Unavailable(exchange(200), HttpFailure.MALFORMED, "m"),
        TooLarge(exchange(413), "m"),
        Unexpected(exchange(302), "m"),
        Unexpected(exchange(405), "m"),
        Unavailable(exchange(408), HttpFailure.TIMEOUT, "m"),
    ],
)
def test_any_other_status_confirms(answer: Answered | Refused | TooLarge | Unavailable | Unexpected) -> None:
    assert judge_model_check(answer) == ModelConfirmed(answer.exchange)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_the_platform_refuses_the_client(status: int) -> None:
    answer = Forbidden(exchange(status), "check", platform_error=True)
    assert judge_model_check(answer) == ModelRefused(exchange(status), "check", "Forbidden")


def test_the_platform_does_not_have_the_model() -> None:
    answer = NotFound(exchange(404), "check", platform_error=True)
    assert judge_model_check(answer) == ModelRefused(exchange(404), "check", "NotFound")


@pytest.mark.parametrize(
    "answer",
    [
        Forbidden(exchange(401), "m"),
        Forbidden(exchange(403), "m"),
        NotFound(exchange(404), "m"),
        Unavailable(exchange(429), HttpFailure.RATE_LIMITED, "m"),
        Unavailable(exchange(500), HttpFailure.SERVER_ERROR, "m"),
        Unavailable(exchange(504), HttpFailure.SERVER_ERROR, "m"),
        Unavailable(exchange(None), HttpFailure.NO_CONNECTION, "m"),
        Unavailable(exchange(None), HttpFailure.TIMEOUT, "m"),
        # The status of the login service is none of the API's.
        Unavailable(exchange(302), HttpFailure.NO_TOKEN, "m"),
        Unavailable(exchange(None), HttpFailure.NO_TOKEN, "m"),
    ],
)
def test_a_transient_failure_neither_confirms_nor_rejects(answer: Forbidden | NotFound | Unavailable) -> None:
    kind = str(getattr(answer, "failure", type(answer).__name__))
    assert judge_model_check(answer) == ModelUnavailable(answer.exchange, "m", kind)


def test_retry_after_is_passed_on() -> None:
    answer = Unavailable(exchange(503), HttpFailure.SERVER_ERROR, "m", 7.0, "soon")
    assert judge_model_check(answer) == ModelUnavailable(exchange(503), "m", "server_error", 7.0, "soon")
