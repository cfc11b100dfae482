"""Kinds of transient failures of an HTTP exchange."""

from __future__ import annotations

from enum import StrEnum


class HttpFailure(StrEnum):
    """Kind of a transient failure.

    ``NO_TOKEN``: the login service failed, so nothing was sent to the score endpoint.
    """

    RATE_LIMITED = "rate_limited"
    NO_CONNECTION = "no_connection"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    MALFORMED = "malformed"
    CUT_OFF = "cut_off"
    NO_TOKEN = "no_token"  # noqa: S105 - a name  # nosec B105
