"""Answers of the simulated platform: bodies, codes and headers."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.local.simulator.validation import Complaint

JSON = "application/json"
HTML = "text/html; charset=utf-8"

# RFC 9110 requires a challenge with every 401.
CHALLENGE = (("WWW-Authenticate", 'Bearer realm="simulator"'),)
TOKEN_CHALLENGE = (("WWW-Authenticate", 'Basic realm="simulator"'),)

CODES = {
    400: "bad.request",
    401: "authentication.required",
    403: "missing.permissions",
    404: "not.found",
    405: "method.not.allowed",
    408: "request.timeout",
    413: "request.entity.too.large",
    415: "unsupported.media.type",
    422: "invalid.value",
    429: "too.many.requests",
    500: "internal.server.error",
    502: "bad.gateway",
    503: "service.unavailable",
    504: "request.timeout",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer without the common headers."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


def platform_error(
    status: int,
    message: str,
    *,
    context_id: str,
    code: str | None = None,
    complaints: Sequence[Complaint] = (),
    headers: tuple[tuple[str, str], ...] = (),
) -> Reply:
    """Return an error in the platform's format. ``context_id`` is the request's correlation id."""
    body: dict[str, Any] = {
        "message": message,
        "code": code or CODES.get(status, "error"),
        "status": status,
        "contextId": context_id,
        "messageWithParams": message,
        "messageParams": {},
        "details": [
            {"errorCode": item.code, "fieldName": item.field}
            | ({} if item.entity_id is None else {"entityId": item.entity_id})
            for item in complaints
        ],
        "errors": [],
    }
    return Reply(
        status, orjson.dumps(body), headers=(*(CHALLENGE if status == HTTPStatus.UNAUTHORIZED else ()), *headers)
    )


def oauth_error(status: int, description: str, *, error: str = "invalid_client") -> Reply:
    """Return an error of the token endpoint, which has its own format."""
    body = orjson.dumps({"error": error, "description": description, "error_description": description})
    return Reply(status, body, headers=TOKEN_CHALLENGE if status == HTTPStatus.UNAUTHORIZED else ())


def html_error(status: int) -> Reply:
    """Return an error of a gateway in front of the platform."""
    title = f"{status} {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else str(status)
    page = f"<html><head><title>{title}</title></head><body><center><h1>{title}</h1></center></body></html>"
    return Reply(status, page.encode(), HTML)
