"""Control endpoints of a local server, by which scripts configure it; see `local.http_server.control_client`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from stream_scorer.core.parse_errors import parse_error_place
from stream_scorer.errors import SettingsError
from stream_scorer.local.http_server.models import read_faults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from stream_scorer.local.http_server.fault_script import FaultScript
    from stream_scorer.local.http_server.models import FaultT


def make_control_app(
    prefix: str,
    faults: FaultScript[FaultT],
    model: type[FaultT],
    *,
    stats: Callable[[], Any],
    reset: Callable[[], None],
    routes: Sequence[BaseRoute],
) -> Starlette:
    """Return the Starlette application below ``prefix``; a SettingsError becomes a 400.

    Args:
        prefix: path of all endpoints.
        faults: the script behind ``/faults``.
        model: model of its entries.
        stats: returns the content of ``/stats``.
        reset: resets faults and records.
        routes: the server's own endpoints, beside health, stats, faults and reset.
    """

    # Each handler runs in the event loop without interruption, so its data are consistent.
    async def get_health(_: Request) -> Response:
        return no_content()

    async def get_stats(_: Request) -> Response:
        return json_answer(stats())

    async def get_faults(_: Request) -> Response:
        return json_answer(faults.state())

    async def add_faults(request: Request) -> Response:
        faults.add(*read_faults(await json_content(request), model))
        return json_answer(faults.state(), HTTPStatus.CREATED)

    async def clear_faults(_: Request) -> Response:
        faults.clear()
        return no_content()

    async def reset_all(_: Request) -> Response:
        reset()
        return no_content()

    common = [
        Route("/health", get_health),
        Route("/stats", get_stats),
        Route("/faults", get_faults),
        Route("/faults", add_faults, methods=["POST"]),
        Route("/faults", clear_faults, methods=["DELETE"]),
        Route("/reset", reset_all, methods=["POST"]),
    ]
    return Starlette(routes=[Mount(prefix, routes=[*common, *routes])], exception_handlers={SettingsError: _explain})


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
