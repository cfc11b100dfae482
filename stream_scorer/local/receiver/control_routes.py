"""The receiver's own endpoints, by which a script steers it. `app` lists them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from stream_scorer.errors import SettingsError
from stream_scorer.local.receiver.faults import parse_faults

if TYPE_CHECKING:
    from starlette.requests import Request

    from stream_scorer.local.receiver.app import ReceiverApp


def control_app(receiver: ReceiverApp, prefix: str) -> Starlette:
    """The Starlette application for everything below ``prefix``."""
    routes = _Routes(receiver)
    return Starlette(
        routes=[
            Mount(
                prefix,
                routes=[
                    Route("/health", routes.health),
                    Route("/stats", routes.stats),
                    Route("/callbacks", routes.callbacks),
                    Route("/contacts", routes.contacts),
                    Route("/faults", routes.faults),
                    Route("/faults", routes.add_faults, methods=["POST"]),
                    Route("/faults", routes.clear_faults, methods=["DELETE"]),
                    Route("/reset", routes.reset, methods=["POST"]),
                ],
            )
        ],
        exception_handlers={SettingsError: _explain},
    )


class _Routes:
    """The handlers. Each runs in the event loop at one stretch, so what it reads fits together."""

    def __init__(self, receiver: ReceiverApp) -> None:
        self._receiver = receiver

    async def health(self, _: Request) -> Response:
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def stats(self, _: Request) -> Response:
        return _json(self._receiver.books.stats())

    async def callbacks(self, _: Request) -> Response:
        return _json(self._receiver.books.listed())

    async def contacts(self, _: Request) -> Response:
        return _json(self._receiver.books.contacts)

    async def faults(self, _: Request) -> Response:
        return _json(self._receiver.faults.state())

    async def add_faults(self, request: Request) -> Response:
        try:
            content = orjson.loads(await request.body())
        except orjson.JSONDecodeError as error:
            raise SettingsError(f"the body is not JSON: {error}") from None
        self._receiver.faults.add(*parse_faults(content))
        return _json(self._receiver.faults.state(), HTTPStatus.CREATED)

    async def clear_faults(self, _: Request) -> Response:
        self._receiver.faults.clear()
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def reset(self, _: Request) -> Response:
        self._receiver.reset()
        return Response(status_code=HTTPStatus.NO_CONTENT)


def _json(content: Any, status: int = HTTPStatus.OK) -> Response:
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")


async def _explain(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
