"""Control endpoints of the receiver, by which scripts configure it; see the list in `app`."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.routing import Route

from stream_scorer.local.http_server.control_app import json_answer, json_content, no_content, with_control_app
from stream_scorer.local.receiver.faults import parse_faults

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from stream_scorer.local.http_server.fault_script import FaultScript
    from stream_scorer.local.receiver.delivery_log import DeliveryLog
    from stream_scorer.local.receiver.faults import Fault


def control_app(log: DeliveryLog, faults: FaultScript[Fault], prefix: str) -> Starlette:
    """Return the Starlette application for the endpoints below ``prefix``."""
    routes = _Routes(log, faults)
    return with_control_app(
        prefix,
        [
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


class _Routes:
    """Handlers. Each runs in the event loop without interruption, so its data are consistent."""

    def __init__(self, log: DeliveryLog, faults: FaultScript[Fault]) -> None:
        self._log = log
        self._faults = faults

    async def health(self, _: Request) -> Response:
        return no_content()

    async def stats(self, _: Request) -> Response:
        return json_answer(self._log.stats())

    async def callbacks(self, _: Request) -> Response:
        return json_answer(self._log.listed())

    async def contacts(self, _: Request) -> Response:
        return json_answer(self._log.contacts)

    async def faults(self, _: Request) -> Response:
        return json_answer(self._faults.state())

    async def add_faults(self, request: Request) -> Response:
        self._faults.add(*parse_faults(await json_content(request)))
        return json_answer(self._faults.state(), HTTPStatus.CREATED)

    async def clear_faults(self, _: Request) -> Response:
        self._faults.clear()
        return no_content()

    async def reset(self, _: Request) -> Response:
        self._faults.clear()
        self._log.reset()
        return no_content()
