"""Control endpoints of a local server, by which scripts configure it; see `local.http_server.control_client`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount

from stream_scorer.core.parse_errors import parse_error_place
from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute


def with_control_app(prefix: str, routes: Sequence[BaseRoute]) -> Starlette:
    """Return a Starlette application with these routes below ``prefix``; a SettingsError becomes a 400."""
    return Starlette(routes=[Mount(prefix, routes=routes)], exception_handlers={SettingsError: _explain})


def json_answer(content: Any, status: int = HTTPStatus.OK) -> Response:
    """Return an answer in JSON."""
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")


def no_content() -> Response:
    """Return an empty answer."""
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def json_content(request: Request) -> Any:
    """Return the decoded JSON body of a request.

    Raises:
        SettingsError: the body is not JSON.
    """
    try:
        return orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise SettingsError(f"the body is not JSON{parse_error_place(error)}") from None


async def _explain(_: Request, error: Exception) -> Response:
    return json_answer({"error": str(error)}, HTTPStatus.BAD_REQUEST)
