"""Texts of errors in the library's words: its callers pass arguments and set no `genesys.…` keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

from stream_scorer.errors import ApiError

if TYPE_CHECKING:
    from stream_scorer.core.scoring.api_response import Exchange

_KEY: Final = re.compile(
    r"\bgenesys\.(?=(?:client_id|client_secret|region|base_url|login_url|model_id|model_version)\b)"
)
_NOT_OF_THE_LIBRARY: Final = ", login_url or callbacks.url"

ApiErrorKind = TypeVar("ApiErrorKind", bound=ApiError)


def in_library_words(text: str) -> str:
    """Return a text of the adapters with the names of arguments in place of settings."""
    return _KEY.sub("", text).replace(_NOT_OF_THE_LIBRARY, " or login_url")


def api_error(kind: type[ApiErrorKind], message: str, exchange: Exchange | None) -> ApiErrorKind:
    """Return an error with the status and correlation id of an exchange; None: there was none."""
    if exchange is None:
        return kind(in_library_words(message))
    return kind(in_library_words(message), status_code=exchange.status, correlation_id=exchange.correlation_id)
