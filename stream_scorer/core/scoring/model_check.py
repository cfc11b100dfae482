"""Model check at start: whether the response to a request without contacts confirms token and model.

A model that exists refuses such a request with 400, which is not billed. So almost any status confirms it. Exceptions
are the statuses of a missing token, scope or model, a used-up quota, and an outage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.scoring.api_response import Forbidden, NotFound, Unavailable

if TYPE_CHECKING:
    from stream_scorer.core.scoring.api_response import ApiResponse, Exchange

_SERVER_ERRORS: Final = range(500, 600)
_CONFIRM_NOTHING: Final = frozenset({401, 403, 404, 429})


@dataclass(frozen=True, slots=True)
class ModelConfirmed:
    """The API accepts the token and has the model."""

    exchange: Exchange


@dataclass(frozen=True, slots=True)
class ModelRefused:
    """The platform itself refuses the client or the model: repeating it does not help.

    Attributes:
        exchange: the last exchange with API or login service.
        message: what happened and what to check, one line.
        kind: the kind of failure, as the metrics name it.
    """

    exchange: Exchange
    message: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class ModelUnavailable:
    """Neither confirmed nor refused: an outage, a gateway's response, or a secret that cannot be read.

    Attributes:
        exchange: the last exchange with API or login service.
        message: what happened, one line.
        kind: the kind of failure, as the metrics name it.
        retry_after_s: the ``Retry-After``; None: absent or ignored.
        ignored_retry_after: see `Unavailable`.
    """

    exchange: Exchange
    message: str
    kind: str = ""
    retry_after_s: float | None = None
    ignored_retry_after: str = ""


ModelCheck: TypeAlias = ModelConfirmed | ModelRefused | ModelUnavailable


def judge_model_check(answer: ApiResponse) -> ModelCheck:
    """Return the result of a request without contacts and without model version."""
    exchange = answer.exchange
    match answer:
        case Forbidden() | NotFound():
            judged = ModelRefused if answer.platform_error else ModelUnavailable
            return judged(exchange, answer.message, type(answer).__name__)
        case Unavailable() if answer.failure is HttpFailure.NO_TOKEN or not _confirms(exchange.status):
            return ModelUnavailable(
                exchange, answer.message, str(answer.failure), answer.retry_after_s, answer.ignored_retry_after
            )
        case _:
            return ModelConfirmed(exchange)


def _confirms(status: int | None) -> bool:
    return status is not None and status not in _CONFIRM_NOTHING and status not in _SERVER_ERRORS
